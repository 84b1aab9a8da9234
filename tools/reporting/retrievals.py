"""Queries and their neighbours as HTML: thumbnails of images, small spectra."""

import math

import numpy as np

from . import figures
from .page import escape, figure_text

MODES = (("ii", "image → images"), ("si", "spectrum → images"), ("ss", "spectrum → spectra"), ("is", "image → spectra"))
NEIGHBOURS_SHOWN = 5


class Pictures:
    """Thumbnails and small spectra of the objects that queries and their neighbours are, by the object_id that they have in the
    catalogue. Stores that are not there are None; `own` is what a search keeps of a user's own files (queries.h5), if anything."""

    def __init__(self, images, spectra, pairs, queries, own=None):
        self.images, self.spectra = images, spectra
        self.own = {kind: (own[kind], {int(place): row for row, place in enumerate(own[kind]["query"])}) for kind in own or ()}
        wanted = {one["object_id"] for query in queries for one in [query, *(n for found in query["neighbours"].values() for n in found)]}
        wanted = np.array(sorted(one for one in wanted if one is not None), dtype=np.int64)
        self.image_rows, self.spectrum_rows = self._rows(images, wanted), self._rows(spectra, wanted)
        if pairs is not None:
            for row in np.flatnonzero(np.isin(pairs["object_id"][:], wanted)):
                one = int(pairs["object_id"][row])
                self.image_rows[one], self.spectrum_rows[one] = int(pairs["image_row"][row]), int(pairs["spectrum_row"][row])
        self.wavelength = spectra["wavelength"][:] if spectra is not None else None

    @staticmethod
    def _rows(store, wanted):
        if store is None:
            return {}
        ids = store["object_id"][:]
        return {int(ids[row]): int(row) for row in np.flatnonzero(np.isin(ids, wanted))}

    def image(self, one):
        row = self.image_rows.get(one["object_id"])
        return '<p class="missing">no image</p>' if row is None else \
            figures.thumbnail(self.images, row, f"image of object {one['object_id']}")

    def spectrum(self, one):
        row = self.spectrum_rows.get(one["object_id"])
        if row is None:
            return '<p class="missing">no spectrum</p>'
        redshift = one["z_spec"] if one.get("z_spec") is not None else math.nan
        return figures.spectrum_picture(self.wavelength, self.spectra["flux"][row], self.spectra["ivar"][row], redshift,
                                        f"spectrum of object {one['object_id']}")

    def of_own(self, place, name):
        """What there is of the query at this place of the results."""
        drawn = []
        if place in self.own.get("images", (None, ()))[1]:
            store, rows = self.own["images"]
            drawn.append(figures.thumbnail(store, rows[place], f"image of {name}"))
        if place in self.own.get("spectra", (None, ()))[1]:
            store, rows = self.own["spectra"]
            drawn.append(figures.spectrum_picture(store["wavelength"][:], store["flux"][rows[place]], store["ivar"][rows[place]], math.nan,
                                                  f"spectrum of {name}"))
        return drawn


def redshift_text(one):
    return f"z {figure_text(one.get('z_spec'))}"


def strip(query, mode, title, pictures, most=NEIGHBOURS_SHOWN):
    found = query.get("neighbours", {}).get(mode)
    if not found:
        return ""
    across = mode in ("is", "si")
    own = query.get("row") is None  # that the galaxy of an own file is found in the catalogue is news
    shown = [one for one in found if across or own or one["object_id"] != query["object_id"]][:most]
    draw, kind = (pictures.image, "") if mode.endswith("i") else (pictures.spectrum, " spectra")
    cells = []
    for one in shown:
        partner = across and one["object_id"] == query["object_id"]
        mark, note = (" partner", "<br><em>true partner</em>") if partner else ("", "")
        cells.append(f'<div class="cell{mark}" title="object {one["object_id"]}, RA {one["ra"]:.6f}, Dec {one["dec"]:.6f}">{draw(one)}'
                     f'{redshift_text(one)} · {figure_text(one["score"])}{note}</div>')
    return f'<div class="strip{kind}"><h4>{escape(title)}</h4><div>{"".join(cells)}</div></div>'


def mode_title(query, mode, title):
    """Of the mean of examples only those count that have what is asked for."""
    if not query.get("examples"):
        return title
    number = query["examples"]["image" if mode.startswith("i") else "spectrum"]
    return f"{title}, mean of {number} {'images' if mode.startswith('i') else 'spectra'}"


def query_card(query, pictures, most=NEIGHBOURS_SHOWN, place=None):
    """`place`: of the query in the results."""
    own = query.get("row") is None
    name = query.get("name", "") if own else f'object {query["object_id"]}'
    drawn = pictures.of_own(place, name) if own else [pictures.image(query)] + ([pictures.spectrum(query)] if pictures.spectra is not None else [])
    shown = "".join(f'<div class="cell">{one}</div>' for one in drawn)
    if own and query["object_id"] is not None:
        name += f' (object {query["object_id"]})'
    subject = (f'<div class="subject">{shown}<p><b>{escape(redshift_text(query))}</b><br>{escape(name)}<br>'
               f'RA {figure_text(query.get("ra"), 5, "°")}, Dec {figure_text(query.get("dec"), 5, "°")}</p></div>')
    strips = "".join(strip(query, mode, mode_title(query, mode, title), pictures, most) for mode, title in MODES)
    return f'<article class="query">{subject}<div>{strips}</div></article>'
