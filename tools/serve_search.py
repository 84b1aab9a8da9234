#!/usr/bin/env python3
"""A page for searching a catalogue by eye: type an object or a position, or click a galaxy; served to this machine alone.

usage: tools/serve_search.py CATALOGUE [--images STORE] [--spectra STORE] [--pairs STORE] [--port N] [--memory GB]
The stores default to images, spectra and pairs beside CATALOGUE; without them there are no pictures. Nothing is written. Vectors are
kept in memory as far as --memory allows (1 million galaxies of 512 numbers: 2 GB a modality), and read for each search otherwise.
"""

import argparse
import json
import math
import os
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
from needed import need  # noqa: E402

if __name__ == "__main__":
    need("h5py", "matplotlib", "numpy")

import numpy as np  # noqa: E402

from open_catalog import Store, StoreError, open_beside, run_tool  # noqa: E402

MODES = {"ii": ("image", "image"), "ss": ("spectrum", "spectrum"), "is": ("image", "spectrum"), "si": ("spectrum", "image")}
SHOWN, BLOCK_ROWS = 24, 65536
FILES = {"/": ("page.html", "text/html; charset=utf-8"), "/style.css": ("style.css", "text/css; charset=utf-8"), "/app.js": ("app.js", "text/javascript; charset=utf-8")}


class Refused(Exception):
    """A request that cannot be answered, and why."""


class Rows:
    """Rows of a store by object_id."""

    def __init__(self, ids, rows=None):
        order = np.argsort(ids, kind="stable")
        self.ids, self.rows = ids[order], (np.arange(len(ids)) if rows is None else rows)[order]

    def find(self, object_id):
        at = np.searchsorted(self.ids, object_id)
        return int(self.rows[at]) if at < len(self.ids) and self.ids[at] == object_id else None


class Catalogue:
    """The store of embeddings: small columns in memory, vectors too if they fit."""

    def __init__(self, path, memory_bytes):
        self.store = Store(path, "embeddings")
        if self.store.rows == 0:
            raise StoreError(f"{path}: has no rows")
        self.columns = {name: self.store[name][:] for name in ("object_id", "ra", "dec", "z_spec", "has_image", "has_spectrum")}
        self.by_id = Rows(self.columns["object_id"])
        self.memory_bytes = memory_bytes
        self.vectors = {}

    def of(self, row, score=None):
        facts = {name: values[row].item() for name, values in self.columns.items()}
        facts = {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in facts.items()}
        # 64-bit ids do not fit the numbers of a browser.
        return {**facts, "object_id": str(facts["object_id"]), "row": int(row), **({} if score is None else {"score": float(score)})}

    def blocks(self, modality):
        """The vectors, from memory or in pieces from disk."""
        dataset = self.store[f"{modality}_embedding"]
        size = dataset.shape[0] * dataset.shape[1] * 4
        if modality not in self.vectors and size <= self.memory_bytes:
            self.memory_bytes -= size
            self.vectors[modality] = dataset[:]
        if modality in self.vectors:
            yield 0, self.vectors[modality]
            return
        for first in range(0, dataset.shape[0], BLOCK_ROWS):
            yield first, dataset[first:first + BLOCK_ROWS]

    def nearest(self, row, mode, most):
        asked, searched = MODES[mode]
        query = self.store[f"{asked}_embedding"][row]
        best = []
        for first, block in self.blocks(searched):
            scores = block @ query
            scores[self.columns[f"has_{searched}"][first:first + len(block)] == 0] = -np.inf
            some = np.argpartition(-scores, min(most, len(scores) - 1))[:most]
            best += [(-scores[i], first + int(i)) for i in some if np.isfinite(scores[i])]
        return [self.of(found, -score) for score, found in sorted(best)[:most]]

    def near(self, ra, dec, most_arcsec=60):
        own_ra, own_dec = np.radians(self.columns["ra"]), np.radians(self.columns["dec"])
        a, d = math.radians(ra), math.radians(dec)
        half = np.sin((own_dec - d) / 2) ** 2 + np.cos(own_dec) * math.cos(d) * np.sin((own_ra - a) / 2) ** 2
        row = int(np.argmin(half))
        apart = math.degrees(2 * math.asin(math.sqrt(half[row]))) * 3600
        if apart > most_arcsec:
            raise Refused(f"no galaxy within {most_arcsec} arcsec; the nearest is {apart:.0f} arcsec away")
        return self.of(row)


