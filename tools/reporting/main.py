"""From a run folder to report.html and report.json."""

import json
import math
import os
import sys
import time
from pathlib import Path

import numpy as np

from . import figures
from .page import captioned, escape, figure_text, grid, missing, page, section, table, tile
from .run_folder import OUTPUTS, Run

METHODS = ("image", "spectrum", "untrained", "magnitudes", "pixels")
METHOD_NAMES = {
    "image": "image embedding",
    "spectrum": "spectrum embedding",
    "untrained": "untrained image encoder",
    "magnitudes": "g, r, z magnitudes",
    "pixels": "PCA of the pixels",
}
MODES = (("ii", "image → images"), ("si", "spectrum → images"), ("ss", "spectrum → spectra"), ("is", "image → spectra"))
QUERIES_SHOWN, NEIGHBOURS_SHOWN, MAP_POINTS = 8, 5, 5000


def dotted(name):
    return ("html", f'<span class="dot" style="background:{figures.COLOURS[name]}"></span>{escape(METHOD_NAMES[name])}')


def bold(text):
    return ("html", f"<b>{escape(text)}</b>")


# --- sections ------------------------------------------------------------------------------------------------------


def run_section(run, stages):
    facts = table(("", ""), [[name, value] for name, value in run.provenance()], "left") if run.provenance() else \
        missing("No stage has published anything yet.")
    rows = [[row["stage"], OUTPUTS[row["stage"]] + "/", row["state"], row["ranks"] or "–",
             figure_text(row["seconds"], 1, " s"), row["message"]] for row in stages]
    return section("run", "What was run", "", facts,
                   table(("stage", "output", "state", "ranks", "time", "message"), rows, "left"))


def input_section(run, rejects):
    if not rejects:
        return section("input", "What came in", "", missing("No store is complete yet."))
    rows = [[name, figure_text(one["objects"], 0), figure_text(one["rows"], 0), figure_text(one["total"], 0),
             figure_text(one["damage"], 0)] for name, one in rejects.items()]
    parts = [table(("store", "objects in", "rows", "rejected", "of these damaged"), rows)]
    reasons = [[name, reason, figure_text(kinds.get("selection", 0), 0), figure_text(kinds.get("damage", 0), 0)]
               for name, one in rejects.items() for reason, kinds in sorted(one["reasons"].items())]
    parts.append("<h3>Rejected, by reason</h3>" +
                 (table(("store", "reason", "by selection", "damaged"), reasons, "left") if reasons else "<p>Nothing was rejected.</p>"))
    counts = run.match_counts()
    if counts:
        parts.append("<h3>Matching</h3>" + table(("", "count"), [[key.replace("_", " "), figure_text(value, 0)]
                                                               for key, value in counts.items()]))
    return section("input", "What came in", "Every input object is a row of a store or is listed here. Selection leaves out what "
                   "is not a galaxy of the survey; damage is what could not be read or measured.", *parts)


def training_section(losses):
    titles = {"pretrain-image": "Image encoder", "pretrain-spectrum": "Spectrum encoder", "align": "Alignment"}
    colours = {"pretrain-image": figures.COLOURS["image"], "pretrain-spectrum": figures.COLOURS["spectrum"],
               "align": figures.INK}
    parts = []
    for stage, title in titles.items():
        if stage not in losses:
            parts.append(missing(f"{title}: no loss curve (stage {stage} has not written metrics)."))
            continue
        curve = losses[stage]
        last = curve["train"][-1] if curve["train"] else curve["validation"][-1]
        caption = f"<b>{title}</b>: {len(curve['train']):,} steps, last loss {figure_text(last[1], 4)}"
        if curve["validation"]:
            caption += f", best held-out loss {figure_text(min(v for _, v in curve['validation']), 4)}"
        parts.append(captioned(figures.loss_curve(title, curve, colours[stage]), caption))
    return section("training", "Training", "Loss at every step (faint), its running mean, and the loss on held-out galaxies.",
                   grid(parts))


