"""Where the galaxies of a catalogue lie: its vectors in a plane, coloured by what is known of them."""

import sys
import warnings

import numpy as np

from . import figures
from .page import captioned

POINTS = 5000


def principal_plane(vectors):
    """Their first two principal components, [n, 2]."""
    centred = vectors - vectors.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    return centred @ directions[:2].T


def umap_plane(vectors):
    """A plane that keeps neighbourhoods (McInnes et al. 2018), always the same one, [n, 2]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the thread that a fixed seed leaves it
        return import_umap()(metric="cosine", random_state=1, n_neighbors=min(15, len(vectors) - 1)).fit_transform(vectors)


def import_umap():
    """The class UMAP, or the end of the program with what to do."""
    try:
        from umap import UMAP
    except ImportError as error:
        sys.exit(f"{error}: UMAP needs the package umap-learn, which tools/setup.sh --readers installs (or: pip install umap-learn)")
    return UMAP


# name: (the plane, the names of its axes, the fewest galaxies that it needs)
PLANES = {"PCA": (principal_plane, ("first principal component", "second"), 3), "UMAP": (umap_plane, ("UMAP 1", "UMAP 2"), 16)}


def maps(run, store, planes=("PCA",), modalities=("image", "spectrum")):
    """(captioned maps of the store's embeddings by redshift, magnitude and colour, how many of its galaxies they show)."""
    rows = np.unique(np.linspace(0, store.rows - 1, min(store.rows, POINTS)).astype(np.int64))
    magnitudes = run.magnitudes(store["object_id"][rows])
    colours = {"redshift": store["z_spec"][rows], "r [mag]": magnitudes[:, 1], "g − r [mag]": magnitudes[:, 0] - magnitudes[:, 1]}
    drawn = []
    for modality in modalities:
        chosen = store[f"has_{modality}"][rows] > 0
        vectors = store[f"{modality}_embedding"][rows[chosen]].astype(np.float64)
        for name in planes:
            plane, axes, fewest = PLANES[name]
            if len(vectors) < fewest:
                continue
            points = plane(vectors)
            drawn += [captioned(figures.embedding_map(modality.capitalize(), points, values[chosen], label, axes),
                                f"<b>{modality.capitalize()} embeddings</b> by {label} ({name})")
                      for label, values in colours.items() if np.isfinite(values[chosen]).any()]
    return drawn, len(rows)
