#!/usr/bin/python3
"""Networks trained on labels: alike on 1 and 2 ranks, their rows in the evaluation, and labels that are wrong.

usage: supervised_test.py RUN, a folder that tiny_run.py made.
"""
import csv
import json
import pathlib
import shutil
import sys
import tempfile
import unittest

import numpy as np
from astropy.table import Table

import pipeline

sys.path.insert(0, str(pipeline.SOURCE / "tools"))
from open_catalog import Store  # noqa: E402

RUN = pathlib.Path(sys.argv.pop(1)).resolve()
PROPERTIES = ["LOG_MSTAR", "Z_MW", "TAGE_MW", "LOG_SSFR"]
SMALL = ["--pairs", RUN / "pairs", "--batch-size", 8, "--group-size", 4, "--learning-rate", 0.001, "--epochs", 2, "--crop", 48,
         "--resnet-width", 8, "--checkpoint-steps", 2, "--seed", 1]
STORES = {"image": ["--images", RUN / "images", "--spectra", RUN / "spectra"],
          "spectrum": ["--modality", "spectrum", "--spectra", RUN / "spectra"]}


class Supervised(pipeline.StoreTest):
    @classmethod
    def setUpClass(cls):
        cls.models = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.models)

    def train(self, name, modality, *more, ranks=1):
        output = self.models / name
        if not output.exists():
            pipeline.call(self.line("train-supervised", ranks, output, [*SMALL, *STORES[modality], *more]))
        return output

    def redshift(self, modality):
        return self.train(f"{modality}-redshift", modality)

    def properties(self, modality):
        return self.train(f"{modality}-properties", modality, "--labels", RUN / "survey/truth.fits", "--targets", ",".join(PROPERTIES))

    def content(self, model):
        return json.loads((model / "manifest.json").read_text())["content"]

    def test_two_ranks_train_like_one(self):
        for modality in STORES:
            expected = pipeline.losses(self.redshift(modality))
            found = pipeline.losses(self.train(f"{modality}-two", modality, ranks=2))
            self.assertEqual(len(expected), 2 * int(self.content(self.redshift(modality))["metadata"]["steps_per_epoch"]))
            for step in list(expected)[:4]:  # batch normalisation multiplies rounding by 10 to 100 a step
                self.assertAlmostEqual(found[step] / expected[step], 1, delta=1e-3, msg=f"{modality} {step}")

    def evaluate(self, *more, code=0, ranks=1):
        output = self.folder / f"evaluation-{ranks}"
        line = self.line("evaluate", ranks, output, [
            *(f"--{name}={RUN / name}" for name in ("embeddings", "images", "spectra", "pairs")), "--bootstraps=20",
            "--few-shot-epochs=2", "--photometry-epochs=10", "--flows=0", "--label-fractions=none", *more])
        pipeline.call(line, code)
        return output

    def test_what_they_predict_stands_in_the_tables_with_how_long_they_were_trained(self):
        models = [f"{name}={folder(modality)}" for name, modality in (("ResNet18", "image"), ("Conv+Att", "spectrum"))
                  for folder in (self.redshift, self.properties)]
        options = ["--labels", RUN / "survey/truth.fits", "--supervised", ",".join(models)]
        output = self.evaluate(*options)
        scores = json.loads((output / "evaluation.json").read_text())
        rows = {(row["source"], row["model"]): row for row in scores["table"]}
        with open(output / "predictions.csv", newline="") as file:
            lines = list(csv.DictReader(file))
        truth = np.array([float(line["z_true"]) for line in lines])
        for source, name in (("image", "ResNet18"), ("spectrum", "Conv+Att")):
            row, own = rows[source, name], f"{name} {source}"
            predicted = np.array([float(line[own]) for line in lines])
            r2 = 1 - np.sum((truth - predicted) ** 2) / np.sum((truth - truth.mean()) ** 2)
            redshift = row["ours"]["redshift"]
            self.assertAlmostEqual(redshift["r2"], r2, delta=1e-5 * max(1, abs(r2)))  # the table has 8 decimals
            self.assertEqual(redshift["epochs"]["trained"], 2)
            self.assertIn(redshift["epochs"]["best"], (1, 2))
            self.assertLessEqual(redshift["r2_low"], redshift["r2_high"])
            of = scores["properties_supervised"]
            self.assertEqual(row["ours"]["properties"], of["mean"][own])
            self.assertAlmostEqual(of["mean"][own]["r2"], np.mean([of[label][own]["r2"] for label in PROPERTIES]), places=9)
        magnitudes = rows["photometry", "MLP"]["ours"]["redshift"]["epochs"]
        self.assertEqual(magnitudes["trained"], 10)
        self.assertTrue(1 <= magnitudes["best"] <= 10)
        self.assertEqual(json.loads((self.evaluate(*options, ranks=2) / "evaluation.json").read_text()), scores)

    def test_a_model_that_may_have_seen_the_held_out_galaxies_is_refused(self):
        pairs = self.folder / "pairs"
        pipeline.call([str(pipeline.BIN / "astroclip-match"), "--images", str(RUN / "images"), "--spectra", str(RUN / "spectra"),
                       "--seed", "7", "--output", str(pairs)])
        other = self.folder / "other"
        pipeline.call(self.line("train-supervised", 1, other, [*STORES["image"], "--pairs", pairs, *SMALL[2:]]))
        self.evaluate("--supervised", f"Other={other}", code=65)
        twice = self.redshift("image")
        self.evaluate("--supervised", f"A={twice},A={twice}", code=64)
        self.evaluate("--supervised", f"A={RUN / 'aligned'}", code=65)

    def labels(self, **columns):
        ids = Store(RUN / "images")["object_id"][:]
        table = Table({"object_id": ids})
        for name, values in columns.items():
            table[name] = np.broadcast_to(values, len(ids))
        path = self.folder / "labels.csv"
        table.write(path, overwrite=True)
        return path

    def test_labels_that_are_none_are_left_out_and_wrong_ones_are_refused_by_name(self):
        images = [*SMALL, "--images", RUN / "images"]
        known = len(Store(RUN / "images")["object_id"][:])
        some = np.where(np.arange(known) % 3, np.arange(known, dtype=float), np.nan)
        model = self.folder / "some"
        pipeline.call(self.line("train-supervised", 1, model, [*images, "--labels", self.labels(SOME=some), "--targets", "SOME"]))
        metadata = self.content(model)["metadata"]
        ids, sides = Store(RUN / "pairs")["object_id"][:], Store(RUN / "pairs")["split"][:]
        finite = {int(each) for each, value in zip(Store(RUN / "images")["object_id"][:], some) if np.isfinite(value)}
        paired = sum(int(each) in finite for each, side in zip(ids, sides) if side == 0)
        self.assertGreaterEqual(int(metadata["fitted_galaxies"]) + int(metadata["held_out_galaxies"]), paired)
        self.refused(65, ["'MASS'", "SOME"], "train-supervised", *images, "--labels", self.labels(SOME=some), "--targets", "MASS")
        self.refused(65, ["none of the", "NONE"], "train-supervised", *images, "--labels", self.labels(NONE=np.nan), "--targets", "NONE")
        self.refused(64, ["'labels' is not set", "MASS"], "train-supervised", *images, "--targets", "MASS")
        self.refused(64, ["'targets'"], "train-supervised", *images, "--targets", "redshift,redshift")
        self.refused(64, ["'batch-size' = 400"], "train-supervised", *STORES["spectrum"], "--pairs", RUN / "pairs", "--batch-size", 400,
                     ranks=(1,))
        self.refused(64, ["'images' is not set"], "train-supervised", "--spectra", RUN / "spectra")


if __name__ == "__main__":
    unittest.main()
