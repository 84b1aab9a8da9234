"""Where the galaxies of a catalogue lie: its vectors in a plane, coloured by what is known of them."""

import sys
import warnings

import numpy as np

from . import figures
from .page import captioned, escape, grid
from .run_folder import looked_up

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


class Known:
    """What maps are coloured by: redshift, photometry and the labels of the evaluation, read once for all planes."""

    def __init__(self, run, store):
        self.run = run
        self.redshift = store["object_id"][:], store["z_spec"][:]
        self.labelled, self.labels = run.properties()

    def of(self, ids):
        """{what: values [ids]}"""
        magnitudes = self.run.magnitudes(ids)
        return {"redshift": looked_up(ids, *self.redshift),
                **{label: looked_up(ids, self.labelled, truth) for label, (truth, _) in self.labels.items()},
                "r [mag]": magnitudes[:, 1], "g − r [mag]": magnitudes[:, 0] - magnitudes[:, 1]}


def drawn_plane(run, known, modality, name, axes, ids, points):
    """A plane with galaxies in it, and coloured by each thing that is known of them."""
    title = modality.capitalize()
    drawn = [f"<h3>{title} embeddings by {name}</h3>"]
    rows = run.image_rows(ids)
    if np.any(rows >= 0):
        picture = figures.galaxy_map(title, points[rows >= 0], run.store("images"), rows[rows >= 0], axes)
        drawn.append(grid([captioned(picture, f"<b>{title} embeddings</b>, galaxies at their places ({name}): of each cell the one nearest its middle")],
                          "figures one"))
    drawn.append(grid([captioned(figures.embedding_map(title, points, values, label, axes),
                                 f"<b>{title} embeddings</b> by {escape(label)} ({name})")
                       for label, values in known.of(ids).items() if np.isfinite(values).any()]))
    return drawn


def maps(run, store, planes=("PCA",), modalities=("image", "spectrum"), components=(np.empty(0, np.int64), {})):
    """(the store's embeddings in planes, as HTML, how many of its galaxies they show at most). components: (ids, {modality: [n, 2]}),
    the principal components of some of its galaxies where they are known already."""
    rows = np.unique(np.linspace(0, store.rows - 1, min(store.rows, POINTS)).astype(np.int64))
    known = Known(run, store)
    drawn, shown = [], 0
    for modality in modalities:
        chosen = rows[store[f"has_{modality}"][rows] > 0]
        for name in planes:
            plane, axes, fewest = PLANES[name]
            if name == "PCA" and modality in components[1]:
                ids, points = components[0], components[1][modality]
                ids, points = ids[np.isfinite(points).all(axis=1)], points[np.isfinite(points).all(axis=1)]
            elif len(chosen) >= fewest:
                ids, points = store["object_id"][chosen], plane(store[f"{modality}_embedding"][chosen].astype(np.float64))
            else:
                continue
            if len(ids) >= fewest:
                drawn += drawn_plane(run, known, modality, name, axes, ids, points)
                shown = max(shown, len(ids))
    return drawn, shown
