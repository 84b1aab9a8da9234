#!/usr/bin/python3
"""astroclip-align and its token cache: the same model as without it, shared between runs, refused when it is stale.

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

sys.path.insert(0, str(pipeline.SOURCE / "tools"))
from checkpoints import safetensors

RUN = pathlib.Path(sys.argv.pop(1)).resolve()


def validations(folder):
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if "val_loss" in row]


def tensors(folder):
    """The bytes of each tensor of a published model."""
    return {name: weights.read() for name, weights in safetensors.read(folder / "model.safetensors")[1].items()}


class Runs(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def align(self, name, *more, ranks=2):
        pipeline.call(pipeline.command("align", RUN, ranks, self.folder / name, map(str, more)))
        return self.folder / name

    def refused(self, code, *more):
        """What the run says that must end with `code`."""
        output = pathlib.Path(tempfile.mkdtemp(dir=self.folder)) / "refused"
        line = pipeline.command("align", RUN, 2, output, map(str, more))
        done = subprocess.run(line, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=pipeline.environment(),
                              timeout=120)
        self.assertEqual(done.returncode, code, done.stderr)
        return done.stderr


class TokenCache(Runs):
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

    def test_of_other_views_is_refused(self):
        message = self.refused(73, "--token-cache", RUN / "aligned/token-cache", "--image-norm", "imagenet")
        self.assertIn("image_norm", message)
        self.assertIn("removing the folder makes it anew", message)

    def test_is_not_made_for_images_that_are_flipped(self):
        flipped = self.align("flipped", "--flips", "always", "--steps", 2)
        self.assertFalse((flipped / "token-cache").exists())
        message = self.refused(64, "--token-cache", self.folder / "tokens", "--flips", "train")
        self.assertIn("flips", message)
        self.assertEqual(message.count("exit code 64"), 1, message)

    def test_of_other_weights_or_other_pairs_is_refused(self):
        weights, pairs = self.folder / "weights", self.folder / "pairs"
        pipeline.call(pipeline.command("pretrain-spectrum", RUN, 2, weights, ["--steps", "1"]))
        pipeline.call(pipeline.command("match", RUN, 2, pairs, ["--test-fraction", "0.5"]))
        for option, folder in ("spectrum-encoder", weights), ("pairs", pairs):
            message = self.refused(73, "--token-cache", RUN / "aligned/token-cache", f"--{option}", folder)
            self.assertIn(option, message)
            self.assertIn("removing the folder makes it anew", message)

    def test_that_is_damaged_is_refused(self):
        cache = self.folder / "tokens"
        self.align("first", "--token-cache", cache, "--steps", 2)
        part = cache / "part-00001.h5"
        damaged = bytearray(part.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        part.write_bytes(damaged)
        self.assertIn("part-00001.h5", self.refused(65, "--token-cache", cache))

    def test_with_parts_of_another_size_says_what_to_do(self):
        cache = self.folder / "tokens"
        self.align("first", "--token-cache", cache, "--steps", 2)
        (cache / "manifest.json").unlink()  # as if it had been killed before its end
        message = self.refused(73, "--token-cache", cache, "--token-cache-part-rows", 64)
        self.assertIn("removing the folder makes the output anew", message)

    def test_without_room_is_refused(self):
        message = self.refused(74, "--token-cache", "/proc/none/tokens")  # a file system with no room at all
        self.assertIn("0.00 GB are free", message)
        self.assertIn("'token-cache' = off", message)

    def test_is_not_made_for_encoders_that_are_trained(self):
        trained = self.align("trained", "--image-encoder-rate", 0.1, "--trained-blocks", 1, "--steps", 2, "--micro-batch", 3)
        self.assertFalse((trained / "token-cache").exists())
        self.assertIn("val_modality_gap", validations(trained)[-1])
        published = tensors(trained)
        changed = set()
        for encoder in "image", "spectrum":
            for name, before in tensors(RUN / f"{encoder}-encoder").items():
                full = f"{encoder}_encoder.backbone.{name}"
                if full in published and published[full] != before:
                    changed.add(full)
        self.assertTrue(changed)
        for name in changed:  # the second of two blocks, and the last norm
            self.assertRegex(name, r"^image_encoder\.backbone\.(blocks\.1|norm)\.")


class Alignment(Runs):
    def test_takes_an_image_encoder_with_a_head_of_its_own_for_patches(self):
        encoder = self.folder / "encoder"
        pipeline.call(pipeline.command("pretrain-image", RUN, 2, encoder, ["--separate-ibot-head", "true", "--steps", "1"]))
        self.assertTrue(any(name.startswith("ibot_head.") for name in tensors(encoder)))
        self.align("aligned", "--image-encoder", encoder, "--steps", 1)

    def test_tells_the_gradient_norms_of_its_parts(self):
        rows = map(json.loads, (RUN / "aligned/metrics.jsonl").read_text().splitlines())
        for row in (row for row in rows if "grad_norm" in row):
            squares = row["grad_norm_image_head"] ** 2 + row["grad_norm_spectrum_head"] ** 2
            self.assertAlmostEqual(row["grad_norm"] ** 2 / squares, 1, delta=1e-5)


if __name__ == "__main__":
    unittest.main()