ALIGNMENT = (("recall_at_1", "recall@1"), ("recall_at_5", "recall@5"), ("recall_at_10", "recall@10"))
ALIGNMENT_ALONE = (("loss", "loss at the scale of training", " nats"), ("loss_at_scale_1", "loss at scale 1", " nats"),
                   ("mutual_information_bound", "ln N − loss, a bound on the mutual information", " nats"),
                   ("mutual_neighbours", "pairs that are each other's nearest", ""),
                   ("modality_gap", "distance of the two centroids", ""),
                   ("effective_rank_image", "effective rank of the images", ""),
                   ("effective_rank_spectrum", "effective rank of the spectra", ""))


def similarity_picture(run, most=96):
    """The cosines of some held-out pairs, in the order of their redshifts, or None."""
    store, pairs = run.store("embeddings"), run.store("pairs")
    if store is None or pairs is None:
        return None
    held_out = np.asarray(pairs["object_id"][:])[np.asarray(pairs["split"][:]) == 1]
    ids = np.asarray(store["object_id"][:])
    both = np.isin(ids, held_out) & (store["has_image"][:] > 0) & (store["has_spectrum"][:] > 0)
    rows = np.flatnonzero(both)[:most]
    if len(rows) < 2:
        return None
    rows = rows[np.argsort(store["z_spec"][:][rows], kind="stable")]
    image, spectrum = (np.stack([store[f"{kind}_embedding"][row] for row in rows]) for kind in ("image", "spectrum"))
    return captioned(figures.similarity(image @ spectrum.T), f"{len(rows)} held-out galaxies: a pair is on the diagonal")


def alignment_section(run):
    found = run.alignment()
    if not found:
        return section("alignment", "Alignment", "", missing("Alignment has not validated yet."))
    both_ways = [[name, bold(figure_text(found.get(f"{key}_is"))), bold(figure_text(found.get(f"{key}_si")))] for key, name in ALIGNMENT]
    alone = [[name, figure_text(found.get(key), 3, unit)] for key, name, unit in ALIGNMENT_ALONE]
    picture = similarity_picture(run)
    return section("alignment", "Alignment", "Held-out pairs at the last validation of the training.",
                   table(("own partner among the nearest", "image → spectrum", "spectrum → image"), both_ways),
                   table(("", ""), alone), grid([picture] if picture else []))


def spectra_section(run):
    probe = run.probe()
    if not probe:
        return section("spectra", "Masked spectra", "", missing("Not probed: astroclip-probe-spectra writes RUN/probe.json."))
    errors = probe["reconstruction"]
    rows = [[name, figure_text(errors.get(key), 4)] for key, name, _ in figures.RECONSTRUCTIONS]
    if "noisy_flux" in errors:
        rows.append(["the noisy flux itself", figure_text(errors["noisy_flux"], 4)])
    redshift = [[name, bold(figure_text(one["r2"])), f"{figure_text(one['r2_low'])} – {figure_text(one['r2_high'])}",
                 figure_text(one["n"], 0)] for name, one in (("trained", probe["redshift"]["trained"]),
                                                             ("untrained", probe["redshift"]["untrained"]))]
    against = "the noiseless spectrum" if errors["against"] == "noiseless" else "the noisy flux, whose own noise no prediction can know"
    drawn = [captioned(figures.reconstruction_errors(probe, "by_wavelength", "wavelength"), "Error by wavelength"),
             captioned(figures.reconstruction_errors(probe, "by_snr", "snr"), "Error by signal to noise of the spectrum")]
    wavelength = run.wavelength()
    page = [captioned(figures.reconstruction(wavelength, one), f"object {one['object_id']}, z {figure_text(one['redshift'])}")
            for one in probe["page"]] if wavelength is not None else []
    return section("spectra", "Masked spectra", f"Parts of {figure_text(errors['spectra'], 0)} held-out spectra were hidden from the "
                   f"spectrum encoder. Mean squared error there, in units of each spectrum's own deviation, against {against}; and "
                   "R² of the redshift by nearest neighbours in the mean token, which no training saw.",
                   grid(drawn), table(("hidden samples by", "error"), rows),
                   table(("spectrum encoder", "R² of redshift", "95 % interval", "galaxies"), redshift),
                   "<h3>A page of them</h3>", grid(page, "figures two"))


