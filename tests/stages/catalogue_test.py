#!/usr/bin/python3
"""What embed, search and evaluate publish: one row a galaxy, unit vectors, exact neighbours, figures that agree.

usage: catalogue_test.py RUN, a folder that tiny_run.py made.
"""
import csv
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import h5py
import numpy as np
from astropy.table import Table

import pipeline

sys.path.insert(0, str(pipeline.SOURCE / "tools"))
from open_catalog import Store, open_catalog  # noqa: E402

RUN = pathlib.Path(sys.argv.pop(1)).resolve()
MODES = {"ii": ("image", "image"), "ss": ("spectrum", "spectrum"), "is": ("image", "spectrum"), "si": ("spectrum", "image")}


def ids(store):
    return set(Store(RUN / store)["object_id"][:])


class Embed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.table = open_catalog(RUN / "embeddings")

    def test_every_galaxy_is_one_row_and_says_what_it_has(self):
        found = list(self.table["object_id"])
        self.assertEqual(len(found), len(set(found)))
        pairs = Store(RUN / "pairs")
        image_ids, spectrum_ids = Store(RUN / "images")["object_id"][:], Store(RUN / "spectra")["object_id"][:]
        paired = dict(zip(pairs["image_row"][:], pairs["spectrum_row"][:]))
        expected = len(image_ids) + len(spectrum_ids) - len(paired)
        self.assertEqual(len(found), expected)
        self.assertEqual(self.table["has_image"].sum(), len(image_ids))
        self.assertEqual(self.table["has_spectrum"].sum(), len(spectrum_ids))

    def test_vectors_have_length_one_and_what_is_absent_is_zero(self):
        for modality in ("image", "spectrum"):
            length = np.linalg.norm(self.table[f"{modality}_embedding"].astype(np.float64), axis=1)
            has = self.table[f"has_{modality}"] == 1
            np.testing.assert_allclose(length[has], 1, atol=1e-6)  # float32 of up to 1024 numbers
            np.testing.assert_array_equal(length[~has], 0)
            self.assertTrue(np.all((self.table[f"{modality}_embedding_norm"] > 0) == has))

    def test_columns_are_those_of_the_inputs(self):
        spectra = Store(RUN / "spectra")
        row = {int(each): i for i, each in enumerate(spectra["object_id"][:])}
        z = spectra["redshift"][:]
        for galaxy in self.table:
            self.assertTrue(np.isfinite(galaxy["ra"]) and np.isfinite(galaxy["dec"]) and galaxy["healpix_29"] >= 0)
            if galaxy["has_spectrum"]:
                self.assertEqual(galaxy["z_spec"], z[row[galaxy["object_id"]]])

    def test_spectra_alone_have_the_bits_that_they_have_beside_images(self):
        with tempfile.TemporaryDirectory() as folder:
            output = pathlib.Path(folder) / "output"
            pipeline.call([str(pipeline.BIN / "astroclip-embed"), "--spectra", str(RUN / "spectra"), "--model",
                           str(RUN / "aligned"), "--output", str(output)])
            alone = open_catalog(output, columns=["object_id", "spectrum_embedding", "has_image"])
        both = {galaxy["object_id"]: galaxy["spectrum_embedding"] for galaxy in self.table}
        self.assertEqual(alone["has_image"].sum(), 0)
        for galaxy in alone:
            np.testing.assert_array_equal(galaxy["spectrum_embedding"], both[galaxy["object_id"]])


class Search(unittest.TestCase):
    def test_neighbours_are_those_of_all_products(self):
        table = open_catalog(RUN / "embeddings")
        row = {int(each): i for i, each in enumerate(table["object_id"])}
        pairs = Store(RUN / "pairs")
        held_out = {int(each) for each, split in zip(pairs["object_id"][:], pairs["split"][:]) if split == 1}
        found = json.loads((RUN / "search" / "results.json").read_text())
        self.assertEqual(found["pool"], len(held_out))
        pool = np.array(sorted(row[each] for each in held_out))
        for query in found["queries"]:
            self.assertEqual(set(query["neighbours"]), set(MODES))
            for mode, (asked, known) in MODES.items():
                scores = table[f"{known}_embedding"][pool] @ table[f"{asked}_embedding"][row[query["object_id"]]]
                best = pool[np.argsort(-scores, kind="stable")][:len(query["neighbours"][mode])]
                given = [one["score"] for one in query["neighbours"][mode]]
                np.testing.assert_allclose(given, np.sort(scores)[::-1][:len(given)], atol=1e-5)
                if np.min(-np.diff(given)) > 1e-5:  # no ties to rounding
                    self.assertEqual([one["row"] for one in query["neighbours"][mode]], list(best))
                if asked == known:
                    self.assertEqual(query["neighbours"][mode][0]["object_id"], query["object_id"])

    def test_table_has_a_line_for_every_neighbour(self):
        queries = json.loads((RUN / "search" / "results.json").read_text())["queries"]
        with open(RUN / "search" / "results.csv", newline="") as file:
            lines = list(csv.DictReader(file))
        self.assertEqual(len(lines), sum(len(n) for query in queries for n in query["neighbours"].values()))

    def test_ids_can_be_asked_for_and_unknown_ones_alone_are_refused(self):
        known = sorted(ids("embeddings"))[3]
        with tempfile.TemporaryDirectory() as folder:
            line = [str(pipeline.BIN / "astroclip-search"), "--embeddings", str(RUN / "embeddings"), "--output", folder + "/found"]
            pipeline.call([*line, "--ids", str(known)])
            found = json.loads(pathlib.Path(folder, "found", "results.json").read_text())
            self.assertEqual([query["object_id"] for query in found["queries"]], [known])
            pipeline.call([*line[:-1], folder + "/none", "--ids", "5"], code=65)
            pipeline.call([*line[:-1], folder + "/none", "--ids", "five"], code=64)


