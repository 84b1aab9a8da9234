#!/usr/bin/env python3
"""Makes tools/simulate/data/{galaxy-templates,desi-noise}.fits from the files they come from.

    make_simulation_data.py KCORRECT_DEFAULT_V4.fits COADD.fits [COADD.fits ...] OUTPUT_DIR

galaxy-templates.fits: the five templates of kcorrect between 1800 and 11200 Angstrom. Their emission lines, smeared
over one to three pixels of 260 km/s there, are taken out into a table of line fluxes (HDU LINES), so that the simulator
can set them at their own width and strength; CONTINUUM has a straight line in their place.

desi-noise.fits: the inverse variance of the first good target of each coadd, arm by arm.
"""
import sys

import numpy as np
from astropy.io import fits

# Vacuum wavelengths in Angstrom. The templates do not part the doublet [OII] 3727, 3730: one sum, shared 0.43 to 0.57.
LINES = [("OII_3727", 3727.09), ("OII_3730", 3729.88), ("HDELTA", 4102.89), ("HGAMMA", 4341.68),
         ("HBETA", 4862.68), ("OIII_4960", 4960.30), ("OIII_5008", 5008.24), ("NII_6550", 6549.86),
         ("HALPHA", 6564.61), ("NII_6585", 6585.27), ("SII_6718", 6718.29), ("SII_6733", 6732.67),
         ("ARIII_7138", 7137.76), ("SIII_9071", 9071.10), ("SIII_9533", 9533.20)]
GROUPS = [[0, 1], [2], [3], [4], [5], [6], [7, 8, 9], [10, 11], [12], [13], [14]]
OII_SHARE = [0.43, 0.57]
BALMER = {2: 0.259, 3: 0.468}  # of H beta (case B): absorption hides these two in the templates
HALF_WIDTH = 2.2  # pixels of the template


def take_out_lines(wavelength, flux):
    """(flux without the lines, flux of each line)."""
    pixel = np.gradient(wavelength)
    nearest = [np.argmin(np.abs(wavelength - line)) for _, line in LINES]
    continuum, strengths = flux.copy(), np.zeros(len(LINES))
    for group in GROUPS:
        low = int(np.floor(nearest[group[0]] - HALF_WIDTH - 0.5))
        high = int(np.ceil(nearest[group[-1]] + HALF_WIDTH + 0.5))
        left, right = np.median(flux[low - 2:low + 1]), np.median(flux[high:high + 3])
        base = np.interp(np.arange(low, high + 1), [low, high], [left, right])
        excess = flux[low:high + 1] - base
        if excess.max() < 0.06 * base.mean():  # no emission here: leave absorption alone
            continue
        continuum[low:high + 1] = base
        owner = np.argmin(np.abs(wavelength[low:high + 1, None] - np.array([LINES[i][1] for i in group])), axis=1)
        for k, line in enumerate(group):
            if group == [0, 1]:
                strengths[line] = max(0, np.sum(excess * pixel[low:high + 1])) * OII_SHARE[k]
            else:
                strengths[line] = max(0, np.sum((excess * pixel[low:high + 1])[owner == k]))
    for line, share in BALMER.items():
        strengths[line] = share * strengths[4]
    return continuum, strengths


def write_templates(source, output):
    with fits.open(source) as hdus:
        table = hdus["FLUX"].data
        wavelength, flux = table["wave"][0].astype(float), table["flux"][0].astype(float)
        keep = (wavelength > 1800) & (wavelength < 11200)
        parts = [take_out_lines(wavelength[keep], row[keep]) for row in flux]
        mass = fits.BinTableHDU.from_columns(
            [fits.Column(name, "E", array=hdus[name].data.astype(np.float32))
             for name in ("MREMAIN", "METS", "M300", "M1000")], name="MASS")
    unit = "erg s-1 cm-2 Angstrom-1"
    continuum = fits.ImageHDU(np.array([p[0] for p in parts], np.float32), name="CONTINUUM")
    continuum.header["BUNIT"] = (unit, "of one solar mass formed, at 10 pc")
    grid = fits.ImageHDU(wavelength[keep].astype(np.float32), name="WAVELENGTH")
    grid.header["BUNIT"] = ("Angstrom", "vacuum, rest frame")
    lines = fits.BinTableHDU.from_columns(
        [fits.Column("NAME", "12A", array=[n for n, _ in LINES]),
         fits.Column("WAVELENGTH", "D", unit="Angstrom", array=[w for _, w in LINES]),
         fits.Column("FLUX", f"{len(parts)}E", unit="erg s-1 cm-2",
                     array=np.array([p[1] for p in parts], np.float32).T)], name="LINES")
    primary = fits.PrimaryHDU()
    primary.header["ORIGIN"] = ("blanton144/kcorrect", "kcorrect-default-v4.fits, BSD-3")
    fits.HDUList([primary, grid, continuum, lines, mass]).writeto(output, overwrite=True)


def write_noise(coadds, output):
    ivar = {arm: [] for arm in "BRZ"}
    for path in coadds:
        with fits.open(path) as hdus:
            row = np.flatnonzero(np.min([hdus[f"{a}_IVAR"].data.max(axis=1) for a in "BRZ"], axis=0) > 0)[0]
            for arm in "BRZ":
                ivar[arm].append(hdus[f"{arm}_IVAR"].data[row].astype(np.float32))
    hdus = [fits.PrimaryHDU()]
    hdus[0].header["ORIGIN"] = ("desihub/fastspecfit, astropy/specutils", "coadd files, BSD-3")
    for arm in "BRZ":
        hdu = fits.ImageHDU(np.array(ivar[arm]), name=f"{arm}_IVAR")
        hdu.header["BUNIT"] = ("10**+34 (s2 cm4 Angstrom2) / erg2", "one row a coadd")
        hdus.append(hdu)
    fits.HDUList(hdus).writeto(output, overwrite=True)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    write_templates(sys.argv[1], f"{sys.argv[-1]}/galaxy-templates.fits")
    write_noise(sys.argv[2:-1], f"{sys.argv[-1]}/desi-noise.fits")
