#!/usr/bin/env python3
"""tools/report and tools/open_catalog.py on made-up run folders. `report_test.py make FOLDER` leaves one to look at."""

import html.parser
import json
import os
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import h5py
import numpy as np

HOME = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(HOME / "tools"))
from open_catalog import Store, StoreError, open_catalog  # noqa: E402

OBJECTS, WIDTH, SIDE = 300, 16, 64
WAVELENGTH = 3600 + 0.8 * np.arange(7781)


def publish(folder, kind, columns, axes=None, rejects=None, units=None):
    """A store as the pipeline publishes it, in one part (the small columns in the index, the others linked)."""
    folder.mkdir(parents=True)
    with h5py.File(folder / "part-00000.h5", "w") as part:
        for name, values in columns.items():
            part[name] = values
    with h5py.File(folder / "index.h5", "w") as index:
        index.attrs["kind"] = kind
        for name, values in {**columns, **(axes or {})}.items():
            if values.ndim == 1:
                index[name] = values
            else:
                layout = h5py.VirtualLayout(values.shape, values.dtype)
                layout[:] = h5py.VirtualSource("part-00000.h5", name, values.shape)
                index.create_virtual_dataset(name, layout, fillvalue=np.nan)
            index[name].attrs["unit"] = (units or {}).get(name, "")
    rows = len(columns["object_id"])
    left_out = rejects or {"total": 0, "damage": 0, "selection": 0, "reasons": {}}
    content = {"kind": kind, "rows": rows, "plan": {"objects": rows + left_out["total"]}, "rejects": left_out,
               "schema": {"columns": [{"name": name} for name in columns]}}
    write_manifest(folder, content, ["part-00000.h5", "index.h5"])


def write_manifest(folder, content, files=(), configuration=None):
    folder.mkdir(parents=True, exist_ok=True)
    entries = [{"name": name, "bytes": (folder / name).stat().st_size} for name in files]
    run = {"version": "0.1.0", "revision": "test", "host": "here", "ranks": 2, "utc": "2026-01-01T00:00:00Z"}
    (folder / "manifest.json").write_text(json.dumps({"format": "astroclip", "kind": content.get("kind"), "content": content,
                                                      "content_id": "c0ffee", "files": entries, "run": run,
                                                      "request": {"configuration": configuration or {}}}))


def galaxies(random):
    """Redshifts, cutouts and spectra that look the part."""
    z = random.gamma(4, 0.07, OBJECTS)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    images = np.empty((OBJECTS, 3, SIDE, SIDE), np.float32)
    spectra = np.empty((OBJECTS, len(WAVELENGTH)), np.float32)
    for i in range(OBJECTS):
        size, ratio, angle = random.uniform(2, 8), random.uniform(0.4, 1), random.uniform(0, 3.14)
        u, v = x * np.cos(angle) + y * np.sin(angle), (-x * np.sin(angle) + y * np.cos(angle)) / ratio
        light = np.exp(-np.hypot(u, v) / size)
        for band, (colour, noise) in enumerate(((0.05, 0.004), (0.05 + 0.3 * z[i], 0.007), (0.05 + 0.8 * z[i], 0.02))):
            images[i, band] = colour * light + noise * random.normal(size=light.shape)
        flux = 2 + 2 * np.tanh((WAVELENGTH / (1 + z[i]) - 4000) / 200)
        for line in (3728.5, 5008.2, 6564.6):
            flux += random.uniform(0, 30) * np.exp(-0.5 * ((WAVELENGTH / (1 + z[i]) - line) / 4) ** 2)
        spectra[i] = flux + random.normal(size=len(WAVELENGTH))
    return z, images, spectra


