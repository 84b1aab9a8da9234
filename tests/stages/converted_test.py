#!/usr/bin/python3
"""Models that went out as checkpoints and came back are the same to the stages that read them; and the way from a published
checkpoint and survey files to a search, without any training.

usage: converted_test.py RUN, a folder that tiny_run.py made.
"""
import csv
import pathlib
import shutil
import sys
import tempfile
import unittest

import h5py
import pipeline

RUN = pathlib.Path(sys.argv.pop(1)).resolve()
CONVERT = pipeline.SOURCE / "tools/convert_checkpoint.py"


class Converted(unittest.TestCase):
    def setUp(self):
        self.run_folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.run_folder)
        for name in ("images", "spectra", "pairs"):
            (self.run_folder / name).symlink_to(RUN / name)

    def there_and_back(self, model, *options):
        checkpoint = self.run_folder / f"{model}.pt"
        pipeline.call([str(word) for word in (sys.executable, CONVERT, RUN / model, checkpoint)])
        pipeline.call([str(word) for word in (sys.executable, CONVERT, checkpoint, self.run_folder / model, *options)])

    def test_alignment_of_converted_encoders_ends_with_the_same_bits(self):
        self.there_and_back("image-encoder", "--image-heads", 3)
        self.there_and_back("spectrum-encoder", "--spectrum-heads", 3)
        pipeline.call(pipeline.command("align", self.run_folder))
        same = [(folder / "aligned/model.safetensors").read_bytes() for folder in (RUN, self.run_folder)]
        self.assertEqual(*same)

    def test_a_converted_model_embeds_the_same(self):
        self.there_and_back("aligned", "--image-heads", 3, "--spectrum-heads", 3)
        pipeline.call(pipeline.command("embed", self.run_folder))
        with h5py.File(RUN / "embeddings/index.h5") as ours, h5py.File(self.run_folder / "embeddings/index.h5") as theirs:
            for name in ("object_id", "image_embedding", "spectrum_embedding", "spectrum_embedding_norm"):
                self.assertEqual(ours[name][:].tobytes(), theirs[name][:].tobytes(), name)

    def test_published_weights_alone_lead_from_survey_files_to_a_search(self):
        """As README has it: convert, ingest, match, embed, search."""
        folder, checkpoint = self.run_folder / "mine", self.run_folder / "astroclip.ckpt"
        folder.mkdir()
        convert = [sys.executable, CONVERT]
        spectrum = pipeline.SURVEY_DATA / "coadd-4-80613-thru20210324.fits"

        def run(program, *options):
            pipeline.call([str(word) for word in (*([pipeline.BIN / f"astroclip-{program}"] if isinstance(program, str) else program),
                                                  *options)], cwd=folder)
        run(convert, RUN / "aligned", checkpoint, "--published-layout")
        run(convert, checkpoint, "model", "--image-heads", 3, "--spectrum-heads", 3)
        run("ingest-images", "--input", RUN / "survey/images", "--output", "images")
        run("ingest-spectra", "--input", spectrum, "--output", "spectra")
        run("match", "--images", "images", "--spectra", "spectra", "--by", "sky", "--output", "pairs")
        run("embed", "--images", "images", "--spectra", "spectra", "--pairs", "pairs", "--model", "model", "--output", "embeddings")
        run("search", "--embeddings", "embeddings", "--model", "model", "--spectra", spectrum, "--neighbours", 3, "--output", "found")
        with open(folder / "found/results.csv", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([row["mode"] for row in rows], ["ss"] + 3 * ["si"])  # one spectrum, some fifty images
        self.assertEqual((rows[0]["object_id"], float(rows[0]["score"])), ("39633345008634465", 1))


if __name__ == "__main__":
    unittest.main()
