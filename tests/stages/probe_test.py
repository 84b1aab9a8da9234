#!/usr/bin/python3
"""astroclip-probe-spectra on a trained spectrum encoder: its errors agree with what numpy makes of the page it writes.

usage: probe_test.py RUN, a folder that tiny_run.py made.
"""
import json
import pathlib
import sys
import tempfile
import unittest

import numpy as np

import pipeline

sys.path.insert(0, str(pipeline.SOURCE / "tools"))
from open_catalog import Store  # noqa: E402

RUN = pathlib.Path(sys.argv.pop(1)).resolve()


def probe(*more, code=0):
    line = [pipeline.BIN / "astroclip-probe-spectra", "--model", RUN / "spectrum-encoder", "--spectra", RUN / "spectra",
            "--pairs", RUN / "pairs", *more]
    return pipeline.call([str(word) for word in line], code)


class Probe(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "probe.json"
            cls.printed = json.loads(probe("--noiseless", RUN / "spectra", "--limit", 12, "--output", path))
            cls.written = json.loads(path.read_text())

    def test_the_page_gives_the_errors_that_are_printed(self):
        # With the noisy spectra themselves as truth, and all spectra on the page, everything can be done again by hand.
        store = Store(RUN / "spectra")
        rows = {int(each): row for row, each in enumerate(store["object_id"][:])}
        squares, samples = 0.0, 0
        for one in self.written["page"]:
            flux = store["flux"][rows[one["object_id"]]].astype(np.float64)
            deviation = max(flux.std(ddof=1), 0.2)
            np.testing.assert_allclose(one["flux"], flux, atol=6e-5)  # the page has four decimals
            for first, last in one["hidden"]:
                squares += np.sum((np.array(one["prediction"][first:last]) - flux[first:last]) ** 2) / deviation**2
                samples += last - first
        errors = self.printed["reconstruction"]
        self.assertEqual(errors["spectra"], len(self.written["page"]))
        self.assertEqual(errors["samples"], samples)
        self.assertAlmostEqual(errors["model"], squares / samples, delta=1e-3 * errors["model"])
        self.assertEqual(errors["noisy_flux"], 0)

    def test_errors_by_wavelength_and_by_signal_to_noise_have_the_mean_of_all(self):
        errors, by = self.printed["reconstruction"], self.written["by_snr"]
        self.assertGreater(errors["mean_spectrum"], 0)
        for name in ("model", "interpolation", "mean_spectrum"):
            known = [value for value in by[name] if value is not None]
            self.assertLessEqual(min(known), errors[name])
            self.assertGreaterEqual(max(known), errors[name])
        self.assertEqual(len(self.written["by_wavelength"]["wavelength"]), len(self.written["by_wavelength"]["model"]))

    def test_an_encoder_that_is_not_there_is_said_so(self):
        pipeline.call([str(pipeline.BIN / "astroclip-probe-spectra"), "--model", "/nowhere", "--spectra", str(RUN / "spectra")], 66)


if __name__ == "__main__":
    unittest.main()
