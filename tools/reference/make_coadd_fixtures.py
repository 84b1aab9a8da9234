#!/usr/bin/env python3
"""Makes tests/data/survey/coadds with astropy, so that our readers are compared with other people's:

wcs-*.fits, wcs.csv   images of 4 x 6 pixels in several projections, and positions of pixels by astropy's WCS
legacysurvey-*        a corner of a real brick coadd, 200 x 200 pixels of bands g and z, packed as the survey packs

    python3 tools/reference/make_coadd_fixtures.py tests/data/survey/coadds BRICK

BRICK: folder of legacysurvey-0959p805-image-{g,z}.fits.fz (Legacy Surveys DR6; desihub/desitarget, py/desitarget/test/dr6)
"""
import sys
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

STEP = 0.262 / 3600
PROJECTIONS = {
    "brick": {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 95.9504132231405, "CRVAL2": 80.5, "CRPIX1": 1800.5,
              "CRPIX2": 1800.5, "CD1_1": -STEP, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": STEP},
    "frame": {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 313.170189503, "CRVAL2": -5.69296404072, "CRPIX1": 342.7,
              "CRPIX2": 248.3, "CD1_1": 4.5e-5, "CD1_2": 3.27e-4, "CD2_1": 3.27e-4, "CD2_2": -4.5e-5, "RADECSYS": "ICRS"},
    "swapped": {"CTYPE1": "DEC--TAN", "CTYPE2": "RA---TAN", "CRVAL1": 33.0, "CRVAL2": 0.001, "CRPIX1": 2.5, "CRPIX2": 3.5,
                "CDELT1": 4 * STEP, "CDELT2": 4 * STEP, "PC1_1": 0.8, "PC1_2": 0.6, "PC2_1": -0.6, "PC2_2": 0.8},
    "sip": {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "CRVAL1": 200.0, "CRVAL2": -30.0, "CRPIX1": 1024.0,
            "CRPIX2": 1024.0, "CD1_1": -STEP, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": STEP, "A_ORDER": 2, "A_2_0": 2e-6,
            "A_1_1": -1e-6, "B_ORDER": 2, "B_0_2": 3e-6, "B_1_1": 1e-6},
    "zpn": {"CTYPE1": "RA---ZPN", "CTYPE2": "DEC--ZPN", "CRVAL1": 10.0, "CRVAL2": -60.0, "CRPIX1": 2000.0, "CRPIX2": -300.0,
            "CD1_1": -STEP, "CD1_2": 1e-7, "CD2_1": 1e-7, "CD2_2": STEP, "PV2_1": 1.0, "PV2_3": 42.0},
}


def main():
    folder, brick = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    lines = ["file,x,y,ra,dec"]
    for name, cards in PROJECTIONS.items():
        image = fits.PrimaryHDU(np.ones((6, 4), np.float32), fits.Header({**cards, "BUNIT": "nanomaggy"}))
        image.writeto(folder / f"wcs-{name}.fits", overwrite=True)
        wcs = WCS(fits.getheader(folder / f"wcs-{name}.fits"))
        pixels = np.concatenate([[[0, 0], [3, 5], [cards["CRPIX1"] - 1, cards["CRPIX2"] - 1]], rng.uniform(-50, 2000, (5, 2))])
        first, second = wcs.all_pix2world(pixels, 0).T
        ra, dec = (second, first) if name == "swapped" else (first, second)
        lines += [f"{name},{x!r},{y!r},{r!r},{d!r}" for (x, y), r, d in zip(pixels.tolist(), ra.tolist(), dec.tolist())]
    (folder / "wcs.csv").write_text("\n".join(lines) + "\n")

    x0, y0, size = 600, 0, 200
    for band in "gz":
        with fits.open(brick / f"legacysurvey-0959p805-image-{band}.fits.fz") as whole:
            header = whole[1].header
            data = whole[1].data[y0:y0 + size, x0:x0 + size]
        keep = fits.Header([header.cards[key] for key in header if key in PROJECTIONS["brick"] or key in
                            ("BRICKNAM", "BRICKID", "FILTER", "BUNIT", "MAGZERO", "EQUINOX", "DECALSDR", "SURVEYID")])
        keep["CRPIX1"] -= x0
        keep["CRPIX2"] -= y0
        packed = fits.CompImageHDU(data, keep, compression_type="RICE_1", tile_shape=(100, 100), quantize_method=2,
                                   quantize_level=4, dither_seed=5161)
        fits.HDUList([fits.PrimaryHDU(), packed]).writeto(folder / f"legacysurvey-0959p805-image-{band}.fits.fz", overwrite=True)


if __name__ == "__main__":
    main()