class SearchFor(unittest.TestCase):
    """Queries of every kind, among all galaxies."""

    @classmethod
    def setUpClass(cls):
        cls.table = open_catalog(RUN / "embeddings")
        cls.table = cls.table[(cls.table["has_image"] == 1) & (cls.table["has_spectrum"] == 1)]

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def refused(self, code, words, *more, ranks=1):
        line = [*pipeline.launcher(ranks), str(pipeline.BIN / "astroclip-search"), "--embeddings", str(RUN / "embeddings"), "--output",
                str(self.folder / "refused"), *map(str, more)]
        done = subprocess.run(line, capture_output=True, text=True, env=pipeline.environment(), timeout=300, check=False)
        self.assertEqual(done.returncode, code, done.stderr)
        for word in map(str, words):
            self.assertIn(word, done.stderr)

    def search(self, *more, ranks=1, code=0):
        output = self.folder / f"found-{len(list(self.folder.iterdir()))}"
        pipeline.call([*pipeline.launcher(ranks), str(pipeline.BIN / "astroclip-search"), "--embeddings", str(RUN / "embeddings"), "--output", str(output),
                       *map(str, more)], code=code)
        return output if code else (output, json.loads((output / "results.json").read_text()))

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    def test_positions_find_the_nearest_galaxy_and_those_without_one_are_told(self):
        some = self.table[:3]
        off = 0.3 / 3600  # within the radius of an arcsecond
        rows = "".join(f"{one['ra']:.9f},{one['dec'] + off:.9f}\n" for one in some)
        path = self.write("positions.csv", "RA,DEC\n" + rows + "123.4,-56.7\n")
        for ranks in (1, 3):
            _, found = self.search("--positions", path, ranks=ranks)
            self.assertEqual([query["object_id"] for query in found["queries"]], list(some["object_id"]))
            self.assertEqual(len(found["unmatched"]), 1)
            self.assertIn("123.4", found["unmatched"][0])
        self.search("--positions", self.write("nowhere.csv", "ra,dec\n123.4,-56.7\n"), code=65)
        self.search("--positions", self.write("wrong.csv", "ra,dec\n123.4,-96.7\n"), code=65)
        self.search("--positions", self.write("columns.csv", "a,b\n1,2\n"), code=65)

    def test_an_empty_list_is_refused_and_not_answered_with_galaxies_of_our_choice(self):
        with h5py.File(self.folder / "none.h5", "w") as file, h5py.File(sorted((RUN / "survey/images").rglob("*.h5"))[0]) as some:
            for name in some:
                file[name] = some[name][:0]
        with h5py.File(self.folder / "none.hdf5", "w") as file:
            for name in ("spectrum_flux", "spectrum_ivar", "spectrum_lambda", "spectrum_mask"):
                file[name] = np.empty((0, 7781), np.float32)
            for name in ("object_id", "ra", "dec", "Z"):
                file[name] = np.empty(0, np.int64 if name == "object_id" else np.float64)
        for option, path, words in (("--query-file", self.write("none.txt", ""), "0 lines"),
                                    ("--query-file", self.write("comments.txt", "# object_id\n\n"), "2 lines"),
                                    ("--positions", self.write("none.csv", "ra,dec\n"), "columns ra and dec and no rows"),
                                    ("--cutouts", self.write("cutouts.csv", "file,object_id,ra,dec\n"), "no cutouts"),
                                    ("--cutouts", self.folder / "none.h5", "no cutouts"),
                                    ("--spectra", self.folder / "none.hdf5", "no spectra")):
            with self.subTest(path=path.name):
                model = ("--model", RUN / "aligned") if option in ("--cutouts", "--spectra") else ()
                self.refused(65, [path, words, "nothing to search for; expected one"], option, path, *model)
        # Beside others too: who names a file means it.
        self.refused(65, ["none.txt"], "--query-file", self.folder / "none.txt", "--ids", self.table["object_id"][0], ranks=2)

    def test_random_galaxies_are_for_a_search_without_queries(self):
        self.refused(64, ["'random' = 5", "'ids'"], "--ids", self.table["object_id"][0], "--random", 5)
        for more, queries in ((("--random", 5), 5), ((), 16)):
            self.assertEqual(len(self.search(*more)[1]["queries"]), queries)

    def test_unknown_ids_are_told_and_the_others_searched_for(self):
        known = [int(one) for one in self.table["object_id"][:2]]
        path = self.write("ids.txt", f"{known[0]}\n5\n{known[1]}\n7\n")
        for ranks in (1, 3):
            _, found = self.search("--query-file", path, "--positions", self.write("far.csv", "ra,dec\n123.4,-56.7\n"), ranks=ranks)
            self.assertEqual([query["object_id"] for query in found["queries"]], known)
            self.assertEqual(found["unmatched"], ["5", "7", "123.40000000 -56.70000000"])
        self.refused(65, ["ids that are not in the catalogue: 7 (1, 2, 3, 4, 5, ...)"], "--ids", "1,2,3,4,5,6,7")

    def test_an_index_of_which_all_is_looked_at_finds_what_exact_search_finds(self):
        index = self.folder / "index"
        ids = ",".join(str(one) for one in self.table["object_id"][:5])
        done = subprocess.run([str(pipeline.BIN / "astroclip-search"), "--embeddings", str(RUN / "embeddings"), "--ids", ids, "--index",
                               str(index), "--index-rows", "16", "--output", str(self.folder / "first")], capture_output=True, text=True,
                              env=pipeline.environment(), check=False)
        if "this build has no FAISS" in done.stderr:
            self.skipTest("built without FAISS")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertGreater(len(list(index.glob("image-*.faiss"))), 2)
        made = (index / "manifest.json").stat().st_mtime_ns
        _, exact = self.search("--ids", ids)
        self.assertIsNone(exact["approximate"])
        for ranks, folder in ((1, index), (2, index), (2, self.folder / "by-two")):
            _, found = self.search("--ids", ids, "--index", folder, "--index-rows", 16, "--probes", 1000, ranks=ranks)
            self.assertEqual(found["approximate"], {"probes": 1000, "recall_at_10": {mode: 1 for mode in MODES}})
            for query, same in zip(found["queries"], exact["queries"]):
                for mode in MODES:
                    ours, theirs = query["neighbours"][mode], same["neighbours"][mode]
                    np.testing.assert_allclose([one["score"] for one in ours], [one["score"] for one in theirs], atol=1e-6)
                    # The last may be one of several with its score, but for rounding.
                    self.assertEqual([one["object_id"] for one in ours][:-1], [one["object_id"] for one in theirs][:-1])
        self.assertEqual((index / "manifest.json").stat().st_mtime_ns, made)
        self.assertEqual(pipeline.digest(index), pipeline.digest(self.folder / "by-two"))
        self.search("--ids", ids, "--index", index, "--pairs", RUN / "pairs", code=64)
        self.search("--ids", ids, "--index", RUN / "pairs", code=73)
        (index / "image-00000.faiss").write_bytes(b"cut")
        self.search("--ids", ids, "--index", index, code=65)

    def test_mean_of_examples_is_the_mean_of_their_unit_vectors(self):
        some = self.table[:4]
        ids = ",".join(str(one) for one in some["object_id"])
        _, found = self.search("--ids", ids, "--mean", "--neighbours", 5)
        self.assertEqual([query["name"] for query in found["queries"]], ["mean of 4"])
        for mode, (asked, known) in MODES.items():
            mean = some[f"{asked}_embedding"].astype(np.float64).mean(axis=0)
            scores = np.sort(self.table[f"{known}_embedding"] @ (mean / np.linalg.norm(mean)))[::-1]
            given = [one["score"] for one in found["queries"][0]["neighbours"][mode]]
            np.testing.assert_allclose(given, scores[:5], atol=1e-5)

    def test_mean_says_how_many_examples_have_each_modality(self):
        both = self.table[:3]
        own = ("--model", RUN / "aligned", "--spectra", sorted((RUN / "survey/spectra").rglob("coadd-*.fits"))[0])
        spectra = len(self.search(*own)[1]["queries"])
        output, found = self.search("--ids", ",".join(str(one) for one in both["object_id"]), "--mean", *own)
        query, = found["queries"]
        self.assertEqual(query["examples"], {"image": 3, "spectrum": 3 + spectra})
        self.assertEqual(query["name"], f"mean of {3 + spectra}: 3 images and {3 + spectra} spectra")
        mean = both["image_embedding"].astype(np.float64).mean(axis=0)
        scores = np.sort(self.table["image_embedding"] @ (mean / np.linalg.norm(mean)))[::-1]
        np.testing.assert_allclose([one["score"] for one in query["neighbours"]["ii"]], scores[:8], atol=1e-5)
        text = self.page(output).read_text()
        self.assertIn("image → images, mean of 3 images", text)
        self.assertIn(f"spectrum → spectra, mean of {3 + spectra} spectra", text)

    def page(self, output):
        return pathlib.Path(pipeline.call([sys.executable, str(pipeline.SOURCE / "tools/search_page"), str(output), "--images", str(RUN / "images"),
                                           "--spectra", str(RUN / "spectra"), "--pairs", str(RUN / "pairs")]).strip())

    def test_own_files_find_the_galaxy_that_they_show(self):
        spectra = sorted((RUN / "survey/spectra").rglob("coadd-*.fits"))[0]
        images = sorted((RUN / "survey/images").rglob("*.h5"))[0]
        output, found = self.search("--model", RUN / "aligned", "--spectra", spectra, "--cutouts", images, "--neighbours", 1)
        self.own_pixels_are_those_of_the_stores(output, found)
        compared = 0
        ids = set(self.table["object_id"])
        for query in found["queries"]:
            for mode in ("ii", "ss"):
                if mode in query["neighbours"] and query["object_id"] in ids:
                    nearest = query["neighbours"][mode][0]
                    self.assertAlmostEqual(nearest["score"], 1, places=5)
                    self.assertEqual(nearest["object_id"], query["object_id"])
                    compared += 1
        self.assertGreater(compared, 20)
        self.search("--spectra", spectra, code=64)  # no model
        self.search("--spectra", spectra, "--model", RUN / "spectrum-encoder", code=65)  # not the catalogue's

    def own_pixels_are_those_of_the_stores(self, output, found):
        compared = 0
        with h5py.File(output / "queries.h5") as kept:
            places = [*kept["images/query"][:], *kept["spectra/query"][:]]
            self.assertEqual(places, list(range(len(found["queries"]))))
            for kind, columns in (("images", ["flux"]), ("spectra", ["flux", "ivar"])):
                store = Store(RUN / kind)
                row = {int(each): i for i, each in enumerate(store["object_id"][:])}
                self.assertEqual(kept[f"{kind}/flux"].attrs["unit"], store["flux"].attrs["unit"])
                for i, place in enumerate(kept[f"{kind}/query"][:]):
                    at = row.get(found["queries"][place]["object_id"])
                    for name in columns if at is not None else ():
                        ours, theirs = kept[f"{kind}/{name}"][i], store[name][at]
                        if kind == "images":  # as the model looks at them: the middle
                            cut = [(theirs.shape[axis] - ours.shape[axis]) // 2 for axis in (1, 2)]
                            theirs = theirs[:, cut[0]:cut[0] + ours.shape[1], cut[1]:cut[1] + ours.shape[2]]
                        np.testing.assert_array_equal(ours, theirs)
                        compared += 1
            np.testing.assert_array_equal(kept["spectra/wavelength"][:], Store(RUN / "spectra")["wavelength"][:])
        self.assertGreater(compared, 20)
        text = self.page(output).read_text()
        self.assertIn(f'alt="image of {found["queries"][0]["name"]}"', text)
        self.assertIn("<h4>image → images</h4>", text.split("<article")[1])  # the one neighbour: the galaxy itself
        last = min(len(found["queries"]), 50) - 1
        self.assertIn(f'of {found["queries"][last]["name"]}"', text)

    def test_fits_csv_and_page_say_what_the_json_says(self):
        output, found = self.search("--ids", self.table["object_id"][0], "--neighbours", 4)
        table = Table.read(output / "results.fits")
        with open(output / "results.csv", newline="") as file:
            lines = list(csv.DictReader(file))
        expected = [(mode, one["object_id"], one["score"]) for query in found["queries"] for mode, some in
                    sorted(query["neighbours"].items(), key=lambda item: list(MODES).index(item[0])) for one in some]
        self.assertEqual([(str(one["mode"]), one["object_id"]) for one in table], [one[:2] for one in expected])
        np.testing.assert_allclose(table["score"], [one[2] for one in expected], atol=1e-6)
        self.assertEqual([(line["mode"], int(line["object_id"])) for line in lines], [one[:2] for one in expected])
        self.assertEqual(str(table["ra"].unit), "deg")
        text = self.page(output).read_text()
        self.assertGreater(text.count("data:image/jpeg"), 6)  # the query, three other images in ii, four in si
        self.assertGreater(text.count('<svg class="spectrum"'), 6)
        self.assertNotIn("http", text.replace("http://www.w3.org", ""))


class EncoderPage(unittest.TestCase):
    def test_the_image_encoder_alone_finds_images_among_those_held_out(self):
        folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        for name in ("images", "spectra", "pairs", "image-encoder"):
            (folder / name).symlink_to(RUN / name)
        line = [sys.executable, str(pipeline.SOURCE / "tools/encoder_page"), str(folder), "--queries", "3", "--neighbours", "4"]
        page = pathlib.Path(pipeline.call(line).strip())
        self.assertEqual(page, folder / "image-encoder-page/page.html")
        queries = json.loads((folder / "image-encoder-page/search/results.json").read_text())["queries"]
        pairs = Store(RUN / "pairs")
        held_out = set(pairs["object_id"][:][pairs["split"][:] == 1].tolist())
        self.assertEqual([list(query["neighbours"]) for query in queries], [["ii"]] * 3)
        self.assertLessEqual({one["object_id"] for query in queries for one in query["neighbours"]["ii"]}, held_out)
        self.assertEqual(page.read_text().count("data:image/jpeg"), 3 * (1 + 4) + 1)  # and the map with galaxies
        self.assertIn("Image embeddings</b> by redshift (PCA)", page.read_text())
        made = (folder / "image-encoder-page/embeddings/manifest.json").stat().st_mtime_ns
        pipeline.call([*line[:-3], "2"])
        self.assertEqual((folder / "image-encoder-page/embeddings/manifest.json").stat().st_mtime_ns, made)


class Evaluate(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scores = json.loads((RUN / "evaluation" / "evaluation.json").read_text())

    def test_every_method_has_every_figure(self):
        self.assertEqual(set(self.scores["photo_z"]), {"image", "spectrum", "untrained", "magnitudes", "pixels"})
        for one in self.scores["photo_z"].values():
            self.assertLessEqual({"r2", "r2_low", "r2_high", "sigma_nmad", "bias", "outlier_fraction"}, set(one))
            self.assertLessEqual(one["r2_low"], one["r2_high"])
        for mode in ("is", "si"):
            self.assertLessEqual({"recall_at_1", "recall_at_10", "chance", "photometry", "median_rank"},
                                 set(self.scores["retrieval"][mode]))

    def test_figures_are_those_of_the_predictions(self):
        with open(RUN / "evaluation" / "predictions.csv", newline="") as file:
            lines = list(csv.DictReader(file))
        truth = np.array([float(line["z_true"]) for line in lines])
        for name, one in self.scores["photo_z"].items():
            predicted = np.array([float(line[name]) for line in lines])
            r2 = 1 - np.sum((truth - predicted) ** 2) / np.sum((truth - truth.mean()) ** 2)
            self.assertAlmostEqual(one["r2"], r2, places=5)  # the table has 8 decimals
            errors = (truth - predicted) / (1 + truth)
            self.assertAlmostEqual(one["sigma_nmad"], 1.4826 * np.median(np.abs(errors - np.median(errors))), places=5)

    def test_map_is_the_plane_of_largest_variance(self):
        with open(RUN / "evaluation" / "map.csv", newline="") as file:
            lines = list(csv.DictReader(file))
        table = open_catalog(RUN / "embeddings")
        row = {int(each): i for i, each in enumerate(table["object_id"])}
        for modality in ("image", "spectrum"):
            vectors = np.array(table[f"{modality}_embedding"][[row[int(line["object_id"])] for line in lines]], float)
            vectors -= vectors.mean(axis=0)
            plane = np.array([[float(line[f"{modality}_{axis}"]) for axis in (1, 2)] for line in lines])
            variances = np.linalg.svd(vectors, compute_uv=False)[:2] ** 2
            np.testing.assert_allclose((plane ** 2).sum(axis=0), variances, rtol=1e-3)  # float32 vectors

    def test_the_table_as_text_has_its_figures(self):
        text = (RUN / "evaluation" / "table.txt").read_text().splitlines()
        for row, line in zip(self.scores["table"], text[1:]):
            self.assertTrue(line.startswith(f"{row['source']:11}{row['model']}"), line)
            for score in filter(None, row["ours"].values()):
                if score.get("r2") is not None:
                    self.assertIn(f"{score['r2']:.3f} [{score['r2_low']:.3f}, {score['r2_high']:.3f}]", line)
            for value in (row["published"] or {}).values():
                if value is not None:
                    self.assertIn(f"{value:.2f}", line)

    def test_every_galaxy_with_an_image_has_a_redshift_from_others(self):
        table, predictions = open_catalog(RUN / "embeddings"), open_catalog(RUN / "evaluation/predictions")
        table = table[table["has_image"] == 1]
        self.assertEqual(list(predictions["object_id"]), list(table["object_id"]))
        with open(RUN / "evaluation" / "predictions.csv", newline="") as file:
            held_out = {int(line["object_id"]): float(line["image"]) for line in csv.DictReader(file)}
        pairs = Store(RUN / "pairs")
        training = set(pairs["object_id"][:][pairs["split"][:] == 0])
        known = np.array([one in training for one in table["object_id"]]) & (table["zwarn"] == 0)
        z = np.array(table["image_embedding"] * table["image_embedding_norm"][:, None], float)
        z = (z - z[known].mean(axis=0)) / z[known].std(axis=0)
        for number, (one, predicted) in enumerate(zip(table["object_id"], predictions["z_phot"])):
            self.assertGreaterEqual(predictions["z_phot_err"][number], 0)
            if one in held_out:
                self.assertAlmostEqual(predicted, held_out[one], places=6)
            distance = np.linalg.norm(z[known] - z[number], axis=1)
            others = np.flatnonzero(table["object_id"][known] != one)
            others = others[np.argsort(distance[others])][:64]
            weight = 1 / distance[others]
            self.assertAlmostEqual(predicted, np.average(table["z_spec"][known][others], weights=weight), places=5)  # float32 vectors

    def test_recall_is_that_of_the_embeddings(self):
        table = open_catalog(RUN / "embeddings")
        row = {int(each): i for i, each in enumerate(table["object_id"])}
        pairs = Store(RUN / "pairs")
        test = [row[int(each)] for each, split in zip(pairs["object_id"][:], pairs["split"][:]) if split == 1]
        images, spectra = table["image_embedding"][test], table["spectrum_embedding"][test]
        for mode, scores in (("is", images @ spectra.T), ("si", spectra @ images.T)):
            places = 1 + np.sum(scores > np.diag(scores)[:, None] + 1e-6, axis=1)
            one = self.scores["retrieval"][mode]
            self.assertEqual(one["n"], len(test))
            self.assertAlmostEqual(one["recall_at_10"], np.mean(places <= 10), delta=0.05)  # ties to rounding


class EvaluateLabels(unittest.TestCase):
    """With a user's labels, in every form that they may have."""

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.truth = Table.read(RUN / "survey/truth.fits", unit_parse_strict="silent")

    def evaluate(self, *more, code=0, ranks=1, embeddings=RUN / "embeddings", output=None):
        output = output or self.folder / f"evaluation-{len(list(self.folder.iterdir()))}"
        done = subprocess.run([*pipeline.launcher(ranks), str(pipeline.BIN / "astroclip-evaluate"), *(f"--{name}={RUN / name}" for name in
                               ("images", "spectra", "pairs")), "--embeddings", str(embeddings), "--output", str(output), "--bootstraps=20",
                               "--few-shot-epochs=2", "--morphology-epochs=2", "--flows=2", *map(str, more)],
                              capture_output=True, text=True, env=pipeline.environment(), timeout=300, stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, code, done.stderr)
        self.said = done.stderr
        return done.stderr if code else json.loads((output / "evaluation.json").read_text())

    def votes(self, one_class=False):
        """Made-up votes, by position, of the first question and of one whose answers are all alike."""
        table = Table({"ra": self.truth["RA"], "dec": self.truth["DEC"]})
        smooth = np.clip(np.random.default_rng(1).normal(0.5, 0.3, len(table)), 0, 1)
        first = "smooth-or-featured"
        for name, share in (("smooth", smooth), ("featured-or-disk", 0.9 * (1 - smooth)), ("artifact", 0.1 * (1 - smooth))):
            table[f"{first}_{name}_debiased"] = (np.ones if name == "smooth" else np.zeros)(len(table)) if one_class else share
        table[f"{first}_total-votes"] = 40
        for name, share in (("yes", 1.0), ("no", 0.0)):
            table[f"disk-edge-on_{name}_debiased"] = share
        table["disk-edge-on_total-votes"] = 40
        path = self.folder / f"votes-{one_class}.csv"
        table.write(path, overwrite=True)
        return path

    def compare_with_table(self, scores, path):
        """The figures of properties are those of the table of predictions."""
        with open(path, newline="") as file:
            lines = list(csv.DictReader(file))
        for label in set(scores["properties"]) - {"mean"}:
            truth = np.array([float(line[label]) for line in lines])
            for name, one in scores["properties"][label].items():
                predicted = np.array([float(line[f"{label} by {name}"]) for line in lines])
                self.assertEqual(one["n"], len(lines))
                r2 = 1 - np.sum((truth - predicted) ** 2) / np.sum((truth - truth.mean()) ** 2)
                self.assertAlmostEqual(one["r2"], r2, delta=1e-5 * max(1, abs(r2)))  # the table has 8 digits

    def test_every_table_is_there_and_does_not_depend_on_ranks(self):
        options = ("--labels", RUN / "survey/truth.fits", "--morphology", self.votes(), "--compare", f"again={RUN / 'embeddings'}")
        scores = self.evaluate(*options, output=self.folder / "evaluation-alone")
        labels = ["LOG_MSTAR", "Z_MW", "TAGE_MW", "LOG_SSFR"]
        self.assertEqual(set(scores["properties"]), {*labels, "mean"})
        self.compare_with_table(scores, self.folder / "evaluation-alone/properties.csv")
        for table in ("properties", "properties_few_shot"):
            for features in ("image", "spectrum", "magnitudes", "pixels"):
                mean = np.mean([scores[table][label][features]["r2"] for label in labels])
                self.assertAlmostEqual(scores[table]["mean"][features]["r2"], mean, places=9)
        self.assertEqual(scores["photo_z"]["image"], scores["photo_z"]["again image"])
        self.assertEqual(scores["properties_few_shot"]["mean"]["image"], scores["properties_few_shot"]["mean"]["again image"])
        for label in labels:
            fits = scores["posteriors"]["image"]["calibration"][label]
            self.assertEqual(sum(fits["pit_histogram"]), scores["posteriors"]["image"]["n"])
        points = scores["label_curves"]["redshift"]["image"]
        self.assertEqual([point["share"] for point in points], [0.01, 0.03, 0.1, 0.3, 1])
        self.assertLessEqual(points[-1]["labels"], scores["sample"]["train"])  # but those whose redshift is in doubt
        self.assertAlmostEqual(points[-1]["r2"], scores["photo_z"]["image"]["r2"], places=9)
        self.assertEqual(scores["neighbours_used"], min(64, scores["sample"]["train"]))
        self.assertIn("image_from_spectrum", scores["across_modalities"])
        table = {(row["source"], row["model"]): row for row in scores["table"]}
        ours = table["image", "AstroCLIP"]
        self.assertEqual(ours["published"], {"redshift": 0.79, "properties": 0.47, "morphology": 0.76})
        self.assertEqual(ours["ours"]["properties"]["r2"], scores["properties"]["mean"]["image"]["r2"])
        self.assertEqual(ours["ours"]["morphology"]["accuracy"], scores["morphology"]["smooth-or-featured"]["image"]["accuracy"])
        self.assertIn("one answer", scores["morphology"]["disk-edge-on"]["left_out"])
        self.assertIn("lacks", scores["morphology"]["bar"]["left_out"])
        self.assertEqual(self.evaluate(*options, ranks=2), scores)
        alone, shared = sorted(self.folder.glob("evaluation-*/predictions"), key=lambda path: path.stat().st_mtime)[-2:]
        self.assertEqual(pipeline.digest(alone), pipeline.digest(shared))
        predictions = open_catalog(shared)
        self.assertEqual(predictions.colnames, ["object_id", *(name + error for name in ("z_phot", "logmass", "z_met", "age", "logssfr")
                                                              for error in ("", "_err"))])
        self.assertEqual(str(predictions["age"].unit), "Gyr")
        for name in predictions.colnames[1:]:
            self.assertTrue(np.all(np.isfinite(predictions[name])), name)

    def test_labels_are_alike_from_fits_csv_and_hdf5_by_id_and_by_position(self):
        columns = ["TARGETID", "RA", "DEC", "LOG_MSTAR"]
        table = Table({name: np.array(self.truth[name]) for name in columns})
        table["LOG_MSTAR"][:5] = np.nan
        by_place = table["RA", "DEC", "LOG_MSTAR"]
        scores = []
        for name, one in (("labels.fits", table), ("labels.csv", table), ("labels.h5", table), ("place.fits", by_place)):
            path = self.folder / name
            one.write(path, **({"path": "__astropy_table__"} if name.endswith("h5") else {}), overwrite=True)
            scores.append(self.evaluate("--labels", path, "--label-columns", "LOG_MSTAR", "--label-fractions=none"))
        for one in scores:
            self.assertEqual(one["properties"], scores[0]["properties"])
            self.assertGreater(one["labels"]["left_out"]["LOG_MSTAR"], 0)

    def test_a_label_that_few_galaxies_have_changes_no_other_prediction(self):
        table = Table({name: np.array(self.truth[name]) for name in ("TARGETID", "LOG_MSTAR", "Z_MW")})
        table["Z_MW"][20:] = np.nan
        table.write(self.folder / "few.fits", overwrite=True)
        predictions = []
        for columns in ("LOG_MSTAR", "LOG_MSTAR,Z_MW"):
            self.evaluate("--labels", self.folder / "few.fits", "--label-columns", columns, "--label-fractions=none")
            newest = max(self.folder.glob("evaluation-*/predictions"), key=lambda path: path.stat().st_mtime)
            predictions.append(open_catalog(newest))
        for name in predictions[0].colnames:
            np.testing.assert_array_equal(predictions[0][name], predictions[1][name])
        self.assertEqual(predictions[1].colnames[-2:], ["z_met", "z_met_err"])

    def test_predictions_have_columns_of_their_own(self):
        labels = ("--labels", RUN / "survey/truth.fits", "--label-fractions=none")
        self.assertIn("'ra'", self.evaluate(*labels, "--label-columns", "LOG_MSTAR,RA", code=64))
        self.assertIn("'logmass'", self.evaluate(*labels, "--label-columns", "LOG_MSTAR,LOG_MSTAR", code=64))
        self.assertIn("RA", self.evaluate(*labels, "--label-columns", "LOG_MSTAR,RA", "--predict=false")["properties"])

    def test_predictions_belong_to_the_evaluation(self):
        output, options = self.folder / "whole", ("--label-fractions=none",)
        self.evaluate(*options, output=output)
        digest = pipeline.digest(output)
        shutil.rmtree(output / "predictions")
        self.assertIn("predictions/index.h5", self.evaluate(*options, output=output, code=73))
        (output / "manifest.json").unlink()
        (output / "predictions").mkdir()
        (output / "predictions/.lock").write_text(json.dumps({"job": "7", "host": "elsewhere", "pid": 1, "utc": "2026-01-01T00:00:00Z"}))
        self.assertIn("elsewhere", self.evaluate(*options, output=output, code=73))
        self.evaluate(*options, "--break-lock", output=output)
        self.assertEqual(pipeline.digest(output), digest)

    def test_a_catalogue_of_one_modality_has_all_but_partners(self):
        both = self.evaluate("--label-fractions=none")
        for modality, model in (("image", "image-encoder"), ("spectrum", "spectrum-encoder")):
            output = self.folder / f"{modality}s-alone"
            pipeline.call([str(pipeline.BIN / "astroclip-embed"), *(f"--{name}={RUN / name}" for name in ("images", "spectra", "pairs")),
                           "--model", str(RUN / model), "--output", str(output)])
            scores = self.evaluate("--label-fractions=none", embeddings=output)
            self.assertEqual(scores["sample"], {**both["sample"], "modalities": [modality]})
            self.assertEqual(set(scores["photo_z"]), {modality, "magnitudes", "pixels"})
            self.assertEqual(scores["photo_z"]["pixels"], both["photo_z"]["pixels"])
            self.assertNotIn("retrieval", scores)
            self.assertEqual(scores["across_modalities"], {})

    def test_wrong_labels_are_refused_by_name(self):
        table = Table({"TARGETID": [1, 2], "LOG_MSTAR": [10.0, 11.0]})
        path = self.folder / "others.fits"
        table.write(path, overwrite=True)
        self.assertIn("none of its 2 rows", self.evaluate("--labels", path, code=65))
        self.assertIn("'MASS'", self.evaluate("--labels", RUN / "survey/truth.fits", "--label-columns", "MASS", code=65))
        Table({"MASS": [1.0]}).write(path, overwrite=True)
        self.assertIn("neither a column object_id", self.evaluate("--labels", path, code=65))
        self.assertIn("label-fractions", self.evaluate("--label-fractions", "0.1,two", code=64))
        self.assertIn("NAME=FOLDER", self.evaluate("--compare", "somewhere", code=64))
        twice = ",".join(2 * [f"A={RUN / 'embeddings'}"])
        self.assertIn("two catalogues are called 'A'", self.evaluate("--compare", twice, code=64))
        self.assertIn("describes 'evaluation', not a store", self.evaluate("--compare", f"A={RUN / 'evaluation'}", code=65))

    def provabgs(self, name="LOG_MSTAR"):
        """Labels under PROVABGS's names, of which the mass of the first ten and a magnitude of the eleventh are marked as absent."""
        columns = ["TARGETID", "MAG_G", "MAG_R", "MAG_Z", "Z_MW", "TAGE_MW", "AVG_SFR"]
        table = Table({each: np.array(self.truth[each]) for each in columns})
        table[name] = np.array(self.truth["LOG_MSTAR"], float)
        table[name][:10] = -99
        table["MAG_Z"][10] = np.nan
        table["Z_MW"][:10] = 0.5
        return table

    def of_the_sample(self, ids):
        sample = set(Store(RUN / "pairs")["object_id"][:])
        return sum(int(one) in sample for one in ids)

    def test_galaxies_that_provabgs_has_not_fitted_are_left_out_as_published_and_counted(self):
        marked = self.of_the_sample(self.truth["TARGETID"][:10])
        faint = self.of_the_sample(self.truth["TARGETID"][10:11])
        sample = self.of_the_sample(self.truth["TARGETID"])
        self.assertGreater(marked, 5)
        for name in ("PROVABGS_LOGMSTAR_BF", "LOG_MSTAR"):
            path = self.folder / f"{name}.fits"
            self.provabgs(name).write(path, overwrite=True)
            labels = self.evaluate("--labels", path, "--label-fractions=none")["labels"]
            self.assertEqual(labels["selection"], {"above_0": [name, "MAG_G", "MAG_R", "MAG_Z"], "left_out": marked + faint,
                                                   "failed": {name: marked, "MAG_G": 0, "MAG_R": 0, "MAG_Z": faint}})
            self.assertEqual(set(labels["left_out"].values()), {marked + faint})
            self.assertEqual(labels["known"]["Z_MW"], sample - marked - faint)
            self.assertIn(f"{marked + faint} of {sample} galaxies are left out, as published", self.said)
            self.assertNotIn("repeated", labels)
        labels = self.evaluate("--labels", path, "--label-fractions=none", "--label-selection=all")["labels"]
        self.assertEqual(labels["known"]["LOG_MSTAR"], sample)
        self.assertEqual(labels["repeated"]["LOG_MSTAR"], {"value": -99, "n": marked})
        self.assertIn(f"label 'LOG_MSTAR': {marked} of {sample} galaxies have the value -99", self.said)
        # A mass of one's own, without magnitudes, may be anything.
        self.provabgs()["TARGETID", "LOG_MSTAR"].write(path, overwrite=True)
        labels = self.evaluate("--labels", path, "--label-fractions=none", "--label-columns=LOG_MSTAR")["labels"]
        self.assertNotIn("selection", labels)
        self.assertEqual(labels["repeated"]["LOG_MSTAR"]["n"], marked)

    def test_specific_star_formation_is_physical_or_that_of_the_published_code(self):
        path = self.folder / "rates.fits"
        table = Table({name: np.array(self.truth[name], int if name == "TARGETID" else float)
                       for name in ("TARGETID", "LOG_MSTAR", "Z_MW", "AVG_SFR")})
        rate, metals, mass = table["AVG_SFR"], table["Z_MW"], table["LOG_MSTAR"]
        own = {"physical": np.log10(rate) - mass, "head": np.log(rate) - np.log(metals), "hist": np.log(rate) - mass}
        found = {}
        for name, values in own.items():
            table.write(path, overwrite=True)
            options = ("--label-fractions=none", "--label-columns=LOG_SSFR")
            found[name] = self.evaluate("--labels", path, *options, f"--ssfr-def={name}")["properties"]["mean"]
            Table({"TARGETID": table["TARGETID"], "LOG_SSFR": values}).write(self.folder / "own.fits", overwrite=True)
            theirs = self.evaluate("--labels", self.folder / "own.fits", *options)["properties"]["mean"]
            for features, one in theirs.items():
                self.assertAlmostEqual(found[name][features]["r2"], one["r2"], places=9)
        self.assertEqual(len({one["image"]["r2"] for one in found.values()}), 3)
        self.assertIn("AVG_SFR", self.evaluate("--labels", self.folder / "own.fits", *options, "--ssfr-def=head", code=65))

    def test_a_label_without_spread_or_unknown_is_left_out_of_the_mean_with_the_reason(self):
        labels = ["LOG_MSTAR", "Z_MW", "TAGE_MW", "LOG_SSFR"]
        table = Table({name: np.array(self.truth[name]) for name in ("TARGETID", *labels)})
        path = self.folder / "flat.fits"
        table.write(path, overwrite=True)
        whole = self.evaluate("--labels", path, "--label-fractions=none")
        self.assertEqual(whole["properties"]["mean"]["image"]["of"], labels)
        self.assertNotIn("unused", whole["labels"])
        self.assertNotIn("the published one is that of", self.said)
        table["Z_MW"] = 0.02
        table["TAGE_MW"] = np.nan
        table.write(path, overwrite=True)
        scores = self.evaluate("--labels", path, "--label-fractions=none")
        self.assertEqual(set(scores["labels"]["unused"]), {"Z_MW", "TAGE_MW"})
        self.assertIn("does not vary", scores["labels"]["unused"]["Z_MW"])
        self.assertEqual(scores["labels"]["unused"]["TAGE_MW"], "known of 0 galaxies for training and of 0 held out")
        self.assertEqual(set(scores["properties"]), {"LOG_MSTAR", "LOG_SSFR", "mean"})
        for features in ("image", "spectrum", "magnitudes"):
            mean = scores["properties"]["mean"][features]
            self.assertEqual(mean["of"], ["LOG_MSTAR", "LOG_SSFR"])
            self.assertAlmostEqual(mean["r2"], np.mean([scores["properties"][label][features]["r2"] for label in mean["of"]]), places=9)
        row = next(row for row in scores["table"] if row["model"] == "AstroCLIP")
        self.assertEqual(row["ours"]["properties"]["of"], ["LOG_MSTAR", "LOG_SSFR"])
        for words in ("label 'Z_MW' is left out: 0.02 for all", "label 'TAGE_MW' is left out: known of 0", "is that of LOG_MSTAR, LOG_SSFR;"):
            self.assertEqual(self.said.count(words), 1, self.said)

    def test_a_label_that_one_held_out_galaxy_has_does_not_take_the_others_along(self):
        labels = ["LOG_MSTAR", "Z_MW", "TAGE_MW", "LOG_SSFR"]
        table = Table({name: np.array(self.truth[name]) for name in ("TARGETID", *labels)})
        pairs = Store(RUN / "pairs")
        held_out = pairs["object_id"][:][pairs["split"][:] == 1]
        table["Z_MW"][np.isin(table["TARGETID"], held_out[1:])] = np.nan
        table.write(self.folder / "sparse.fits", overwrite=True)
        scores = self.evaluate("--labels", self.folder / "sparse.fits", "--label-fractions=none")
        self.assertEqual(set(scores["labels"]["unused"]), {"Z_MW"})
        self.assertEqual(scores["properties"]["mean"]["image"]["of"], ["LOG_MSTAR", "TAGE_MW", "LOG_SSFR"])
        self.assertEqual(scores["properties"]["mean"]["image"]["n"], len(held_out))

    def test_ids_may_be_texts_of_digits(self):
        ids, mass = np.array(self.truth["TARGETID"]), np.array(self.truth["LOG_MSTAR"], float)
        options = ("--label-columns=LOG_MSTAR", "--label-fractions=none")
        paths = [self.folder / name for name in ("numbers.fits", "texts.fits", "texts.csv", "fixed.h5", "variable.h5", "records.h5", "pointers.h5")]
        Table({"object_id": ids, "LOG_MSTAR": mass}).write(paths[0], overwrite=True)
        texts = [f"{one:>18}" for one in ids]
        for path in paths[1:3]:
            Table({"object_id": texts, "LOG_MSTAR": mass}).write(path, overwrite=True)
        kinds = [np.array(texts, "S"), h5py.string_dtype()]
        for path, kind in zip(paths[3:5], kinds):
            with h5py.File(path, "w") as file:
                file.create_dataset("object_id", data=kind if path == paths[3] else texts, dtype=None if path == paths[3] else kind)
                file["LOG_MSTAR"] = mass
        for path, kind in zip(paths[5:], (kinds[0].dtype, kinds[1])):
            records = np.zeros(len(ids), [("object_id", kind), ("LOG_MSTAR", float)])
            records["object_id"], records["LOG_MSTAR"] = texts, mass
            with h5py.File(path, "w") as file:
                file["table"] = records
        expected = self.evaluate("--labels", paths[0], *options)["properties"]
        for path in paths[1:]:
            self.assertEqual(self.evaluate("--labels", path, *options)["properties"], expected, path)
        texts[6] = "NGC 224"
        for path, kind in zip(paths[3:5], kinds):
            with h5py.File(path, "w") as file:
                file.create_dataset("object_id", data=np.array(texts, "S") if path == paths[3] else texts, dtype=None if path == paths[3] else kind)
                file["LOG_MSTAR"] = mass
        Table({"object_id": texts, "LOG_MSTAR": mass}).write(paths[1], overwrite=True)
        for path in (paths[1], *paths[3:5]):
            self.assertIn("row 7, column 'object_id': 'NGC 224' is not a whole number", self.evaluate("--labels", path, *options, code=65))

    def test_votes_that_cannot_be_asked_are_refused_at_once_or_counted_with_the_reason(self):
        table = Table.read(self.votes())
        path, first = self.folder / "wrong-votes.csv", "smooth-or-featured_total-votes"
        rest = table.copy()
        rest.remove_column(first)
        rest.write(path, overwrite=True)
        for more in ((), ("--dry-run",)):
            said = self.evaluate("--morphology", path, *more, code=65)
            self.assertIn(first, said)
            self.assertNotIn("baselines", said)
        held_out = Store(RUN / "pairs")["object_id"][:][Store(RUN / "pairs")["split"][:] == 1]
        test = np.isin(self.truth["TARGETID"], held_out)
        table[first] = table[first].astype(float)
        table[first][np.flatnonzero(test)[:2]] = np.nan
        table[first][np.flatnonzero(~test)[:3]] = 2
        table["smooth-or-featured_smooth_debiased"][np.flatnonzero(test)[2]] = np.nan
        table.write(path, overwrite=True)
        scores = self.evaluate("--morphology", path, "--label-fractions=none")
        one = scores["morphology"]["smooth-or-featured"]
        self.assertEqual(one["excluded"]["test"], {"without a share of each answer": 1, f"without a number in {first}": 2})
        self.assertEqual(one["image"]["n"], scores["sample"]["test"] - 3)
        self.assertEqual(one["excluded"]["train"].get("with fewer than 3 votes in all", 0) + one["image"]["train"], scores["sample"]["train"])
        table[first] = np.nan
        table.write(path, overwrite=True)
        one = self.evaluate("--morphology", path, "--label-fractions=none")["morphology"]["smooth-or-featured"]
        self.assertEqual(one["excluded"]["test"], {f"without a number in {first}": scores["sample"]["test"]})
        self.assertIn(f"without a number in {first}", one["left_out"])

    def test_morphology_has_intervals_a_question_and_in_the_mean(self):
        table = Table.read(self.votes())
        round_ones = np.random.default_rng(2).uniform(0, 1, len(table))
        for name, share in (("round", round_ones), ("in-between", 1 - round_ones), ("cigar-shaped", 0 * round_ones)):
            table[f"how-rounded_{name}_debiased"] = share
        table["how-rounded_total-votes"] = 40
        table.write(self.folder / "two.csv", overwrite=True)
        scores = self.evaluate("--morphology", self.folder / "two.csv", "--label-fractions=none")
        questions = [scores["morphology"][name]["image"] for name in ("smooth-or-featured", "how-rounded")]
        mean = scores["morphology"]["mean"]["image"]
        self.assertEqual(mean["questions"], 2)
        for key in ("accuracy", "f1"):
            self.assertAlmostEqual(mean[key], np.mean([one[key] for one in questions]), places=9)
            for one in (*questions, mean):
                self.assertLess(one[f"{key}_low"], one[f"{key}_high"])
                self.assertLessEqual(one[f"{key}_low"], one[key])
                self.assertLessEqual(one[key], one[f"{key}_high"])
        row = next(row for row in scores["table"] if row["model"] == "AstroCLIP")
        self.assertEqual(row["ours"]["morphology"], mean)

    def test_questions_are_resampled_together(self):
        table = Table.read(self.votes())
        for name, same in (("round", "smooth"), ("in-between", "featured-or-disk"), ("cigar-shaped", "artifact")):
            table[f"how-rounded_{name}_debiased"] = table[f"smooth-or-featured_{same}_debiased"]
        table["how-rounded_total-votes"] = table["smooth-or-featured_total-votes"]
        table.write(self.folder / "same.csv", overwrite=True)
        scores = self.evaluate("--morphology", self.folder / "same.csv", "--label-fractions=none")["morphology"]
        first, mean = scores["smooth-or-featured"]["image"], scores["mean"]["image"]
        self.assertEqual((mean["questions"], scores["how-rounded"]["image"]["accuracy"]), (2, first["accuracy"]))
        for key in ("accuracy_low", "accuracy_high", "f1_low", "f1_high"):  # draws of each question by itself would be closer to the mean
            self.assertAlmostEqual(mean[key], first[key], places=9)

    def test_simulated_votes_answer_what_the_simulation_knows(self):
        scores = self.evaluate("--morphology", RUN / "survey/votes.csv", "--label-fractions=none")
        self.assertEqual(scores["morphology_labels"]["rows"], len(self.truth))
        self.assertEqual(scores["morphology_labels"]["matched"], scores["sample"]["train"] + scores["sample"]["test"])
        simulated = {"smooth-or-featured", "disk-edge-on", "how-rounded", "has-spiral-arms", "bulge-size"}
        questions = {name: one for name, one in scores["morphology"].items() if name != "mean"}
        self.assertEqual({name for name, one in questions.items() if "lacks" not in one.get("left_out", "")}, simulated)
        for name in simulated:  # few galaxies: not each question has test galaxies with enough votes
            if "left_out" not in questions[name]:
                self.assertGreater(questions[name]["image"]["n"], 0)
        self.assertGreater(questions["smooth-or-featured"]["image"]["n"], 0)

    def test_votes_for_one_answer_alone_are_left_out(self):
        scores = self.evaluate("--morphology", self.votes(one_class=True))
        self.assertIn("one answer", scores["morphology"]["smooth-or-featured"]["left_out"])
        self.assertEqual(scores["morphology"]["mean"]["image"]["questions"], 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
