"""Checkpoints in the layouts of the published ones, made up: what tests write with torch_archive and have converted."""

import json
import pathlib
import struct
from collections import OrderedDict

import numpy as np
from torch_archive import Storage, View, tensor

DATA = pathlib.Path(__file__).resolve().parents[1] / "data"


def read_safetensors(path):
    """({key: text}, {name: values})"""
    data = path.read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:start])
    metadata = header.pop("__metadata__", {})
    return metadata, {name: np.frombuffer(data[start + one["data_offsets"][0]:start + one["data_offsets"][1]],
                                          {"F32": "<f4", "I64": "<i8"}[one["dtype"]]).reshape(one["shape"])
                      for name, one in header.items()}


def published_state(name):
    """The state_dict of a small network of the published code, and its configuration."""
    tensors = read_safetensors(DATA / "nn" / f"{name}.safetensors")[1]
    return ({key.split("/state/")[1]: values for key, values in tensors.items() if "/state/" in key},
            json.loads((DATA / "nn" / f"{name}.json").read_text())["config"])


def saved(state):
    return OrderedDict((name, tensor(values)) for name, values in state.items())


def lightning(state, hyper_parameters):
    """A checkpoint of Lightning 2 with what lies beside the state: optimiser states, loops, callbacks."""
    moments = {n: {"step": tensor(np.float32(7)), "exp_avg": tensor(np.ones(3, np.float32))} for n in range(3)}
    return {"epoch": 4, "global_step": 30000, "pytorch-lightning_version": "2.1.0", "state_dict": state,
            "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 5}}}},
            "callbacks": {"EarlyStopping{'mode': 'min'}": {"best_score": tensor(np.float32(0.5)), "patience": 3}},
            "optimizer_states": [{"state": moments, "param_groups": [{"lr": 1e-5, "betas": (0.9, 0.95), "params": [0, 1, 2]}]}],
            "lr_schedulers": [{"last_epoch": 30000}], "hparams_name": "kwargs", "hyper_parameters": hyper_parameters}


def teacher(backbone, head, prefix="module.backbone.", inside=""):
    """The state_dict of AstroDINO's teacher, under the names that its wrappers gave it."""
    state = {prefix + name.replace("blocks.", f"blocks.{inside}", 1): values for name, values in backbone.items()}
    return state | {f"{inside}dino_head.{name}": values for name, values in head.items()}


def resnet_shapes(embed_dim=128, stem=64):
    """A ResNet-50 in torchvision's names and order, with the projection of MoCo v2; `stem`: channels of its first stage."""
    def norm(name, width):
        return {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")} | \
            {f"{name}.num_batches_tracked": ()}
    shapes, inputs = {"conv1.weight": (stem, 3, 7, 7), **norm("bn1", stem)}, stem
    for layer, blocks in enumerate((3, 4, 6, 3)):
        width = stem << layer
        for block in range(blocks):
            name = f"layer{layer + 1}.{block}"
            for n, shape in enumerate(((width, inputs, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)), start=1):
                shapes |= {f"{name}.conv{n}.weight": shape, **norm(f"{name}.bn{n}", shape[0])}
            if block == 0:
                shapes |= {f"{name}.downsample.0.weight": (4 * width, inputs, 1, 1), **norm(f"{name}.downsample.1", 4 * width)}
            inputs = 4 * width
    return shapes | {"fc.0.weight": (inputs, inputs), "fc.0.bias": (inputs,), "fc.2.weight": (embed_dim, inputs), "fc.2.bias": (embed_dim,)}


def resnet_state(embed_dim=128, stem=64):
    """Its state_dict as encoder_q: all values 0.5, counters 9, in two storages."""
    half, nine = Storage(np.full(1, 0.5, np.float32)), Storage(np.full(1, 9, np.int64))
    return {f"encoder_q.{name}": View(nine if name.endswith("tracked") else half, shape, [0] * len(shape))
            for name, shape in resnet_shapes(embed_dim, stem).items()}


def uniform(n, count):
    """The deterministic fill: u(n, 0), u(n, 1), … in [0, 1), by SplitMix64."""
    with np.errstate(over="ignore"):
        x = np.arange(count, dtype=np.uint64) + np.uint64((n << 40) + 0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((x ^ (x >> np.uint64(31))) >> np.uint64(40)) / 2.0**24


def filled(shapes):
    """{name: values} of a whole module by the deterministic fill, which numbers its tensors from 0."""
    return {name: _filled(n, name, shape) for n, (name, shape) in enumerate(shapes.items())}


def _filled(n, name, shape):
    if name.endswith("tracked"):
        return np.array(0)
    s = 2 * uniform(n, int(np.prod(shape))) - 1
    if len(shape) > 1:
        s *= np.sqrt(3 * shape[0] / np.prod(shape))
    else:
        s = 1 + 0.1 * s if name.endswith(("weight", "running_var")) else 0.02 * s
    return s.astype(np.float32).reshape(shape)
