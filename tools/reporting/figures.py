"""The pictures of the report, each a string that stands inside the page."""

import base64
import html
import io

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

INK, QUIET, GRID, PAPER = "#22262e", "#6d7482", "#e4e2dc", "#fbfaf7"
COLOURS = {"image": "#c4561f", "spectrum": "#275d8c", "untrained": "#8b8f98", "magnitudes": "#7d8433", "pixels": "#8d6a9f"}


def colour_of(name):
    """Of a description: its own, or the tint of the modality in its name."""
    if name in COLOURS:
        return COLOURS[name]
    return next((tint for word, tint in (("image", "#d9976f"), ("spectrum", "#7399bb")) if word in name.replace(",", " ").split()), INK)


plt.rcParams.update({
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none", "savefig.dpi": 220,
    "font.family": "DejaVu Sans", "font.size": 9.5, "text.color": INK, "axes.labelcolor": INK,
    "axes.edgecolor": QUIET, "axes.linewidth": 0.7, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.7, "axes.axisbelow": True,
    "xtick.color": QUIET, "ytick.color": QUIET, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5,
    "xtick.major.size": 0, "ytick.major.size": 0, "legend.frameon": False, "legend.fontsize": 8.5,
    "svg.fonttype": "path", "svg.hashsalt": "report",
})


def as_image(figure, description):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(description, quote=True)}" src="data:image/svg+xml;base64,{data}">'


