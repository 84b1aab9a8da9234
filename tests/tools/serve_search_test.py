#!/usr/bin/env python3
"""tools/serve_search.py on a made-up run: its answers, its refusals, and the page in a browser, if one is installed."""

import http.client
import json
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest
import urllib.request

import numpy as np

from report_test import HOME, Store, make_stores

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Serve(unittest.TestCase):
    memory = "1"

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        make_stores(cls.folder, np.random.default_rng(1))
        cls.server = subprocess.Popen([sys.executable, str(HOME / "tools/serve_search.py"), str(cls.folder / "embeddings"), "--port", "0",
                                       "--memory", cls.memory], stdout=subprocess.PIPE, text=True)
        cls.addClassCleanup(cls.stop)
        cls.address = cls.server.stdout.readline().strip()
        cls.port = int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)/", cls.address)[1])
        cls.store = Store(cls.folder / "embeddings")
        cls.ids = cls.store["object_id"][:]

    @classmethod
    def stop(cls):
        cls.server.terminate()
        cls.server.communicate()

    def get(self, path, host=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{self.port}"})
        reply = connection.getresponse()
        body = reply.read()
        connection.close()
        return reply.status, body, reply.headers

    def ask(self, path):
        status, body, _ = self.get(path)
        return status, json.loads(body)

    def test_neighbours_are_those_of_all_products(self):
        image, spectrum = self.store["image_embedding"][:], self.store["spectrum_embedding"][:]
        vectors = {"i": image, "s": spectrum}
        for mode in ("ii", "ss", "is", "si"):
            status, found = self.ask(f"/api/search?id={self.ids[17]}&mode={mode}")
            self.assertEqual(status, 200)
            scores = vectors[mode[1]] @ vectors[mode[0]][17]
            np.testing.assert_allclose([one["score"] for one in found["galaxies"]], np.sort(scores)[::-1][:24], atol=1e-6)
            self.assertEqual([one["row"] for one in found["galaxies"]][:3], list(np.argsort(-scores, kind="stable")[:3]))
        self.assertEqual(found["query"]["object_id"], str(self.ids[17]))
        self.assertEqual(found["pictures"], ["image", "spectrum"])

    def test_positions_find_the_nearest_galaxy(self):
        ra, dec = self.store["ra"][5], self.store["dec"][5]
        self.assertEqual(self.ask(f"/api/near?ra={ra}&dec={dec + 1e-4}")[1]["object_id"], str(self.ids[5]))
        status, found = self.ask("/api/near?ra=10&dec=-89")
        self.assertEqual(status, 404)
        self.assertIn("no galaxy within", found["error"])

    def test_pictures_are_pictures(self):
        self.assertTrue(self.get("/image/3.jpg")[1].startswith(b"\xff\xd8"))
        self.assertTrue(self.get("/spectrum/3.svg")[1].startswith(b"<svg xmlns"))

    def test_what_is_wrong_is_told_and_nothing_else_is_served(self):
        for path, word in (("/api/search?id=5&mode=ii", "no object 5"), ("/api/search?id=x", "not an object_id"),
                           (f"/api/search?id={self.ids[0]}&mode=xx", "no mode"), ("/api/near?ra=a&dec=1", "two numbers"),
                           ("/image/300.jpg", "no row 300")):
            status, found = self.ask(path)
            self.assertEqual(status, 404)
            self.assertIn(word, found["error"])
        for path in ("/../serve_search.py", "/serving/page.html", "/etc/passwd", "/image/..%2f3.jpg"):
            self.assertEqual(self.get(path)[0], 404)
        self.assertEqual(self.get("/", host="elsewhere.example")[0], 403)
        self.assertIn("default-src 'self'", self.get("/")[2]["Content-Security-Policy"])

    @unittest.skipUnless(BROWSER, "no chromium")
    def test_page_shows_neighbours_in_a_browser(self):
        for mode in ("ii", "is"):
            done = subprocess.run([BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                                   "--virtual-time-budget=8000", "--dump-dom",
                                   f"--user-data-dir={self.folder}/browser", f"{self.address}#{self.ids[3]}/{mode}"],
                                  capture_output=True, text=True, timeout=90, check=True)
            self.assertEqual(done.stdout.count("<figure"), 24)
            for kind in ("image", "spectrum"):  # of each neighbour both, and of the query
                self.assertEqual(done.stdout.count(f'src="/{kind}/'), 25)
            self.assertIn(str(self.ids[3]), done.stdout)


class ServeFromDisk(Serve):
    """The vectors do not fit: they are read for each search."""
    memory = "0"


class Wrong(unittest.TestCase):
    def test_a_catalogue_that_is_not_there_is_told(self):
        done = subprocess.run([sys.executable, str(HOME / "tools/serve_search.py"), "/nonexistent"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 66)
        self.assertIn("manifest.json", done.stderr)

    def test_a_port_that_is_taken_is_named(self):
        with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as other:
            make_stores(pathlib.Path(folder), np.random.default_rng(1))
            port = str(other.getsockname()[1])
            for asked, code, words in ((port, 64, f"port {port} of 127.0.0.1: Address already in use; --port N takes another"),
                                       ("99999", 2, "0 to 65535")):
                done = subprocess.run([sys.executable, str(HOME / "tools/serve_search.py"), f"{folder}/embeddings", "--port", asked],
                                      capture_output=True, text=True, timeout=60)
                self.assertEqual(done.returncode, code, done.stderr)
                self.assertIn(words, done.stderr)

    def test_without_spectra_images_alone_are_shown(self):
        with tempfile.TemporaryDirectory() as folder:
            make_stores(pathlib.Path(folder), np.random.default_rng(1))
            shutil.rmtree(f"{folder}/spectra")
            with subprocess.Popen([sys.executable, str(HOME / "tools/serve_search.py"), f"{folder}/embeddings", "--port", "0"],
                                  stdout=subprocess.PIPE, text=True) as server:
                try:
                    with urllib.request.urlopen(server.stdout.readline().strip() + "api/random", timeout=60) as reply:
                        self.assertEqual(json.load(reply)["pictures"], ["image"])
                finally:
                    server.terminate()


if __name__ == "__main__":
    unittest.main(verbosity=2)
