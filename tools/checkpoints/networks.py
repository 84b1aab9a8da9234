"""The tensors that each published network has, in the order of its state_dict: functions of a State and the prefix of the
network's names in it, that read the sizes off its tensors and return {name: shape} (and the sizes, as metadata say them)."""

import math
import re

from .errors import DataError


def _linear(name, outputs, inputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def specformer(state, prefix, told):
    """`told`: what hyper-parameters say of the sizes, which then need not be read off."""
    sizes = {"input_dim": ("data_embed.weight", 1), "embed_dim": ("data_embed.weight", 0), "max_len": ("position_embed.weight", 0)}
    sizes = {key: told.get(key) or state.length(prefix + name, dimension) for key, (name, dimension) in sizes.items()}
    sizes["num_layers"] = told.get("num_layers") or state.count(f"{prefix}blocks.")
    width, shapes = sizes["embed_dim"], _linear("data_embed", sizes["embed_dim"], sizes["input_dim"])
    shapes["position_embed.weight"] = (sizes["max_len"], width)
    for i in range(sizes["num_layers"]):
        block = f"blocks.{i}."
        shapes |= _norm(f"{block}layernorm1", width)
        shapes |= _linear(f"{block}attention.attention", 3 * width, width) | _linear(f"{block}attention.projection", width, width)
        shapes |= _norm(f"{block}layernorm2", width)
        shapes |= _linear(f"{block}mlp.encoder", 4 * width, width) | _linear(f"{block}mlp.decoder", width, 4 * width)
    shapes |= _norm("final_layernorm", width) | _linear("head", sizes["input_dim"], width)
    return {prefix + name: shape for name, shape in shapes.items()}, sizes


def vision_transformer(state, prefix):
    width, patch = state.length(f"{prefix}cls_token", 2), state.length(f"{prefix}patch_embed.proj.weight", 2)
    tokens = state.length(f"{prefix}pos_embed", 1)
    grid = math.isqrt(tokens - 1)
    if grid * grid != tokens - 1:
        raise DataError(state.path, f"'{prefix}pos_embed' has {tokens} rows, not 1 and those of a square")
    chunk_size, depth = _chunks(state, f"{prefix}blocks.")
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, tokens, width), "mask_token": (1, width),
              "patch_embed.proj.weight": (width, 3, patch, patch), "patch_embed.proj.bias": (width,)}
    for i in range(depth):
        block = f"blocks.{i // chunk_size}.{i}." if chunk_size else f"blocks.{i}."
        shapes |= _norm(f"{block}norm1", width)
        shapes |= _linear(f"{block}attn.qkv", 3 * width, width) | _linear(f"{block}attn.proj", width, width)
        shapes[f"{block}ls1.gamma"] = (width,)
        shapes |= _norm(f"{block}norm2", width)
        shapes |= _linear(f"{block}mlp.fc1", 4 * width, width) | _linear(f"{block}mlp.fc2", width, 4 * width)
        shapes[f"{block}ls2.gamma"] = (width,)
    shapes |= _norm("norm", width)
    sizes = {"img_size": grid * patch, "patch_size": patch, "embed_dim": width, "depth": depth,
             "block_chunks": depth // chunk_size if chunk_size else 0}
    return {prefix + name: shape for name, shape in shapes.items()}, sizes


def _chunks(state, beginning):
    """Blocks in a chunk (0: they are not in chunks) and in all. Names are blocks.CHUNK.BLOCK, BLOCK counted through."""
    numbers = [re.fullmatch(r"(\d{1,6})\.(\d{1,6})\.norm1\.weight", name[len(beginning):])
               for name in state.tensors if name.startswith(beginning)]
    numbers = [(int(match[1]), int(match[2])) for match in numbers if match]
    if not numbers:
        return 0, state.count(beginning)
    depth = 1 + max(block for _, block in numbers)
    if depth > len(state.tensors):
        raise DataError(state.path, f"names block {depth - 1} among only {len(state.tensors)} tensors")
    return max(sum(chunk == 0 for chunk, _ in numbers), 1), depth


def dino_head(state, prefix, width):
    prototypes, bottleneck = (state.length(f"{prefix}last_layer.weight_v", dimension) for dimension in (0, 1))
    layers = (state.count(f"{prefix}mlp.") + 1) // 2  # activations are counted too
    names = [f"mlp.{2 * i}" for i in range(layers)] if layers > 1 else ["mlp"]
    hidden = state.length(f"{prefix}{names[0]}.weight", 0)
    widths = [width] + [hidden] * (layers - 1) + [bottleneck]
    shapes = {}
    for name, inputs, outputs in zip(names, widths, widths[1:]):
        shapes |= _linear(name, outputs, inputs)
    shapes |= {"last_layer.weight_g": (prototypes, 1), "last_layer.weight_v": (prototypes, bottleneck)}
    return {prefix + name: shape for name, shape in shapes.items()}


def alignment_head(prefix, width, token_width):
    attention = "cross_attention.multihead_attn."
    shapes = {"cross_attention.query": (1, 1, width)}
    if width == token_width:
        shapes[f"{attention}in_proj_weight"] = (3 * width, width)
    else:
        shapes |= {f"{attention}{part}_proj_weight": (width, width if part == "q" else token_width) for part in "qkv"}
    shapes[f"{attention}in_proj_bias"] = (3 * width,)
    shapes |= _linear(f"{attention}out_proj", width, width) | _norm("cross_attention.layernorm", width)
    shapes |= _linear("mlp.encoder", 4 * width, width) | _linear("mlp.decoder", width, 4 * width)
    return {prefix + name: shape for name, shape in shapes.items()}


def _batch_norm(name, width):
    return _norm(name, width) | {f"{name}.running_mean": (width,), f"{name}.running_var": (width,),
                                 f"{name}.num_batches_tracked": ()}


def resnet(state, prefix):
    """torchvision's names of a ResNet-50 or 18; the classifier is the projection of MoCo v2, fc.0 and fc.2."""
    stem, channels = (state.length(f"{prefix}conv1.weight", dimension) for dimension in (0, 1))
    embed_dim = state.length(f"{prefix}fc.2.weight", 0)
    layers = 50 if state.has(f"{prefix}layer1.0.conv3.") else 18
    shapes, inputs = {"conv1.weight": (stem, channels, 7, 7)} | _batch_norm("bn1", stem), stem
    for layer, blocks in enumerate((3, 4, 6, 3) if layers == 50 else (2, 2, 2, 2), start=1):
        width = stem << layer - 1
        outputs = 4 * width if layers == 50 else width
        for i in range(blocks):
            block = f"layer{layer}.{i}."
            convolutions = ((width, inputs, 1), (width, width, 3), (outputs, width, 1)) if layers == 50 else \
                ((width, inputs, 3), (width, width, 3))
            for n, (wide, fed, kernel) in enumerate(convolutions, start=1):
                shapes |= {f"{block}conv{n}.weight": (wide, fed, kernel, kernel)} | _batch_norm(f"{block}bn{n}", wide)
            if i == 0 and (layer > 1 or inputs != outputs):
                shapes[f"{block}downsample.0.weight"] = (outputs, inputs, 1, 1)
                shapes |= _batch_norm(f"{block}downsample.1", outputs)
            inputs = outputs
    shapes |= _linear("fc.0", inputs, inputs) | _linear("fc.2", embed_dim, inputs)
    sizes = {"model": f"resnet{layers}", "embed_dim": embed_dim, "in_channels": channels, "stem_width": stem}
    return {prefix + name: shape for name, shape in shapes.items()}, sizes
