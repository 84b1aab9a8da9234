"""What a run folder holds so far, read without trusting any of it to be there."""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np

from checkpoints import safetensors
from checkpoints.errors import DataError, MissingInput
from open_catalog import Store, StoreError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "slurm"))
from workflow import STAGES, attempts_files, attempts_in, read_json, read_lines, write_atomically  # noqa: E402,F401  pylint: disable=wrong-import-position

OUTPUTS = {stage.name: stage.output for stage in STAGES.values()}
TRAININGS = ("pretrain-image", "pretrain-spectrum", "align")
STORES = ("images", "spectra", "pairs", "embeddings")


def read_arrays(path):
    """{name: array} of a safetensors file."""
    return {name: weights.values() for name, weights in safetensors.read(path)[1].items()}


class Parser(argparse.ArgumentParser):
    """Ends with 64 where the command line is wrong, as the stages do."""

    def error(self, message):
        self.print_usage(sys.stderr)
        self.exit(64, f"{self.prog}: {message}; --help explains\n")


def number(value):
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else float("nan")


def read_columns(path):
    """{column: values [rows]} of a CSV file, an empty cell as NaN; {} if there is none, or it has no rows."""
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    if len(rows) < 2:
        return {}
    for line, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise DataError(path, f"line {line} has {len(row)} fields, {len(rows[0])} expected")
    found = {}
    for name, values in zip(rows[0], zip(*rows[1:])):
        try:
            found[name] = np.array(values, dtype=np.int64) if name == "object_id" else \
                np.array([float(value) if value else np.nan for value in values])
        except ValueError as error:
            raise DataError(path, f"column '{name}': {error}") from error
    if "object_id" not in found:
        raise DataError(path, f"has no column 'object_id' (there are {', '.join(found)})")
    return found


def places(wanted, own):
    """Where each of the wanted ids stands among one's own, -1 where it does not."""
    if not len(own):
        return np.full(len(wanted), -1)
    order = np.argsort(own, kind="stable")
    found = order[np.minimum(np.searchsorted(own, wanted, sorter=order), len(own) - 1)]
    return np.where(own[found] == wanted, found, -1)


def looked_up(wanted, own, values):
    """The values [wanted] of those ids, NaN where one's own ids lack them."""
    found = places(wanted, own)
    return np.where(found >= 0, values[found], np.nan) if len(own) else np.full(len(wanted), np.nan)