class Pictures:
    """JPEG and SVG of a row of the catalogue."""

    def __init__(self, catalogue, images, spectra, pairs):
        self.catalogue, self.images, self.spectra = catalogue, images, spectra
        self.rows = {"image": [Rows(images["object_id"][:])] if images else [], "spectrum": [Rows(spectra["object_id"][:])] if spectra else []}
        if pairs is not None:  # a galaxy with both bears the id of the pair
            ids = pairs["object_id"][:]
            self.rows["image"].insert(0, Rows(ids, pairs["image_row"][:]))
            self.rows["spectrum"].insert(0, Rows(ids, pairs["spectrum_row"][:]))
        self.wavelength = spectra["wavelength"][:] if spectra else None
        self.kinds = [kind for kind, store in (("image", images), ("spectrum", spectra)) if store is not None]

    def row(self, kind, row):
        if not 0 <= row < self.catalogue.store.rows:
            raise Refused(f"there is no row {row}")
        store, object_id = (self.images, self.spectra)[kind == "spectrum"], self.catalogue.columns["object_id"][row]
        found = next((at for at in (rows.find(object_id) for rows in self.rows[kind]) if at is not None), None)
        if store is None or found is None:
            raise Refused(f"object {object_id} has no {kind}")
        return found

    def image(self, row):
        from reporting.figures import thumbnail_jpeg
        return thumbnail_jpeg(self.images, self.row("image", row))

    def spectrum(self, row):
        from reporting.figures import spectrum_picture
        at, z = self.row("spectrum", row), float(self.catalogue.columns["z_spec"][row])
        text = spectrum_picture(self.wavelength, self.spectra["flux"][at], self.spectra["ivar"][at], z, f"spectrum of row {row}")
        style = ("<style>.flux{fill:none;stroke:#275d8c;stroke-width:1.3}.base{stroke:#d4d0c6;fill:none}.line{stroke:#d9a58c;fill:none}"
                 "text{font:13px sans-serif;fill:#8a8f98;text-anchor:middle}</style>")
        head, _, rest = text.partition(">")
        return (head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"') + ">" + style + rest).encode()


class Service:
    """What the page asks for. HDF5 is used by one request at a time."""

    def __init__(self, catalogue, pictures):
        self.catalogue, self.pictures, self.lock = catalogue, pictures, threading.Lock()

    def answer(self, path, options):
        if path in FILES:
            name, kind = FILES[path]
            return kind, (Path(__file__).resolve().parent / "serving" / name).read_bytes()
        drawn = re.fullmatch(r"/(image|spectrum)/(\d{1,12})\.(jpg|svg)", path)
        with self.lock:
            if drawn:
                kind, row = drawn[1], int(drawn[2])
                return ("image/jpeg", self.pictures.image(row)) if kind == "image" else ("image/svg+xml", self.pictures.spectrum(row))
            calls = {"/api/about": self.about, "/api/random": self.random, "/api/near": self.near, "/api/search": self.search}
            if path not in calls:
                return None
            return "application/json", json.dumps(calls[path](options)).encode()

    def about(self, _):
        store = self.catalogue.store
        return {"text": f"{store.rows:,} galaxies of {store.path}, cosine similarity of their embeddings, exact"}

    def random(self, _):
        has = self.catalogue.columns["has_image"] > 0
        kind = "image" if has.any() and self.pictures.images is not None else "spectrum"
        rows = np.flatnonzero(has if kind == "image" else self.catalogue.columns["has_spectrum"] > 0)
        some = np.random.default_rng().choice(rows, min(SHOWN, len(rows)), replace=False)
        return {"galaxies": [self.catalogue.of(row) for row in some], "across": False, "pictures": self.pictures.kinds}

    def near(self, options):
        try:
            ra, dec = float(options.get("ra", "")), float(options.get("dec", ""))
        except ValueError:
            raise Refused("a position is two numbers: RA and Dec in degrees") from None
        if not (math.isfinite(ra) and abs(dec) <= 90):
            raise Refused(f"RA {ra}, Dec {dec} is no position")
        return self.catalogue.near(ra, dec)

    def search(self, options):
        mode = options.get("mode", "ii")
        if mode not in MODES:
            raise Refused(f"there is no mode '{mode[:20]}'")
        text = options.get("id", "")
        if not re.fullmatch(r"-?\d{1,19}", text):
            raise Refused(f"'{text[:40]}' is not an object_id")
        row = self.catalogue.by_id.find(int(text))
        if row is None:
            raise Refused(f"the catalogue holds no object {text}")
        asked, searched = MODES[mode]
        if not self.catalogue.columns[f"has_{asked}"][row]:
            raise Refused(f"object {text} has no {asked}")
        start = time.perf_counter()
        galaxies = self.catalogue.nearest(row, mode, SHOWN)
        return {"query": self.catalogue.of(row), "galaxies": galaxies, "across": asked != searched,
                "pictures": self.pictures.kinds, "seconds": time.perf_counter() - start}


class Handler(BaseHTTPRequestHandler):
    server_version, sys_version, protocol_version = "astroclip", "", "HTTP/1.1"

    def do_GET(self):
        port = self.server.server_address[1]
        if self.headers.get("Host", "") not in (f"127.0.0.1:{port}", f"localhost:{port}"):
            return self.reply(403, "text/plain", b"for this machine alone\n")  # another site's name that leads here
        try:
            url = urlparse(self.path)
            answer = self.server.service.answer(url.path, {name: values[0] for name, values in parse_qs(url.query).items()})
        except (Refused, ValueError) as error:
            return self.reply(404, "application/json", json.dumps({"error": str(error)}).encode())
        except (StoreError, OSError) as error:
            return self.reply(500, "application/json", json.dumps({"error": str(error)}).encode())
        return self.reply(200, *answer) if answer else self.reply(404, "text/plain", b"not found\n")

    def reply(self, code, kind, body):
        self.send_response(code)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store"),
                            ("X-Content-Type-Options", "nosniff"),
                            ("Content-Security-Policy", "default-src 'self'; style-src 'self' 'unsafe-inline'")):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def port_number(word):
    if not re.fullmatch(r"\d{1,5}", word) or int(word) > 65535:
        raise argparse.ArgumentTypeError(f"a number from 0 to 65535 expected, found '{word}'")
    return int(word)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", metavar="CATALOGUE", type=Path)
    for kind in ("images", "spectra", "pairs"):
        parser.add_argument(f"--{kind}", type=Path, metavar="STORE")
    parser.add_argument("--port", type=port_number, default=8642, metavar="N", help="default %(default)s; 0: any")
    parser.add_argument("--memory", type=float, default=4, metavar="GB", help="for vectors (default %(default)s)")
    arguments = parser.parse_args()
    catalogue = Catalogue(arguments.catalogue, int(arguments.memory * 1e9))
    beside = arguments.catalogue.resolve().parent
    stores = [open_beside(getattr(arguments, kind) or beside / kind, kind, getattr(arguments, kind) is not None)
              for kind in ("images", "spectra", "pairs")]
    try:
        server = ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler)
    except OSError as error:
        print(f"serve_search: port {arguments.port} of 127.0.0.1: {error.strerror}; --port N takes another, --port 0 any that is free", file=sys.stderr)
        return 64
    server.service = Service(catalogue, Pictures(catalogue, *stores))
    print(f"http://127.0.0.1:{server.server_address[1]}/", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    run_tool("serve_search", main)
