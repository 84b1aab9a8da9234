#!/usr/bin/env python3
"""Makes tests/data/survey/cutouts: small files in the format of the Legacy Surveys' cutout service, with astropy and h5py,
so that our readers are compared with other people's writers.

Pixel (y, x) of band b of object k is  k + 100 b + y / 64 + x / 4096  (exact in float32), 34 x 32 pixels at 0.262 arcsec.

    python3 tools/reference/make_survey_fixtures.py tests/data/survey/cutouts
"""
import sys
from pathlib import Path

import h5py
import numpy as np
from astropy.io import fits

HEIGHT, WIDTH, SCALE = 34, 32, 0.262
RELEASE, BRICKID = 9010, 330000


def position(k):
    return (359.999 + 0.0004 * k) % 360, -0.5 + 0.25 * k


def pixels(k, bands="grz"):
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    order = ["grz".index(b) for b in bands]
    return np.stack([k + 100 * b + y / 64 + x / 4096 for b in order]).astype(np.float32)


def header(k, bands="grz", **extra):
    ra, dec = position(k)
    cards = fits.Header()
    cards["SURVEY"], cards["VERSION"], cards["BANDS"] = "LegacySurvey", "DR9", bands
    for i, band in enumerate(bands):
        cards[f"BAND{i}"] = band
    cards["CTYPE1"], cards["CTYPE2"] = "RA---TAN", "DEC--TAN"
    cards["CRVAL1"], cards["CRVAL2"] = ra, dec
    cards["CRPIX1"], cards["CRPIX2"] = (WIDTH + 1) / 2, (HEIGHT + 1) / 2
    cards["CD1_1"], cards["CD1_2"], cards["CD2_1"], cards["CD2_2"] = -SCALE / 3600, 0.0, 0.0, SCALE / 3600
    cards.update(extra)
    return cards


def write(folder, name, k, data=None, bands="grz", checksum=False, **extra):
    image = fits.PrimaryHDU(pixels(k, bands) if data is None else data, header(k, bands, **extra))
    image.writeto(folder / name, overwrite=True, checksum=checksum)


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, "plain.fits", 1)
    write(folder, "checksum.fits", 2, checksum=True)
    write(folder, "zrg.fits", 3, bands="zrg")
    write(folder, "rg.fits", 4, bands="rg")
    write(folder, "magnitudes.fits", 5, BUNIT="mag")
    broken = pixels(6)
    broken[1, 20, 11] = np.nan
    write(folder, "nan.fits", 6, broken)
    write(folder, "small.fits", 7, pixels(7)[:, :20, :20])
    write(folder, "zero.fits", 8, np.zeros_like(pixels(8)))
    edge = pixels(9)
    edge[2, :12, :] = 0
    write(folder, "edge.fits", 9, edge, BUNIT="nanomaggy")
    write(folder, "coarse.fits", 10, CD1_1=-0.4 / 3600, CD2_2=0.4 / 3600)
    write(folder, "elsewhere.fits", 11, CRVAL1=position(11)[0] + 0.01)
    (folder / "cut.fits").write_bytes((folder / "plain.fits").read_bytes()[:9000])
    flipped = bytearray((folder / "checksum.fits").read_bytes())
    flipped[2880 * 2 + 700] ^= 8
    (folder / "flipped.fits").write_bytes(bytes(flipped))

    # How pixels may be stored otherwise. Lossy ones to a quarter of the pixel step in y (1/64).
    scaled = fits.PrimaryHDU(pixels(12), header(12))
    scaled.scale("int32", bscale=2.0**-12, bzero=0)
    scaled.writeto(folder / "scaled.fits", overwrite=True)
    for name, kind, dither in [("gzip.fits", "GZIP_2", -1), ("rice.fits", "RICE_1", -1), ("dither.fits", "RICE_1", 1)]:
        image = fits.CompImageHDU(pixels(12), header(12), compression_type=kind, quantize_method=dither, dither_seed=5,
                                  quantize_level=0.0 if kind == "GZIP_2" else -2.0**-8, tile_shape=(1, HEIGHT, WIDTH))
        fits.HDUList([fits.PrimaryHDU(), image]).writeto(folder / name, overwrite=True)

    files = ["plain", "checksum", "zrg", "rg", "magnitudes", "nan", "small", "zero", "edge", "coarse", "elsewhere"]
    rows = ["release,brickid,objid,ra,dec,file,flux_g,flux_r,flux_z,ebv,redshift"]
    for k, name in enumerate(files, start=1):
        ra, dec = position(k)
        rows.append(f"{RELEASE},{BRICKID},{k},{ra!r},{dec!r},{name}.fits,{k}.25,{k}.5,{k}.75,0.0{k},{'' if k == 2 else 0.1 * k}")
    rows.append(f"{RELEASE},{BRICKID},1,{position(1)[0]!r},{position(1)[1]!r},plain.fits,1,1,1,0,0")  # a duplicate
    rows.append(f"{RELEASE},{BRICKID},13,{position(1)[0]!r},{position(1)[1]!r},cut.fits,1,1,1,0,0")
    rows.append(f"{RELEASE},{BRICKID},14,{position(2)[0]!r},{position(2)[1]!r},flipped.fits,1,1,1,0,0")
    (folder / "all.csv").write_text("\n".join(rows) + "\n")
    (folder / "good.csv").write_text("\n".join(rows[:4]) + "\n")

    n = 6
    with h5py.File(folder / "chunk.h5", "w") as chunk:
        chunk["images"] = np.stack([pixels(k) for k in range(1, n + 1)])
        chunk["release"] = np.full(n, RELEASE, np.int16)
        chunk["brickid"] = np.full(n, BRICKID, np.int32)
        chunk["objid"] = np.arange(1, n + 1, dtype=np.int32)
        chunk["ra"] = np.array([position(k)[0] for k in range(1, n + 1)])
        chunk["dec"] = np.array([position(k)[1] for k in range(1, n + 1)])
        chunk["flux"] = np.array([[k + 0.25, k + 0.5, k + 0.75] for k in range(1, n + 1)], np.float32)
        chunk["ebv"] = np.full(n, 0.05, np.float32)
        chunk["z_spec"] = np.array([0.1, -99, 0.3, 0.4, 0.5, 0.6], np.float32)


if __name__ == "__main__":
    main()