class Run:
    """evaluation: a folder that evaluate published of the same catalogue, in the place of the run's own."""

    def __init__(self, path, evaluation=None):
        self.path = Path(path).resolve()
        self.manifests = {stage: read_json(self.path / folder / "manifest.json") for stage, folder in OUTPUTS.items()}
        self.evaluation_folder = self.path / OUTPUTS["evaluate"]
        if evaluation is not None:
            self._take_evaluation(Path(evaluation).resolve())
        self.metrics = {stage: read_lines(self.path / OUTPUTS[stage] / "metrics.jsonl") for stage in TRAININGS}
        self.evaluation = read_json(self.evaluation_folder / "evaluation.json") if self.manifests["evaluate"] else {}
        self.search = read_json(self.path / OUTPUTS["search"] / "results.json") if self.manifests["search"] else {}

    def _take_evaluation(self, folder):
        if not (folder / "manifest.json").is_file():
            raise MissingInput(folder, "has no manifest.json: evaluate has not published there")
        manifest = read_json(folder / "manifest.json")
        if not read_json(folder / "evaluation.json"):
            raise DataError(folder, "has no evaluation.json that can be read: it is not what evaluate publishes")
        evaluated = manifest.get("request", {}).get("inputs", {}).get("embeddings")
        catalogue = self.manifests["embed"].get("content_id")
        if evaluated != catalogue:
            raise DataError(folder, f"is the evaluation of catalogue {evaluated}, that of {self.path} is {catalogue}")
        self.manifests["evaluate"] = manifest
        self.evaluation_folder = folder

    def has_begun(self):
        """Whether any stage has written anything."""
        return any(self.manifests.values()) or any(self.metrics.values()) or (self.path / "status").is_dir()

    def store(self, name):
        """The store, or None if it is not there or not whole."""
        try:
            return Store(self.path / name)
        except (StoreError, OSError):
            return None

    def stages(self):
        rows = []
        for stage, folder in OUTPUTS.items():
            attempts = [a for file in attempts_files(self.path / "status", stage) for a in attempts_in(file)]
            status = read_json(self.path / "status" / f"{stage}.json") or read_json(self.path / folder / "status.json")
            complete = bool(self.manifests[stage])
            seconds = sum(number(a["seconds"]) for a in attempts if "seconds" in a)
            rows.append({
                "stage": stage,
                "state": "complete" if complete else status.get("state", "not run"),
                "seconds": round(seconds, 1) if seconds else None,
                "ranks": self.manifests[stage].get("run", {}).get("ranks", status.get("ranks")),
                "message": "" if complete else str(status.get("message", "")),
            })
        return rows

    def rejects(self):
        """{store: {objects, rows, total, damage, reasons}} of the stores that are there."""
        found = {}
        for stage, folder in OUTPUTS.items():
            content = self.manifests[stage].get("content", {})
            if folder in STORES and "rows" in content:
                left_out = content.get("rejects", {})
                found[folder] = {
                    "objects": content.get("plan", {}).get("objects", content["rows"]),
                    "rows": content["rows"],
                    "total": left_out.get("total", 0),
                    "damage": left_out.get("damage", 0),
                    "reasons": left_out.get("reasons", {}),
                }
        return found

    def match_counts(self):
        content = self.manifests["match"].get("content", {})
        return {key: value for key, value in content.items() if isinstance(value, (int, float)) and key != "rows"}

    def curve(self, stage, name):
        """[(step, value)] of a training's metric, a step that was done twice as it was done last."""
        lines = [line for line in self.metrics[stage] if "step" in line and isinstance(line.get(name), (int, float))]
        return sorted({line["step"]: float(line[name]) for line in lines}.items())

    def losses(self):
        """{training: {"train": [(step, loss)], "validation": [(step, loss)]}} of those that have begun."""
        found = {stage: {"train": self.curve(stage, "loss"), "validation": self.curve(stage, "val_loss")} for stage in TRAININGS}
        return {stage: curves for stage, curves in found.items() if any(curves.values())}

    def views(self):
        """The tensors that astroclip-show-images wrote, or {}."""
        path = self.path / "views.safetensors"
        return read_arrays(path) if path.is_file() else {}

    def image_rows(self, ids):
        """The rows in the store of images of objects by their catalogue id, -1 where there is no image."""
        images, pairs = self.store("images"), self.store("pairs")
        if images is None:
            return np.full(len(ids), -1)
        own = np.asarray(images["object_id"][:])
        if pairs is not None:
            own[pairs["image_row"][:]] = pairs["object_id"][:]
        return places(ids, own)

    def magnitudes(self, ids):
        """g, r and z magnitudes [n, 3] of objects by their catalogue id, NaN where the survey has none."""
        images, rows = self.store("images"), self.image_rows(ids)
        found = np.full((len(ids), 3), np.nan)
        if images is None or not {f"flux_{band}" for band in "grz"} <= set(images.columns):
            return found
        flux = np.stack([np.asarray(images[f"flux_{band}"][:], dtype=float)[rows] for band in "grz"], axis=1)
        good = (rows >= 0)[:, None] & (flux > 0)
        found[good] = 22.5 - 2.5 * np.log10(flux[good])
        return found

    def alignment(self):
        """The figures of the validation whose model align published, by name, or {}."""
        lines = [line for line in self.metrics["align"] if "val_modality_gap" in line]
        if not lines:
            return {}
        manifest = self.manifests["align"] or {}
        keeps_best = manifest.get("request", {}).get("configuration", {}).get("keep-best", 0) > 0
        losses = [number(line.get("val_loss")) for line in lines]
        published = lines[int(np.nanargmin(losses))] if keeps_best and np.isfinite(losses).any() else lines[-1]
        return {"step": published["step"]} | \
            {name.removeprefix("val_"): number(value) for name, value in published.items() if name.startswith("val_")}

    def alignment_curves(self):
        """{name: [(step, value)]} of what align notes: each step's gradient norms and scale, each validation's figures."""
        curves = {}
        for line in self.metrics["align"]:
            for name, value in line.items():
                if name.startswith(("val_", "grad_norm")) or name == "logit_scale":
                    curves.setdefault(name, {})[line.get("step", 0)] = number(value)
        return {name: sorted(values.items()) for name, values in curves.items()}

    def _table(self, name):
        return read_columns(self.evaluation_folder / name) if self.manifests["evaluate"] else {}

    def predictions(self):
        """{column: values} of the photo-z predictions, or {}."""
        return self._table("predictions.csv")

    def properties(self):
        """(ids, {label: (truth, {description: its prediction})}) of the held-out galaxies, NaN where unknown."""
        columns = self._table("properties.csv")
        labels = {}
        for name, values in columns.items():
            label = next((label for label in labels if name.startswith(f"{label} by ")), None)
            if label is not None:
                labels[label][1][name.removeprefix(f"{label} by ")] = values
            elif name != "object_id":
                labels[name] = values, {}
        return columns.get("object_id", np.empty(0, np.int64)), labels

    def components(self):
        """(ids, {modality: [n, 2]}): the first two principal components of the held-out galaxies that evaluate wrote, or {}."""
        columns = self._table("map.csv")
        planes = {modality: np.stack([columns[f"{modality}_1"], columns[f"{modality}_2"]], axis=1)
                  for modality in ("image", "spectrum") if {f"{modality}_1", f"{modality}_2"} <= columns.keys()}
        return columns.get("object_id", np.empty(0, np.int64)), planes

    def probe(self):
        """What astroclip-probe-spectra wrote, or {}."""
        found = read_json(self.path / "probe.json")
        return found if {"reconstruction", "redshift", "page", "by_wavelength", "by_snr"} <= found.keys() else {}

    def wavelength(self):
        spectra = self.store("spectra")
        return None if spectra is None else spectra["wavelength"][:]

    def provenance(self):
        facts = []
        latest = [m["run"] for m in self.manifests.values() if m.get("run")]
        if latest:
            newest = max(latest, key=lambda run: run.get("utc", ""))
            facts += [("version", f"{newest.get('version', '')} ({newest.get('revision', '')})"),
                      ("host", newest.get("host", "")), ("last output", newest.get("utc", ""))]
        for stage in ("align", "embed"):
            if self.manifests[stage]:
                facts.append(("model" if stage == "align" else "catalogue", self.manifests[stage].get("content_id", "")))
        return [(name, str(value)) for name, value in facts if value]


def open_run(path, evaluation=None):
    """The run in a folder that somebody named; an error if there is none, or if it is what a single stage published."""
    if not path.is_dir():
        raise MissingInput(path, "there is no such run folder")
    if (path / "manifest.json").is_file():
        raise DataError(path, "is the output of one stage (it has a manifest.json), a run folder expected")
    return Run(path, evaluation)