def redshift_section(run, evaluation):
    scores = evaluation.get("photo_z", {})
    if not scores:
        return section("redshift", "Redshifts", "", missing("Not evaluated: the stage evaluate is not complete."))
    k = evaluation.get("neighbours", 64)
    rows = []
    for name in METHODS:
        if name in scores:
            one = scores[name]
            interval = f"{figure_text(one.get('r2_low'))} – {figure_text(one.get('r2_high'))}"
            rows.append([dotted(name), bold(figure_text(one.get("r2"))), interval, figure_text(one.get("sigma_nmad"), 4),
                         figure_text(one.get("bias"), 4), figure_text(100 * (one.get("outlier_fraction") or 0), 1, " %"),
                         figure_text(one.get("n"), 0)])
    parts = [f'<div class="wide">{figures.r2_bars(scores, METHODS)}</div>',
             table(("from", "R²", "95 % interval", "σ NMAD", "bias", "|Δz| > 0.05 (1+z)", "galaxies"), rows)]
    predictions = run.predictions()
    drawn = [captioned(figures.redshift_scatter(name, predictions["z_true"], predictions[name]),
                       f"<b>{escape(METHOD_NAMES[name])}</b>, R² {figure_text(scores[name].get('r2'))}")
             for name in METHODS if name in predictions and name in scores]
    parts.append(grid(drawn) if drawn else missing("The table of predictions is not there."))
    return section("redshift", "Redshifts", f"Predicted for held-out galaxies from the {k} nearest training galaxies, in the "
                   "embedding and in what needs no learning. The interval is a bootstrap over the held-out galaxies; the lower "
                   "panels show medians and 68 % bands.", *parts)


def retrieval_section(evaluation):
    scores = evaluation.get("retrieval", {})
    if not scores:
        return section("retrieval", "Finding the partner", "", missing("Not evaluated: the stage evaluate is not complete."))
    rows = []
    for mode, name in (("is", "image → spectrum"), ("si", "spectrum → image")):
        one = scores.get(mode)
        if one:
            rows.append([name, figure_text(one.get("recall_at_1")), figure_text(one.get("recall_at_5")),
                         bold(figure_text(one.get("recall_at_10"))), figure_text(one.get("chance"), 4),
                         bold(figure_text(one.get("times_chance"), 1, " ×")), figure_text(one.get("photometry")),
                         figure_text(one.get("median_rank"), 0), figure_text(one.get("photometry_median_rank"), 0),
                         figure_text(one.get("n"), 0)])
    header = ("query → catalogue", "recall@1", "recall@5", "recall@10", "chance@10", "over chance", "photometry@10",
              "median rank", "photometry's", "galaxies")
    return section("retrieval", "Finding the partner", "How often a held-out galaxy's own spectrum is among the first 1, 5 and 10 "
                   "found with its image, and the reverse. Photometry ranks partners by g, r, z magnitudes alone: the catalogue's "
                   "on the image's side, those integrated from the spectrum on the other.",
                   f'<div class="wide">{figures.recall_bars(scores)}</div>', table(header, rows))


def property_section(evaluation):
    scores = evaluation.get("properties")
    if not scores:
        return ""
    present = [name for name in METHODS if any(name in one for one in scores.values())]
    rows = []
    for label, one in scores.items():
        best = max((one[name]["r2"] for name in present if name in one and one[name].get("r2") is not None), default=None)
        cells = []
        for name in present:
            r2 = one.get(name, {}).get("r2")
            cells.append(bold(figure_text(r2)) if r2 is not None and r2 == best else figure_text(r2))
        rows.append([label, *cells])
    return section("properties", "Physical properties", "R² of the same regression for the labels that were given.",
                   table(("property", *(METHOD_NAMES[name] for name in present)), rows))


def principal_plane(vectors):
    centred = vectors - vectors.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    return centred @ directions[:2].T


