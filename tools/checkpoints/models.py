"""From a published checkpoint to one of our models: which it is, its key map, its metadata; and back."""

import json
import math
from dataclasses import dataclass, field

from . import networks
from .errors import DataError, UsageError
from .pickle_program import Call
from .state import State
from .weights import Weights

# What no tensor says, as published, and in which kinds of model an option may say otherwise.
DEFAULTS = {"spectrum_heads": 6, "image_heads": 16, "attention_heads": 4, "image_head_residual": False, "image_norm": "none",
            "rgb": None, "crop": 96}
OPTIONS = {"specformer": {"spectrum_heads"},
           "astrodino": {"image_heads", "image_norm"},
           "astroclip": {"spectrum_heads", "image_heads", "attention_heads", "image_head_residual", "image_norm"},
           "workshop": {"spectrum_heads", "attention_heads", "rgb", "crop"},
           "resnet50": {"rgb", "crop"},
           "resnet18": {"rgb", "crop"}}
_BEGINNINGS = {"workshop": ("image_encoder.backbone.conv1.",),  # aligned: a ResNet and the spectrum transformer
               "astroclip": ("image_encoder.", "spectrum_encoder."),
               "resnet50": ("encoder_q.",),  # or resnet18
               "specformer": ("data_embed.", "position_embed.", "final_layernorm."),
               "astrodino": ("cls_token", "pos_embed", "patch_embed.", "backbone.", "module.")}
# The workshop's spectrum encoder, and what the same parts are called since.
_WORKSHOP_NAMES = {"query": "cross_attention.query", "multihead_attn.": "cross_attention.multihead_attn.",
                   "norm.": "cross_attention.layernorm.", "linear1.": "mlp.encoder.", "linear2.": "mlp.decoder.",
                   "model.": "backbone."}
_WRAPPERS = {"module", "_fsdp_wrapped_module"}  # parts of names that distributed training puts in
_REGISTERS = {"astrodino": "register_tokens", "astroclip": "image_encoder.backbone.register_tokens"}
_KEPT_REGISTERS = "extra.register_tokens"
# How spectra are cut into tokens; the workshop's model was trained with numpy's std, unclamped.
_TOKENS = {"paper": {"slice_section_length": 20, "slice_overlap": 10, "std_ddof": 1, "std_min": 0.2},
           "workshop": {"slice_section_length": 20, "slice_overlap": 10, "std_ddof": 0, "std_min": 0}}
_SPECFORMER_SIZES = ("input_dim", "embed_dim", "num_layers", "num_heads", "max_len")
_SPECFORMER_TRAINING = ("mask_num_chunks", "mask_chunk_width", "slice_section_length", "slice_overlap", "dropout", "norm_first")


@dataclass
class Model:
    """`tensors` {our name: Tensor}, exactly those of the network and what is kept beside it; `metadata` {key: plain
    value}; `notes` for the user."""

    kind: str
    tensors: dict
    metadata: dict
    notes: list = field(default_factory=list)


# --- reading a checkpoint ------------------------------------------------------------------------------------------


def find(source, options):
    """The model in a TorchFile. `options`: those of DEFAULTS that were given. Throws DataError and UsageError."""
    values, told, variant = _parts(source)
    state = State(source, {name: source.tensor(name, value) for name, value in values.items()})
    kind = next((kind for kind, beginnings in _BEGINNINGS.items() if state.has(*beginnings)), None)
    if kind is None:
        raise DataError(source.path, f"holds no model that is known; its tensors are {_some(state.tensors)}")
    if foreign := sorted(set(options) - OPTIONS[kind]):
        raise UsageError(f"{source.path} holds a {kind} model, of which --{foreign[0].replace('_', '-')} says nothing")
    if told.get("num_heads", heads := options.get("spectrum_heads")) != heads and heads is not None:
        raise UsageError(f"{source.path} says num_heads {told['num_heads']!r}, --spectrum-heads {heads}")
    model = _READERS[kind](state, told, {**DEFAULTS, **options}, variant)
    model.metadata = {"variant": variant} | model.metadata | {"model": model.kind}
    return model


def hyper_parameters(source):
    """What a checkpoint tells of its training in plain values: {"hyper_parameters": {}, "epoch": …}."""
    top = _mapping(source.content) or {}
    inner = _mapping(top.get("hyper_parameters")) or _mapping(top.get("config")) or {}
    return _plain_items(top) | {"hyper_parameters": _plain_items(inner)}


