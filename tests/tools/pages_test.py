#!/usr/bin/env python3
"""The report and the comparison of a made-up run in a browser, on a wide and on a narrow window. Ends with 77 without a browser."""

import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
from PIL import Image

from report_test import compare, make_run, report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WINDOWS = ((1400, 900), (420, 800))
# A browser's window may have a least width, a frame has none: the page in a frame tells the page around it how wide it is, and
# --dump-dom shows what that one noted.
MEASURE = """<script>addEventListener("load", () => parent.postMessage([innerWidth, document.documentElement.scrollWidth,
[...document.images].filter(one => !one.naturalWidth).length].join(" "), "*"))</script>"""
AROUND = """<html><body><script>addEventListener("message", told => document.body.dataset.measured = told.data)</script>
<iframe width="{}" height="{}" style="border:0" src="measured.html"></iframe></body></html>"""


class Pages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        runs = [cls.folder / name for name in ("a", "b")]
        for run in runs:
            make_run(run)
        for done in (report(runs[0]), compare(*runs, "--output", cls.folder / "both.html")):
            if done.returncode != 0:
                raise AssertionError(done.stderr)
        cls.pages = {"report": runs[0] / "report" / "report.html", "comparison": cls.folder / "both.html"}

    def browse(self, page, window, *words):
        """What the browser prints, and what the page wrote on its console."""
        done = subprocess.run([BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                               "--enable-logging=stderr", "--virtual-time-budget=20000", f"--window-size={window[0]},{window[1]}",
                               f"--user-data-dir={self.folder}/browser", *words, page.as_uri()],
                              capture_output=True, text=True, timeout=300, check=True)
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    def measured(self, page, window):
        """(width of the window, width of the document, pictures that do not show, lines on the console)."""
        copy = self.folder / "measured.html"
        copy.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{MEASURE}</body>"), encoding="utf-8")
        (self.folder / "around.html").write_text(AROUND.format(*window))
        document, console = self.browse(self.folder / "around.html", (1600, 1000), "--dump-dom")
        found = re.search(r'data-measured="(\d+) (\d+) (\d+)"', document)
        self.assertIsNotNone(found, document[-500:])
        return *map(int, found.groups()), console

    def test_pages_fit_the_window_and_every_picture_shows(self):
        for name, page in self.pages.items():
            for window in WINDOWS:
                with self.subTest(page=name, window=window):
                    inner, wide, broken, console = self.measured(page, window)
                    self.assertEqual((inner, wide, broken, console), (window[0], window[0], 0, []))

    def test_screenshots_are_not_blank(self):
        for name, page in self.pages.items():
            for window in WINDOWS:
                with self.subTest(page=name, window=window):
                    picture = self.folder / "picture.png"
                    self.browse(page, window, f"--screenshot={picture}")
                    pixels = np.asarray(Image.open(picture).convert("L"), dtype=float)
                    self.assertEqual(pixels.shape, window[::-1])
                    # Ink in the upper and in the lower half, on paper that is mostly light.
                    for half in np.array_split(pixels, 2):
                        self.assertGreater(np.mean(half < 128), 0.002)
                    self.assertGreater(np.median(pixels), 230)

    def test_what_is_wrong_with_a_page_is_seen(self):
        wrong = self.folder / "wrong.html"
        wrong.write_text('<html><body><div style="width:3000px">wide</div><img src="data:image/png;base64,AAAA">'
                         "<script>missing()</script></body></html>")
        inner, wide, broken, console = self.measured(wrong, WINDOWS[0])
        self.assertEqual((inner, broken, len(console)), (WINDOWS[0][0], 1, 1))
        self.assertGreater(wide, 3000)


if __name__ == "__main__":
    if BROWSER is None:
        print("skipped: no chromium, which tools/setup.sh --readers installs")
        sys.exit(77)
    unittest.main()