def map_section(run):
    store = run.store("embeddings")
    if store is None or store.rows < 3:
        return section("map", "The map", "", missing("There is no complete catalogue of embeddings."))
    rows = np.unique(np.linspace(0, store.rows - 1, min(store.rows, MAP_POINTS)).astype(np.int64))
    redshift = store["z_spec"][rows]
    parts = []
    for modality in ("image", "spectrum"):
        chosen = store[f"has_{modality}"][rows] > 0
        if chosen.sum() >= 3:
            points = principal_plane(store[f"{modality}_embedding"][rows[chosen]].astype(np.float64))
            parts.append(captioned(figures.embedding_map(modality.capitalize(), points, redshift[chosen]),
                                   f"<b>{modality.capitalize()} embeddings</b>, {chosen.sum():,} of {store.rows:,} objects"))
    return section("map", "The map", "Two principal components of the unit vectors, coloured by spectroscopic redshift.", grid(parts))


# --- retrievals ----------------------------------------------------------------------------------------------------


class Pictures:
    """Thumbnails and small spectra of objects, by the object_id that they have in the catalogue."""

    def __init__(self, run):
        self.images, self.spectra, pairs = (run.store(name) for name in ("images", "spectra", "pairs"))
        self.image_rows = self._rows(self.images)
        self.spectrum_rows = self._rows(self.spectra)
        if pairs is not None:
            for object_id, image, spectrum in zip(pairs["object_id"][:], pairs["image_row"][:], pairs["spectrum_row"][:]):
                self.image_rows[int(object_id)], self.spectrum_rows[int(object_id)] = int(image), int(spectrum)
        self.wavelength = self.spectra["wavelength"][:] if self.spectra is not None else None

    @staticmethod
    def _rows(store):
        return {} if store is None else {int(each): row for row, each in enumerate(store["object_id"][:])}

    def image(self, one):
        row = self.image_rows.get(one["object_id"])
        return '<p class="missing">no image</p>' if row is None else \
            figures.thumbnail(self.images["flux"][row], f"image of object {one['object_id']}")

    def spectrum(self, one):
        row = self.spectrum_rows.get(one["object_id"])
        if row is None:
            return '<p class="missing">no spectrum</p>'
        redshift = one["z_spec"] if one.get("z_spec") is not None else math.nan
        return figures.spectrum_picture(self.wavelength, self.spectra["flux"][row], self.spectra["ivar"][row], redshift,
                                        f"spectrum of object {one['object_id']}")


def redshift_text(one):
    return f"z {figure_text(one.get('z_spec'))}"


def strip(query, mode, title, pictures):
    found = query.get("neighbours", {}).get(mode)
    if not found:
        return ""
    across = mode in ("is", "si")
    shown = [one for one in found if across or one["object_id"] != query["object_id"]][:NEIGHBOURS_SHOWN]
    draw, kind = (pictures.image, "") if mode.endswith("i") else (pictures.spectrum, " spectra")
    cells = []
    for one in shown:
        partner = across and one["object_id"] == query["object_id"]
        mark, note = (" partner", "<br><em>true partner</em>") if partner else ("", "")
        cells.append(f'<div class="cell{mark}">{draw(one)}{redshift_text(one)} · {figure_text(one["score"])}{note}</div>')
    return f'<div class="strip{kind}"><h4>{escape(title)}</h4><div>{"".join(cells)}</div></div>'


def query_card(query, pictures):
    subject = (f'<div class="subject"><div class="cell">{pictures.image(query)}</div><div class="cell">{pictures.spectrum(query)}</div>'
               f'<p><b>{escape(redshift_text(query))}</b><br>object {escape(query["object_id"])}<br>'
               f'RA {figure_text(query.get("ra"), 5, "°")}, Dec {figure_text(query.get("dec"), 5, "°")}</p></div>')
    return f'<article class="query">{subject}<div>{"".join(strip(query, *mode, pictures) for mode in MODES)}</div></article>'


def search_section(run):
    queries = run.search.get("queries", [])
    if not queries:
        return section("search", "Retrievals", "", missing("There are none: the stage search is not complete."))
    pictures = Pictures(run)
    shown = queries[:QUERIES_SHOWN]
    lead = (f"The first {len(shown)} of {len(queries)} queries, searched among {run.search.get('pool', 0):,} galaxies. Below each picture: "
            "redshift and cosine similarity. Within one modality the query itself, always first, is left out; across modalities a "
            "frame marks its true partner. Spectra carry the places of common lines at their redshift. All of it: "
            "<code>search/results.csv</code>.")
    return section("search", "Retrievals", lead, *(query_card(query, pictures) for query in shown))


