"""From a run folder to report.html and report.json."""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np

from checkpoints.errors import DataError

from . import figures
from .maps import import_umap, maps
from .page import captioned, escape, figure_text, grid, missing, page, section, table, tile, with_interval
from .retrievals import Pictures, query_card
from .run_folder import OUTPUTS, Parser, open_run, write_atomically

METHODS = ("image", "spectrum", "untrained", "magnitudes", "pixels")
METHOD_NAMES = {
    "image": "image embedding",
    "spectrum": "spectrum embedding",
    "untrained": "untrained image encoder",
    "magnitudes": "g, r, z magnitudes",
    "pixels": "PCA of the pixels",
}
QUERIES_SHOWN = 8


def in_order(names):
    """Our own descriptions first, then the others as they come."""
    return [name for name in METHODS if name in names] + [name for name in names if name not in METHODS]


def method_name(name):
    return METHOD_NAMES.get(name, name)


def dotted(name):
    return ("html", f'<span class="dot" style="background:{figures.colour_of(name)}"></span>{escape(method_name(name))}')


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


ALIGNMENT_CURVES = (("recall among held-out pairs", {"val_recall_at_1_is": "@1, image → spectrum", "val_recall_at_1_si": "@1, spectrum → image",
                                                     "val_recall_at_10_is": "@10, image → spectrum",
                                                     "val_recall_at_10_si": "@10, spectrum → image"}),
                    ("effective rank", {"val_effective_rank_image": "images", "val_effective_rank_spectrum": "spectra"}),
                    ("distance of the centroids", {"val_modality_gap": "modality gap"}),
                    ("logit scale", {"logit_scale": "logit scale"}))


def alignment_curves(run):
    """What the training of alignment noted, over its steps."""
    found = run.alignment_curves()
    norms = {name: name.removeprefix("grad_norm").strip("_").replace("_", " ") or "all" for name in found
             if name.startswith("grad_norm")}
    parts = []
    for label, names in (*ALIGNMENT_CURVES, ("norm of the gradient", norms)):
        curves = {title: found[name] for name, title in names.items() if name in found}
        if curves:
            parts.append(captioned(figures.loss_terms(curves, label), f"<b>{label.capitalize()}</b>"))
    return parts


def alignment_section(run):
    found = run.alignment()
    if not found:
        return section("alignment", "Alignment", "", missing("Alignment has not validated yet."))
    both_ways = [[name, bold(figure_text(found.get(f"{key}_is"))), bold(figure_text(found.get(f"{key}_si")))] for key, name in ALIGNMENT]
    alone = [[name, figure_text(found.get(key), 3, unit)] for key, name, unit in ALIGNMENT_ALONE]
    picture = similarity_picture(run)
    return section("alignment", "Alignment", f"Held-out pairs at step {found['step']:,}, whose model was published.",
                   table(("own partner among the nearest", "image → spectrum", "spectrum → image"), both_ways),
                   table(("", ""), alone), grid(([picture] if picture else []) + alignment_curves(run)))


IMAGE_TERMS = {"dino_global": "DINO, global crops", "dino_local": "DINO, local crops", "ibot": "iBOT, hidden patches",
               "koleo": "KoLeo, distance to the next"}


def images_section(run):
    curves = {name: run.curve("pretrain-image", name) for name in (*IMAGE_TERMS, "effective_rank")}
    terms = {title: curves[name] for name, title in IMAGE_TERMS.items() if curves[name]}
    ranks, tensors = curves["effective_rank"], run.views()
    parts = []
    if terms:
        parts.append(captioned(figures.loss_terms(terms),
                               "<b>Terms of the loss</b>, weighted as they are summed"))
    if ranks:
        parts.append(captioned(figures.loss_terms({"effective rank": ranks}),
                               "<b>Effective rank</b> of the features of a batch: where it falls towards 1 they collapse"))
    page = [captioned(figures.as_photograph(figures.views(tensors), "Augmentations of galaxies, and an encoder's attention and tokens"),
                      "Each augmentation by itself, whole views of both methods, where the cls token looks in the last block, and the "
                      "patch tokens' first three principal components as red, green and blue")] if tensors else []
    if not parts and not page:
        return section("views", "What image pretraining sees", "", missing("Neither metrics nor views: astroclip-show-images writes RUN/views.safetensors."))
    return section("views", "What image pretraining sees", "", grid(parts), grid(page, "figures one"))


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
    few_shot, supervised = (evaluation.get(f"photo_z_{kind}") or {} for kind in ("few_shot", "supervised"))
    named = [(name, scores[name]) for name in in_order(scores)] + [(f"{name}, trained on labels", one) for name, one in supervised.items()]
    for name, one in named:
        interval = f"{figure_text(one.get('r2_low'))} – {figure_text(one.get('r2_high'))}"
        rows.append([dotted(name), bold(figure_text(one.get("r2"))), interval, with_interval(few_shot.get(name, {}), "r2"),
                     figure_text(one.get("sigma_nmad"), 4), figure_text(one.get("bias"), 4),
                     figure_text(100 * (one.get("outlier_fraction") or 0), 1, " %"), figure_text(one.get("n"), 0)])
    parts = [f'<div class="wide">{figures.r2_bars(dict(named))}</div>',
             table(("from", "R²", "95 % interval", "R², small network", "σ NMAD", "bias", "|Δz| > 0.05 (1+z)", "galaxies"), rows)]
    predictions = run.predictions()
    drawn = [captioned(figures.redshift_scatter(name, predictions["z_true"], predictions[name]),
                       f"<b>{escape(method_name(name))}</b>, R² {figure_text(one.get('r2'))}, σ NMAD {figure_text(one.get('sigma_nmad'), 4)}")
             for name, one in {**{name: scores[name] for name in in_order(scores)}, **supervised}.items() if name in predictions]
    parts.append(grid(drawn) if drawn else missing("The table of predictions is not there."))
    return section("redshift", "Redshifts", f"Predicted for held-out galaxies from the {k} nearest training galaxies, in the "
                   "embedding and in what needs no learning; what was trained on labels predicts by itself. The interval is a bootstrap over the held-out galaxies; the lower "
                   "panels show medians and 68 % bands.", *parts)


