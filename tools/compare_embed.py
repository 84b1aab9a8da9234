#!/usr/bin/env python3
"""Embedding beside a plain Python program: the same stores, model and threads, in turns, from the start of each program to its file.

usage: compare_embed.py RUN [--threads 2] [--ranks 1] [--precision fp32] [--workers 2] [--rounds 3]
RUN has images, spectra, pairs and aligned (a model of the kind that astroclip-align publishes). The Python program is what a user of
PyTorch would write: a Dataset that reads a galaxy from h5py, a DataLoader with --workers processes, the networks in stock functions,
and h5py for the result. Prints the time of both, its ratio, and how far the two catalogues' vectors are apart.
Needs torch and h5py; astroclip-embed is looked for in build/bin, or in ASTROCLIP_BIN.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
from needed import need  # noqa: E402

need("h5py", "numpy", "torch", pythons=(), remedy="pip install it, in a virtual environment")

import h5py  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from checkpoints import safetensors  # noqa: E402

SOURCE = pathlib.Path(__file__).resolve().parent.parent
EMBED = pathlib.Path(os.environ.get("ASTROCLIP_BIN", SOURCE / "build/bin")) / "astroclip-embed"
BATCH = 32


class Model:
    """The two encoders with their heads, under the names of the published checkpoint."""

    def __init__(self, path):
        self.told, weights = safetensors.read(path)
        self.w = {name: torch.tensor(one.values()) for name, one in weights.items()}

    def number(self, key):
        return int(self.told[key])

    def linear(self, name, x):
        return F.linear(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def norm(self, name, x, eps):
        return F.layer_norm(x, x.shape[-1:], self.w[f"{name}.weight"], self.w[f"{name}.bias"], eps)

    def attention(self, qkv, projection, heads, x):
        batch, tokens, width = x.shape
        q, k, v = self.linear(qkv, x).view(batch, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        return self.linear(projection, F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))

    def mlp(self, up, down, x):
        return self.linear(down, F.gelu(self.linear(up, x)))

    def head(self, encoder, tokens):
        name, heads = f"{encoder}.cross_attention.", self.number("n_head")
        attention = f"{name}multihead_attn."
        query = self.w[f"{name}query"]
        width = query.shape[2]
        packed = self.w.get(f"{attention}in_proj_weight")
        separate = [self.w.get(f"{attention}{part}_proj_weight") for part in "qkv"]
        out = F.multi_head_attention_forward(
            query.expand(len(tokens), -1, -1).transpose(0, 1), tokens.transpose(0, 1), tokens.transpose(0, 1), width, heads, packed,
            self.w[f"{attention}in_proj_bias"], None, None, False, 0.0, self.w[f"{attention}out_proj.weight"],
            self.w[f"{attention}out_proj.bias"], training=False, need_weights=False, use_separate_proj_weight=packed is None,
            q_proj_weight=separate[0], k_proj_weight=separate[1], v_proj_weight=separate[2])[0][0]
        x = self.norm(f"{name}layernorm", out, 1e-5)
        z = self.mlp(f"{encoder}.mlp.encoder", f"{encoder}.mlp.decoder", x)
        return x + z if encoder == "spectrum_encoder" or self.told["image_head_residual"] == "1" else z

    def images(self, flux):
        scaled = flux.flip(1) * torch.tensor([2.2, 3.4, 6.0]).view(3, 1, 1) + 0.03
        intensity = scaled.clamp(min=0).mean(1, keepdim=True)
        stretched = torch.asinh(20 * intensity) / 20 ** 0.5
        colours = (scaled * stretched / torch.where(intensity == 0, 1e-6, intensity)).clamp(0, 1)
        side, crop = flux.shape[-1], self.number("image.crop")
        edge = (side - crop) // 2
        x, name = colours[:, :, edge:edge + crop, edge:edge + crop], "image_encoder.backbone."
        x = F.conv2d(x, self.w[f"{name}patch_embed.proj.weight"], self.w[f"{name}patch_embed.proj.bias"], self.number("image.patch_size"))
        x = x.flatten(2).transpose(1, 2)
        depth, chunks = self.number("image.depth"), self.number("image.block_chunks")
        for i in range(depth):
            block = f"{name}blocks.{i // (depth // chunks)}.{i}." if chunks else f"{name}blocks.{i}."
            x = x + self.w[f"{block}ls1.gamma"] * self.attention(f"{block}attn.qkv", f"{block}attn.proj", self.number("image.num_heads"),
                                                                self.norm(f"{block}norm1", x, 1e-6))
            x = x + self.w[f"{block}ls2.gamma"] * self.mlp(f"{block}mlp.fc1", f"{block}mlp.fc2", self.norm(f"{block}norm2", x, 1e-6))
        return self.head("image_encoder", self.norm(f"{name}norm", x, 1e-6))

    def spectra(self, flux):
        length, overlap = self.number("spectrum.slice_section_length"), self.number("spectrum.slice_overlap")
        mean, std = flux.mean(1, keepdim=True), flux.std(1, keepdim=True).clamp(min=float(self.told["spectrum.std_min"]))
        sections = ((flux - mean) / std).unfold(1, length, length - overlap)
        sections = sections[:, :-(-(flux.shape[1] - overlap) // (length - overlap)) - 1]
        x = F.pad(sections, (2, 0, 1, 0))
        x[:, 0, 0], x[:, 0, 1] = (mean[:, 0] - 2) / 2, (std[:, 0] - 2) / 8
        name = "spectrum_encoder.backbone."
        x = self.linear(f"{name}data_embed", x) + self.w[f"{name}position_embed.weight"][:x.shape[1]]
        for i in range(self.number("spectrum.num_layers")):
            block = f"{name}blocks.{i}."
            x = x + self.attention(f"{block}attention.attention", f"{block}attention.projection", self.number("spectrum.num_heads"),
                                   self.norm(f"{block}layernorm1", x, 1e-5))
            x = x + self.mlp(f"{block}mlp.encoder", f"{block}mlp.decoder", self.norm(f"{block}layernorm2", x, 1e-5))
        return self.head("spectrum_encoder", self.norm(f"{name}final_layernorm", x, 1e-5))


class Galaxies(torch.utils.data.Dataset):
    """Those with both modalities."""

    def __init__(self, run):
        self.run, self.files = run, None
        with h5py.File(run / "pairs/index.h5") as pairs:
            self.ids, self.rows = pairs["object_id"][:], np.stack([pairs["image_row"][:], pairs["spectrum_row"][:]], 1)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        if self.files is None:  # in the worker
            self.files = [h5py.File(self.run / name / "index.h5")["flux"] for name in ("images", "spectra")]
        return [torch.from_numpy(flux[row]) for flux, row in zip(self.files, self.rows[i])]


def python_program(arguments, output):
    torch.set_num_threads(arguments.threads)
    model, galaxies = Model(arguments.run / "aligned/model.safetensors"), Galaxies(arguments.run)
    loader = torch.utils.data.DataLoader(galaxies, batch_size=BATCH, num_workers=arguments.workers)
    cast = torch.autocast("cpu", torch.bfloat16, enabled=arguments.precision == "bf16")
    with h5py.File(output, "w") as file, torch.inference_mode(), cast:
        file["object_id"] = galaxies.ids
        shape = (len(galaxies), model.number("embed_dim"))
        vectors = [file.create_dataset(f"{name}_embedding", shape, "f4") for name in ("image", "spectrum")]
        norms = [file.create_dataset(f"{name}_embedding_norm", shape[:1], "f4") for name in ("image", "spectrum")]
        for number, batch in enumerate(loader):
            rows = slice(number * BATCH, number * BATCH + len(batch[0]))
            for z, vector, norm in zip((model.images(batch[0]), model.spectra(batch[1])), vectors, norms):
                length = z.float().norm(dim=1)
                vector[rows], norm[rows] = (z.float() / length[:, None]).numpy(), length.numpy()


def timed(line, threads):
    start = time.perf_counter()
    subprocess.run([str(word) for word in line], check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    return time.perf_counter() - start


def largest_difference(catalogue, plain):
    """Of unit vectors, over the galaxies of the plain program."""
    with h5py.File(catalogue / "index.h5") as ours, h5py.File(plain) as theirs:
        row = {one: i for i, one in enumerate(ours["object_id"][:])}
        rows = [row[one] for one in theirs["object_id"][:]]
        return {name: float(np.abs(ours[f"{name}_embedding"][:][rows] - theirs[f"{name}_embedding"][:]).max()) for name in ("image", "spectrum")}


def compare(arguments):
    times = []
    with tempfile.TemporaryDirectory(dir=arguments.run) as name:
        folder = pathlib.Path(name)
        shared = [f"--{kind}={arguments.run / kind}" for kind in ("images", "spectra", "pairs")] + [f"--model={arguments.run / 'aligned'}"]
        launch = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", arguments.ranks] if arguments.ranks > 1 else []
        each = arguments.threads // arguments.ranks
        for _ in range(arguments.rounds):
            shutil.rmtree(folder / "ours", ignore_errors=True)
            mine = timed([*launch, EMBED, *shared, f"--output={folder / 'ours'}", f"--threads={each}", f"--precision={arguments.precision}"], each)
            other = timed([sys.executable, __file__, arguments.run, "--plain", folder / "plain.h5", f"--threads={arguments.threads}",
                           f"--precision={arguments.precision}", f"--workers={arguments.workers}"], arguments.threads)
            times.append((mine, other))
        mine, other = (sorted(column)[len(times) // 2] for column in zip(*times))
        galaxies = len(Galaxies(arguments.run))
        print(json.dumps({"galaxies": galaxies, "threads": arguments.threads, "ranks": arguments.ranks, "precision": arguments.precision,
                          "ours_s": mine, "python_s": other, "ratio": other / mine, "ours_per_s": galaxies / mine,
                          "largest_difference": largest_difference(folder / "ours", folder / "plain.h5")}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", type=pathlib.Path)
    for name, default in (("threads", 2), ("ranks", 1), ("workers", 2), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default, help="default %(default)s")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--plain", type=pathlib.Path, metavar="FILE", help="be the Python program and write FILE")
    arguments = parser.parse_args()
    if arguments.plain:
        python_program(arguments, arguments.plain)
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
