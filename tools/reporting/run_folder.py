"""What a run folder holds so far, read without trusting any of it to be there."""

import csv
import sys
from pathlib import Path

import numpy as np

from checkpoints import safetensors
from open_catalog import Store, StoreError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "slurm"))
from workflow import STAGES, attempts_files, attempts_in, read_json, read_lines, write_atomically  # noqa: E402,F401  pylint: disable=wrong-import-position

OUTPUTS = {stage.name: stage.output for stage in STAGES.values()}
TRAININGS = ("pretrain-image", "pretrain-spectrum", "align")
STORES = ("images", "spectra", "pairs", "embeddings")


def read_arrays(path):
    """{name: array} of a safetensors file."""
    return {name: weights.values() for name, weights in safetensors.read(path)[1].items()}


def number(value):
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else float("nan")


class Run:
    def __init__(self, path):
        self.path = Path(path).resolve()
        self.manifests = {stage: read_json(self.path / folder / "manifest.json") for stage, folder in OUTPUTS.items()}
        self.metrics = {stage: read_lines(self.path / OUTPUTS[stage] / "metrics.jsonl") for stage in TRAININGS}
        self.evaluation = self._of_complete("evaluate", "evaluation.json")
        self.search = self._of_complete("search", "results.json")

    def _of_complete(self, stage, name):
        return read_json(self.path / OUTPUTS[stage] / name) if self.manifests[stage] else {}

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

    def magnitudes(self, ids):
        """g, r and z magnitudes [n, 3] of objects by their catalogue id, NaN where the survey has none."""
        images, pairs = self.store("images"), self.store("pairs")
        found = np.full((len(ids), 3), np.nan)
        if images is None or not {f"flux_{band}" for band in "grz"} <= set(images.columns):
            return found
        own = np.asarray(images["object_id"][:])
        if pairs is not None:
            own[pairs["image_row"][:]] = pairs["object_id"][:]
        order = np.argsort(own, kind="stable")
        places = np.minimum(np.searchsorted(own, ids, sorter=order), len(own) - 1)
        rows = order[places]
        known = own[rows] == ids
        flux = np.stack([np.asarray(images[f"flux_{band}"][:], dtype=float)[rows] for band in "grz"], axis=1)
        good = known[:, None] & (flux > 0)
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

    def predictions(self):
        """{column: values} of the photo-z predictions, or {}."""
        path = self.path / "evaluation" / "predictions.csv"
        if not self.manifests["evaluate"] or not path.is_file():
            return {}
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        if len(rows) < 2:
            return {}
        columns = list(zip(*rows[1:]))
        return {name: np.array(values, dtype=np.int64 if name == "object_id" else float)
                for name, values in zip(rows[0], columns)}

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
