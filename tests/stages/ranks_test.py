#!/usr/bin/python3
"""What a stage makes does not depend on the number of ranks: stores bit for bit, losses to rounding.

usage: ranks_test.py RUN, a folder that tiny_run.py made on 2 ranks.
"""
import pathlib
import sys
import tempfile
import unittest

import pipeline

RUN = pathlib.Path(sys.argv.pop(1)).resolve()


class Ranks(unittest.TestCase):
    def test_stores_are_the_same_bytes_on_1_2_and_4_ranks(self):
        for stage in ("ingest-images", "ingest-spectra", "match", "embed", "search", "evaluate"):
            expected = pipeline.digest(RUN / pipeline.STAGES[stage][0])
            for ranks in (1, 4):
                with self.subTest(stage=stage, ranks=ranks), tempfile.TemporaryDirectory() as folder:
                    output = pathlib.Path(folder) / "output"
                    pipeline.call(pipeline.command(stage, RUN, ranks, output))
                    self.assertEqual(pipeline.digest(output), expected)

    def test_losses_of_20_steps_are_the_same_on_1_2_and_4_ranks(self):
        # 1e-4: rounding noise of 1e-7 in the gradients grows to less than 1e-6 of the loss in 20 steps of a transformer;
        # another sample or another draw changes it by percents.
        for stage in pipeline.TRAININGS:
            expected = pipeline.losses(RUN / pipeline.STAGES[stage][0])
            self.assertEqual(len(expected), 20)
            for ranks in (1, 4):
                with self.subTest(stage=stage, ranks=ranks), tempfile.TemporaryDirectory() as folder:
                    output = pathlib.Path(folder) / "output"
                    pipeline.call(pipeline.command(stage, RUN, ranks, output))
                    found = pipeline.losses(output)
                    self.assertEqual(found.keys(), expected.keys())
                    for step, loss in expected.items():
                        self.assertAlmostEqual(found[step] / loss, 1, delta=1e-4, msg=f"step {step}")


if __name__ == "__main__":
    unittest.main()
