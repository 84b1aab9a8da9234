#!/usr/bin/python3
"""Wrong input and configuration: the exit code of the table and one message, from any number of ranks, that names the
file and the key; the same in the file of --status.

usage: wrong_input_test.py RUN, a folder that tiny_run.py made.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

import pipeline

RUN = pathlib.Path(sys.argv.pop(1)).resolve()


class WrongInput(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.output = self.folder / "output"
        self.addCleanup(shutil.rmtree, self.folder)

    def refused(self, stage, code, words, more=(), run=RUN, output=None):
        """The stage ends with `code` and says all `words`, in one message; on 1 and on 3 ranks."""
        for ranks in (1, 3):
            status_file = self.folder / "told.json"
            line = pipeline.command(stage, run, ranks, output or self.output, ["--status", status_file, *more])
            with self.subTest(stage=stage, more=more, ranks=ranks):
                begun = time.monotonic()
                done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
                                      env=pipeline.environment())
                messages = [text for text in done.stderr.splitlines() if f"astroclip-{stage} failed" in text]
                self.assertEqual(done.returncode, code, done.stderr)
                self.assertEqual(len(messages), 1, done.stderr)
                status = json.loads(status_file.read_text())
                status_file.unlink()
                self.assertEqual((status["state"], status["exit_code"]), ("failed", code))
                self.assertIn(status["message"], messages[0])
                for word in words:
                    self.assertIn(word, messages[0])
                # The contract is 2 s to the message and 3 s more for mpirun; the machine may be busy with other tests.
                self.assertLess(time.monotonic() - begun, 20)
                self.assertFalse((self.output / "manifest.json").exists())

    def config(self, text):
        path = self.folder / "wrong.cfg"
        path.write_text(text)
        return ["--config", str(path)]

    def without_config(self, stage, more):
        """The command line with another configuration file."""
        line = pipeline.command(stage, RUN, 1, self.output)
        at = line.index("--config")
        return line[:at] + line[at + 2:] + more

    def test_missing_inputs_are_66(self):
        run = self.folder / "nowhere"
        self.refused("match", 66, [f"{run}/images", "does not exist", "'images' (command line)"], run=run)
        self.refused("ingest-spectra", 66, [f"{run}/survey/spectra", "'input' (command line)"], run=run)
        self.refused("embed", 66, [f"{run}/", "does not exist", "(command line)"], run=run)

    def test_a_path_of_the_configuration_file_is_named_with_its_line(self):
        more = self.config(f"[match]\nimages = {self.folder}/nowhere\n")
        line = self.without_config("match", more)
        at = line.index("--images")
        done = subprocess.run(line[:at] + line[at + 2:], capture_output=True, text=True, env=pipeline.environment())
        self.assertEqual(done.returncode, 66, done.stderr)
        self.assertIn("'images' (" + more[1] + ":2)", done.stderr)

    def test_a_store_without_manifest_does_not_exist(self):
        run = self.folder / "run"
        run.mkdir()
        for name in ("spectra", "pairs", "image-encoder", "spectrum-encoder"):
            (run / name).symlink_to(RUN / name)
        shutil.copytree(RUN / "images", run / "images")
        (run / "images/manifest.json").unlink()
        for stage in ("match", "pretrain-image", "align"):
            self.refused(stage, 66, [f"{run}/images", "manifest.json"], run=run)

    def test_a_damaged_store_is_65(self):
        run = self.folder / "run"
        run.mkdir()
        (run / "pairs").symlink_to(RUN / "pairs")
        shutil.copytree(RUN / "images", run / "images")
        part = run / "images/part-00001.h5"
        with open(part, "r+b") as file:
            file.seek(os.path.getsize(part) // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
        self.refused("pretrain-image", 65, ["part-00001.h5"], run=run)

    def test_another_kind_of_store_is_65(self):
        self.refused("pretrain-spectrum", 65, ["images", "spectra"], run=self.swapped())

    def swapped(self):
        run = self.folder / "swapped"
        run.mkdir()
        (run / "spectra").symlink_to(RUN / "images")
        (run / "pairs").symlink_to(RUN / "pairs")
        return run

    def test_a_truncated_survey_file_is_65(self):
        run = self.folder / "run"
        shutil.copytree(RUN / "survey/spectra", run / "survey/spectra")
        for coadd in (run / "survey/spectra").glob("**/coadd-*.fits"):
            os.truncate(coadd, os.path.getsize(coadd) // 2)
        self.refused("ingest-spectra", 65, ["coadd-"], run=run)

    def test_configuration_errors_are_64_and_name_key_line_and_nearest(self):
        for text, words in [("[embed]\npart-row = 5\n", ["wrong.cfg:2", "'part-row'", "'part-rows'"]),
                            ("[embed]\npart-rows = -5\n", ["wrong.cfg:2", "'part-rows'", "-5", "at least 0"]),
                            ("[embedd]\npart-rows = 5\n", ["wrong.cfg:2", "[embedd]", "[embed]"])]:
            done = subprocess.run(self.without_config("embed", self.config(text)), capture_output=True, text=True,
                                  env=pipeline.environment())
            self.assertEqual(done.returncode, 64, done.stderr)
            for word in words:
                self.assertIn(word, done.stderr)
        self.refused("align", 64, ["--batch-sise", "--batch-size"], more=["--batch-sise", "4"])
        self.refused("align", 64, ["'batch-size'", "many"], more=["--batch-size", "many"])
        self.refused("pretrain-image", 64, ["batch-size", "group-size"], more=["--batch-size", "15"])

    def test_an_output_that_cannot_be_written_is_74(self):
        file = self.folder / "file"
        file.write_text("")
        self.refused("match", 74, [str(file)], output=file / "output")

    def test_an_output_that_is_not_ours_is_73(self):
        other = self.folder / "thesis"
        other.mkdir()
        (other / "chapter1.tex").write_text("")
        self.refused("match", 73, [str(other)], output=other)
        self.assertTrue((other / "chapter1.tex").exists())

    def test_another_runs_output_is_73_and_says_what_differs(self):
        copy = self.folder / "pairs"
        shutil.copytree(RUN / "pairs", copy)
        self.refused_keeping("match", 73, ["test-fraction", "0.25", "0.5"], ["--test-fraction", "0.5"], copy)

    def refused_keeping(self, stage, code, words, more, output):
        done = subprocess.run(pipeline.command(stage, RUN, 2, output, more), capture_output=True, text=True,
                              env=pipeline.environment())
        self.assertEqual(done.returncode, code, done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)
        pipeline.call([str(pipeline.BIN / "astroclip-check"), str(output)])

    def test_a_dry_run_writes_nothing(self):
        for more, code in ([], 0), (["--test-fractoin", "0.5"], 64):
            status_file = self.folder / "told.json"
            pipeline.call(pipeline.command("match", RUN, 2, self.output, ["--dry-run", "--status", status_file, *more]), code)
            self.assertEqual(list(self.folder.iterdir()), [])

    def test_the_same_command_on_a_complete_output_is_0_at_once(self):
        copy = self.folder / "pairs"
        shutil.copytree(RUN / "pairs", copy)
        before = (copy / "manifest.json").read_bytes()
        pipeline.call(pipeline.command("match", RUN, 2, copy))
        self.assertEqual((copy / "manifest.json").read_bytes(), before)


if __name__ == "__main__":
    unittest.main()
