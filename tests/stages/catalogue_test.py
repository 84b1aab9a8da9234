#!/usr/bin/python3
"""What embed, search and evaluate publish: one row a galaxy, unit vectors, exact neighbours, figures that agree.

usage: catalogue_test.py RUN, a folder that tiny_run.py made.
"""
import csv
import json
import pathlib
import sys
import tempfile
import unittest

import numpy as np

import pipeline

sys.path.insert(0, str(pipeline.SOURCE / "tools"))
from open_catalog import Store, open_catalog  # noqa: E402

RUN = pathlib.Path(sys.argv.pop(1)).resolve()
MODES = {"ii": ("image", "image"), "ss": ("spectrum", "spectrum"), "is": ("image", "spectrum"), "si": ("spectrum", "image")}


def ids(store):
    return set(Store(RUN / store)["object_id"][:])


class Embed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.table = open_catalog(RUN / "embeddings")

    def test_every_galaxy_is_one_row_and_says_what_it_has(self):
        found = list(self.table["object_id"])
        self.assertEqual(len(found), len(set(found)))
        pairs = Store(RUN / "pairs")
        image_ids, spectrum_ids = Store(RUN / "images")["object_id"][:], Store(RUN / "spectra")["object_id"][:]
        paired = dict(zip(pairs["image_row"][:], pairs["spectrum_row"][:]))
        expected = len(image_ids) + len(spectrum_ids) - len(paired)
        self.assertEqual(len(found), expected)
        self.assertEqual(self.table["has_image"].sum(), len(image_ids))
        self.assertEqual(self.table["has_spectrum"].sum(), len(spectrum_ids))

    def test_vectors_have_length_one_and_what_is_absent_is_zero(self):
        for modality in ("image", "spectrum"):
            length = np.linalg.norm(self.table[f"{modality}_embedding"].astype(np.float64), axis=1)
            has = self.table[f"has_{modality}"] == 1
            np.testing.assert_allclose(length[has], 1, atol=1e-6)  # float32 of up to 1024 numbers
            np.testing.assert_array_equal(length[~has], 0)
            self.assertTrue(np.all((self.table[f"{modality}_embedding_norm"] > 0) == has))

    def test_columns_are_those_of_the_inputs(self):
        spectra = Store(RUN / "spectra")
        row = {int(each): i for i, each in enumerate(spectra["object_id"][:])}
        z = spectra["redshift"][:]
        for galaxy in self.table:
            self.assertTrue(np.isfinite(galaxy["ra"]) and np.isfinite(galaxy["dec"]) and galaxy["healpix_29"] >= 0)
            if galaxy["has_spectrum"]:
                self.assertEqual(galaxy["z_spec"], z[row[galaxy["object_id"]]])

    def test_spectra_alone_have_the_bits_that_they_have_beside_images(self):
        with tempfile.TemporaryDirectory() as folder:
            output = pathlib.Path(folder) / "output"
            pipeline.call([str(pipeline.BIN / "astroclip-embed"), "--spectra", str(RUN / "spectra"), "--model",
                           str(RUN / "aligned"), "--output", str(output)])
            alone = open_catalog(output, columns=["object_id", "spectrum_embedding", "has_image"])
        both = {galaxy["object_id"]: galaxy["spectrum_embedding"] for galaxy in self.table}
        self.assertEqual(alone["has_image"].sum(), 0)
        for galaxy in alone:
            np.testing.assert_array_equal(galaxy["spectrum_embedding"], both[galaxy["object_id"]])


