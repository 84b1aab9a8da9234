#!/usr/bin/python3
"""Published image encoders, made up in the layout of their files, to embeddings of a real cutout: converted, loaded strictly,
embedded with."""
import sys
import unittest

import h5py
import numpy as np
from astropy.io import fits

import pipeline

sys.path.insert(0, str(pipeline.SOURCE / "tests/tools"))
import torch_archive  # noqa: E402
from published import filled, lightning, published_state, resnet_shapes, saved, teacher  # noqa: E402

SIZE = 144
REAL = pipeline.SURVEY_DATA / "decals-cutout.fits.gz"
CHECK = 5  # object_id of the image of the check values


def check_image():
    """The image of the published check values of the ResNet-50, 96 pixels wide, in the middle of a cutout."""
    c, y, x = np.ogrid[0:3, 0:SIZE, 0:SIZE]
    return (0.5 + 0.5 * np.sin(0.05 * (y - 24) + 0.09 * (x - 24) + 0.8 * c)).astype(np.float32)


class PublishedEncoders(pipeline.StoreTest):
    def setUp(self):
        super().setUp()
        real, cards = fits.getdata(REAL), fits.Header({"BANDS": "grz", "BUNIT": "nanomaggy"})
        lines = [f"object_id,ra,dec,file\n1,0.0043669,0.5413208,{REAL}"]
        turned = {number: np.rot90(real, number - 1, axes=(1, 2)) for number in (2, 3, 4)}
        for number, image in (turned | {CHECK: check_image()}).items():
            fits.PrimaryHDU(image, cards).writeto(self.folder / f"{number}.fits")
            lines.append(f"{number},{number},1,{number}.fits")
        (self.folder / "list.csv").write_text("\n".join(lines) + "\n")
        self.assertEqual(self.ingest("ingest-images", "--input", self.folder / "list.csv", "--size", SIZE, name="images"), (5, {}))

    def catalogue(self, content, *options):
        """{object_id: (unit vector, its length before)} by the encoder in a checkpoint with this content."""
        torch_archive.save(self.folder / "published.ckpt", content)
        convert = pipeline.SOURCE / "tools/convert_checkpoint.py"
        pipeline.call([str(word) for word in (sys.executable, convert, self.folder / "published.ckpt", self.folder / "model", *options)])
        pipeline.call(self.line("embed", 1, self.folder / "embeddings", ["--images", self.folder / "images", "--model", self.folder / "model"]))
        with h5py.File(self.folder / "embeddings/index.h5") as index:
            self.assertEqual(index["has_image"][:].tolist(), [1] * 5)
            self.assertEqual(index["ra"][list(index["object_id"][:]).index(1)], 0.0043669)
            return {int(number): (vector, norm) for number, vector, norm in
                    zip(index["object_id"][:], index["image_embedding"][:], index["image_embedding_norm"][:])}

    def check_vectors(self, found, width):
        """Unit vectors, of which those of the turned images differ, though not much beside another image's."""
        self.assertEqual(sorted(found), [1, 2, 3, 4, CHECK])
        vectors = np.array([found[number][0] for number in sorted(found)])
        self.assertEqual(vectors.shape, (5, width))
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        cosines = vectors @ vectors.T
        self.assertLess(cosines[0, 1:4].max(), 1 - 1e-6)
        self.assertGreater(cosines[0, 1:4].min(), cosines[0, 4])

    def test_astrodino(self):
        state = teacher(published_state("vit")[0], published_state("dino_head")[0], inside="_fsdp_wrapped_module.")
        self.check_vectors(self.catalogue({"teacher": saved(state)}, "--image-heads", 3), 36)

    def test_the_resnet_of_stein_gives_the_published_numbers(self):
        state = {f"encoder_q.{name}": values for name, values in filled(resnet_shapes()).items()}
        state |= {"queue": np.ones((128, 64), np.float32), "queue_ptr": np.array([3])}
        found = self.catalogue(lightning(saved(state), {"tau": 0.2}), "--rgb", "none")
        self.check_vectors(found, 2048)
        vector, norm = found[CHECK]
        # The published code's pooled features, printed to five digits; 2e-4 for sums in another order.
        self.assertAlmostEqual(norm, 22.69443, delta=22.69443 * 2e-4)
        np.testing.assert_allclose((vector * norm)[[0, 1, 2, -1]], (1.33116, 0.13572, 1.22275, 0.46558), rtol=2e-4, atol=1e-4)


if __name__ == "__main__":
    unittest.main()
