#!/usr/bin/python3
"""The catalogue in the programs of those who use it: h5py, astropy, STILTS (which is what TOPCAT reads with), LSDB.

usage: readers_test.py RUN READER, RUN a folder that tiny_run.py made. Ends with 77 where the reader is not installed.
"""
import csv
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import h5py
import numpy as np
from astropy.io import fits
from astropy.io.votable.ucd import check_ucd
from astropy.table import Table, vstack

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(SOURCE / "tests/stages"), str(SOURCE / "tools")]
import pipeline  # noqa: E402
from open_catalog import Store, StoreError, open_catalog, text  # noqa: E402

EXPORT = str(pipeline.BIN / "astroclip-export-fits")
EXPORT_HATS = str(SOURCE / "tools/export_hats.py")
HATS_PYTHON = os.environ.get("ASTROCLIP_HATS_PYTHON") or str(
    pathlib.Path(os.environ.get("ASTROCLIP_CACHE", pathlib.Path.home() / ".cache/astroclip")) / "hats/bin/python")
PREDICTIONS = "evaluation/predictions"
VECTORS = ("image_embedding", "spectrum_embedding")


class Reader(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.store = Store(RUN / "embeddings", "embeddings")

    def tables(self, *more):
        """Paths of the FITS export."""
        line = [EXPORT, "--store", str(RUN / "embeddings"), "--output", str(self.folder / "fits"), *more]
        return pipeline.call(line).split()


class H5py(Reader):
    def test_every_column_has_rows_unit_and_description(self):
        with h5py.File(RUN / "embeddings/index.h5") as file:
            for name in self.store.columns:
                self.assertEqual(len(file[name]), self.store.rows, name)
                attributes = {key: text(value) for key, value in file[name].attrs.items()}
                self.assertTrue(attributes["description"], name)
                self.assertIn("unit", attributes, name)
                if attributes["ucd"]:
                    self.assertTrue(check_ucd(attributes["ucd"], check_controlled_vocabulary=True), name)
            self.assertEqual(text(file["ra"].attrs["unit"]), "deg")
            self.assertEqual(text(file.attrs["radesys"]), "ICRS")

    def test_a_row_is_that_of_its_part(self):
        row = 0
        with h5py.File(RUN / "embeddings/index.h5") as index:
            for name in sorted(path.name for path in (RUN / "embeddings").glob("part-*.h5")):
                with h5py.File(RUN / "embeddings" / name) as part:
                    for column in self.store.columns:
                        np.testing.assert_array_equal(part[column][-1], index[column][row + len(part[column]) - 1])
                    row += len(part["object_id"])
        self.assertEqual(row, self.store.rows)

    def test_a_part_that_is_missing_is_told(self):
        copy = self.folder / "embeddings"
        shutil.copytree(RUN / "embeddings", copy)
        (copy / "part-00001.h5").unlink()
        with self.assertRaisesRegex(StoreError, "part-00001.h5: is missing"):
            open_catalog(copy)


class Astropy(Reader):
    def test_tables_hold_the_rows_of_the_store(self):
        table = vstack([Table.read(path) for path in self.tables()], metadata_conflicts="silent")
        self.assertEqual(table.colnames, self.store.columns)
        for name in table.colnames:
            values = np.ma.getdata(table[name]) if name != "zwarn" else table[name].filled(-1)
            np.testing.assert_array_equal(values, self.store[name][:], err_msg=name)
        self.assertEqual(str(table["ra"].unit), "deg")

    def test_predictions_stand_beside_their_galaxies(self):
        predictions = Store(RUN / PREDICTIONS, "predictions")
        paths = self.tables("--predictions", str(RUN / PREDICTIONS))
        table = vstack([Table.read(path) for path in paths], metadata_conflicts="silent")
        self.assertEqual(table.colnames, [*self.store.columns, "z_phot", "z_phot_err"])
        row = {int(one): i for i, one in enumerate(predictions["object_id"][:])}
        for name in ("z_phot", "z_phot_err"):
            values = predictions[name][:]
            expected = [values[row[one]] if one in row else np.nan for one in table["object_id"]]
            np.testing.assert_array_equal(np.ma.getdata(table[name].filled(np.nan)) if hasattr(table[name], "filled") else table[name],
                                          np.array(expected, "f4"))
            np.testing.assert_array_equal(np.isfinite(expected), self.store["has_image"][:] == 1)
        header = fits.getheader(paths[0], 1)
        self.assertEqual(header["PREDID"], predictions.manifest["content_id"])
        self.assertIn("nearest", header["PREDMETH"])
        column = table.colnames.index("z_phot_err") + 1
        self.assertEqual(header[f"TUCD{column}"], "stat.error;src.redshift.phot")
        pathlib.Path(paths[0]).unlink()  # the others are left as they are, and the rows still meet
        self.tables("--predictions", str(RUN / PREDICTIONS))
        np.testing.assert_array_equal(Table.read(paths[0])["z_phot"], table["z_phot"][:len(Table.read(paths[0]))])
        self.assertEqual(open_catalog(RUN / "embeddings", ["z_phot"], predictions=RUN / PREDICTIONS)["z_phot"].description,
                         open_catalog(RUN / PREDICTIONS)["z_phot"].description)

    def test_predictions_of_another_catalogue_are_refused(self):
        copy = self.folder / "predictions"
        shutil.copytree(RUN / PREDICTIONS, copy)
        manifest = json.loads((copy / "manifest.json").read_text())
        manifest["request"]["inputs"]["embeddings"] = "0" * 32
        (copy / "manifest.json").write_text(json.dumps(manifest))
        pipeline.call([EXPORT, "--store", str(RUN / "embeddings"), "--output", str(self.folder / "fits"), "--predictions", str(copy)], code=65)
        with self.assertRaisesRegex(StoreError, "was made of catalogue"):
            open_catalog(RUN / "embeddings", predictions=copy)

    def test_header_says_where_the_table_comes_from(self):
        for number, path in enumerate(self.tables()):
            with fits.open(path, checksum=True) as file:
                file.verify("exception")
                header = file[1].header
            self.assertEqual((header["PART"], header["STOREID"]), (number, self.store.manifest["content_id"]))
            self.assertEqual((header["RADESYS"], header["BANDS"], header["PIXSCALE"]), ("ICRS", "grz", 0.262))
            self.assertEqual(json.loads(header["INPUTS"]), self.store.manifest["request"]["inputs"])
            self.assertIn("Parker", header["REFERENC"])
            for column in range(1, header["TFIELDS"] + 1):
                self.assertTrue(header[f"TCOMM{column}"])
                if f"TUCD{column}" in header:
                    self.assertTrue(check_ucd(header[f"TUCD{column}"], check_controlled_vocabulary=True))

    def test_no_warning_from_checksums(self):
        done = subprocess.run([sys.executable, "-W", "error", "-c", "import sys; from astropy.io import fits\n"
                               "[fits.open(p, checksum=True)[1].data for p in sys.argv[1:]]", *self.tables()], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_the_same_export_is_the_same_bytes_and_is_not_done_again(self):
        first = [pathlib.Path(path) for path in self.tables()]
        bytes_of, times = [path.read_bytes() for path in first], [path.stat().st_mtime_ns for path in first]
        self.tables()
        self.assertEqual(times, [path.stat().st_mtime_ns for path in first])
        self.tables("--force")
        self.assertEqual(bytes_of, [path.read_bytes() for path in first])
        line = [EXPORT, "--store", str(RUN / "embeddings"), "--output", str(self.folder / "fits"), "--columns", "object_id,ra"]
        pipeline.call(line, code=73)
        pipeline.call([*line[:-1], "redshift"], code=64)

    def test_open_catalog_gives_columns_with_units(self):
        table = open_catalog(RUN / "embeddings", columns=["object_id", "ra", "dec"])
        self.assertEqual((len(table), str(table["dec"].unit)), (self.store.rows, "deg"))


class Stilts(Reader):
    def stilts(self, *words):
        done = subprocess.run(["stilts", *words], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_columns_units_and_ucds_are_understood(self):
        meta = list(csv.DictReader(io.StringIO(self.stilts("tpipe", f"in={self.tables()[0]}", "cmd=meta Name Shape Units UCD Description",
                                                           "ofmt=csv"))))
        self.assertEqual([one["Name"] for one in meta], self.store.columns)
        by_name = {one["Name"]: one for one in meta}
        for name in self.store.columns:
            attributes = {key: text(value) for key, value in self.store[name].attrs.items()}
            self.assertEqual(by_name[name]["Description"], attributes["description"])
            self.assertEqual(by_name[name]["Units"], attributes["unit"])
            self.assertEqual(by_name[name]["UCD"], attributes["ucd"])

    def test_it_computes_with_the_vectors(self):
        paths = self.tables()
        norm = "sqrt(sum(multiply(image_embedding,image_embedding)))"
        table = self.stilts("tcat", "ifmt=fits", *(f"in={path}" for path in paths), f"ocmd=addcol norm {norm}",
                            "ocmd=keepcols 'object_id norm has_image ra'", "ofmt=csv")
        rows = list(csv.DictReader(io.StringIO(table)))
        self.assertEqual([int(row["object_id"]) for row in rows], list(self.store["object_id"][:]))
        np.testing.assert_allclose([float(row["norm"]) for row in rows], self.store["has_image"][:], atol=1e-6)  # float32 unit vectors


class Lsdb(Reader):
    def test_catalogue_is_valid_and_answers_cone_searches(self):
        predicted = {int(one): z for one, z in zip(*(Store(RUN / PREDICTIONS)[name][:] for name in ("object_id", "z_phot")))}
        for rows, more in ((16, ["--predictions", str(RUN / PREDICTIONS)]), (100000, ["--half"])):
            half = "--half" in more
            path = self.folder / f"hats-{rows}"
            pipeline.call([HATS_PYTHON, EXPORT_HATS, str(RUN / "embeddings"), str(path), "--rows", str(rows), *more])
            seen = json.loads(pipeline.call([HATS_PYTHON, str(SOURCE / "tests/catalogue/lsdb_reader.py"), str(path)]))
            self.assertTrue(seen["valid"])
            order = np.argsort(self.store["object_id"][:])
            self.assertEqual(seen["object_id"], [int(one) for one in self.store["object_id"][:][order]])
            for name in VECTORS:
                np.testing.assert_allclose(np.array(seen[name]), self.store[name][:][order], atol=5e-4 if half else 0)  # float16: 2^-11
            if not half:
                np.testing.assert_array_equal(np.array(seen["z_phot"], "f4"),
                                              np.array([predicted.get(int(one), np.nan) for one in seen["object_id"]], "f4"))
            ra, dec = self.store["ra"][:], self.store["dec"][:]
            near = np.hypot((ra - seen["cone"][0]) * np.cos(np.radians(dec)), dec - seen["cone"][1]) < seen["radius_deg"]
            self.assertEqual(sorted(seen["found"]), sorted(int(one) for one in self.store["object_id"][:][near]))
            self.assertEqual(seen["units"]["ra"], "deg")
            self.assertTrue(all(seen["descriptions"].values()))

    def test_a_catalogue_that_is_there_is_not_changed(self):
        line = [HATS_PYTHON, EXPORT_HATS, str(RUN / "embeddings"), str(self.folder)]
        pipeline.call(line, code=73)
        pipeline.call([*line[:-2], str(RUN / "nothing"), str(self.folder / "new")], code=66)


READERS = {"h5py": (H5py, True), "astropy": (Astropy, True), "stilts": (Stilts, shutil.which("stilts")),
           "lsdb": (Lsdb, os.path.exists(HATS_PYTHON))}

if __name__ == "__main__":
    reader, there = READERS[sys.argv.pop(2)]
    RUN = pathlib.Path(sys.argv.pop(1)).resolve()
    if not there:
        print(f"skipped: {reader.__name__.lower()} is not installed (tools/setup.sh does it)")
        sys.exit(77)
    unittest.main(defaultTest=reader.__name__)
