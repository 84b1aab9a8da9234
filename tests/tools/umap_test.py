#!/usr/bin/env python3
"""Maps by UMAP in the report of a made-up run. Ends with 77 where umap-learn is not installed."""

import importlib.util
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np

from report_test import make_stores
from reporting.main import write_report
from reporting.maps import umap_plane


class Umap(unittest.TestCase):
    def test_maps_by_umap_stand_beside_those_by_principal_components(self):
        with tempfile.TemporaryDirectory() as name:
            make_stores(Path(name), np.random.default_rng(1))
            page = write_report(name, ("PCA", "UMAP")).read_text(encoding="utf-8")
        for label in ("redshift", "r [mag]", "g − r [mag]"):
            for modality in ("Image", "Spectrum"):
                for plane in ("PCA", "UMAP"):
                    self.assertIn(f"<b>{modality} embeddings</b> by {label} ({plane})", page)

    def test_neighbours_stay_together_in_a_plane_that_is_the_same_every_time(self):
        random = np.random.default_rng(2)
        vectors = np.concatenate([centre + 0.1 * random.normal(size=(40, 8)) for centre in np.eye(8)[:3]])
        plane = umap_plane(vectors)
        np.testing.assert_array_equal(plane, umap_plane(vectors))
        groups = plane.reshape(3, 40, 2)
        centres, widths = groups.mean(axis=1), groups.std(axis=1).max()
        for one, other in ((0, 1), (0, 2), (1, 2)):
            self.assertGreater(np.linalg.norm(centres[one] - centres[other]), 2 * widths)


if __name__ == "__main__":
    if importlib.util.find_spec("umap") is None:
        print("skipped: umap-learn is not installed; tools/setup.sh --readers installs it")
        sys.exit(77)
    unittest.main()