def make_stores(run, random):
    z, images, spectra = galaxies(random)
    ids = 39627000000000000 + np.arange(OBJECTS) * 7
    ra, dec = random.uniform(0, 360, OBJECTS), random.uniform(-30, 60, OBJECTS)
    rejects = {"total": 7, "damage": 2, "selection": 5,
               "reasons": {"sky fibre": {"selection": 5, "damage": 0}, "no <good> bins": {"selection": 0, "damage": 2}}}
    flux = {f"flux_{band}": images[:, i].sum(axis=(1, 2)) for i, band in enumerate("grz")}
    publish(run / "images", "images", {"object_id": ids, "ra": ra, "dec": dec, "flux": images, **flux},
            units={"flux": "nanomaggy"})
    publish(run / "spectra", "spectra", {"object_id": ids, "flux": spectra, "ivar": np.ones_like(spectra), "redshift": z},
            {"wavelength": WAVELENGTH}, rejects)
    rows = np.arange(OBJECTS)
    publish(run / "pairs", "pairs", {"object_id": ids, "image_row": rows, "spectrum_row": rows, "split": (rows % 5 == 0) * 1})
    unit = np.concatenate([np.stack([z, z * z], 1) * 3, 0.2 * random.normal(size=(OBJECTS, WIDTH - 2))], 1)
    unit = (unit / np.linalg.norm(unit, axis=1, keepdims=True)).astype(np.float32)
    publish(run / "embeddings", "embeddings",
            {"object_id": ids, "ra": ra, "dec": dec, "z_spec": z, "image_embedding": unit, "spectrum_embedding": -unit,
             "has_image": np.ones(OBJECTS, np.uint8), "has_spectrum": np.ones(OBJECTS, np.uint8)}, units={"ra": "deg"})
    return ids, ra, dec, z


def make_search(run, ids, ra, dec, z, random):
    def one(i):
        return {"object_id": int(ids[i]), "row": int(i), "ra": ra[i], "dec": dec[i], "z_spec": z[i]}
    queries = []
    for i in range(0, 50, 5):
        neighbours = {mode: [{**one(j), "score": 0.9 - 0.01 * n} for n, j in
                             enumerate([i] * (mode in ("ii", "ss")) + list(random.choice(OBJECTS, 6)) + [i] * (mode == "is"))]
                      for mode in ("ii", "ss", "is", "si")}
        neighbours["is"] = [neighbours["is"][-1], *neighbours["is"][:-1]]
        queries.append({**one(i), "neighbours": neighbours})
    (run / "search").mkdir()
    (run / "search" / "results.json").write_text(json.dumps({"pool": 60, "queries": queries}))
    write_manifest(run / "search", {"kind": "search"}, ["results.json"])


