#!/usr/bin/python3
"""ingest-images on brick coadds and frames, written and judged by astropy, and on HDF5 of the Multimodal Universe."""
import unittest
import warnings

import h5py
import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning

import pipeline

warnings.simplefilter("ignore", FITSFixedWarning)
REAL = pipeline.SURVEY_DATA / "coadds"
BRICK = "legacysurvey-{}-image-{}.fits.fz"
STEP = 0.262 / 3600
SIZE = 24


def header(ra=150.0, dec=2.0, crpix=(50.5, 40.5), turn=0.0, **more):
    c, s = STEP * np.cos(np.radians(turn)), STEP * np.sin(np.radians(turn))
    return fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": ra, "CRVAL2": dec, "CRPIX1": crpix[0],
                        "CRPIX2": crpix[1], "CD1_1": -c, "CD1_2": s, "CD2_1": s, "CD2_2": c, "BUNIT": "nanomaggy", **more})


def write(path, data, cards):
    """Tile-compressed without loss."""
    image = fits.CompImageHDU(np.asarray(data, np.float32), cards, compression_type="GZIP_2", quantize_level=0.0, tile_shape=(20, 20))
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(path, overwrite=True)


def source(shape, x, y, sigma=2.5, peak=10.0):
    yy, xx = np.mgrid[0:shape[0], 0:shape[1]]
    return peak * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * sigma**2))


class Images(pipeline.StoreTest):
    def refused(self, *arguments, ranks=(1,)):
        super().refused(*arguments, ranks=ranks)