def as_photograph(figure, description):
    """For pictures of galaxies, which would be large as drawings."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="jpg", dpi=140, facecolor=PAPER, pil_kwargs={"quality": 88})
    plt.close(figure)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(description, quote=True)}" src="data:image/jpeg;base64,{data}">'


def smoothed(values, width):
    """Mean over `width` neighbours, narrower at the ends."""
    totals = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    low, high = np.maximum(places - width // 2, 0), np.minimum(places + width // 2 + 1, len(values))
    return (totals[high] - totals[low]) / (high - low)


def loss_curve(title, curve, colour):
    figure, axes = plt.subplots(figsize=(4.2, 2.9), layout="constrained")
    if curve["train"]:
        steps, losses = (np.array(column, dtype=float) for column in zip(*curve["train"]))
        good = np.isfinite(losses)
        steps, losses = steps[good], losses[good]
        axes.plot(steps, losses, color=colour, alpha=0.28, linewidth=0.7, rasterized=len(steps) > 20000)
        axes.plot(steps, smoothed(losses, max(1, len(losses) // 40)), color=colour, linewidth=1.8, label="training")
    if curve["validation"]:
        steps, losses = zip(*curve["validation"])
        axes.plot(steps, losses, "o-", color=INK, markersize=3, linewidth=0.9, label="held out")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    if curve["train"] and curve["validation"]:
        axes.legend(loc="upper right")
    return as_image(figure, f"Loss curve of {title}")


def loss_curves(title, curves):
    """The same training in several runs: [(name, curve)]."""
    figure, axes = plt.subplots(figsize=(4.2, 2.9), layout="constrained")
    for (name, curve), colour in zip(curves, (COLOURS["image"], COLOURS["spectrum"])):
        if curve["train"]:
            steps, losses = (np.array(column, dtype=float) for column in zip(*curve["train"]))
            steps, losses = steps[np.isfinite(losses)], losses[np.isfinite(losses)]
            axes.plot(steps, smoothed(losses, max(1, len(losses) // 40)), color=colour, linewidth=1.6, label=name)
        if curve["validation"]:
            axes.plot(*zip(*curve["validation"]), "o", color=colour, markersize=3, label=None if curve["train"] else name)
    axes.set(xlabel="step", ylabel="loss")
    axes.legend(loc="upper right")
    return as_image(figure, f"Loss curves of {title}")


def loss_terms(curves, label="term"):
    """The parts of a loss, or what else a training notes, each as a running mean: {name: [(step, value)]}."""
    figure, axes = plt.subplots(figsize=(4.2, 2.9), layout="constrained")
    for name, curve in curves.items():
        steps, values = (np.array(column, dtype=float) for column in zip(*curve))
        axes.plot(steps, smoothed(values, max(1, len(values) // 40)), linewidth=1.4, label=name)
    axes.set(xlabel="step", ylabel=label)
    axes.legend(loc="best")
    return as_image(figure, f"{label.capitalize()} over time: " + ", ".join(curves))


def reconstruction(wavelength, one):
    """A spectrum, what of it was hidden, and what was predicted there."""
    flux, prediction = np.array(one["flux"], dtype=float), np.array(one["prediction"], dtype=float)
    figure, axes = plt.subplots(figsize=(5.6, 2.1), layout="constrained")
    axes.plot(wavelength, smoothed(flux, 9), color=QUIET, linewidth=0.5, alpha=0.8, label="observed (9 bins)")
    for number, (first, last) in enumerate(one["hidden"]):
        axes.axvspan(wavelength[first], wavelength[last - 1], color=COLOURS["spectrum"], alpha=0.1, linewidth=0)
        axes.plot(wavelength[first:last], prediction[first:last], color=COLOURS["image"], linewidth=1.1,
                  label=None if number else "predicted")
    low, high = np.percentile(smoothed(flux, 9), (0.5, 99.7))
    room = 0.2 * (high - low) + 1e-3
    axes.set(xlim=(wavelength[0], wavelength[-1]), ylim=(low - 1.5 * room, high + 1.8 * room), xlabel="wavelength [Å]",
             ylabel="flux [$10^{-17}$ cgs/Å]")
    if one["redshift"] is not None:
        for name, rest in LINES:
            seen = rest * (1 + one["redshift"])
            if wavelength[0] < seen < wavelength[-1]:
                axes.axvline(seen, color=INK, linewidth=0.5, linestyle=(0, (2, 3)))
                axes.text(seen, high + 0.9 * room, name, fontsize=7, ha="center", color=INK)
    axes.legend(loc="lower right", fontsize=7, ncols=2)
    return as_image(figure, f"Spectrum {one['object_id']} with its hidden parts predicted")


RECONSTRUCTIONS = (("model", "encoder", "image"), ("interpolation", "straight line", "magnitudes"),
                   ("mean_spectrum", "mean spectrum", "untrained"))


def reconstruction_errors(probe, where, label):
    figure, axes = plt.subplots(figsize=(4.2, 2.9), layout="constrained")
    for key, name, colour in RECONSTRUCTIONS:
        axes.plot(probe[where][label], np.array(probe[where][key], dtype=float), "o-", color=COLOURS[colour], markersize=2.5, linewidth=1.2, label=name)
    axes.set_ylabel("mean squared error (standardised)")
    axes.set_xlabel({"wavelength": "wavelength [Å]", "snr": "median S/N of a bin"}[label])
    axes.set_ylim(bottom=0)
    axes.legend(loc="best")
    return as_image(figure, f"Reconstruction error by {label}")


def prediction_scatter(name, truth, predicted, span, errors, limit, labels, marks=()):
    """Predicted against true within `span`, and below it the errors up to `limit` with their medians and 68 % bands.
    labels: of the truth, of the prediction, of the errors; marks: errors at which to draw a line."""
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(3.5, 4.5), sharex=True, height_ratios=(3, 1.1), layout="constrained")
    colour = colour_of(name)
    size = float(np.clip(2500 / max(len(truth), 1), 0.8, 9))
    upper.plot(span, span, color=QUIET, linewidth=0.8)
    upper.scatter(truth, predicted, s=size, color=colour, alpha=0.55, linewidths=0, rasterized=True)
    upper.set(xlim=span, ylim=span, ylabel=labels[1])
    lower.axhline(0, color=QUIET, linewidth=0.8)
    for mark in marks:
        lower.axhline(mark, color=QUIET, linewidth=0.6, linestyle=(0, (4, 3)))
    lower.scatter(truth, errors, s=size, color=colour, alpha=0.45, linewidths=0, rasterized=True)
    edges = np.linspace(*span, 20)  # 19 bins
    bins = np.digitize(truth, edges)
    middles = [(0.5 * (edges[b - 1] + edges[b]), *np.percentile(errors[bins == b], (16, 50, 84)))
               for b in range(1, 20) if np.sum(bins == b) >= 5]
    if middles:
        at, low, middle, high = np.array(middles).T
        lower.fill_between(at, low, high, color=colour, alpha=0.22, linewidth=0)
        lower.plot(at, middle, color=colour, linewidth=1.5)
    lower.set(ylim=(-limit, limit), xlabel=labels[0], ylabel=labels[2])
    for axis in (upper.xaxis, upper.yaxis):
        axis.set_major_locator(plt.MaxNLocator(5, steps=(1, 2, 5, 10)))
    figure.align_ylabels()
    return as_image(figure, f"{labels[1]} against {labels[0]} from {name}, with residuals")


def redshift_scatter(name, truth, predicted):
    top = float(np.percentile(truth, 99.5)) * 1.08  # the same range for all methods
    return prediction_scatter(name, truth, predicted, (0, top), (truth - predicted) / (1 + truth), 0.16,
                              ("true z", "predicted z", "Δz / (1+z)"), (-0.05, 0.05))


def property_scatter(label, name, truth, predicted):
    low, high = (float(end) for end in np.percentile(truth, (0.5, 99.5)))  # the same range for all methods
    room = 0.06 * (high - low) or 1.0
    return prediction_scatter(name, truth, predicted, (low - room, high + room), truth - predicted, 0.6 * (high - low) or 1.0,
                              (f"true {label}", f"predicted {label}", "Δ"))


def signed(value, digits=3):
    return f"{value:.{digits}f}".replace("-", "−")


def r2_bars(scores):
    names = [name for name in scores if scores[name].get("r2") is not None]
    figure, axes = plt.subplots(figsize=(5.2, 0.42 * len(names) + 0.75), layout="constrained")
    for place, name in enumerate(reversed(names)):
        one = scores[name]
        low, high = one.get("r2_low"), one.get("r2_high")
        axes.barh(place, max(one["r2"], 0), height=0.6, color=colour_of(name), alpha=0.85)
        if low is not None and high is not None and high > 0:
            axes.plot([max(low, 0), high], [place, place], color=INK, linewidth=1.3, solid_capstyle="butt")
        axes.text(max(high or 0, one["r2"], 0) + 0.015, place, signed(one["r2"]), va="center", fontsize=9)
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.tick_params(axis="y", labelcolor=INK, labelsize=9.5)
    axes.set(xlim=(0, 1.12), xticks=np.linspace(0, 1, 6), xlabel="R² of redshift, with its 95 % interval")
    axes.grid(axis="y", visible=False)
    return as_image(figure, "R² of redshift for every method")


def recall_bars(scores):
    modes = [(mode, label) for mode, label in (("is", "image → spectrum"), ("si", "spectrum → image")) if mode in scores]
    kinds = [("recall_at_10", "embedding", COLOURS["image"]), ("photometry", "photometry alone", COLOURS["magnitudes"]),
             ("chance", "chance", COLOURS["untrained"])]
    figure, axes = plt.subplots(figsize=(5.2, 0.9 * len(modes) + 1.1), layout="constrained")
    for row, (mode, _) in enumerate(reversed(modes)):
        for bar, (key, label, colour) in enumerate(kinds):
            value = scores[mode].get(key)
            if value is not None:
                place = row + 0.27 * (1 - bar)
                axes.barh(place, value, height=0.25, color=colour, alpha=0.85, label=label if row == 0 else None)
                low, high = (scores[mode].get(f"{key}_{end}") for end in ("low", "high"))
                if low is not None and high is not None:
                    axes.plot([low, high], [place, place], color=INK, linewidth=1.1, solid_capstyle="butt")
                axes.text(max(value, high or 0) + 0.01, place, signed(value), va="center", fontsize=9)
    axes.set_yticks(range(len(modes)), [label for _, label in reversed(modes)])
    axes.tick_params(axis="y", labelcolor=INK, labelsize=9.5)
    axes.set(xlim=(0, 1.12), xticks=np.linspace(0, 1, 6), xlabel="true partner among the first 10")
    axes.grid(axis="y", visible=False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(kinds))  # not over a number, wherever the bars end
    return as_image(figure, "Recall at 10 beside photometry and chance")


def calibration(by_label):
    """Histograms of where in their posteriors the truths lie, beside the level that they should have."""
    figure, axes = plt.subplots(figsize=(4.2, 2.9), layout="constrained")
    for place, (label, one) in enumerate(by_label.items()):
        counts = np.array(one["pit_histogram"], dtype=float)
        edges = np.linspace(0, 1, len(counts) + 1)
        axes.stairs(counts / max(counts.mean(), 1e-9), edges, linewidth=1.3, color=plt.cm.viridis(place / max(len(by_label), 2)), label=label)
    axes.axhline(1, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set(xlim=(0, 1), xlabel="share of the posterior below the truth", ylabel="galaxies, relative")
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), fontsize=7, ncols=4)
    return as_image(figure, "Calibration of the posteriors")


def label_curve(by_features):
    figure, axes = plt.subplots(figsize=(4.6, 3.3), layout="constrained")
    for place, (name, points) in enumerate(by_features.items()):
        colour = COLOURS.get(name, plt.cm.tab10(place % 10))
        for key, style in (("r2", "o-"), ("few_shot_r2", "o--")):
            known = [(point["labels"], point[key]) for point in points if point.get(key) is not None]
            if known:
                axes.plot(*zip(*known), style, color=colour, markersize=3, linewidth=1.3, label=name if key == "r2" else None)
    axes.set_xscale("log")
    axes.set(xlabel="training labels", ylabel="R²", ylim=(max(-0.5, axes.get_ylim()[0]), 1))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), fontsize=7, ncols=3)
    return as_image(figure, "R² against the number of labels")


def confusion(answers, counts):
    """counts[truth][prediction]."""
    counts = np.array(counts, dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = plt.subplots(figsize=(3.6, 3.2), layout="constrained")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        axes.text(column, row, f"{count:.0f}", ha="center", va="center", fontsize=8, color="white" if shares[row, column] > 0.6 else INK)
    axes.set_xticks(range(len(answers)), answers, rotation=30, ha="right")
    axes.set_yticks(range(len(answers)), answers)
    axes.grid(visible=False)
    axes.set(xlabel="predicted", ylabel="most votes")
    return as_image(figure, "Confusion of the answers")


def similarity(cosines):
    """cosines [galaxies, galaxies]: images down, spectra across, in the same order."""
    figure, axes = plt.subplots(figsize=(4.4, 3.7), layout="constrained")
    limit = float(np.abs(cosines).max()) or 1.0
    drawn = axes.imshow(cosines, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    bar = figure.colorbar(drawn, ax=axes, pad=0.02, aspect=30)
    bar.outline.set_visible(False)
    bar.set_label("cosine")
    axes.grid(visible=False)
    axes.set(xlabel="spectra, by redshift", ylabel="images, by redshift", xticklabels=[], yticklabels=[])
    return as_image(figure, "Cosines of the images and spectra of the same held-out galaxies")


def embedding_map(name, points, values, label, names):
    figure, axes = plt.subplots(figsize=(4.4, 3.7), layout="constrained")
    known = np.isfinite(values)
    size = float(np.clip(6000 / max(len(points), 1), 1.2, 9))
    axes.scatter(*points[~known].T, s=size, color=GRID, linewidths=0, rasterized=True)
    if known.any():
        low, high = np.percentile(values[known], (1, 99))
        drawn = axes.scatter(*points[known].T, s=size, c=values[known], cmap="viridis", vmin=low, vmax=high, alpha=0.85,
                             linewidths=0, rasterized=True)
        bar = figure.colorbar(drawn, ax=axes, pad=0.02, aspect=30)
        bar.outline.set_visible(False)
        bar.set_label(label)
    axes.set(xlabel=names[0], ylabel=names[1], xticklabels=[], yticklabels=[])
    return as_image(figure, f"{name} embeddings by {' and '.join(names)}, coloured by {label}")


CELLS = (15, 10)  # of a map with galaxies, across and up


def cells(points):
    """Where a plane is cut into cells, and who stands for each: ((edges across, edges up), {cell: the point nearest its middle})."""
    low, high = np.percentile(points, (0.5, 99.5), axis=0)
    edges = [np.linspace(a, max(b, a + 1e-9), n + 1) for a, b, n in zip(low, high, CELLS)]
    places = np.stack([(values - along[0]) / (along[1] - along[0]) for values, along in zip(points.T, edges)], axis=1)
    within = np.all((places >= 0) & (places < CELLS), axis=1)
    chosen = {}
    for point in np.flatnonzero(within):
        cell = tuple(int(place) for place in places[point])
        distance = np.hypot(*(places[point] - cell - 0.5))
        if cell not in chosen or distance < chosen[cell][1]:
            chosen[cell] = point, distance
    return edges, {cell: int(point) for cell, (point, _) in chosen.items()}


def galaxy_map(name, points, images, rows, names):
    """Cutouts at their places in a plane: one a cell, of the point nearest its middle. rows: of the store, one a point."""
    (across, up), chosen = cells(points)
    figure, axes = plt.subplots(figsize=(9.6, 6.6), layout="constrained")
    axes.scatter(*points.T, s=3, color=QUIET, alpha=0.35, linewidths=0)
    gap = 0.03 * (across[1] - across[0]), 0.03 * (up[1] - up[0])
    for (column, row), point in chosen.items():
        axes.imshow(cutout(images, rows[point], 64), aspect="auto", interpolation="bicubic", zorder=3,
                    extent=(across[column] + gap[0], across[column + 1] - gap[0], up[row] + gap[1], up[row + 1] - gap[1]))
    axes.set(xlim=(across[0], across[-1]), ylim=(up[0], up[-1]), xlabel=names[0], ylabel=names[1], xticklabels=[], yticklabels=[])
    axes.grid(visible=False)
    return as_photograph(figure, f"Galaxies at their places among the {name.lower()} embeddings by {' and '.join(names)}")


VIEWS = {"original": "as stored", "gr": "dust (gr)", "rr": "rotation (rr)", "ss": "size (ss)", "gb": "blur (gb)", "gn": "noise (gn)",
         "moco-0": "MoCo, query", "moco-1": "MoCo, key", "dino-global-0": "DINO, global A", "dino-global-1": "DINO, global B",
         "dino-local-0": "DINO, local", "dino-local-1": "DINO, local", "read": "the encoder's view", "attention": "attention of cls",
         "patches": "patch tokens, PCA"}


def components_as_colours(patches):
    """Tokens [n, N, width] of all galaxies together -> colours [n, side, side, 3] from 0 to 1."""
    count, tokens, width = patches.shape
    rows = patches.reshape(-1, width) - patches.mean(axis=(0, 1))
    _, _, axes = np.linalg.svd(rows, full_matrices=False)
    values = rows @ axes[:3].T
    low, high = np.percentile(values, [1, 99], axis=0)
    side = round(tokens**0.5)
    return np.clip((values - low) / np.where(high > low, high - low, 1), 0, 1).reshape(count, side, side, 3)


def as_pictures(name, values):
    """What astroclip-show-images wrote under this name, as pictures [n, rows, columns(, 3)]."""
    if name == "patches":
        return components_as_colours(values)
    if name == "attention":
        side = round(values.shape[1]**0.5)
        low, high = values.min(axis=1, keepdims=True), values.max(axis=1, keepdims=True)
        return ((values - low) / np.maximum(high - low, 1e-9)).reshape(-1, side, side)
    return np.clip(values.transpose(0, 2, 3, 1), 0, 1)


def views(tensors):
    """The augmentations of some galaxies, a galaxy a row, and what an encoder makes of them."""
    columns = [name for name in VIEWS if name in tensors]
    count = len(tensors["original"])
    figure, axes = plt.subplots(count, len(columns), figsize=(1.0 * len(columns), count + 0.3), squeeze=False, layout="constrained")
    for column, name in enumerate(columns):
        for row, picture in enumerate(as_pictures(name, tensors[name])):
            axes[row, column].imshow(picture, origin="lower", interpolation="nearest", cmap="magma", vmin=0, vmax=1)
            axes[row, column].set_axis_off()
        axes[0, column].set_title(VIEWS[name], fontsize=6)
    return figure


# --- thumbnails ----------------------------------------------------------------------------------------------------


def to_rgb(flux):
    """Fluxes [g, r, z] in nanomaggy -> [H, W, 3] in [0, 1]: the arcsinh stretch that the encoder is shown."""
    scaled = np.stack([flux[2] * 2.2, flux[1] * 3.4, flux[0] * 6.0], axis=-1) + 0.03
    intensity = np.maximum(scaled, 0).mean(axis=-1, keepdims=True)
    stretched = np.arcsinh(20 * intensity) / np.sqrt(20)
    return np.clip(scaled * stretched / np.where(intensity == 0, 1e-6, intensity), 0, 1)


def cutout(images, row, side):
    """The middle of a cutout in a store as bytes [side, side, 3], north up: fluxes [g, r, z], or a display image, which has no unit."""
    flux = np.nan_to_num(np.asarray(images["flux"][row], dtype=np.float64))
    rows, columns = flux.shape[1:]
    side = min(side, rows, columns)
    top, left = (rows - side) // 2, (columns - side) // 2
    middle = flux[:, top:top + side, left:left + side]
    pixels = to_rgb(middle) if images["flux"].attrs.get("unit") else np.clip(middle.transpose(1, 2, 0), 0, 1)
    return (255 * pixels[::-1] + 0.5).astype(np.uint8)  # rows run upwards in a store


def thumbnail_jpeg(images, row, side=96):
    """The middle of a cutout as a small JPEG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(cutout(images, row, side)).resize((192, 192), Image.BICUBIC).save(buffer, format="JPEG", quality=86, subsampling=0)
    return buffer.getvalue()