def make_evaluation(run, ids, z, random):
    test = np.arange(0, OBJECTS, 5)
    noise = {"image": 0.05, "spectrum": 0.01, "untrained": 0.12, "magnitudes": 0.06, "pixels": 0.11}
    predictions = {name: z[test] + width * random.normal(size=len(test)) for name, width in noise.items()}
    scores = {}
    for name, predicted in predictions.items():
        r2 = 1 - np.sum((z[test] - predicted) ** 2) / np.sum((z[test] - z[test].mean()) ** 2)
        scores[name] = {"r2": r2, "r2_low": r2 - 0.05, "r2_high": r2 + 0.04, "sigma_nmad": noise[name], "bias": 0.001,
                        "outlier_fraction": 0.1, "n": len(test)}
    supervised = {**scores["image"], "epochs": {"trained": 50, "best": 37}}
    one = {"recall_at_1": 0.3, "recall_at_5": 0.6, "recall_at_10": 0.81, "median_rank": 3, "n": len(test), "chance": 0.1667,
           "times_chance": 4.9, "photometry": 0.42, "photometry_median_rank": 14}
    (run / "evaluation").mkdir()
    (run / "evaluation" / "evaluation.json").write_text(json.dumps({
        "photo_z": scores, "retrieval": {"is": one, "si": one}, "neighbours": 64,
        "photo_z_few_shot": {name: {"r2": 0.71} for name in scores},
        "properties": {"LOG_MSTAR": {"image": {"r2": 0.7, "r2_low": 0.66, "r2_high": 0.74, "n": 59}, "spectrum": {"r2": 0.8}},
                       "mean": {"image": {"r2": 0.7, "n": 59}, "spectrum": {"r2": 0.8}}}, "labels": {"left_out": {"LOG_MSTAR": 12}},
        "photo_z_supervised": {"ResNet18 image": supervised},
        "properties_supervised": {"LOG_MSTAR": {"ResNet18 image": {"r2": 0.69}}},
        "properties_few_shot": {"LOG_MSTAR": {"image": {"r2": 0.72}, "SpecFormer spectrum": {"r2": None}}},
        "posteriors": {"image": {"nll": 3.2, "nll_std": 0.1, "n": 60, "calibration": {"LOG_MSTAR": {"pit_histogram": [3] * 20}}}},
        "across_modalities": {"image_from_spectrum": {"redshift": {"r2": 0.64}}},
        "label_curves": {"redshift": {"image": [{"labels": 10, "share": 0.1, "r2": 0.3, "few_shot_r2": None},
                                                {"labels": 100, "share": 1, "r2": 0.6, "few_shot_r2": 0.61}]}},
        "morphology": {"bar": {"answers": ["strong", "weak", "no"], "image": {"accuracy": 0.8, "accuracy_low": 0.71, "accuracy_high": 0.89,
                                                                            "f1": 0.78, "majority": 0.6, "n": 30, "confusion": [[3, 1, 0], [1, 5, 2], [0, 2, 16]]}},
                       "merging": {"answers": ["none", "merger"], "left_out": "all votes are for one answer"},
                       "mean": {"image": {"accuracy": 0.8, "f1": 0.78, "questions": 1}}},
        "table": [{"source": "image", "model": "AstroCLIP", "type": "zero-shot",
                   "ours": {"redshift": scores["image"], "properties": {"r2": 0.7},
                            "morphology": {"accuracy": 0.8, "accuracy_low": 0.73, "accuracy_high": 0.87}},
                   "published": {"redshift": 0.79, "properties": 0.47, "morphology": 0.76}},
                  {"source": "image", "model": "ResNet18", "type": "supervised", "ours": {"redshift": supervised, "properties": None},
                   "published": {"redshift": 0.77, "properties": 0.43, "morphology": None}},
                  {"source": "image", "model": "ZooBot", "type": "supervised", "ours": {"redshift": None, "properties": None, "morphology": None},
                   "published": {"redshift": None, "properties": None, "morphology": 0.88}},
                  {"source": "image", "model": "untrained", "type": "no learning", "ours": {"redshift": scores["untrained"]}, "published": None}]}))
    lines = [",".join(("object_id", "z_true", *predictions))]
    lines += [f"{ids[row]},{z[row]}," + ",".join(str(values[i]) for values in predictions.values()) for i, row in enumerate(test)]
    (run / "evaluation" / "predictions.csv").write_text("\n".join(lines) + "\n")
    mass = 9 + 5 * z[test]
    cells = np.char.mod("%.5f", np.stack([mass, mass + 0.2 * random.normal(size=len(test)), mass + 0.1 * random.normal(size=len(test))], 1))
    cells[0] = ""  # a galaxy without the label
    lines = ["object_id,LOG_MSTAR,LOG_MSTAR by image,LOG_MSTAR by spectrum"] + [f"{ids[row]},{','.join(cells[i])}" for i, row in enumerate(test)]
    (run / "evaluation" / "properties.csv").write_text("\n".join(lines) + "\n")
    lines = ["object_id,image_1,image_2,spectrum_1,spectrum_2"] + [f"{ids[row]},{z[row]},0.5,{-z[row]},{z[row] ** 2}" for row in test]
    (run / "evaluation" / "map.csv").write_text("\n".join(lines) + "\n")
    write_manifest(run / "evaluation", {"kind": "evaluation"}, ["evaluation.json", "predictions.csv", "properties.csv", "map.csv"])


def make_trainings(run, random):
    for name, top in (("image-encoder", 9.0), ("spectrum-encoder", 1.0), ("aligned", 4.8)):
        write_manifest(run / name, {"kind": "model"}, configuration={"keep-best": 2})
        with open(run / name / "metrics.jsonl", "w", encoding="utf-8") as file:
            for step in range(1, 601):
                loss = top * (0.4 + 0.6 * np.exp(-step / 150)) + 0.03 * top * random.normal()
                terms = {"image-encoder": {"dino_local": loss / 2, "koleo": -0.1, "effective_rank": 12.5},
                         "aligned": {"logit_scale": 15.5, "grad_norm": 2.0, "grad_norm_image_head": 1.5}}.get(name, {})
                file.write(json.dumps({"step": step, "loss": loss, **terms}) + "\n")
                if step % 100 == 0:
                    figures = {"val_modality_gap": 0.8, "val_recall_at_10_is": 0.625} if name == "aligned" else {}
                    if name == "aligned" and step == 600:  # after the best one
                        loss, figures["val_recall_at_10_is"] = 2 * loss, 0.375
                    file.write(json.dumps({"step": step, "val_loss": loss * 1.05, **figures}) + "\n")
            file.write('{"step": 601, "lo')  # cut by a kill
    (run / "status").mkdir()
    for stage in ("ingest-images", "align", "embed"):
        (run / "status" / f"{stage}.attempts.jsonl").write_text('{"started": "x"}\n{"seconds": 12.5, "exit_code": 0}\n')


