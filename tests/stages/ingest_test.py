#!/usr/bin/python3
"""The ingest stages and match on real survey files: rows and rejects of each, the same bytes from any number of ranks."""
import json
import os
import shutil
import subprocess
import unittest

import pipeline

DATA = pipeline.SURVEY_DATA
COADD = DATA / "coadd-4-80613-thru20210324.fits"


class Ingest(pipeline.StoreTest):
    def test_a_real_galaxy(self):
        self.assertEqual(self.ingest("ingest-spectra", "--input", COADD), (1, {}))

    def test_a_real_tile_with_one_usable_fibre(self):
        expected = (1, {"not a target": 3, "fibre status": 1})
        for kind in ("coadd", "spectra"):
            path = DATA / f"{kind}-5-169-thru20210419.fits.gz"
            self.assertEqual(self.ingest("ingest-spectra", "--input", path, name=kind), expected)

    def test_a_folder_takes_coadds_before_their_exposures(self):
        rows, rejects = self.ingest("ingest-spectra", "--input", DATA)
        self.assertEqual((rows, rejects), (8, {"not a target": 3, "fibre status": 1, "sky fibre": 1}))  # 7 of them of SDSS

    def test_a_list_may_hold_an_object_twice(self):
        files = self.folder / "files.txt"
        names = [COADD, DATA / "spectra-5-169-thru20210419.fits.gz", DATA / "coadd-5-169-thru20210419.fits.gz", COADD]
        # Not beside each other, or the exposures would be left out.
        (self.folder / "other").mkdir()
        shutil.copy(names[1], self.folder / "other")
        names[1] = self.folder / "other" / names[1].name
        files.write_text("\n".join(map(str, names)))
        rows, rejects = self.ingest("ingest-spectra", "--input", files)
        self.assertEqual(rows, 2)
        self.assertEqual(rejects, {"not a target": 6, "fibre status": 2, "duplicate id": 2})

    def test_spectra_without_fibermap(self):
        path = DATA / "test_coadd_3.fits"
        self.refused(65, [str(path), "no HDU 'FIBERMAP'"], "ingest-spectra", "--input", path)
        self.assertEqual(self.ingest("ingest-spectra", "--input", path, "--anonymous"), (2, {"no good bins": 1}))
        self.assertEqual(self.ingest("ingest-spectra", "--input", path, "--anonymous", "--keep-empty", name="all"), (3, {}))

    def test_redrock_output_is_no_input(self):
        path = DATA / "redrock-test.fits.gz"
        self.refused(65, [path.name, "holds redshifts, no spectra"], "ingest-spectra", "--input", path)

    def test_the_number_of_ranks_changes_no_byte(self):
        for ranks in (1, 2, 4):
            self.ingest("ingest-spectra", "--input", DATA, "--part-rows", 3, name=f"spectra-{ranks}", ranks=ranks)
            self.ingest("ingest-images", "--input", DATA / "cutouts/all.csv", "--size", 24, "--part-rows", 5,
                        "--max-reject-fraction", 1, name=f"images-{ranks}", ranks=ranks)
        for kind in ("spectra", "images"):
            self.same_parts(f"{kind}-1", f"{kind}-2")
            self.same_parts(f"{kind}-1", f"{kind}-4")

    def test_broken_input(self):
        cut = self.folder / "coadd-cut.fits"
        cut.write_bytes(COADD.read_bytes()[:300000])
        self.refused(65, [str(cut), "truncated: HDU '"], "ingest-spectra", "--input", cut)
        files = self.folder / "files.txt"
        files.write_text(f"{COADD}\n{cut}\n")
        self.refused(65, [str(cut), "max-reject-fraction"], "ingest-spectra", "--input", files)
        self.assertEqual(self.ingest("ingest-spectra", "--input", files, "--max-reject-fraction", 0.5),
                         (1, {"unreadable file": 1}))

    def test_missing_input(self):
        self.refused(66, ["nowhere"], "ingest-spectra", "--input", self.folder / "nowhere")
        self.refused(64, ["'input' is not set"], "ingest-spectra")
        files = self.folder / "files.txt"
        files.write_text(f"{COADD}\ngone.fits\n")
        self.refused(66, [f"{self.folder}/gone.fits"], "ingest-spectra", "--input", files)
        self.assertEqual(self.ingest("ingest-spectra", "--input", files, "--skip-missing", "--max-reject-fraction", 0.5),
                         (1, {"missing file": 1}))
        cutouts = self.folder / "list.csv"
        cutouts.write_text((DATA / "cutouts/good.csv").read_text())
        self.refused(66, ["plain.fits"], "ingest-images", "--input", cutouts, "--size", 24)
        shutil.copy(DATA / "cutouts/plain.fits", self.folder)
        self.assertEqual(self.ingest("ingest-images", "--input", cutouts, "--size", 24, "--skip-missing", "--max-reject-fraction",
                                     1, name="images"), (1, {"missing file": 2}))

    def test_cutouts_by_list(self):
        folder = DATA / "cutouts"
        self.assertEqual(self.ingest("ingest-images", "--input", folder / "good.csv", "--size", 24), (3, {}))
        rows, rejects = self.ingest("ingest-images", "--input", folder / "all.csv", "--size", 24, "--max-reject-fraction", 1,
                                    name="all")
        self.assertEqual(rows, 4)
        self.assertEqual(rejects, {"missing band": 1, "wrong unit": 1, "non-finite pixels": 1, "wrong size": 1, "no good pixels": 1,
                                   "wrong pixel scale": 1, "wrong position": 1, "duplicate id": 1, "unreadable file": 2})
        self.refused(65, ["damage", "row 3: missing band: band z is not in BANDS"], "ingest-images", "--input", folder / "all.csv", "--size", 24)

    def test_cutouts_in_chunks(self):
        self.assertEqual(self.ingest("ingest-images", "--input", DATA / "cutouts/chunk.h5", "--size", 24), (6, {}))
        self.assertEqual(self.ingest("ingest-images", "--input", DATA / "cutouts", "--size", 24, name="folder"), (6, {}))

    def test_changed_input_is_noticed(self):
        copy = self.folder / "coadd-x.fits"
        shutil.copy(COADD, copy)
        copy.chmod(0o644)
        self.ingest("ingest-spectra", "--input", copy)
        before = (self.folder / "store/manifest.json").read_bytes()
        os.utime(copy, (0, 0))
        self.ingest("ingest-spectra", "--input", copy, ranks=2)  # up to date
        self.assertEqual((self.folder / "store/manifest.json").read_bytes(), before)
        data = bytearray(COADD.read_bytes())
        data[-2880 * 3] ^= 1  # in SCORES, which is not read
        copy.write_bytes(data)
        done = subprocess.run(self.line("ingest-spectra", 1, self.folder / "store", ["--input", copy]), capture_output=True,
                              text=True, env=pipeline.environment())
        self.assertEqual(done.returncode, 73, done.stderr)

    def test_match_by_id_and_on_the_sky(self):
        position = "105.48977452498902,56.669300058331935"
        images = self.folder / "list.csv"
        images.write_text("release,brickid,objid,ra,dec,file\n"
                          f"9011,607466,2657,{position},plain.fits\n9011,607466,2658,{position[:-1]}9,plain.fits\n")
        options = ["--cutouts", DATA / "cutouts", "--size", 24, "--max-offset", 0]
        self.assertEqual(self.ingest("ingest-images", "--input", images, *options, name="images"), (2, {}))
        images.write_text(f"object_id,ra,dec,file\n17,{position},plain.fits\n")
        self.ingest("ingest-images", "--input", images, *options, name="renamed")
        self.ingest("ingest-spectra", "--input", DATA, name="spectra")
        for store, by, pairs in (("images", "id", 1), ("images", "sky", 1), ("renamed", "id", 0), ("renamed", "auto", 1)):
            name = f"pairs-{store}-{by}"
            line = ["--images", self.folder / store, "--spectra", self.folder / "spectra", "--by", by]
            self.assertEqual(self.ingest("match", *line, name=name, ranks=2), (pairs, {}), name)
            counts = json.loads((self.folder / name / "manifest.json").read_text())["content"]["match"]
            self.assertEqual(counts["spectra_without_image"], 8 - pairs)
            self.ingest("match", *line, name=name + "-4", ranks=4)
            self.same_parts(name, name + "-4")


if __name__ == "__main__":
    unittest.main()