class Coadds(Images):
    def catalogue(self, positions, name="catalogue.csv"):
        path = self.folder / name
        lines = [f"{number},{float(ra)!r},{float(dec)!r}" for number, (ra, dec) in enumerate(positions, start=1)]
        path.write_text("\n".join(["object_id,ra,dec", *lines]) + "\n")
        return path

    def store(self, name="store"):
        with h5py.File(self.folder / name / "index.h5") as index:
            return {key: index[key][:] for key in ("object_id", "ra", "dec", "flux", "qflag")}

    def rejected(self, name="store"):
        with h5py.File(self.folder / name / "index.h5") as index:
            rejects = index["rejects"]
            return {int(i): (r.decode(), d.decode()) for i, r, d in
                    zip(rejects["object_id"], rejects["reason"], rejects["detail"])}

    def one_large_image(self, folder, bands="gz"):
        """An image of 200 x 80 pixels in two bricks that overlap by 20 columns, and as one."""
        folder.mkdir()
        (self.folder / "whole").mkdir()
        images = np.stack([1 + np.arange(80 * 200).reshape(80, 200) / 64.0 + 1000 * b for b in range(len(bands))])
        for band, image in zip(bands, images.astype(np.float32)):
            write(folder / BRICK.format("a", band), image[:, :110], header(BRICKNAM="a"))
            write(folder / BRICK.format("b", band), image[:, 90:], header(crpix=(50.5 - 90, 40.5)))
            write(self.folder / "whole" / BRICK.format("all", band), image, header())
        return images.astype(np.float32), WCS(header())

    def test_a_real_brick_gives_the_pixels_that_astropy_cuts(self):
        with fits.open(REAL / BRICK.format("0959p805", "g")) as brick, fits.open(REAL / BRICK.format("0959p805", "z")) as other:
            g, z, wcs = brick[1].data, other[1].data, WCS(brick[1].header)
        rng = np.random.default_rng(3)
        places = rng.uniform(0, 199, (60, 2))
        path = self.catalogue(wcs.all_pix2world(places, 0))
        corners = np.floor(places - (SIZE - 1) / 2 + 0.5).astype(int)
        cut = [[band[y:y + SIZE, x:x + SIZE] for band in (g, z)] for x, y in corners]
        inside = [0 <= x <= 200 - SIZE and 0 <= y <= 200 - SIZE for x, y in corners]
        good_g = [ok and (c[0] != 0).mean() >= 0.5 for ok, c in zip(inside, cut)]
        good_z = [ok and (c[1] != 0).mean() >= 0.5 for ok, c in zip(good_g, cut)]
        options = ["--input", path, "--coadds", REAL, "--size", SIZE]

        rows, rejects = self.ingest("ingest-images", *options, "--bands", "g", name="g")
        self.assertEqual((rows, rejects), (sum(good_g), {"cut by the border": 60 - sum(inside),
                                                         "no data in a band": sum(inside) - sum(good_g)}))
        store = self.store("g")
        for number, flux in zip(store["object_id"], store["flux"]):
            np.testing.assert_array_equal(flux[0], cut[number - 1][0])

        rows, rejects = self.ingest("ingest-images", *options, "--bands", "gz", name="gz")
        self.assertEqual(rows, sum(good_z))
        self.assertEqual(rejects["no data in a band"], sum(inside) - sum(good_z))
        self.assertTrue(any("band z" in detail for reason, detail in self.rejected("gz").values()))
        # Of a band that the brick has no file of each object says so.
        self.refused(65, ["damaged", "missing band"], "ingest-images", *options, ranks=(1, 3))
        self.assertEqual(self.ingest("ingest-images", *options, "--max-reject-fraction", 1, name="grz"), (0, {"missing band": 60}))
        self.assertEqual(set(self.rejected("grz").values()), {("missing band", "no image of band r of the field '0959p805'")})

    def test_two_bricks_are_one_large_image_whatever_the_ranks(self):
        images, wcs = self.one_large_image(self.folder / "bricks")
        rng = np.random.default_rng(4)
        places = np.concatenate([rng.uniform((12, 12), (187, 67), (40, 2)), np.column_stack([np.linspace(85, 115, 30), [40.2] * 30])])
        path = self.catalogue([*wcs.all_pix2world(places, 0), (150.1, 2.0), (float("nan"), 2)])
        options = ["--input", path, "--size", SIZE, "--bands", "gz", "--max-reject-fraction", 0.1, "--part-rows", 30]
        expected = (70, {"outside the coadds": 1, "no position": 1})
        for ranks in (1, 2, 4):
            self.assertEqual(self.ingest("ingest-images", *options, "--coadds", self.folder / "bricks", name=f"r{ranks}", ranks=ranks),
                             expected)
            self.same_parts("r1", f"r{ranks}")
        self.assertEqual(self.ingest("ingest-images", *options, "--coadds", self.folder / "whole", name="all"), expected)
        np.testing.assert_array_equal(self.store("r1")["flux"], self.store("all")["flux"])
        x, y = np.floor(places[50] - (SIZE - 1) / 2 + 0.5).astype(int)
        np.testing.assert_array_equal(self.store("r1")["flux"][50], images[:, y:y + SIZE, x:x + SIZE])

    def test_pixels_are_counted_as_astropy_does_to_a_hundredth(self):
        images, wcs = self.one_large_image(self.folder / "bricks", "g")
        # An even number of pixels: the middle of the cutout is a corner of pixels, so it moves at whole numbers.
        places = [(60 + dx, 40 + dy) for dx in (-0.01, 0.01) for dy in (-0.01, 0.01)]
        path = self.catalogue(wcs.all_pix2world(places, 0))
        self.ingest("ingest-images", "--input", path, "--coadds", self.folder / "bricks", "--size", SIZE, "--bands", "g")
        for (x, y), flux in zip(places, self.store()["flux"]):
            left, low = (60 if x > 60 else 59) - 11, (40 if y > 40 else 39) - 11
            np.testing.assert_array_equal(flux[0], images[0, low:low + SIZE, left:left + SIZE])

    def test_neighbours_with_tangent_points_of_their_own_join_within_a_percent(self):
        """As the survey's bricks do, at a declination where their grids are turned against each other."""
        folder = self.folder / "bricks"
        folder.mkdir()
        own, other = header(ra=95.95, dec=80.5, crpix=(50.5, 40.5)), header(ra=96.2, dec=80.5)
        there = WCS(own).all_pix2world([[104, 40]], 0)[0]
        for name, cards in (("a", own), ("b", other)):
            if name == "b":  # so that the images overlap in the sky
                x, y = WCS(cards).all_world2pix([there], 0)[0]
                cards["CRPIX1"] += 14 - x
                cards["CRPIX2"] += 40 - y
            x, y = WCS(cards).all_world2pix([there], 0)[0]
            write(folder / BRICK.format(name, "g"), source((80, 110), x, y) + 1, cards)
        place = WCS(own).all_pix2world([[96.2, 40.3]], 0)  # 13 pixels from the edge; b ends nearer
        options = ["--input", self.catalogue(place), "--coadds", folder, "--size", 40, "--bands", "g"]
        self.assertEqual(self.ingest("ingest-images", *options), (1, {}))
        expected = source((80, 200), 104, 40)[21:61, 77:117] + 1
        difference = np.abs(self.store()["flux"][0, 0] - expected)
        self.assertLess(difference[:, :33].max(), 1e-5)  # columns of a are copies
        self.assertLess(difference.max(), 0.05)  # of a source with a peak of 10

    def test_frames_of_bands_on_grids_of_their_own_agree_in_flux_and_place(self):
        folder = self.folder / "frames"
        folder.mkdir()
        sky = WCS(header()).all_pix2world([[52.3, 38.9]], 0)
        for band, cards in (("g", header()), ("r", header(crpix=(61.2, 47.8), turn=73, BUNIT="nanomaggies")),
                            ("i", header(ra=150.01, crpix=(-85.3, 40.1), turn=-8))):
            x, y = WCS(cards).all_world2pix(sky, 0)[0]
            fits.PrimaryHDU(source((100, 100), x, y).astype(np.float32), cards).writeto(folder / f"frame-{band}-h88.fits")
        (folder / "frame-u-h88.fits").write_text("another band, not read")
        options = ["--input", self.catalogue(sky), "--coadds", folder, "--coadd-name", "frame-{band}-{field}.fits", "--size", 32]
        self.assertEqual(self.ingest("ingest-images", *options, "--bands", "gri"), (1, {}))
        flux = self.store()["flux"][0]
        yy, xx = np.mgrid[0:32, 0:32]
        for band in flux:
            self.assertAlmostEqual(band.sum(), 2 * np.pi * 2.5**2 * 10, delta=0.2)
            self.assertAlmostEqual((band * xx).sum() / band.sum(), (flux[0] * xx).sum() / flux[0].sum(), delta=0.005)
            self.assertAlmostEqual((band * yy).sum() / band.sum(), (flux[0] * yy).sum() / flux[0].sum(), delta=0.005)

    def test_files_that_cannot_be_used_are_named(self):
        images, wcs = self.one_large_image(self.folder / "bricks", "g")
        path = self.catalogue(wcs.all_pix2world([[60, 40]], 0))
        options = ["--input", path, "--coadds", self.folder / "bricks", "--size", SIZE, "--bands", "g"]
        bad = self.folder / "bricks" / BRICK.format("c", "g")
        bad.write_bytes(bytes(range(256)) * 40)
        self.refused(65, [str(bad), "not a FITS file"], "ingest-images", *options, ranks=(1, 3))
        whole = (self.folder / "bricks" / BRICK.format("a", "g")).read_bytes()
        bad.write_bytes(whole[:len(whole) // 2])
        self.refused(65, [str(bad), "truncated"], "ingest-images", *options)
        write(bad, images[0], header(BUNIT="adu"))
        self.refused(65, [str(bad), "BUNIT = 'adu', nanomaggy expected"], "ingest-images", *options)
        write(bad, images[0], header(CTYPE1="GLON-TAN", CTYPE2="GLAT-TAN"))
        self.refused(65, [str(bad), "RA, DEC"], "ingest-images", *options)
        bad.unlink()
        self.refused(66, ["coadd named", "frame-{band}.fits"], "ingest-images", *options, "--coadd-name", "frame-{band}.fits")
        self.refused(64, ["coadd-name"], "ingest-images", *options, "--coadd-name", "frame.fits")
        self.refused(64, ["display images"], "ingest-images", *options[:-1], "RGB")

    def test_a_changed_coadd_is_noticed(self):
        images, wcs = self.one_large_image(self.folder / "bricks", "g")
        path = self.catalogue(wcs.all_pix2world([[60, 40]], 0))
        options = ["--input", path, "--coadds", self.folder / "bricks", "--size", SIZE, "--bands", "g"]
        self.ingest("ingest-images", *options)
        self.ingest("ingest-images", *options, ranks=2)  # up to date
        write(self.folder / "bricks" / BRICK.format("a", "g"), images[0, :, :110] + 1, header())
        pipeline.call(self.line("ingest-images", 1, self.folder / "store", options), code=73)


class MultimodalUniverse(Images):
    def write(self, name, images, **columns):
        path = self.folder / name
        with h5py.File(path, "w") as file:
            file.create_dataset("image_array", data=images, compression="lzf", chunks=(1, *images.shape[1:]))
            for key, values in columns.items():
                file.create_dataset(key, data=values, compression="lzf")
        return path

    def flux(self, name="store"):
        with h5py.File(self.folder / name / "index.h5") as index:
            return index["flux"][:], index["object_id"][:], index["flux_r"][:]

    def test_images_of_legacysurvey(self):
        images = np.random.default_rng(1).normal(size=(5, 4, 40, 40)).astype(np.float32)
        images[4, 1, 20, 20] = np.nan
        bands = np.array([[b"des-g", b"des-r", b"des-i", b"des-z"]] * 5)
        columns = {"image_band": bands, "image_scale": np.full((5, 4), 0.262, np.float32), "RA": np.linspace(10, 11, 5),
                   "DEC": np.linspace(-3, -2, 5), "RELEASE": np.full(5, 10000), "BRICKID": np.full(5, 330000),
                   "OBJID": np.arange(5), "FLUX_R": np.arange(5) + 0.5, "EBV": np.full(5, 0.02),
                   "object_id": np.array([b"0100m030-%d" % i for i in range(5)])}
        path = self.write("001-of-001.hdf5", images, **columns)
        self.assertEqual(self.ingest("ingest-images", "--input", path, "--size", 32, "--max-reject-fraction", 0.2),
                         (4, {"non-finite pixels": 1}))
        flux, ids, flux_r = self.flux()
        np.testing.assert_array_equal(flux, images[:4][:, [0, 1, 3], 4:36, 4:36])
        np.testing.assert_array_equal(ids, np.arange(4) + 330000 * 2**22 + 10000 * 2**42)
        np.testing.assert_array_equal(flux_r, np.arange(4) + np.float32(0.5))
        self.refused(65, [str(path), "0.2620 arcsec", "0.396"], "ingest-images", "--input", path, "--size", 32, "--pixel-scale", 0.396)
        self.refused(65, [str(path), "'y' is not among them"], "ingest-images", "--input", path, "--size", 32, "--bands", "gy")
        bands[3, 2] = b"des-y"
        path = self.write("mixed.hdf5", images, **columns | {"image_band": bands})
        self.refused(65, [str(path), "image_band, row 3"], "ingest-images", "--input", path, "--size", 32)

    def test_images_of_ssl_legacysurvey(self):
        images = np.random.default_rng(2).normal(size=(3, 3, 32, 32)).astype(np.float32)
        positions = {"ra": np.array([1.0, 2, 3]), "dec": np.array([4.0, 5, 6])}
        self.write("healpix=7.hdf5", images, object_id=np.array([30, 10, 20]), z_spec=np.array([0.1, -99, 0.3]), **positions)
        self.assertEqual(self.ingest("ingest-images", "--input", self.folder, "--size", 32), (3, {}))
        flux, ids, _ = self.flux()
        np.testing.assert_array_equal(flux, images)
        np.testing.assert_array_equal(ids, [30, 10, 20])
        path = self.write("named.hdf5", images, object_id=np.array([b"0100m030-1", b"b", b"c"]), **positions)
        self.refused(65, [str(path), "'0100m030-1' is not a number"], "ingest-images", "--input", path, "--size", 32)
        other = self.folder / "other.hdf5"
        with h5py.File(other, "w") as file:
            file["pictures"] = images
        self.refused(65, [str(other), "pictures"], "ingest-images", "--input", other)


if __name__ == "__main__":
    unittest.main()