def make_probe(run, ids, z, random):
    """As astroclip-probe-spectra writes it; a bin of wavelength in which nothing was hidden has no error."""
    errors = {"model": 0.04, "interpolation": 0.08, "mean_spectrum": 0.1}
    bins = {name: [value, None, value] for name, value in errors.items()}
    page = [{"object_id": int(ids[i]), "redshift": float(z[i]), "hidden": [[700, 1100], [7380, 7781]],
             "flux": random.normal(2, 1, len(WAVELENGTH)).round(4).tolist(), "prediction": [2.0] * len(WAVELENGTH)} for i in range(2)]
    one = {"r2": 0.5, "r2_low": 0.4, "r2_high": 0.6, "n": 60}
    (run / "probe.json").write_text(json.dumps({
        "reconstruction": {**errors, "spectra": 60, "samples": 1.0e5, "against": "noisy"},
        "redshift": {"trained": one, "untrained": {**one, "r2": 0.2}}, "page": page,
        "by_wavelength": {**bins, "wavelength": [4000, 6000, 8000]}, "by_snr": {**bins, "snr": [1, 2, 4]}}))


def make_views(run, random):
    """As astroclip-show-images writes it: a header, and the tensors one after the other."""
    tensors = {"original": random.random((2, 3, 20, 20)), "gr": random.random((2, 3, 20, 20)), "attention": random.random((2, 9)),
               "patches": random.normal(size=(2, 9, 5))}
    header, data = {"__metadata__": {}}, b""
    for name, values in tensors.items():
        content = values.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    (run / "views.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


def make_run(path):
    random = np.random.default_rng(1)
    ids, ra, dec, z = make_stores(path, random)
    make_search(path, ids, ra, dec, z, random)
    make_evaluation(path, ids, z, random)
    make_probe(path, ids, z, random)
    make_views(path, random)
    make_trainings(path, random)


class Checker(html.parser.HTMLParser):
    """Collects what a page would load, and whether its elements close."""

    VOID = {"meta", "img", "br", "link", "input", "hr"}

    def __init__(self):
        super().__init__()
        self.loads, self.open, self.faults = [], [], []

    def handle_starttag(self, tag, attributes):
        self.loads += [value for name, value in attributes if name in ("src", "href", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)


def report(run, *more, **environment):
    return subprocess.run([sys.executable, HOME / "tools" / "report", run, *more], capture_output=True, text=True, check=False,
                          env=os.environ | environment)


class Report(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.run_folder = Path(self.folder.name) / "run & <7>"
        self.run_folder.mkdir()

    def tearDown(self):
        self.folder.cleanup()

    def read(self):
        done = report(self.run_folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        page = (self.run_folder / "report" / "report.html").read_text(encoding="utf-8")
        checker = Checker()
        checker.feed(page)
        self.assertEqual((checker.open, checker.faults), ([], []))
        self.assertTrue(all(load.startswith(("data:", "#")) for load in checker.loads))
        self.assertEqual([p.name for p in sorted((self.run_folder / "report").iterdir())], ["report.html", "report.json"])
        return page, json.loads((self.run_folder / "report" / "report.json").read_text())

    def test_whole_run_has_every_section_in_one_file(self):
        make_run(self.run_folder)
        page, figures = self.read()
        for anchor in ("retrieval", "redshift", "properties", "morphology", "labels", "table", "search", "map", "training", "alignment", "views", "spectra", "input", "run"):
            self.assertIn(f'<section id="{anchor}">', page)
        self.assertNotIn('class="missing"', page)
        self.assertIn("no &lt;good&gt; bins", page)
        self.assertIn("<b>0.625</b>", page)
        self.assertIn("run &amp; &lt;7&gt;", page)
        self.assertIn("12 galaxies have no LOG_MSTAR", page)
        self.assertIn("all votes are for one answer", page)
        self.assertIn("<b>0.70</b>", page)
        self.assertIn("epoch 37 of 50", page)
        self.assertIn("ResNet18 image, trained on labels", page)
        self.assertNotIn("<b>0.375</b>", page)  # of another model than the published one
        for words in ("attention and tokens", "KoLeo", "held-out galaxies: a pair is on the diagonal", "Logit scale over time",
                      "image head", "coloured by g − r [mag]", "effective rank", "predicted LOG_MSTAR against true LOG_MSTAR from spectrum",
                      "coloured by LOG_MSTAR", "Galaxies at their places among the image embeddings", "up to 60 of 300 objects",
                      "0.700 <small>0.66–0.74", "0.800 <small>0.71–0.89", "0.80</b> <small>0.73–0.87"):
            self.assertIn(words, page)
        self.assertIn("59 galaxies", page)
        self.assertEqual(figures["retrieval"]["is"]["recall_at_10"], 0.81)
        self.assertEqual(set(figures["photo_z"]), {"image", "spectrum", "untrained", "magnitudes", "pixels"})
        self.assertEqual(figures["losses"]["align"]["steps"], 600)
        self.assertIsNotNone(figures["losses"]["align"]["best_validation"])
        self.assertEqual(figures["rejects"]["spectra"]["damage"], 2)
        self.assertEqual(next(s for s in figures["stages"] if s["stage"] == "align")["seconds"], 12.5)

    def test_evaluation_without_single_properties_and_components_still_gives_a_report(self):
        make_run(self.run_folder)
        for name in ("properties.csv", "map.csv"):
            (self.run_folder / "evaluation" / name).unlink()
        page, _ = self.read()
        self.assertNotIn("against true LOG_MSTAR", page)
        self.assertIn("up to 300 of 300 objects", page)
        self.assertIn("coloured by redshift", page)

    def test_damaged_table_is_named_with_its_place(self):
        make_run(self.run_folder)
        for text, words in (("object_id,LOG_MSTAR\n7,nine\n", "column 'LOG_MSTAR'"), ("object_id,LOG_MSTAR\n7\n", "line 2 has 1 fields, 2 expected")):
            (self.run_folder / "evaluation" / "properties.csv").write_text(text)
            done = report(self.run_folder)
            self.assertEqual(done.returncode, 65)
            self.assertIn("properties.csv", done.stderr)
            self.assertIn(words, done.stderr)

    def test_report_of_another_evaluation_stands_beside_the_first(self):
        make_run(self.run_folder)
        self.read()
        table = self.run_folder / "beside" / "table"
        table.parent.mkdir()
        (self.run_folder / "evaluation").rename(table)
        manifest = json.loads((table / "manifest.json").read_text())
        manifest["request"] = {"inputs": {"embeddings": "c0ffee"}}
        (table / "manifest.json").write_text(json.dumps(manifest))
        done = report(self.run_folder, "--evaluation", table)
        self.assertEqual(done.returncode, 0, done.stderr)
        page = (self.run_folder / "report" / "report-table.html").read_text(encoding="utf-8")
        self.assertIn("beside/table", page)
        self.assertNotIn("Not evaluated", page)
        manifest["request"] = {"inputs": {"embeddings": "another"}}
        (table / "manifest.json").write_text(json.dumps(manifest))
        done = report(self.run_folder, "--evaluation", table)
        self.assertEqual(done.returncode, 65)
        self.assertIn("of catalogue another", done.stderr)
        self.assertEqual(report(self.run_folder, "--evaluation", table / "none").returncode, 66)
        self.assertEqual(report(self.run_folder, "--evaluation", self.run_folder / "aligned").returncode, 65)

    def test_run_of_which_nothing_is_there_says_so(self):
        page, figures = self.read()
        self.assertGreaterEqual(page.count('class="missing"'), 6)
        self.assertNotIn("photo_z", figures)

    def test_run_that_stopped_half_way_shows_what_there_is(self):
        make_stores(self.run_folder, np.random.default_rng(1))
        (self.run_folder / "spectra" / "manifest.json").unlink()
        page, figures = self.read()
        self.assertIn("Not evaluated", page)
        self.assertIn("images", figures["rejects"])
        self.assertNotIn("spectra", figures["rejects"])

    def test_wrong_argument_ends_with_the_code_of_the_table(self):
        self.assertEqual(report(self.run_folder / "none").returncode, 66)
        self.assertEqual(report("--wrong").returncode, 64)
        make_stores(self.run_folder, np.random.default_rng(1))
        self.assertEqual(report(self.run_folder / "images").returncode, 65)
        self.assertFalse((self.run_folder / "images" / "report").exists())

    def test_umap_that_is_not_installed_is_asked_for_by_name(self):
        (self.run_folder / "umap.py").write_text("raise ImportError('No module named umap')\n")
        done = report(self.run_folder, "--umap", PYTHONPATH=str(self.run_folder))
        self.assertEqual(done.returncode, 1)
        self.assertIn("umap-learn", done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        self.assertFalse((self.run_folder / "report").exists())


def compare(*words):
    return subprocess.run([sys.executable, HOME / "tools" / "compare_reports", *words], capture_output=True, text=True, check=False)


class CompareReports(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.runs = [self.folder / name for name in ("a", "b")]

    def make_runs(self, **changes):
        """Two runs, of which the second's evaluation has these changes: {top level name: function of its value}."""
        for place, run in enumerate(self.runs):
            make_run(run)
            manifest = json.loads((run / "aligned" / "manifest.json").read_text())
            manifest["request"] = {"configuration": {"batch-size": 64 << place, "steps": 20}}
            (run / "aligned" / "manifest.json").write_text(json.dumps(manifest))
        path = self.runs[1] / "evaluation" / "evaluation.json"
        scores = json.loads(path.read_text())
        for name, change in changes.items():
            change(scores[name])
        path.write_text(json.dumps(scores))

    def page(self):
        done = compare(*self.runs, "--output", self.folder / "both.html")
        self.assertEqual(done.returncode, 0, done.stderr)
        page = (self.folder / "both.html").read_text(encoding="utf-8")
        checker = Checker()
        checker.feed(page)
        self.assertEqual((checker.open, checker.faults), ([], []))
        self.assertTrue(all(load.startswith(("data:", "#")) for load in checker.loads))
        return page

    def row(self, page, title, *cells):
        """The last cell of the row that begins with these in the table of this title."""
        start = "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells)
        found = page.split(f"<summary>{title} ")[1].split("</details>")[0]
        self.assertEqual(found.count(start), 1, start)
        return found.split(start)[1].split("</tr>")[0].rsplit("<td>", 1)[1].removesuffix("</td>")

    def compare_rows(self, page, expected):
        """expected: {(title, *cells): last cell}"""
        self.assertEqual({one: self.row(page, *one) for one in expected}, expected)

    def test_two_runs_stand_in_one_page_with_their_differences(self):
        self.make_runs(photo_z=lambda one: one["image"].update(r2=one["image"]["r2"] + 0.125))
        page = self.page()
        self.assertIn("<b>+0.125</b>", page)
        self.assertIn("align.batch-size", page)
        self.assertNotIn("align.steps", page)
        self.assertEqual(page.count("<figure>"), 3)
        self.assertIn("held out the same 60 galaxies", page)

    def test_every_figure_of_the_evaluation_is_in_the_page(self):
        self.make_runs(morphology=lambda one: one["bar"]["image"].update(accuracy=0.9),
                       across_modalities=lambda one: one["image_from_spectrum"]["redshift"].update(r2=0.5))
        page = self.page()
        self.compare_rows(page, {
            ("Properties, nearest neighbours", "LOG_MSTAR · image embedding", "R²"): "0",
            ("Morphology", "bar · image embedding", "accuracy"): "<b>+0.100</b>",
            ("Neighbours in the other modality", "image from spectrum · redshift", "R²"): "−0.140",
            ("Finding the partner", "image → spectrum", "recall at 5"): "0",
            ("Few labels", "redshift · image embedding · 100 % of the labels", "R²"): "0",
            ("The published table", "image, AstroCLIP (zero-shot) · morphology", "accuracy"): "0",
        })

    def test_what_is_not_comparable_is_not_subtracted(self):
        self.make_runs(properties=lambda one: one.update(Z_MW={"image": {"r2": 0.2}}),
                       retrieval=lambda one: one["is"].update(n=50),
                       morphology=lambda one: one.update(round={"image": {"accuracy": 0.9}}))
        page = self.page()
        self.compare_rows(page, {
            ("Properties, nearest neighbours", "mean · image embedding", "R²"): "other labels (only B: Z_MW)",
            ("The published table", "image, AstroCLIP (zero-shot) · properties", "R²"): "other labels (only B: Z_MW)",
            ("Morphology", "mean · image embedding", "accuracy"): "other questions (only B: round)",
            ("Finding the partner", "image → spectrum", "recall at 10"): "60 and 50 galaxies",
            ("Properties, nearest neighbours", "LOG_MSTAR · image embedding", "R²"): "0",
        })

    def test_what_is_not_a_run_is_an_error(self):
        make_stores(self.runs[0], np.random.default_rng(1))
        self.runs[1].mkdir()
        stores = self.runs[0] / "images", self.runs[0] / "spectra"
        for words, code in (((self.runs[0], self.runs[1]), 66), ((self.runs[0], "/nonexistent"), 66), (stores, 65),
                            ((self.runs[0],), 64), ((), 64)):
            done = compare(*words, "--output", self.folder / "both.html") if words else compare()
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertNotIn("Traceback", done.stderr)
        self.assertFalse((self.folder / "both.html").exists())


class OpenCatalog(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.store = Path(self.folder.name) / "embeddings"
        self.vectors = np.arange(12, dtype=np.float32).reshape(4, 3)
        publish(self.store, "embeddings", {"object_id": np.arange(4), "ra": np.arange(4.0), "image_embedding": self.vectors},
                units={"ra": "deg"})

    def tearDown(self):
        self.folder.cleanup()

    def test_gives_the_columns_with_their_units(self):
        table = open_catalog(self.store, columns=["ra", "image_embedding"])
        self.assertEqual(table["ra"].unit, "deg")
        np.testing.assert_array_equal(table["image_embedding"], self.vectors)

    def test_refuses_a_store_that_lacks_a_part_or_a_manifest(self):
        (self.store / "part-00000.h5").unlink()
        with self.assertRaisesRegex(StoreError, "part-00000.h5: is missing"):
            open_catalog(self.store)
        (self.store / "manifest.json").unlink()
        with self.assertRaisesRegex(StoreError, "no manifest.json"):
            open_catalog(self.store)


class AnotherPython(unittest.TestCase):
    """A Python without packages, as -S makes one of any."""
    TOOLS = ("report", "compare_reports", "encoder_page", "search_page", "serve_search.py", "open_catalog.py")

    def start(self, tool, python):
        return subprocess.run([sys.executable, "-S", HOME / "tools" / tool, "--help"], capture_output=True, text=True, check=False,
                              env=os.environ | {"ASTROCLIP_PYTHON": str(python)})

    def test_tools_start_anew_in_the_python_that_is_named(self):
        with tempfile.TemporaryDirectory() as folder:
            python = Path(folder, "python")
            python.write_text("#!/bin/sh\necho anew: \"$@\"\n")
            python.chmod(0o755)
            for tool in self.TOOLS:
                self.assertEqual(self.start(tool, python).stdout, f"anew: {HOME / 'tools' / tool} --help\n")

    @unittest.skipUnless(sys.executable == "/usr/bin/python3", "another Python than Debian's")
    def test_where_none_has_the_packages_one_line_says_which_and_how_to_get_them(self):
        for tool in self.TOOLS:
            done = self.start(tool, "/nonexistent")
            self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (64, "", 1), done.stderr)
            self.assertRegex(done.stderr, f"^{tool}: {sys.executable} .*has no module '(h5py|astropy)'; tools/setup.sh installs")


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "make":
        make_run(Path(sys.argv[2]))
    else:
        unittest.main(verbosity=2)
