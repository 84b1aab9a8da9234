#!/usr/bin/python3
"""The earlier variant, a ResNet by MoCo under its own projection, through all stages: aligned alike by any number of ranks and
after a kill, embedded, searched, evaluated, and converted there and back.

usage: workshop_test.py RUN, a folder that tiny_run.py made.
"""
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

import h5py
import numpy as np
import pipeline

RUN = pathlib.Path(sys.argv.pop(1)).resolve()
CONVERT = pipeline.SOURCE / "tools/convert_checkpoint.py"
MOCO = ["--method", "moco", "--resnet-layers", 18, "--resnet-width", 8, "--embed-dim", 32, "--batch-size", 16, "--group-size", 8, "--queue", 32,
        "--learning-rate", 0.02, "--view-crop", 40, "--steps", 2]
ALIGN = {"rgb": "none", "flips": "always", "crop": 40, "group-size": 8, "hidden-dropout": 0.1, "clip-norm": 0, "keep-best": 0,
         "steps": 6, "checkpoint-steps": 2}


def call(words):
    return pipeline.call([str(word) for word in words])


def options(**more):
    """Those of the alignment, with others in their place."""
    changed = ALIGN | {name.replace("_", "-"): value for name, value in more.items()}
    return [word for name, value in changed.items() for word in (f"--{name}", value)]


class Workshop(unittest.TestCase):
    """Each test sees the run folder with an aligned model that two ranks made."""

    @classmethod
    def setUpClass(cls):
        cls.run_folder = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.run_folder)
        for name in ("images", "spectra", "pairs", "spectrum-encoder"):
            (cls.run_folder / name).symlink_to(RUN / name)
        call(cls.line("pretrain-image", "image-encoder", *MOCO))
        call(cls.line("align", "aligned", *options()))

    @classmethod
    def line(cls, stage, output, *more, ranks=2):
        return pipeline.command(stage, cls.run_folder, ranks, cls.run_folder / output, map(str, more))

    def bytes_of(self, name):
        return (self.run_folder / name / "model.safetensors").read_bytes()

    def embeddings(self, name):
        with h5py.File(self.run_folder / name / "index.h5") as index:
            return {key: index[key][:] for key in ("object_id", "image_embedding", "spectrum_embedding")}

    def test_one_rank_aligns_like_two(self):
        call(self.line("align", "alone", *options(), ranks=1))
        alone, together = pipeline.losses(self.run_folder / "alone"), pipeline.losses(self.run_folder / "aligned")
        self.assertEqual(sorted(alone), [1, 2, 3, 4, 5, 6])
        for step, loss in alone.items():
            # The encoder is frozen: batch normalisation has no steps in which to multiply rounding.
            self.assertAlmostEqual(together[step] / loss, 1, delta=1e-5, msg=f"step {step}")

    def test_a_killed_alignment_ends_with_the_same_bits(self):
        line = self.line("align", "killed", *options())
        done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
                              env=pipeline.environment(ASTROCLIP_FAULT="train.step:4"))
        self.assertEqual(done.returncode, 128 + signal.SIGKILL, done.stderr)
        self.assertTrue((self.run_folder / "killed/checkpoints/step-00000002/state.json").exists())
        call(line)
        self.assertEqual(self.bytes_of("killed"), self.bytes_of("aligned"))

    def test_the_catalogue_is_searched_and_evaluated(self):
        call(self.line("embed", "embeddings"))
        vectors = self.embeddings("embeddings")
        self.assertEqual(vectors["image_embedding"].shape[1], 32)
        norms = np.linalg.norm(vectors["image_embedding"], axis=1)
        self.assertTrue(np.all((abs(norms - 1) < 1e-5) | (norms == 0)))
        call(self.line("search", "search"))
        call(self.line("evaluate", "evaluation"))
        found = json.loads((self.run_folder / "evaluation/evaluation.json").read_text())
        self.assertIn("untrained", found["photo_z"])
        self.assertGreater(found["retrieval"]["is"]["n"], 0)

    def test_there_and_back_it_embeds_the_same(self):
        call([sys.executable, CONVERT, self.run_folder / "aligned", self.run_folder / "aligned.pt"])
        call([sys.executable, CONVERT, self.run_folder / "aligned.pt", self.run_folder / "converted", "--spectrum-heads", 3,
              "--crop", 40])
        for model, output in (("aligned", "ours"), ("converted", "theirs")):
            call([pipeline.BIN / "astroclip-embed", "--images", RUN / "images", "--model", self.run_folder / model, "--output",
                  self.run_folder / output])
        ours, theirs = self.embeddings("ours"), self.embeddings("theirs")
        for name, values in ours.items():
            self.assertEqual(values.tobytes(), theirs[name].tobytes(), name)

    def test_tokens_are_cached_only_where_they_stay_the_same(self):
        self.assertFalse((self.run_folder / "aligned/token-cache").exists())
        plan = call(self.line("align", "planned", *options(flips="none", bn_mode="eval"), "--dry-run", ranks=1))
        self.assertIn("token cache", plan)
        losses = []
        for cache in ("auto", "off"):
            call(self.line("align", f"cache-{cache}", *options(flips="none", bn_mode="eval", token_cache=cache)))
            losses.append(pipeline.losses(self.run_folder / f"cache-{cache}"))
        self.assertTrue((self.run_folder / "cache-auto/token-cache/manifest.json").exists())
        for step, loss in losses[0].items():
            self.assertAlmostEqual(loss, losses[1][step], delta=1e-3)

    def test_what_cannot_be_is_refused_with_its_options(self):
        for ranks, more, words in ((1, {"token_cache": self.run_folder / "tokens", "flips": "none"}, ["bn-mode"]),
                                   (2, {"group_size": 0}, ["group-size", "2 ranks", "bn-mode"]),
                                   (1, {"embed_dim": 16}, ["embed-dim", "32 wide"])):
            done = subprocess.run(self.line("align", "refused", *options(**more), ranks=ranks), stdin=subprocess.DEVNULL, capture_output=True,
                                  text=True, timeout=300, env=pipeline.environment())
            self.assertEqual(done.returncode, 64, done.stderr)
            for word in words:
                self.assertIn(word, done.stderr)


if __name__ == "__main__":
    unittest.main()
