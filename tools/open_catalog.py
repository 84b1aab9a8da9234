#!/usr/bin/env python3
"""Opens a store (the catalogue of embeddings, or any other) as an astropy Table.

    from open_catalog import open_catalog
    table = open_catalog("run/embeddings", columns=["object_id", "ra", "dec", "image_embedding"])

A part of a store that is missing or cut short would read as fill values through index.h5 without an error, so the files
are compared with the manifest first. On the command line: open_catalog.py STORE [--columns A,B] [--rows 0:10] prints it.
"""

import argparse
import json
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.dont_write_bytecode = True
    from needed import need

    need("astropy", "h5py", "numpy")

import h5py  # noqa: E402
import numpy as np  # noqa: E402


class StoreError(Exception):
    """The store is incomplete, or not what its manifest says."""


class JoinedColumn:
    """A column of another store, row by row beside the rows of this one; NaN where `places` has -1."""

    def __init__(self, dataset, places):
        self.dataset, self.places = dataset, places
        self.dtype, self.attrs = dataset.dtype, dataset.attrs
        self.shape = (len(places), *dataset.shape[1:])
        self.ndim = len(self.shape)

    def __len__(self):
        return len(self.places)

    def __getitem__(self, rows):
        places = self.places[rows]
        values = np.full((*places.shape, *self.shape[1:]), np.nan, self.dtype)
        found = places >= 0
        if found.any():
            first, last = places[found].min(), places[found].max() + 1
            values[found] = self.dataset[first:last][places[found] - first]
        return values


class Store:
    """A complete store, open for reading: `store["flux"][rows]`."""

    def __init__(self, path, kind=None):
        self.path = Path(path)
        self.manifest = self._read_manifest()
        self.content = self.manifest["content"]
        self.kind = self.manifest.get("kind")
        if kind is not None and self.kind != kind:
            raise StoreError(f"{self.path}: is a store of kind '{self.kind}', '{kind}' expected")
        self._compare_files()
        self.rows = int(self.content["rows"])
        self.file = h5py.File(self.path / "index.h5", "r")
        self.columns = [column["name"] for column in self.content["schema"]["columns"]]
        self.joined = {}

    def join(self, predictions):
        """Adds the columns of a store of predictions that evaluate made of this catalogue: of its rows with an image, in their order."""
        if predictions.manifest["request"]["inputs"].get("embeddings") != self.manifest["content_id"]:
            raise StoreError(f"{predictions.path}: was made of catalogue {predictions.manifest['request']['inputs'].get('embeddings')}, "
                             f"not of {self.manifest['content_id']} ({self.path})")
        found = self["has_image"][:] == 1
        if not np.array_equal(self["object_id"][:][found], predictions["object_id"][:]):
            raise StoreError(f"{predictions.path}: its galaxies are not those of {self.path} that have an image")
        places = np.where(found, np.cumsum(found) - 1, -1)
        for name in predictions.columns[1:]:
            if name in self:
                raise StoreError(f"{predictions.path}: has a column '{name}', and so has {self.path}")
            self.joined[name] = JoinedColumn(predictions[name], places)
            self.columns.append(name)

    def _read_manifest(self):
        path = self.path / "manifest.json"
        if not path.is_file():
            raise StoreError(f"{self.path}: has no manifest.json: it is not complete, or not a store")
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: {error}") from error
        if not isinstance(manifest, dict) or "schema" not in manifest.get("content", {}):
            raise StoreError(f"{path}: is not the manifest of a store")
        return manifest

    def _compare_files(self):
        for entry in self.manifest["files"]:
            path = self.path / entry["name"]
            if not path.is_file():
                raise StoreError(f"{path}: is missing")
            if path.stat().st_size != entry["bytes"]:
                raise StoreError(f"{path}: has {path.stat().st_size} bytes, the manifest says {entry['bytes']}")

    def __getitem__(self, column):
        if column in self.joined:
            return self.joined[column]
        if column not in self.file:
            raise StoreError(f"{self.path}: has no column '{column}' (there are {', '.join(self.columns)})")
        return self.file[column]

    def __contains__(self, column):
        return column in self.file or column in self.joined

    @property
    def attributes(self):
        return dict(self.file.attrs)


def open_beside(path, kind, asked_for):
    """The store; None if it is not there, or not whole, and nobody asked for it."""
    try:
        return Store(path, kind)
    except StoreError:
        if asked_for:
            raise
        return None


def text(value):
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def open_catalog(path, columns=None, rows=slice(None), predictions=None):
    """The store's columns (all of them, or those named) as a Table, with units and descriptions; with those of a store of
    predictions, if one is given."""
    from astropy import units
    from astropy.table import Column, Table

    store = Store(path)
    if predictions:
        store.join(Store(predictions, "predictions"))
    table = Table(meta={key: text(value) if isinstance(value, bytes) else value for key, value in store.attributes.items()})
    for name in columns or store.columns:
        dataset = store[name]
        unit = text(dataset.attrs.get("unit", "")) or None
        table[name] = Column(np.asarray(dataset[rows]), description=text(dataset.attrs.get("description", "")),
                             unit=units.Unit(unit, format="fits", parse_strict="silent") if unit else None)
    return table


def row_range(word):
    try:
        first, _, last = word.partition(":")
        return slice(int(first or 0), int(last) if last else None)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"FIRST:LAST expected, found '{word}'") from error


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", metavar="STORE", help="folder of the store")
    parser.add_argument("--columns", type=lambda word: word.split(","), help="names, separated by commas")
    parser.add_argument("--rows", type=row_range, default=slice(0, 10), metavar="FIRST:LAST", help="default 0:10")
    parser.add_argument("--predictions", metavar="STORE", help="what evaluate predicted of the catalogue, as more columns")
    arguments = parser.parse_args()
    table = open_catalog(arguments.store, arguments.columns, arguments.rows, arguments.predictions)
    table.info("attributes")
    table.pprint_all()


def run_tool(name, body):
    """Ends the program with what `body` returns, or with one message and the exit code of what it met."""
    try:
        sys.exit(body())
    except StoreError as error:
        message, code = error, 66
    except OSError as error:
        message, code = error, 74
    print(f"{name}: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    run_tool("open_catalog", main)