def thumbnail(images, row, description):
    data = base64.b64encode(thumbnail_jpeg(images, row)).decode()
    return f'<img alt="{html.escape(description, quote=True)}" src="data:image/jpeg;base64,{data}">'


# Vacuum wavelengths, Angstrom; without a name where the next one's would run into it.
LINES = (("[OII]", 3728.5), ("", 3951.0), ("", 4862.7), ("[OIII]", 5008.2), ("Na", 5895.6), ("Hα", 6564.6))


def spectrum_picture(wavelength, flux, ivar, redshift, description, points=170):
    """A small plot of a spectrum as SVG: means of its bins weighted by ivar, and where its lines should lie."""
    width, height, foot, head = 300.0, 165.0, 21.0, 19.0
    usable = len(flux) // points * points
    weight = np.maximum(np.nan_to_num(np.asarray(ivar[:usable], dtype=float)), 0).reshape(points, -1)
    total = (weight * np.nan_to_num(np.asarray(flux[:usable], dtype=float)).reshape(points, -1)).sum(axis=1)
    sums = weight.sum(axis=1)
    means = np.where(sums > 0, total / np.where(sums > 0, sums, 1), np.nan)
    centres = np.asarray(wavelength[:usable]).reshape(points, -1).mean(axis=1)
    good = np.isfinite(means)
    shapes = []
    if good.any():
        low, high = np.percentile(means[good], (1, 99.4))
        low, high = min(low, 0.0), max(high, low + 1e-6)
        x = (centres - wavelength[0]) / (wavelength[-1] - wavelength[0]) * width
        y = (height - foot) - (np.clip(means, low - 0.05 * (high - low), high * 1.04) - low) / (high - low) * (height - foot - head)
        if np.isfinite(redshift):
            for name, rest in LINES:
                seen = rest * (1 + redshift)
                if wavelength[0] < seen < wavelength[-1]:
                    at = (seen - wavelength[0]) / (wavelength[-1] - wavelength[0]) * width
                    shapes.append(f'<path class="line" d="M{at:.1f} 16V{height - foot:.0f}"/>')
                    if name:
                        shapes.append(f'<text class="name" x="{np.clip(at, 16, width - 16):.1f}" y="12">{name}</text>')
        path = "".join(f"{'L' if i and good[i - 1] else 'M'}{x[i]:.1f} {y[i]:.1f}" for i in range(points) if good[i])
        shapes.append(f'<path class="flux" d="{path}"/>')
    for tick in (4000, 6000, 8000):
        if wavelength[0] < tick < wavelength[-1]:
            at = (tick - wavelength[0]) / (wavelength[-1] - wavelength[0]) * width
            shapes.append(f'<text class="tick" x="{np.clip(at, 24, width - 24):.1f}" y="{height - 5:.0f}">{tick} Å</text>')
    return (f'<svg class="spectrum" role="img" aria-label="{html.escape(description, quote=True)}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}"><path class="base" d="M0 {height - foot:.0f}H{width:.0f}"/>{"".join(shapes)}</svg>')