def _parts(source):
    """(entries of the state, what stands beside them of the network, variant)."""
    top = _mapping(source.content)
    if top is None:
        raise DataError(source.path, "holds no dictionary")
    if "teacher" in top:
        return _state(source, top, "teacher"), {}, "paper"
    if "state_dict" in top:
        return _state(source, top, "state_dict"), _mapping(top.get("hyper_parameters")) or {}, "paper"
    if {"model", "config"} <= top.keys():
        return _state(source, top, "model"), _mapping(top["config"]) or {}, "workshop"
    return _state(source, {"": top}, ""), {}, "paper"  # a plain state_dict


def _state(source, top, key):
    state = _mapping(top[key])
    if not state or not all(isinstance(name, str) for name in state):
        raise DataError(source.path, f"'{key}' is not a dictionary of tensors")
    return state


def _mapping(value):
    value = value.contents if isinstance(value, Call) else value
    return value if isinstance(value, dict) else None


def _is_number(value):
    return isinstance(value, (int, float)) and abs(value) < 2**63  # which neither NaN nor infinity is


def _plain_items(mapping):
    """The items that a manifest may hold; text of any length and encoding would make it unreadable."""
    texts = {key: value.encode(errors="replace").decode()[:1000] for key, value in mapping.items() if isinstance(value, str)}
    numbers = {key: value for key, value in mapping.items() if _is_number(value)}
    return {str(key).encode(errors="replace").decode()[:1000]: value for key, value in (texts | numbers).items()}


def _some(names):
    return ", ".join(f"'{name}'" for name in list(names)[:5]) + (", …" if len(names) > 5 else "")


def _heads(path, width, heads, option):
    if width % heads:
        raise UsageError(f"{path}: the width {width} is not a multiple of {heads} heads; state --{option}")
    return heads


def _specformer_parts(state, prefix, told, options, variant):
    """Its shapes, and its metadata."""
    for key in _SPECFORMER_SIZES:
        value = told.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1_000_000:
            raise DataError(state.path, f"hyper-parameter '{key}' is {value!r}, not a number from 1 to 1000000")
    shapes, sizes = networks.specformer(state, prefix, told)
    heads = told.get("num_heads", options["spectrum_heads"])
    sizes["num_heads"] = _heads(state.path, sizes["embed_dim"], heads, "spectrum-heads")
    training = {key: told[key] for key in _SPECFORMER_TRAINING if _is_number(told.get(key))}
    return shapes, _TOKENS[variant] | training | sizes


def _read_specformer(state, told, options, variant):
    shapes, metadata = _specformer_parts(state, "", told, options, variant)
    state.require(shapes)
    return Model("specformer", state.tensors, metadata)


def _vit_parts(state, prefix, options):
    shapes, sizes = networks.vision_transformer(state, prefix)
    sizes["num_heads"] = _heads(state.path, sizes["embed_dim"], options["image_heads"], "image-heads")
    return shapes, sizes | {"crop": sizes["img_size"], "rgb": "asinh", "image_norm": options["image_norm"]}


def _set_registers_aside(state, kind, notes):
    """Register tokens: the published evaluation leaves out those that the teacher was trained with. Their shape by name."""
    registers = state.pop(_REGISTERS[kind])
    if registers is None:
        return {}
    state.tensors[_KEPT_REGISTERS] = registers
    notes.append(f"the register tokens are kept as '{_KEPT_REGISTERS}', and the network runs without them, as the published "
                 "evaluation did")
    return {_KEPT_REGISTERS: registers.shape}


def _teacher_name(name):
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    return ".".join(parts[1:] if parts[:1] == ["backbone"] else parts)


def _read_astrodino(state, _, options, __):
    state, notes = state.renamed(_teacher_name), []
    shapes, metadata = _vit_parts(state, "", options)
    shapes |= _set_registers_aside(state, "astrodino", notes)
    if state.has("dino_head."):
        shapes |= networks.dino_head(state, "dino_head.", metadata["embed_dim"])
    state.require(shapes)
    return Model("astrodino", state.tensors, metadata, notes)


def _modern_name(name):
    """Of a parameter of the workshop's aligned model."""
    own = name.removeprefix("spectrum_encoder.")
    begin = next((old for old in _WORKSHOP_NAMES if own != name and own.startswith(old)), None)
    return name if begin is None else f"spectrum_encoder.{_WORKSHOP_NAMES[begin]}{own[len(begin):]}"