class Search(unittest.TestCase):
    def test_neighbours_are_those_of_all_products(self):
        table = open_catalog(RUN / "embeddings")
        row = {int(each): i for i, each in enumerate(table["object_id"])}
        pairs = Store(RUN / "pairs")
        held_out = {int(each) for each, split in zip(pairs["object_id"][:], pairs["split"][:]) if split == 1}
        found = json.loads((RUN / "search" / "results.json").read_text())
        self.assertEqual(found["pool"], len(held_out))
        pool = np.array(sorted(row[each] for each in held_out))
        for query in found["queries"]:
            self.assertEqual(set(query["neighbours"]), set(MODES))
            for mode, (asked, known) in MODES.items():
                scores = table[f"{known}_embedding"][pool] @ table[f"{asked}_embedding"][row[query["object_id"]]]
                best = pool[np.argsort(-scores, kind="stable")][:len(query["neighbours"][mode])]
                given = [one["score"] for one in query["neighbours"][mode]]
                np.testing.assert_allclose(given, np.sort(scores)[::-1][:len(given)], atol=1e-5)
                if np.min(-np.diff(given)) > 1e-5:  # no ties to rounding
                    self.assertEqual([one["row"] for one in query["neighbours"][mode]], list(best))
                if asked == known:
                    self.assertEqual(query["neighbours"][mode][0]["object_id"], query["object_id"])

    def test_table_has_a_line_for_every_neighbour(self):
        queries = json.loads((RUN / "search" / "results.json").read_text())["queries"]
        with open(RUN / "search" / "results.csv", newline="") as file:
            lines = list(csv.DictReader(file))
        self.assertEqual(len(lines), sum(len(n) for query in queries for n in query["neighbours"].values()))

    def test_ids_can_be_asked_for_and_an_unknown_one_is_refused(self):
        known = sorted(ids("embeddings"))[3]
        with tempfile.TemporaryDirectory() as folder:
            line = [str(pipeline.BIN / "astroclip-search"), "--embeddings", str(RUN / "embeddings"), "--output", folder + "/found"]
            pipeline.call([*line, "--ids", str(known)])
            found = json.loads(pathlib.Path(folder, "found", "results.json").read_text())
            self.assertEqual([query["object_id"] for query in found["queries"]], [known])
            pipeline.call([*line[:-1], folder + "/none", "--ids", "5"], code=65)
            pipeline.call([*line[:-1], folder + "/none", "--ids", "five"], code=64)


class Evaluate(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scores = json.loads((RUN / "evaluation" / "evaluation.json").read_text())

    def test_every_method_has_every_figure(self):
        self.assertEqual(set(self.scores["photo_z"]), {"image", "spectrum", "untrained", "magnitudes", "pixels"})
        for one in self.scores["photo_z"].values():
            self.assertLessEqual({"r2", "r2_low", "r2_high", "sigma_nmad", "bias", "outlier_fraction"}, set(one))
            self.assertLessEqual(one["r2_low"], one["r2_high"])
        for mode in ("is", "si"):
            self.assertLessEqual({"recall_at_1", "recall_at_10", "chance", "photometry", "median_rank"},
                                 set(self.scores["retrieval"][mode]))

    def test_figures_are_those_of_the_predictions(self):
        with open(RUN / "evaluation" / "predictions.csv", newline="") as file:
            lines = list(csv.DictReader(file))
        truth = np.array([float(line["z_true"]) for line in lines])
        for name, one in self.scores["photo_z"].items():
            predicted = np.array([float(line[name]) for line in lines])
            r2 = 1 - np.sum((truth - predicted) ** 2) / np.sum((truth - truth.mean()) ** 2)
            self.assertAlmostEqual(one["r2"], r2, places=5)  # the table has 8 decimals
            errors = (truth - predicted) / (1 + truth)
            self.assertAlmostEqual(one["sigma_nmad"], 1.4826 * np.median(np.abs(errors - np.median(errors))), places=5)

    def test_recall_is_that_of_the_embeddings(self):
        table = open_catalog(RUN / "embeddings")
        row = {int(each): i for i, each in enumerate(table["object_id"])}
        pairs = Store(RUN / "pairs")
        test = [row[int(each)] for each, split in zip(pairs["object_id"][:], pairs["split"][:]) if split == 1]
        images, spectra = table["image_embedding"][test], table["spectrum_embedding"][test]
        for mode, scores in (("is", images @ spectra.T), ("si", spectra @ images.T)):
            places = 1 + np.sum(scores > np.diag(scores)[:, None] + 1e-6, axis=1)
            one = self.scores["retrieval"][mode]
            self.assertEqual(one["n"], len(test))
            self.assertAlmostEqual(one["recall_at_10"], np.mean(places <= 10), delta=0.05)  # ties to rounding


if __name__ == "__main__":
    unittest.main()
