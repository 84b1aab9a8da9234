#!/usr/bin/python3
"""Every object of a survey full of defects is a row of the catalogue or a reject with a reason.

usage: defects_test.py RUN, a folder that tiny_run.py made, for its model.
"""
import pathlib
import sys
import tempfile

from astropy.table import Table

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(SOURCE / "tests/stages"), str(SOURCE / "tools")]
import pipeline  # noqa: E402
from open_catalog import Store  # noqa: E402

DEFECTS = ["--nan-pixels", "0.1", "--dead-fibres", "0.1", "--zero-spectra", "0.1", "--duplicates", "0.1"]
BITS = {"NaN pixels": 1, "dead fibre": 2, "zero spectrum": 4, "image twice": 8, "spectrum twice": 16}


def planned_rows_rejects(store):
    content = store.manifest["content"]
    return content["plan"]["objects"], content["rows"], content["rejects"]


def check(run, model):
    pipeline.call([str(pipeline.BIN / "astroclip-simulate"), "--config", str(pipeline.CONFIG), "--output", str(run / "survey"),
                   "--galaxies", "80", *DEFECTS])
    for stage in ("ingest-images", "ingest-spectra"):
        pipeline.call(pipeline.command(stage, run, more=["--max-reject-fraction", "1"]))
    pipeline.call(pipeline.command("match", run))
    (run / "aligned").symlink_to(model)
    pipeline.call(pipeline.command("embed", run))
    truth = Table.read(run / "survey/truth.fits", unit_parse_strict="silent")
    defects = truth["DEFECTS"]
    made = {name: int(((defects & bit) > 0).sum()) for name, bit in BITS.items()}
    assert all(made.values()), made
    stores = {name: Store(run / name) for name in ("images", "spectra", "pairs", "embeddings")}
    for name in ("images", "spectra", "embeddings"):
        planned, rows, rejects = planned_rows_rejects(stores[name])
        assert planned == rows + rejects["total"], (name, planned, rows, rejects)
        assert rows == len(set(stores[name]["object_id"][:]))
    images, spectra = (planned_rows_rejects(stores[name])[2] for name in ("images", "spectra"))
    # An object with two defects is rejected for one of them, each of its copies once.
    assert images["total"] == made["NaN pixels"] + made["image twice"], (images, made)
    assert spectra["total"] == made["dead fibre"] + made["zero spectrum"] + made["spectrum twice"], (spectra, made)
    ids = set(stores["images"]["object_id"][:]) | set(stores["spectra"]["object_id"][:])
    assert set(stores["embeddings"]["object_id"][:]) == ids
    lost = {int(one) for one in truth["TARGETID"]} - {int(one) for one in ids}
    broken = {int(one) for one in truth["TARGETID"][(defects & 1 > 0) & (defects & 6 > 0)]}
    assert lost <= broken, f"{lost - broken} have no row, though an image or a spectrum of theirs is sound"


if __name__ == "__main__":
    tiny = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        check(pathlib.Path(folder), str(tiny / "aligned"))