# --- all of it -----------------------------------------------------------------------------------------------------


def key_tiles(evaluation, rejects):
    tiles = []
    for mode, label in (("is", "image → spectrum recall@10"), ("si", "spectrum → image recall@10")):
        one = evaluation.get("retrieval", {}).get(mode)
        if one:
            tiles.append(tile(figure_text(one.get("recall_at_10")), label,
                              f"{figure_text(one.get('times_chance'), 1)} × chance; photometry {figure_text(one.get('photometry'))}"))
    scores = evaluation.get("photo_z", {})
    if "image" in scores:
        tiles.append(tile(figure_text(scores["image"].get("r2")), "R² of redshift from images",
                          f"untrained {figure_text(scores.get('untrained', {}).get('r2'))}, "
                          f"magnitudes {figure_text(scores.get('magnitudes', {}).get('r2'))}"))
    if "spectrum" in scores:
        tiles.append(tile(figure_text(scores["spectrum"].get("r2")), "R² of redshift from spectra",
                          f"σ NMAD {figure_text(scores['spectrum'].get('sigma_nmad'), 4)}"))
    if "embeddings" in rejects:
        tiles.append(tile(figure_text(rejects["embeddings"]["rows"], 0), "objects in the catalogue",
                          f"{figure_text(sum(one['total'] for one in rejects.values()), 0)} rejected on the way"))
    return tiles


def summary(run, stages, rejects, losses):
    """report.json: the evaluation as it is, and what else the page tells."""
    short = {stage: {"steps": len(curve["train"]),
                     "first": curve["train"][0][1] if curve["train"] else None,
                     "last": curve["train"][-1][1] if curve["train"] else None,
                     "best_validation": min((v for _, v in curve["validation"]), default=None)}
             for stage, curve in losses.items()}
    probe = {key: value for key, value in run.probe().items() if key != "page"}
    return {**run.evaluation, "masked_spectra": probe, "run": str(run.path), "stages": stages, "rejects": rejects, "losses": short}


def finite(value):
    """Without what JSON cannot hold."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_atomically(path, content):
    temporary = path.with_name(f"{path.name}.part.{os.getpid()}")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_report(path):
    run = Run(path)
    stages, rejects, losses = run.stages(), run.rejects(), run.losses()
    sections = [
        retrieval_section(run.evaluation),
        redshift_section(run, run.evaluation),
        property_section(run.evaluation),
        search_section(run),
        map_section(run),
        training_section(losses),
        alignment_section(run),
        spectra_section(run),
        input_section(run, rejects),
        run_section(run, stages),
    ]
    names = [("retrieval", "Partners"), ("redshift", "Redshifts"), ("properties", "Properties"), ("search", "Retrievals"),
             ("map", "Map"), ("training", "Training"),
             ("alignment", "Alignment"), ("spectra", "Masked spectra"), ("input", "Input"), ("run", "Run")]
    names = [(anchor, name) for (anchor, name), text in zip(names, sections) if text]
    complete = sum(row["state"] == "complete" for row in stages)
    subtitle = f"{run.path} · {complete} of {len(stages)} stages complete · {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}"
    folder = run.path / "report"
    folder.mkdir(exist_ok=True)
    write_atomically(folder / "report.html", page(f"Report of {run.path.name}", subtitle, key_tiles(run.evaluation, rejects),
                                                  sections, names))
    write_atomically(folder / "report.json", json.dumps(finite(summary(run, stages, rejects, losses)), indent=1) + "\n")
    return folder / "report.html"


def main(arguments):
    if arguments in (["-h"], ["--help"]):
        print("usage: tools/report RUN\n\nWrites RUN/report/report.html and RUN/report/report.json.")
        return 0
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: tools/report RUN", file=sys.stderr)
        return 64
    if not Path(arguments[0]).is_dir():
        print(f"report: {arguments[0]}: there is no such run folder", file=sys.stderr)
        return 66
    try:
        print(write_report(arguments[0]))
    except OSError as error:
        print(f"report: {error}", file=sys.stderr)
        return 74
    return 0
