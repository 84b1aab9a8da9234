#!/usr/bin/python3
"""A page of galaxies: every augmentation before and after, and the patches of a vision transformer in the colours of their
first three principal components.

usage: show_images.py --images STORE [--model FOLDER] [--first ROW] [--count 6] --output PAGE.png
"""
import argparse
import json
import pathlib
import struct
import subprocess
import tempfile

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

SHOW = pathlib.Path(__file__).resolve().parents[1] / "build/bin/astroclip-show-images"
TITLES = {"original": "as stored", "gr": "dust (gr)", "rr": "rotation (rr)", "ss": "size (ss)", "gb": "blur (gb)",
          "gn": "noise (gn)", "moco-0": "MoCo, query", "moco-1": "MoCo, key", "dino-global-0": "DINO, global A",
          "dino-global-1": "DINO, global B", "dino-local-0": "DINO, local", "dino-local-1": "DINO, local",
          "patches": "patch tokens,\nPCA"}


def read_safetensors(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = (8 + length + place for place in entry["data_offsets"])
            tensors[name] = np.frombuffer(data[begin:end], "<f4").reshape(entry["shape"])
    return tensors


def components_as_colours(patches):
    """Tokens [n, N, width] of all galaxies together -> colours [n, side, side, 3] from 0 to 1."""
    count, tokens, width = patches.shape
    rows = patches.reshape(-1, width) - patches.mean(axis=(0, 1))
    _, _, axes = np.linalg.svd(rows, full_matrices=False)
    values = rows @ axes[:3].T
    low, high = np.percentile(values, [1, 99], axis=0)
    side = round(tokens**0.5)
    return np.clip((values - low) / (high - low), 0, 1).reshape(count, side, side, 3)


def draw(tensors, output):
    columns = [name for name in TITLES if name in tensors]
    count = len(tensors["original"])
    figure, axes = plt.subplots(count, len(columns), figsize=(1.3 * len(columns), 1.3 * count + 0.4), squeeze=False,
                                layout="constrained")
    for column, name in enumerate(columns):
        values = tensors[name]
        pictures = components_as_colours(values) if name == "patches" else values.transpose(0, 2, 3, 1)
        for row in range(count):
            axes[row, column].imshow(np.clip(pictures[row], 0, 1), origin="lower", interpolation="nearest")
            axes[row, column].set_axis_off()
        axes[0, column].set_title(TITLES[name], fontsize=8)
    figure.savefig(output, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True)
    parser.add_argument("--model")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--output", required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tensors = pathlib.Path(folder) / "tensors.safetensors"
        line = [SHOW, "--images", arguments.images, "--first", arguments.first, "--count", arguments.count, "--output", tensors]
        if arguments.model:
            line += ["--model", arguments.model]
        subprocess.run([str(word) for word in line], check=True)
        draw(read_safetensors(tensors), arguments.output)


if __name__ == "__main__":
    main()
