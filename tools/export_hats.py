#!/usr/bin/env python3
"""Writes a catalogue of embeddings as a HATS catalogue: Parquet files by place on the sky, for LSDB.

    tools/export_hats.py run/embeddings run/catalog-hats
    tools/export_hats.py run/embeddings run/catalog-hats --predictions run/evaluation/predictions     # with z_phot, ...
    lsdb.open_catalog("run/catalog-hats").cone_search(ra, dec, 60)

Units, UCDs and descriptions are metadata of the Parquet fields; provenance stands in hats.properties. The store is read once, in
order; its rows wait in one file a sky pixel until each is sorted, so that memory depends on --rows and the disk holds the
catalogue twice for a while. Needs numpy, h5py and pyarrow: of this Python, or of the one that tools/setup.sh has made.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
from needed import need  # noqa: E402

CACHE = Path(os.environ.get("ASTROCLIP_CACHE", Path.home() / ".cache/astroclip"))
if __name__ == "__main__":
    need("h5py", "pyarrow", pythons=(os.environ.get("ASTROCLIP_HATS_PYTHON", str(CACHE / "hats/bin/python")),),
         remedy="tools/setup.sh --readers makes a Python that has it; another: ASTROCLIP_HATS_PYTHON, or pip install h5py pyarrow")

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

from open_catalog import Store, StoreError, run_tool, text  # noqa: E402

ORDER = 29            # of the column _healpix_29
FINEST = 10           # of the files: pixels of 3.4 arcmin
BLOCK_BYTES = 64 << 20


def pixels_of(healpix, most_rows):
    """The files: (order, pixel, rows), the coarsest pixels of at most `most_rows` rows, in the order of the sky."""
    counts = np.bincount(healpix >> 2 * (ORDER - FINEST), minlength=12 << 2 * FINEST)
    waiting, found = np.arange(12), []
    for order in range(FINEST + 1):
        here = counts.reshape(12 << 2 * order, -1).sum(axis=1)[waiting]
        done = (here <= most_rows) | (order == FINEST)
        found += [(order, int(pixel), int(rows)) for pixel, rows in zip(waiting[done], here[done]) if rows]
        waiting = (waiting[~done, None] * 4 + np.arange(4)).ravel()
    return sorted(found, key=lambda one: one[1] << 2 * (ORDER - one[0]))


def first_healpix(order, pixel):
    return pixel << 2 * (ORDER - order)


def file_name(order, pixel):
    return f"Norder={order}/Dir={pixel // 10000 * 10000}/Npix={pixel}.parquet"


class Columns:
    """What is exported, as records in memory and as Parquet fields."""

    def __init__(self, store, half):
        self.store = store
        self.names = [name for name in store.columns if name != "healpix_29"]
        self.half = half
        self.record = np.dtype([("_healpix_29", "i8"), *((n, store[n].dtype, store[n].shape[1:]) for n in self.names)])
        self.schema = pa.schema([pa.field("_healpix_29", pa.int64(), False, self._metadata("healpix_29")),
                                 *(pa.field(n, self._type(n), False, self._metadata(n)) for n in self.names)])

    def _type(self, name):
        dataset = self.store[name]
        kind = pa.from_numpy_dtype(dataset.dtype)
        if dataset.ndim == 1:
            return kind
        if dataset.ndim > 2:
            raise StoreError(f"{self.store.path}: column '{name}' is an image; a catalogue has numbers and vectors")
        return pa.list_(pa.float16() if self.half and name.endswith("_embedding") else kind, dataset.shape[1])

    def _metadata(self, name):
        return {key: text(self.store[name].attrs.get(key, "")) for key in ("unit", "ucd", "description")}

    def records(self, first, last):
        rows = np.empty(last - first, self.record)
        rows["_healpix_29"] = self.store["healpix_29"][first:last]
        for name in self.names:
            rows[name] = self.store[name][first:last]
        return rows

    def table(self, rows):
        arrays = []
        for field in self.schema:
            values = np.ascontiguousarray(rows[field.name])
            if values.ndim == 1:
                arrays.append(pa.array(values))
            else:
                flat = values.ravel().astype(field.type.value_type.to_pandas_dtype(), copy=False)
                arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(flat), values.shape[1]))
        return pa.Table.from_arrays(arrays, schema=self.schema)


def spill(columns, pixels, folder, rows):
    """Every row into the file of its pixel, in the order of the store."""
    starts = np.array([first_healpix(order, pixel) for order, pixel, _ in pixels])
    step = max(1, BLOCK_BYTES // columns.record.itemsize)
    for first in range(0, rows, step):
        block = columns.records(first, min(first + step, rows))
        which = np.searchsorted(starts, block["_healpix_29"], side="right") - 1
        order = np.argsort(which, kind="stable")
        bounds = np.flatnonzero(np.diff(which[order])) + 1
        for some in np.split(order, bounds):
            with open(folder / f"{which[some[0]]}.rows", "ab") as file:
                block[some].tofile(file)


def write_files(columns, pixels, spilled, dataset):
    footers = []
    for number, (order, pixel, expected) in enumerate(pixels):
        source = spilled / f"{number}.rows"
        rows = np.fromfile(source, columns.record)
        if len(rows) != expected:
            raise StoreError(f"{source}: {len(rows)} rows were kept, {expected} expected")
        rows = rows[np.lexsort((rows["object_id"], rows["_healpix_29"]))]
        name = file_name(order, pixel)
        (dataset / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(columns.table(rows), dataset / name, compression="zstd", metadata_collector=footers)
        footers[-1].set_file_path(name)
        source.unlink()
    pq.write_metadata(columns.schema, dataset / "_metadata", footers)
    pq.write_metadata(columns.schema, dataset / "_common_metadata")


def properties(columns, pixels, name, predictions):
    store = columns.store
    facts = {key: text(value) for key, value in store.attributes.items()}
    if predictions:
        facts["predictions"], facts["prediction_method"] = predictions.manifest["content_id"], text(predictions.attributes.get("method", ""))
    area = sum(4.0 ** -order / 12 for order, _, _ in pixels)
    default = [each for each in columns.names if store[each].ndim == 1]
    lines = {
        "obs_collection": name, "dataproduct_type": "object", "hats_nrows": store.rows, "hats_col_ra": "ra", "hats_col_dec": "dec",
        "hats_col_healpix": "_healpix_29", "hats_col_healpix_order": ORDER, "hats_cols_default": " ".join(default),
        "hats_order": max(order for order, _, _ in pixels), "hats_max_rows": max(rows for _, _, rows in pixels),
        "hats_npix_suffix": ".parquet", "moc_sky_fraction": f"{area:.6f}", "hats_builder": facts.get("creator", "astroclip"),
        "obs_title": "Embeddings of galaxies", "bib_reference": facts.get("citation", ""), "obs_copyright": facts.get("licence", ""),
        "hats_frame": facts.get("radesys", "ICRS"), "astroclip_store": store.manifest["content_id"],
        **{f"astroclip_{key}": facts[key] for key in ("model", "model_id", "configuration_digest", "inputs", "bands", "pixel_scale",
                                                     "qflag_bits", "predictions", "prediction_method") if key in facts}}
    return "".join(f"{key}={str(value).replace(chr(10), ' ')}\n" for key, value in lines.items() if value != "")


def export(store, output, name, most_rows, half, predictions=None):
    if predictions:
        store.join(predictions)
    columns = Columns(store, half)
    healpix = store["healpix_29"][:]
    if len(healpix) == 0:
        raise StoreError(f"{store.path}: has no rows")
    pixels = pixels_of(healpix, most_rows)
    del healpix
    work = output.with_name(f"{output.name}.part.{os.getpid()}")
    spilled, dataset = work / "rows", work / "dataset"
    try:
        spilled.mkdir(parents=True)
        spill(columns, pixels, spilled, store.rows)
        write_files(columns, pixels, spilled, dataset)
        spilled.rmdir()
        (work / "partition_info.csv").write_text("Norder,Npix\n" + "".join(f"{o},{p}\n" for o, p, _ in pixels), encoding="utf-8")
        (work / "hats.properties").write_text(properties(columns, pixels, name, predictions), encoding="utf-8")
        os.rename(work, output)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return {"output": str(output), "rows": store.rows, "files": len(pixels), "columns": len(columns.schema)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", metavar="STORE", help="store of embeddings")
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="folder to make")
    parser.add_argument("--name", default="astroclip", help="name of the catalogue (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=100_000, help="most rows of a file (default: %(default)s)")
    parser.add_argument("--half", action="store_true", help="embeddings as float16: half the size, 3 digits")
    parser.add_argument("--predictions", metavar="STORE", help="what evaluate predicted of this catalogue, as more columns")
    arguments = parser.parse_args()
    if arguments.rows < 1:
        parser.error("--rows must be at least 1")
    if arguments.output.exists():
        print(f"export_hats: {arguments.output}: is there already; a published catalogue is not changed", file=sys.stderr)
        return 73
    predictions = Store(arguments.predictions, "predictions") if arguments.predictions else None
    print(json.dumps(export(Store(arguments.store, "embeddings"), arguments.output, arguments.name, arguments.rows, arguments.half,
                            predictions)))
    return 0


if __name__ == "__main__":
    run_tool("export_hats", main)
