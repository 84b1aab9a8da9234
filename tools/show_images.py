#!/usr/bin/python3
"""A page of galaxies: every augmentation before and after, where a vision transformer's cls token looks, and the patches in the
colours of their first three principal components. (The report of a run has such a page, too.)

usage: show_images.py --images STORE [--model FOLDER] [--first ROW] [--count 6] --output PAGE.png
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
from reporting import figures, run_folder  # noqa: E402

SHOW = pathlib.Path(__file__).resolve().parents[1] / "build/bin/astroclip-show-images"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True)
    parser.add_argument("--model")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--output", required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tensors = pathlib.Path(folder) / "views.safetensors"
        line = [SHOW, "--images", arguments.images, "--first", arguments.first, "--count", arguments.count, "--output", tensors]
        if arguments.model:
            line += ["--model", arguments.model]
        subprocess.run([str(word) for word in line], check=True)
        figures.views(run_folder.read_arrays(tensors)).savefig(arguments.output, dpi=200, facecolor="white")


if __name__ == "__main__":
    sys.exit(main())