def retrieval_section(evaluation):
    scores = evaluation.get("retrieval", {})
    if not scores and evaluation:
        return ""  # a catalogue of one modality has no partners
    if not scores:
        return section("retrieval", "Finding the partner", "", missing("Not evaluated: the stage evaluate is not complete."))
    rows = []
    for mode, name in (("is", "image → spectrum"), ("si", "spectrum → image")):
        one = scores.get(mode)
        if one:
            rows.append([name, with_interval(one, "recall_at_1"), with_interval(one, "recall_at_5"),
                         with_interval(one, "recall_at_10", strong=True), figure_text(one.get("chance"), 4),
                         bold(figure_text(one.get("times_chance"), 1, " ×")), with_interval(one, "photometry"),
                         figure_text(one.get("median_rank"), 0), figure_text(one.get("photometry_median_rank"), 0),
                         figure_text(one.get("n"), 0)])
    header = ("query → catalogue", "recall@1", "recall@5", "recall@10", "chance@10", "over chance", "photometry@10",
              "median rank", "photometry's", "galaxies")
    return section("retrieval", "Finding the partner", "How often a held-out galaxy's own spectrum is among the first 1, 5 and 10 "
                   "found with its image, and the reverse. Photometry ranks partners by g, r, z magnitudes alone: the catalogue's "
                   "on the image's side, those integrated from the spectrum on the other. Small: 95 % bootstrap intervals.",
                   f'<div class="wide">{figures.recall_bars(scores)}</div>', table(header, rows))


def property_scatters(run):
    """Truth against what the neighbours in the aligned space give, for each label: image and spectrum side by side."""
    _, labels = run.properties()
    parts = []
    for label, (truth, predicted) in labels.items():
        drawn = []
        for name in (name for name in ("image", "spectrum") if name in predicted):
            known = np.isfinite(truth) & np.isfinite(predicted[name])
            if np.sum(known) < 2:
                continue
            true, ours = truth[known], predicted[name][known]
            errors, spread = true - ours, np.sum((true - true.mean()) ** 2)
            r2 = 1 - np.sum(errors**2) / spread if spread > 0 else math.nan
            nmad = 1.4826 * np.median(np.abs(errors - np.median(errors)))
            drawn.append(captioned(figures.property_scatter(label, name, true, ours),
                                   f"<b>{escape(label)}</b> from the {escape(method_name(name))}: R² {figure_text(float(r2))}, "
                                   f"σ {errors.std():.3g}, σ NMAD {nmad:.3g}, {len(true):,} galaxies"))
        if drawn:
            parts.append(grid(drawn, "figures pair"))
    return [grid(parts, "pairs")] if parts else []


