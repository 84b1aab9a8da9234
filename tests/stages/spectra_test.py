#!/usr/bin/python3
"""ingest-spectra on the files of other surveys, compared with what astropy and numpy make of the same files: SDSS and BOSS,
MaNGA, the Multimodal Universe, and DESI's exposures."""
import shutil
import unittest

import h5py
import numpy as np
from astropy.io import fits

import pipeline

SDSS = pipeline.SURVEY_DATA / "sdss"
UNIVERSE = pipeline.SURVEY_DATA / "multimodal_universe"
EXPOSURES = pipeline.SURVEY_DATA / "spectra-5-169-thru20210419.fits.gz"
BINS, STEP, NODATA = 7781, 0.8, 1 << 8
GRID = 3600 + STEP * np.arange(BINS)
FLOAT32 = 2.0**-23  # one rounding to float32 is half of this
SPECTYPES = {"GALAXY": 1, "QSO": 2, "STAR": 3}


def comb_edges(log_wavelength):
    """Edges of SDSS pixels, whose centres are at whole multiples of 1e-4 in log10."""
    first = np.round(log_wavelength[0].astype(float) * 1e4)
    return 10 ** ((first - 0.5 + np.arange(len(log_wavelength) + 1)) * 1e-4)


def resampled(edges, flux, ivar, good):
    """Flux and ivar on DESI's grid, nan where good pixels cover less than half of a bin; in float64, bin by bin."""
    flux, ivar = flux.astype(float), ivar.astype(float)
    means, ivars = np.full(BINS, np.nan), np.full(BINS, np.nan)
    for j, centre in enumerate(GRID):
        low, high = centre - STEP / 2, centre + STEP / 2
        pixels = np.arange(max(np.searchsorted(edges, low) - 1, 0), min(np.searchsorted(edges, high), len(flux)))
        common = np.minimum(edges[pixels + 1], high) - np.maximum(edges[pixels], low)
        keep = good[pixels] & (common > 0)
        weights, pixels = common[keep], pixels[keep]
        if weights.sum() >= STEP / 2:
            weights = weights / weights.sum()
            means[j] = (weights * flux[pixels]).sum()
            ivars[j] = 1 / (weights**2 / ivar[pixels]).sum()
    return means, ivars


