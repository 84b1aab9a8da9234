#!/usr/bin/python3
"""MoCo as a stage: trained on fluxes by 1 and 2 ranks, killed and resumed, embedded with; and on JPEGs, which are display images.

usage: moco_test.py RUN, a folder that tiny_run.py made.
"""
import json
import pathlib
import sys
import unittest

import h5py
import numpy as np
from PIL import Image

import pipeline

RUN = pathlib.Path(sys.argv.pop(1)).resolve()
SMALL = ["--resnet-layers", 18, "--resnet-width", 8, "--embed-dim", 16, "--batch-size", 16, "--group-size", 8, "--queue", 32,
         "--learning-rate", 0.02, "--epochs", 4, "--checkpoint-steps", 2]


class Moco(pipeline.StoreTest):
    def train(self, name, images, *more, method="moco", ranks=1):
        more = ["--method", method, "--images", images, "--seed", 1, *SMALL, *more]
        pipeline.call(self.line("pretrain-image", ranks, self.folder / name, more))
        return self.folder / name

    def embed(self, model, images):
        output = self.folder / f"{model.name}-embeddings"
        pipeline.call(self.line("embed", 1, output, ["--model", model, "--images", images]))
        with h5py.File(output / "index.h5") as index:
            return index["image_embedding"][:]

    def test_two_ranks_train_like_one_and_the_encoder_embeds(self):
        more = ["--view-crop", 48, "--steps", 4]
        one = self.train("one", RUN / "images", *more)
        two = self.train("two", RUN / "images", *more, ranks=2)
        expected, found = pipeline.losses(one), pipeline.losses(two)
        self.assertEqual(len(expected), 4)
        for step, loss in expected.items():
            # Batch normalisation multiplies rounding by 10 to 100 a step: few steps stay close in float32.
            self.assertAlmostEqual(found[step] / loss, 1, delta=1e-4, msg=f"step {step}")
        vectors = self.embed(one, RUN / "images")
        self.assertEqual(vectors.shape[1], 64)
        self.assertTrue(np.isfinite(vectors).all())
        self.assertGreater(vectors.std(axis=0).max(), 0)

    def test_a_queue_of_broken_batches_is_refused(self):
        self.refused(64, ["'queue' = 40", "'batch-size' = 16"], "pretrain-image", "--method", "moco", "--images", RUN / "images",
                     *SMALL[:-8], "--queue", 40, ranks=(1,))

    def test_an_unknown_augmentation_is_named(self):
        self.refused(64, ["'xx'"], "pretrain-image", "--method", "moco", "--images", RUN / "images", *SMALL,
                     "--augmentations", "jcxx", ranks=(1,))

    def thumbnails(self):
        """A list of 40 pictures, one of them damaged and one too small; and the pixels of the first."""
        folder = self.folder / "thumbnails"
        folder.mkdir()
        y, x = np.mgrid[:64, :64] - 32
        lines = ["object_id,file"]
        for number in range(40):
            random = np.random.default_rng(number)
            width = random.uniform(4, 12, 3)
            colours = 255 * np.exp(-(x**2 + (1 + number % 3) * y**2)[..., None] / (2 * width**2))
            image = Image.fromarray(colours.astype(np.uint8)).resize((24, 24) if number == 39 else (64, 64))
            image.save(folder / f"{number}.jpg", quality=90)
            lines.append(f"{number},thumbnails/{number}.jpg")
        damaged = folder / "38.jpg"
        damaged.write_bytes(damaged.read_bytes()[:400])
        (self.folder / "list.csv").write_text("\n".join(lines) + "\n")
        return np.asarray(Image.open(folder / "0.jpg"))

    def test_jpegs_are_display_images_without_the_steps_for_fluxes(self):
        first = self.thumbnails()
        rows, rejects = self.ingest("ingest-images", "--input", self.folder / "list.csv", "--bands", "RGB", "--size", 40,
                                    "--max-reject-fraction", 0.1, name="pictures")
        self.assertEqual((rows, rejects), (38, {"unreadable file": 1, "wrong size": 1}))
        pictures = self.folder / "pictures"
        with h5py.File(pictures / "index.h5") as index:
            self.assertEqual(index["flux"].attrs["unit"], "")
            stored = index["flux"][0]
        # [colour, y upwards, x], the middle 40 pixels.
        np.testing.assert_allclose(stored, first[::-1][12:52, 12:52].transpose(2, 0, 1) / 255, atol=1e-6)

        model = self.train("pictures-moco", pictures, "--view-crop", 32, "--jitter", 3, "--steps", 2)
        metadata = json.loads((model / "manifest.json").read_text())["content"]["metadata"]
        self.assertEqual((metadata["rgb"], metadata["crop"]), ("none", "32"))
        self.assertTrue(np.isfinite(self.embed(model, pictures)).all())
        dino = self.train("pictures-dino", pictures, "--width", 24, "--depth", 2, "--heads", 2,
                          "--image-size", 36, "--global-crop", 36, "--local-crop", 24, "--local-crops", 2, "--block-chunks", 0,
                          "--prototypes", 32, "--head-hidden", 16, "--head-bottleneck", 8, "--steps", 2, method="dino")
        self.assertEqual(json.loads((dino / "manifest.json").read_text())["content"]["metadata"]["rgb"], "none")


if __name__ == "__main__":
    unittest.main()