def _read_astroclip(state, _, options, variant):
    notes = []
    image, of_image = _vit_parts(state, "image_encoder.backbone.", options)
    width = state.length("image_encoder.cross_attention.query", 2)
    image |= networks.alignment_head("image_encoder.", width, of_image["embed_dim"]) | _set_registers_aside(state, "astroclip", notes)
    return _aligned(state, image, of_image, width, options, variant, notes)


def _read_workshop(state, _, options, __):
    state = state.renamed(_modern_name)
    image, of_image = _resnet_parts(state, "image_encoder.backbone.", options, "none")
    return _aligned(state, image, of_image, of_image["embed_dim"], options, "workshop", [])


def _aligned(state, image, of_image, width, options, variant, notes):
    spectrum, of_spectrum = _specformer_parts(state, "spectrum_encoder.backbone.", {}, options, variant)
    metadata = {"embed_dim": width, "n_head": _heads(state.path, width, options["attention_heads"], "attention-heads"),
                "image_head_residual": int(options["image_head_residual"]), "logit_scale": _logit_scale(state, notes)}
    state.require(image | spectrum | networks.alignment_head("spectrum_encoder.", width, of_spectrum["embed_dim"]))
    for prefix, part in (("image.", of_image), ("spectrum.", of_spectrum)):
        metadata |= {prefix + key: value for key, value in part.items()}
    return Model("astroclip", state.tensors, metadata | {"variant": variant}, notes)


def _logit_scale(state, notes):
    """A constant, as published; or a parameter, which then holds its logarithm and is taken out of the state."""
    parameter = state.pop("logit_scale")
    if parameter is None:
        return 15.5
    if parameter.shape not in ((), (1,)) or not abs(logarithm := float(state.source.array(parameter).reshape(()))) < 100:
        raise DataError(state.path, "'logit_scale' is not the logarithm of a scale")
    notes.append(f"logit_scale, here a tensor, stands in the metadata: {math.exp(logarithm):.6g}")
    return math.exp(logarithm)


def _resnet_parts(state, prefix, options, rgb):
    """`rgb`: the colours, unless an option says."""
    shapes, sizes = networks.resnet(state, prefix)
    return shapes, sizes | {"crop": options["crop"], "rgb": options["rgb"] or rgb, "image_norm": "none"}


def _read_resnet(state, _, options, __):
    notes = []
    for name in ("val_queue", "val_queue_ptr"):
        if state.pop(name) is not None:
            notes.append(f"'{name}' is left out: it served validation while training")
    shapes, metadata = _resnet_parts(state, "encoder_q.", options, "stein")
    if state.has("encoder_k."):
        shapes |= networks.resnet(state, "encoder_k.")[0]
    if state.has("queue"):
        shapes |= {"queue": (metadata["embed_dim"], state.length("queue", 1)), "queue_ptr": (1,)}
    state.require(shapes)
    return Model(metadata["model"], state.tensors, metadata | {"variant": "workshop"}, notes)


_READERS = {"workshop": _read_workshop, "specformer": _read_specformer, "astrodino": _read_astrodino, "astroclip": _read_astroclip,
            "resnet50": _read_resnet}


def widened(source, tensor):
    """Its Weights as our models hold them: floating point as float32. Reading them throws DataError if one is not finite."""
    def read():
        values = source.array(tensor)
        if tensor.dtype != "I64":
            values = values.astype("<f4")
            if not math.isfinite(float(abs(values).max(initial=0))):
                raise DataError(source.path, f"'{tensor.name}' holds values that are not finite")
        return values.tobytes()
    return Weights("I64" if tensor.dtype == "I64" else "F32", tensor.shape, read)


# --- writing a checkpoint ------------------------------------------------------------------------------------------


def state_dict(metadata, tensors):
    """{published name: Weights} of one of our models."""
    return {_REGISTERS[metadata["model"]] if name == _KEPT_REGISTERS else name: weights for name, weights in tensors.items()}


def published_layout(metadata, tensors):
    """The same in the dictionary that the published loaders index."""
    state = state_dict(metadata, tensors)
    if metadata["model"] == "astrodino":
        return {"teacher": {name if name.startswith("dino_head.") else f"backbone.{name}": weights
                            for name, weights in state.items()}}
    if metadata["model"] != "specformer":
        return {"state_dict": state}
    keys = [key for key in _SPECFORMER_SIZES + _SPECFORMER_TRAINING if key in metadata]
    return {"state_dict": state, "hyper_parameters": {key: json.loads(metadata[key]) for key in keys}}