class Spectra(pipeline.StoreTest):
    def spectra(self, *more, name="store", ranks=1):
        """Rows and rejects as in ingest(), and all columns of the store."""
        counts = self.ingest("ingest-spectra", *more, name=name, ranks=ranks)
        with h5py.File(self.folder / name / "index.h5") as index:
            columns = {key: index[key][()] for key in index if isinstance(index[key], h5py.Dataset)}
            columns.update({f"rejected_{key}": index["rejects"][key][()] for key in index["rejects"]})
        return counts, columns

    def expect_resampled(self, edges, flux, ivar, good, columns, row):
        means, ivars = resampled(edges, flux, ivar, good)
        has_data = np.isfinite(means)
        self.assertGreater(has_data.sum(), 6000)
        np.testing.assert_array_equal(columns["mask"][row], np.where(has_data, 0, NODATA))
        # Where terms of both signs cancel, what remains has the rounding of the terms in float64.
        np.testing.assert_allclose(columns["flux"][row], np.where(has_data, means, 0), rtol=FLOAT32, atol=1e-12)
        np.testing.assert_allclose(columns["ivar"][row], np.where(has_data, ivars, 0), rtol=FLOAT32)

    def test_sdss_and_boss_lite_and_full(self):
        names = {"spec-0266-51602-0031": (266, 51602, 31),  # a white dwarf, HDU SPECOBJ, lite
                 "spec-0854-52373-0369": (854, 52373, 369),
                 "spec-1039-52707-0207": (1039, 52707, 207),  # full
                 "spec-2114-53848-0443": (2114, 53848, 443),  # a quasar
                 "spec-4055-55359-0006": (4055, 55359, 6),  # BOSS, HDU SPALL
                 "spec-10000-57346-0003": (10000, 57346, 3)}  # a SPECOBJID beyond int64, ZWARNING 4
        files = self.folder / "files.txt"
        files.write_text("".join(f"{SDSS / name}.fits.gz\n" for name in names))
        counts, columns = self.spectra("--input", files, ranks=2)
        self.assertEqual(counts, (6, {}))
        for row, (name, (plate, mjd, fibre)) in enumerate(names.items()):
            with self.subTest(name), fits.open(SDSS / f"{name}.fits.gz") as file:
                about, pixels = file[2].data, file["COADD"].data
                self.assertEqual(columns["object_id"][row], 3 << 61 | plate << 28 | mjd << 12 | fibre)
                self.assertEqual(columns["ra"][row], about["PLUG_RA"][0])
                self.assertEqual(columns["dec"][row], about["PLUG_DEC"][0])
                self.assertEqual(columns["redshift"][row], about["Z"][0])
                self.assertEqual(columns["redshift_error"][row], about["Z_ERR"][0])
                self.assertEqual(columns["zwarn"][row], about["ZWARNING"][0])
                self.assertEqual(columns["spectype"][row], SPECTYPES[about["CLASS"][0].strip()])
                self.assertEqual(columns["brickid"][row], -1)
                self.assertEqual(columns["qflag"][row] & 32, 32)  # no photometry of the imaging survey
                self.expect_resampled(comb_edges(pixels["loglam"]), pixels["flux"], pixels["ivar"], pixels["ivar"] > 0,
                                      columns, row)

    def test_resampling_conserves_the_flux(self):
        path = SDSS / "spec-0854-52373-0369.fits.gz"
        _, columns = self.spectra("--input", path)
        pixels = fits.getdata(path, "COADD")
        self.assertTrue((pixels["ivar"] > 0).all())
        edges = comb_edges(pixels["loglam"])
        integral = np.concatenate([[0], np.cumsum(pixels["flux"].astype(float) * np.diff(edges))])
        whole = np.flatnonzero((GRID - STEP / 2 > edges[0]) & (GRID + STEP / 2 < edges[-1]))
        for part in (whole, whole[:100], whole[3000:3017]):
            expected = np.diff(np.interp([GRID[part[0]] - STEP / 2, GRID[part[-1]] + STEP / 2], edges, integral))[0]
            # Each bin is rounded to float32.
            self.assertLess(abs(STEP * columns["flux"][0][part].sum(dtype=float) / expected - 1), FLOAT32 / 2)

    def test_a_sky_fibre_that_is_called_a_galaxy(self):
        counts, columns = self.spectra("--input", SDSS / "spec-1944-53385-0159.fits.gz")
        self.assertEqual(counts, (0, {"sky fibre": 1}))
        self.assertEqual(columns["rejected_damage"][0], 0)
        self.assertIn(b"ZWARN 5", columns["rejected_detail"][0])
        self.assertEqual(columns["rejected_object_id"][0], 3 << 61 | 1944 << 28 | 53385 << 12 | 159)

    def test_sdss_files_that_are_not_as_they_should_be(self):
        def set_header(key, value):
            return lambda file: file[0].header.set(key, value)

        def leave_a_gap(file):
            file[1].data["loglam"][2000:] += 1e-4

        def not_a_number(file):
            file[1].data["flux"][5] = np.nan

        path = self.folder / "spec-changed.fits"
        for change, words in ((set_header("VACUUM", False), "wavelengths in air"), (set_header("BUNIT", "Jy"), "BUNIT = 'Jy'"),
                              (leave_a_gap, "unreadable file"), (not_a_number, "non-finite flux")):
            with self.subTest(words), fits.open(SDSS / "spec-0854-52373-0369.fits.gz") as file:
                change(file)
                file.writeto(path, overwrite=True)
                self.refused(65, [words], "ingest-spectra", "--input", path, "--force", ranks=[1])

    def test_redshift_warnings_select(self):
        path = SDSS / "spec-10000-57346-0003.fits.gz"
        self.assertEqual(self.ingest("ingest-spectra", "--input", path, "--max-zwarn", 0), (0, {"redshift warning": 1}))
        self.assertEqual(self.ingest("ingest-spectra", "--input", path, "--max-zwarn", 4, name="all"), (1, {}))

    def test_a_manga_stack(self):
        path = SDSS / "MaNGA_test_spectra.fits.gz"
        self.refused(65, [path.name, "a stack of MaNGA: its 8 spectra have neither ids nor positions"], "ingest-spectra",
                     "--input", path)
        counts, columns = self.spectra("--input", path, "--anonymous")
        self.assertEqual(counts, (7, {"no good bins": 1}))  # one is masked from end to end
        with fits.open(path) as file:
            edges = comb_edges(np.log10(file["WAVE"].data))
            for row, source in enumerate([0, 1, 2, 3, 4, 6, 7]):
                ivar, good = file["IVAR"].data[source], file["MASK"].data[source] == 0
                self.expect_resampled(edges, file["FLUX"].data[source], ivar, good & (ivar > 0), columns, row)
                self.assertEqual(columns["redshift"][row], file["Z"].data[source])
        np.testing.assert_array_equal(columns["zwarn"], -1)
        self.assertTrue((columns["qflag"] & 128).all())  # no position

    def test_spectra_match_images_on_the_sky(self):
        path = SDSS / "spec-0854-52373-0369.fits.gz"
        about = fits.getdata(path, 2)
        images = self.folder / "list.csv"  # half an arcsecond to the north of the fibre
        images.write_text("release,brickid,objid,ra,dec,file\n"
                          f"9010,357000,17,{about['PLUG_RA'][0]},{about['PLUG_DEC'][0] + 0.5 / 3600},plain.fits\n")
        self.ingest("ingest-images", "--input", images, "--cutouts", pipeline.SURVEY_DATA / "cutouts", "--size", 24,
                    "--max-offset", 0, name="images")
        self.ingest("ingest-spectra", "--input", path, name="spectra")
        counts = self.ingest("match", "--images", self.folder / "images", "--spectra", self.folder / "spectra", name="pairs")
        self.assertEqual(counts, (1, {}))
        with h5py.File(self.folder / "pairs/index.h5") as pairs:
            self.assertAlmostEqual(pairs["separation_arcsec"][0], 0.5, places=6)

    def write_universe(self, path, objects, ids=int, **more):
        """The one-spectrum files as the Multimodal Universe has them: one row an object, names of DESI's catalogue."""
        spectra = [np.load(UNIVERSE / f"{name}.npz") for name in objects]
        with h5py.File(path, "w") as file:
            for key in ("flux", "ivar", "lambda", "mask"):
                values = np.stack([s["wavelength" if key == "lambda" else key] for s in spectra])
                file.create_dataset(f"spectrum_{key}", data=values, **more)
            names = [str(s["object_id"]) for s in spectra]
            file["object_id"] = {int: np.array(names, dtype=np.int64), bytes: np.array(names, dtype="S20"), str: names}[ids]
            file["ra"], file["dec"] = 149.5 + 0.1 * np.arange(len(spectra)), np.full(len(spectra), 2.2)
            file["Z"] = np.array([s["z_true"] for s in spectra])
            file["ZWARN"] = np.zeros(len(spectra), dtype=np.int64)
            file["SPECTYPE"] = np.array(["QSO"] * len(spectra), dtype="S6")
            file["FLUX_G"] = np.array([-99, 1.5][:len(spectra)], dtype=np.float32)
        return spectra

    def test_the_multimodal_universe(self):
        path = self.folder / "001-of-001.hdf5"
        objects = ["heldout_z287", "heldout_lowconf_z157"]
        stores = {"plain": dict(ids=int), "bytes": dict(ids=bytes, compression="gzip", shuffle=True),
                  "texts": dict(ids=str, compression="lzf", shuffle=True, fletcher32=True)}
        for name, how in stores.items():
            spectra = self.write_universe(path, objects, **how)
            counts, columns = self.spectra("--input", self.folder, name=f"{name}", ranks=2)  # found in its folder
            self.assertEqual(counts, (2, {}))
            for row, source in enumerate(spectra):
                np.testing.assert_array_equal(columns["flux"][row], source["flux"])
                np.testing.assert_array_equal(columns["ivar"][row], source["ivar"])
                np.testing.assert_array_equal(columns["mask"][row], source["mask"])
                self.assertEqual(columns["object_id"][row], int(source["object_id"]))
                self.assertEqual(columns["redshift"][row], source["z_true"])
            np.testing.assert_array_equal(columns["zwarn"], 0)
            np.testing.assert_array_equal(columns["spectype"], 2)
            np.testing.assert_array_equal(columns["flux_g"], [np.nan, 1.5])
            np.testing.assert_array_equal(columns["dec"], 2.2)
            # As the id packs them: DESI's own identifiers.
            np.testing.assert_array_equal(columns["brickid"], columns["object_id"] >> 22 & 0xFFFFF)
            shutil.rmtree(self.folder / name)

    def test_masked_bins_by_the_arm_rule(self):
        path = self.folder / "masked.hdf5"
        self.write_universe(path, ["heldout_z287"])
        with h5py.File(path, "a") as file:
            file["spectrum_mask"][0, 10:20] = True
            flux = file["spectrum_flux"][0, 10:20]
        _, columns = self.spectra("--input", path)
        np.testing.assert_array_equal(columns["flux"][0, 10:20], 0)
        np.testing.assert_array_equal(columns["ivar"][0, 10:20], 0)
        np.testing.assert_array_equal(columns["mask"][0, 8:22], [0, 0] + [1] * 10 + [0, 0])
        _, columns = self.spectra("--input", path, "--arm-rule", "current", name="current")
        np.testing.assert_array_equal(columns["flux"][0, 10:20], flux)

    def change(self, change, words, code=65):
        """What is said of a file of the Multimodal Universe after `change` was made to it."""
        path = self.folder / "changed.hdf5"
        self.write_universe(path, ["heldout_z287"])
        with h5py.File(path, "a") as file:
            change(file)
        self.refused(code, words, "ingest-spectra", "--input", path, ranks=[1])

    def test_hdf5_that_leads_elsewhere_or_asks_for_other_code(self):
        def replaced(name, make):
            def change(file):
                values = file[name][()]
                del file[name]
                make(file, name, values)
            return change

        def external_link(file, name, values):
            with h5py.File(self.folder / "other.h5", "w") as other:
                other[name] = values
            file[name] = h5py.ExternalLink("other.h5", name)

        def linked_group(file, name, values):
            with h5py.File(self.folder / "other.h5", "w") as other:
                other[f"group/{name}"] = values
            group = file.create_group("inside")
            group["leads"] = h5py.ExternalLink("other.h5", "group")
            file[name] = h5py.SoftLink(f"/inside/leads/{name}")

        def virtual(file, name, values):
            with h5py.File(self.folder / "other.h5", "w") as other:
                other[name] = values
            layout = h5py.VirtualLayout(values.shape, values.dtype)
            layout[:] = h5py.VirtualSource(str(self.folder / "other.h5"), name, values.shape)
            file.create_virtual_dataset(name, layout)

        def external_storage(file, name, values):
            (self.folder / "raw").write_bytes(values.tobytes())
            file.create_dataset(name, values.shape, values.dtype, external=[(str(self.folder / "raw"), 0, values.nbytes)])

        def other_filter(file, name, values):
            file.create_dataset(name, data=values, scaleoffset=3, chunks=values.shape)

        for make, words in ((external_link, "'spectrum_flux' is a link to another file"), (linked_group, "not a readable dataset"),
                            (virtual, "'spectrum_flux' lies in other files"), (external_storage, "'spectrum_flux' lies in other files"),
                            (other_filter, "'spectrum_flux' is packed by filter 6")):
            with self.subTest(make.__name__):
                self.change(replaced("spectrum_flux", make), ["changed.hdf5", words])

    def test_hdf5_that_is_no_file_of_spectra(self):
        def without(name):
            return lambda file: file.__delitem__(name)

        def shifted(file):
            file["spectrum_lambda"][0] += 0.01

        def truth_values(file):
            del file["ZWARN"]
            file["ZWARN"] = np.array([True])

        self.change(without("spectrum_ivar"), ["has no dataset 'spectrum_ivar'; there are: FLUX_G, SPECTYPE, Z"])
        self.change(without("ra"), ["has no dataset 'ra'; there are:"])
        self.change(shifted, ["unreadable file"])
        self.change(truth_values, ["'ZWARN' does not hold integers"])
        cut = self.folder / "cut.hdf5"
        cut.write_bytes((self.folder / "changed.hdf5").read_bytes()[:5000])
        self.refused(65, [str(cut), "not an HDF5 file, or a damaged one"], "ingest-spectra", "--input", cut, ranks=[1])

    def test_a_damaged_lzf_chunk(self):
        path = self.folder / "changed.hdf5"
        self.write_universe(path, ["heldout_z287"], compression="lzf", chunks=(1, BINS))
        with h5py.File(path) as file:
            # Not of the flux: noise cannot be compressed, and is stored as it is.
            at = file["spectrum_mask"].id.get_chunk_info(0).byte_offset
        data = bytearray(path.read_bytes())
        data[at:at + 2] = b"\xff\xff"  # a repetition of what is not there
        path.write_bytes(data)
        counts = self.ingest("ingest-spectra", "--input", path, "--max-reject-fraction", 1)
        self.assertEqual(counts, (0, {"unreadable file": 1}))

    def test_exposures_of_a_target_are_coadded_by_ivar(self):
        """The good fibre of a real tile, observed three times: as it is; noisier, shifted and with masked pixels; and with a
        bad fibre status, which is left out. Another target lies between them."""
        generator = np.random.default_rng(1)
        rows, status = [4, 1, 4, 4], [0, 0, 0, 2]
        path = self.folder / "spectra-three.fits"
        exposures = {}
        with fits.open(EXPOSURES) as file:
            table = file["FIBERMAP"].data[rows]
            table["FIBERSTATUS"], table["EXPID"], table["OBJTYPE"] = status, [1, 1, 2, 3], "TGT"
            hdus = [fits.PrimaryHDU(), fits.BinTableHDU(table, name="FIBERMAP")]
            for arm in "BRZ":
                flux, ivar = file[f"{arm}_FLUX"].data[rows].copy(), file[f"{arm}_IVAR"].data[rows].copy()
                mask = file[f"{arm}_MASK"].data[rows].astype(np.int32)
                flux[2] += generator.normal(size=flux.shape[1]).astype(np.float32)
                ivar[2] *= np.float32(0.3)
                mask[2, 50:60], mask[:, 55] = 4, 6
                flux[3] = 1e6
                exposures[arm] = flux, ivar, mask
                hdus += [fits.ImageHDU(file[f"{arm}_WAVELENGTH"].data, name=f"{arm}_WAVELENGTH"),
                         fits.ImageHDU(flux, name=f"{arm}_FLUX"), fits.ImageHDU(ivar, name=f"{arm}_IVAR"),
                         fits.ImageHDU(mask, name=f"{arm}_MASK")]
            first_bin = {arm: round((file[f"{arm}_WAVELENGTH"].data[0] - 3600) / STEP) for arm in "BRZ"}
        fits.HDUList(hdus).writeto(path)
        counts, columns = self.spectra("--input", path)
        self.assertEqual(counts, (1, {"no good bins": 1}))  # the other target's spectrum is all zero in this tile
        weights, weighted, masks = np.zeros(BINS), np.zeros(BINS), np.full(BINS, -1, dtype=np.int64)
        for arm, (flux, ivar, mask) in exposures.items():
            bins = slice(first_bin[arm], first_bin[arm] + flux.shape[1])
            good = np.where(mask[[0, 2]] == 0, ivar[[0, 2]].astype(float), 0)
            # Each arm is rounded to float32 before the arms are combined.
            coadded = good.sum(axis=0).astype(np.float32).astype(float)
            means = np.divide((good * flux[[0, 2]]).sum(axis=0), good.sum(axis=0), out=np.zeros(flux.shape[1]),
                              where=coadded > 0).astype(np.float32)
            weights[bins] += coadded
            weighted[bins] += coadded * means
            masks[bins] &= mask[0] & mask[2]
        means = np.divide(weighted, weights, out=np.zeros(BINS), where=weights > 0)
        np.testing.assert_allclose(columns["flux"][0], means, rtol=2 * FLOAT32)
        np.testing.assert_allclose(columns["ivar"][0], weights, rtol=2 * FLOAT32)
        np.testing.assert_array_equal(columns["mask"][0], masks)
        self.assertEqual(masks[55], 6)  # masked in both, not in the overlap of arms


if __name__ == "__main__":
    unittest.main()
