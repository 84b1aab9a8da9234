#!/usr/bin/env python3
"""Exact search beside FAISS IndexFlatIP: the same vectors, the same threads, in turns. Prints recall and the ratio of queries a second.

usage: compare_faiss.py [--rows 100000] [--width 512] [--queries 256] [--neighbours 10] [--threads 2] [--real STORE]
Needs PyPI's faiss-cpu, and astroclip-bench in build/bin.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
from needed import need  # noqa: E402

need("faiss", "numpy", pythons=(), remedy="pip install it, in a virtual environment")

import faiss  # noqa: E402
import numpy as np  # noqa: E402

SOURCE = pathlib.Path(__file__).resolve().parent.parent
BENCH = pathlib.Path(os.environ.get("ASTROCLIP_BIN", SOURCE / "build/bin")) / "astroclip-bench"


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def real_vectors(path, width):
    sys.path.insert(0, str(SOURCE / "tools"))
    from open_catalog import Store
    store = Store(path, "embeddings")
    return np.concatenate([store[f"{kind}_embedding"][:][store[f"has_{kind}"][:] > 0] for kind in ("image", "spectrum")])[:, :width]


def ours(arguments, folder, step, steps):
    line = [BENCH, step, "--vectors", folder / "vectors", "--queries", folder / ("queries" if step == "search" else "few"), "--found",
            folder / "found", "--width", arguments.width, "--neighbours", arguments.neighbours, "--threads", arguments.threads, "--steps", steps]
    done = subprocess.run([str(word) for word in line], check=True, capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": str(arguments.threads)})
    return json.loads(done.stdout)["median_s"]


def theirs(index, queries, neighbours, steps, single):
    index.search(queries[:1] if single else queries, neighbours)
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        if single:
            for query in queries:
                found = index.search(query[None], neighbours)
        else:
            found = index.search(queries, neighbours)
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2], found


def recall(folder, vectors, queries, found, neighbours):
    """Share of FAISS's rows that are ours; scores within 1e-5 of the last one's count as ties."""
    rows = np.fromfile(folder / "found", np.int64).reshape(-1, neighbours)
    hits = 0
    for query, mine, scores, exact in zip(queries, rows, *found):
        last = scores[-1]
        hits += sum(row in mine or vectors[row] @ query <= last + 1e-5 for row in exact)
    return hits / rows.size


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 100000), ("width", 512), ("queries", 256), ("neighbours", 10), ("threads", 2), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--real", help="vectors of this store of embeddings, with noise up to the number of rows")
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(arguments.threads)
    random = np.random.default_rng(1)
    vectors = random.standard_normal((arguments.rows, arguments.width), dtype=np.float32)
    if arguments.real:
        known = real_vectors(arguments.real, arguments.width)
        vectors = known[random.integers(len(known), size=arguments.rows)] + 0.01 * vectors
    vectors = unit(vectors)
    queries = unit(vectors[random.integers(arguments.rows, size=arguments.queries)] +
                   0.02 * random.standard_normal((arguments.queries, arguments.width)))
    index = faiss.IndexFlatIP(arguments.width)
    index.add(vectors)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        vectors.tofile(folder / "vectors")
        queries.tofile(folder / "queries")
        queries[:16].tofile(folder / "few")
        result = {"rows": arguments.rows, "width": arguments.width, "queries": arguments.queries, "threads": arguments.threads}
        for step, some in (("search", queries), ("search-single", queries[:16])):
            pairs = []
            for _ in range(arguments.rounds):
                mine = ours(arguments, folder, step, 3)
                other, found = theirs(index, some, arguments.neighbours, 3, step == "search-single")
                pairs.append((mine, other))
            mine, other = (sorted(column)[len(pairs) // 2] for column in zip(*pairs))
            result[step] = {"ours_per_s": len(some) / mine, "faiss_per_s": len(some) / other, "ratio": other / mine}
            if step == "search":
                scores, exact = found
                result["recall"] = recall(folder, vectors, queries, (scores, exact), arguments.neighbours)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