def property_section(run):
    evaluation = run.evaluation
    tables = [(title, evaluation.get(key) or {}) for title, key in
              (("Nearest neighbours", "properties"), ("Small networks (few-shot)", "properties_few_shot"),
               ("Trained on labels", "properties_supervised"))]
    tables = [(title, scores) for title, scores in tables if scores]
    if not tables:
        return ""
    parts = []
    for title, scores in tables:
        present = in_order(dict.fromkeys(name for one in scores.values() for name in one))
        best = {label: max((one["r2"] for one in by_name.values() if one.get("r2") is not None), default=None)
                for label, by_name in scores.items()}
        rows = [[dotted(name), *(with_interval(by_name.get(name, {}), "r2", strong=by_name.get(name, {}).get("r2") == best[label])
                                 for label, by_name in scores.items())] for name in present]
        parts += [f"<h3>{title}</h3>", table(("from", *scores), rows)]
        if title == "Nearest neighbours":
            parts += property_scatters(run)
    posteriors = evaluation.get("posteriors") or {}
    posteriors = {name: posteriors[name] for name in in_order(posteriors)}
    if posteriors:
        parts.append("<h3>Posteriors of spline flows</h3>")
        parts.append(table(("from", "negative log-likelihood", "± over flows", "galaxies"),
                           [[method_name(name), bold(figure_text(one.get("nll"))), figure_text(one.get("nll_std")), figure_text(one.get("n"), 0)]
                            for name, one in posteriors.items()]))
        parts.append(grid([captioned(figures.calibration(one["calibration"]), f"<b>{escape(method_name(name))}</b>: how often the truth lies "
                                     "in each twentieth of its posterior; level if calibrated")
                           for name, one in posteriors.items() if one.get("calibration")]))
    left_out = {name: n for name, n in (evaluation.get("labels", {}).get("left_out") or {}).items() if n}
    note = "".join(f" {figure_text(n, 0)} galaxies have no {escape(name)}." for name, n in left_out.items())
    labels = evaluation.get("labels", {})
    selection = labels.get("selection") or {}
    if selection.get("left_out"):
        note += f" {figure_text(selection['left_out'], 0)} galaxies have no fit of PROVABGS: not all of {escape(', '.join(selection['above_0']))} are above 0."
    note += "".join(f" Left out is {escape(name)}: {escape(reason)}." for name, reason in (labels.get("unused") or {}).items())
    note += "".join(f" {figure_text(mark['n'], 0)} galaxies have {figure_text(mark['value'])} as {escape(name)}: no mark of an absent value?"
                    for name, mark in (labels.get("repeated") or {}).items())
    return section("properties", "Physical properties", "R² for the labels that were given, on held-out galaxies; small: 95 % bootstrap "
                   "intervals." + note, *parts)


def curve_section(evaluation):
    curves = evaluation.get("label_curves") or {}
    drawn = [captioned(figures.label_curve({name: one[name] for name in in_order(one)}), f"<b>{escape(what.capitalize())}</b>: R² against the number of labels; nearest neighbours "
                       "(line) and small networks (dashes)") for what, one in curves.items() if one]
    across = evaluation.get("across_modalities") or {}
    rows = [[name.replace("_", " "), with_interval(one.get("redshift", {}), "r2"), with_interval(one.get("properties", {}), "r2")]
            for name, one in across.items()]
    if not drawn and not rows:
        return ""
    lead = "What few labels are enough for, and what the neighbours in the other modality know."
    return section("labels", "Few labels, other modality", lead, grid(drawn),
                   table(("neighbours", "R² of redshift", "R² of properties"), rows) if rows else "")


def morphology_section(evaluation):
    scores = evaluation.get("morphology") or {}
    if not scores:
        return ""
    present = in_order(scores.get("mean", {}))
    asked = [question for question, one in scores.items() if any(name in one for name in present)]
    asked.sort(key=lambda question: question == "mean")
    rows = [[dotted(name), *(("html", " ".join(with_interval(scores[question][name], key)[1] for key in ("accuracy", "f1")))
                             if name in scores[question] else "–" for question in asked)] for name in present]
    for label, key, digits in (("commonest answer", "majority", 3), ("galaxies", "n", 0)):
        firsts = (next((one[name] for name in present if name in one), {}) for one in map(scores.get, asked))
        rows.append([label, *("" if first.get(key) is None else figure_text(first[key], digits) for first in firsts)])
    left_out = "".join(f" {escape(question)}: {escape(one['left_out'])}." for question, one in scores.items() if one.get("left_out"))
    drawn = [captioned(figures.confusion(one["answers"], one["image"]["confusion"]), f"<b>{escape(question)}</b>, from image embeddings")
             for question, one in scores.items() if "confusion" in one.get("image", {})]
    return section("morphology", "Morphology", "The questions of Galaxy Zoo: accuracy and, below, F1 of a small network on held-out galaxies "
                   "with more than 34 votes on the question; small: 95 % bootstrap intervals." + (f" Not asked:{left_out}" if left_out else ""),
                   table(("from", *asked), rows, "left stacked"), grid(drawn))


