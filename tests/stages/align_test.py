#!/usr/bin/python3
"""The token cache of astroclip-align: the same model as without it, shared between runs, refused when it is stale.

usage: align_test.py RUN, a folder that tiny_run.py made.
"""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import pipeline

RUN = pathlib.Path(sys.argv.pop(1)).resolve()


def validations(folder):
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if "val_loss" in row]


class TokenCache(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def align(self, name, *more, ranks=2):
        pipeline.call(pipeline.command("align", RUN, ranks, self.folder / name, map(str, more)))
        return self.folder / name

    def test_gives_the_losses_of_the_encoders_themselves(self):
        computed = self.align("computed", "--token-cache", "off")
        self.assertFalse((computed / "token-cache").exists())
        for one, other in zip(validations(computed), validations(RUN / "aligned"), strict=True):
            self.assertAlmostEqual(one["val_loss"], other["val_loss"], delta=1e-3)

    def test_takes_the_disk_that_was_announced(self):
        plan = pipeline.call(pipeline.command("align", RUN, 1, self.folder / "planned", ["--dry-run"]))
        announced = float(plan.split("token cache")[1].split("): ")[1].split(" MB")[0]) * 1e6
        found = sum(path.stat().st_size for path in (RUN / "aligned/token-cache").glob("part-*.h5"))
        self.assertLess(abs(found - announced), 0.05 * announced)

    def test_is_shared_by_runs_on_other_ranks_with_the_same_bits(self):
        cache = self.folder / "tokens"
        self.align("first", "--token-cache", cache, "--steps", 2)
        expected = pipeline.digest(cache)
        self.assertEqual(pipeline.digest(RUN / "aligned/token-cache"), expected)
        self.align("second", "--token-cache", cache, "--learning-rate", 0.01, "--steps", 2, ranks=1)
        self.assertEqual(pipeline.digest(cache), expected)

    def test_of_other_inputs_is_refused(self):
        line = pipeline.command("align", RUN, 2, self.folder / "other", ["--token-cache", RUN / "aligned/token-cache",
                                                                         "--image-norm", "imagenet"])
        done = subprocess.run(line, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=pipeline.environment(),
                              timeout=120)
        self.assertEqual(done.returncode, 73, done.stderr)
        self.assertIn("image_norm", done.stderr)
        self.assertIn("removing the folder makes it anew", done.stderr)

    def test_is_not_made_for_images_that_are_flipped(self):
        flipped = self.align("flipped", "--flips", "always", "--steps", 2)
        self.assertFalse((flipped / "token-cache").exists())
        line = pipeline.command("align", RUN, 2, self.folder / "both", ["--token-cache", str(self.folder / "tokens"), "--flips", "train"])
        done = subprocess.run(line, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=pipeline.environment(),
                              timeout=120)
        self.assertEqual(done.returncode, 64, done.stderr)
        self.assertIn("flips", done.stderr)

    def test_is_not_made_for_encoders_that_are_trained(self):
        trained = self.align("trained", "--image-encoder-rate", 0.1, "--trained-blocks", 1, "--steps", 2, "--micro-batch", 3)
        self.assertFalse((trained / "token-cache").exists())
        for row in validations(trained):
            self.assertLess(row["val_recall_at_1_is"], row["val_recall_at_10_is"] + 1e-9)
            self.assertIn("val_modality_gap", row)


if __name__ == "__main__":
    unittest.main()