def published_section(evaluation):
    rows = evaluation.get("table") or []
    if not rows:
        return ""

    def ours(one, what, key):
        found = one["ours"].get(what) or {}
        text = with_interval(found, key, 2, strong=True)[1]
        if found.get("epochs"):
            text += f" <small>epoch {figure_text(found['epochs']['best'], 0)} of {figure_text(found['epochs']['trained'], 0)}</small>"
        return ("html", text)

    averaged = {label for one in rows for label in (one["ours"].get("properties") or {}).get("of", [])}
    note = "" if averaged in (set(), {"LOG_MSTAR", "Z_MW", "TAGE_MW", "LOG_SSFR"}) else (
        f" The mean of the properties is ours of {escape(', '.join(sorted(averaged)))} and theirs of LOG_MSTAR, Z_MW, TAGE_MW, LOG_SSFR.")
    cells = [[one["source"], one["model"], one["type"],
              *(cell for what, key in (("redshift", "r2"), ("properties", "r2"), ("morphology", "accuracy"))
                for cell in (ours(one, what, key), figure_text((one.get("published") or {}).get(what), 2)))] for one in rows]
    return section("table", "The published table", "R² of redshift, mean R² of the properties, mean accuracy of the questions: ours, and what "
                   "the authors published on other data, so that the two columns cannot be compared number by number. Small: 95 % "
                   "bootstrap intervals, and for networks trained on labels the epoch of their least validation loss." + note,
                   table(("source", "model", "type", "redshift", "published", "properties", "published", "morphology", "published"), cells, "left stacked"))


def map_section(run, planes):
    store = run.store("embeddings")
    if store is None or store.rows < 3:
        return section("map", "The map", "", missing("There is no complete catalogue of embeddings."))
    drawn, shown = maps(run, store, planes, components=run.components())
    return section("map", "The map", f"The unit vectors of up to {shown:,} of {store.rows:,} objects in a plane ({' and '.join(planes)}), coloured "
                   "by spectroscopic redshift, the labels of held-out galaxies, magnitude and colour; objects of which that is not known are grey.", *drawn)


# --- retrievals ----------------------------------------------------------------------------------------------------


def search_section(run):
    queries = run.search.get("queries", [])
    if not queries:
        return section("search", "Retrievals", "", missing("There are none: the stage search is not complete."))
    shown = queries[:QUERIES_SHOWN]
    pictures = Pictures(*(run.store(name) for name in ("images", "spectra", "pairs")), shown)
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


def write_report(path, planes, evaluation=None):
    run = open_run(Path(path), evaluation)
    stages, rejects, losses = run.stages(), run.rejects(), run.losses()
    sections = [
        retrieval_section(run.evaluation),
        redshift_section(run, run.evaluation),
        property_section(run),
        morphology_section(run.evaluation),
        curve_section(run.evaluation),
        published_section(run.evaluation),
        search_section(run),
        map_section(run, planes),
        training_section(losses),
        alignment_section(run),
        images_section(run),
        spectra_section(run),
        input_section(run, rejects),
        run_section(run, stages),
    ]
    names = [("retrieval", "Partners"), ("redshift", "Redshifts"), ("properties", "Properties"),
             ("morphology", "Morphology"), ("labels", "Few labels"), ("table", "Table"), ("search", "Retrievals"),
             ("map", "Map"), ("training", "Training"),
             ("alignment", "Alignment"), ("views", "Images"), ("spectra", "Masked spectra"), ("input", "Input"), ("run", "Run")]
    names = [(anchor, name) for (anchor, name), text in zip(names, sections) if text]
    complete = sum(row["state"] == "complete" for row in stages)
    evaluated = f" · evaluation {run.evaluation_folder}" if evaluation is not None else ""
    subtitle = f"{run.path}{evaluated} · {complete} of {len(stages)} stages complete · {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}"
    folder = run.path / "report"
    folder.mkdir(exist_ok=True)
    name = "report" if evaluation is None else f"report-{run.evaluation_folder.name}"
    write_atomically(folder / f"{name}.html", page(f"Report of {run.path.name}", subtitle, key_tiles(run.evaluation, rejects), sections, names))
    write_atomically(folder / f"{name}.json", json.dumps(finite(summary(run, stages, rejects, losses)), indent=1) + "\n")
    return folder / f"{name}.html"


def main(description, words):
    parser = Parser(prog="report", description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", type=Path)
    parser.add_argument("--evaluation", type=Path, metavar="FOLDER",
                        help="another evaluation of the same catalogue, such as RUN/beside/table: writes RUN/report/report-NAME.html and "
                             "report-NAME.json, NAME that of the folder")
    parser.add_argument("--umap", action="store_true", help="maps by UMAP (package umap-learn) beside those by PCA")
    arguments = parser.parse_args(words)
    if arguments.umap:
        import_umap()
    try:
        print(write_report(arguments.run, ("PCA", "UMAP") if arguments.umap else ("PCA",), arguments.evaluation))
    except (DataError, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, DataError) else 74
    return 0
