#!/usr/bin/python3
"""Published weights to a model of this pipeline, and back.

  convert_checkpoint.py CHECKPOINT FOLDER   publishes the model in a file of torch.save: SpecFormer, AstroDINO's teacher or
                                            AstroCLIP (Parker, Lanusse et al. 2024), the MoCo v2 ResNet-50 of Stein et al.
                                            (2021), the workshop's spectrum transformer (ckpt.pt) and aligned model
  convert_checkpoint.py FOLDER CHECKPOINT   writes a model that a stage or this tool published as a plain state_dict for
                                            torch.load(..., weights_only=True)

Nothing in a checkpoint is executed, and neither torch nor the published code need be installed. Names and shapes must be
exactly those of the network, or an error lists what is not. Half precision is widened to float32.
"""

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path

sys.dont_write_bytecode = True
from checkpoints import model_folder, models, torch_file  # noqa: E402
from checkpoints.errors import ConversionError, OutputConflict, UsageError  # noqa: E402

EXAMPLES = """exit status: 0 done, or up to date; 64 usage; 65 not such a checkpoint or model, or damaged; 66 not there;
73 the output holds something else; 74 I/O error

examples:
  tools/convert_checkpoint.py specformer.ckpt run/spectrum-encoder
  tools/convert_checkpoint.py astroclip.ckpt models/astroclip --image-norm imagenet
  tools/convert_checkpoint.py run/aligned aligned.pt
"""


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UsageError(f"{message}; --help explains")


def read_arguments(words):
    parser = Parser(prog="convert_checkpoint.py", description=__doc__, epilog=EXAMPLES, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="SOURCE", type=Path, help="a file of torch.save, or a model's folder")
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="the folder or file to write")
    parser.add_argument("--published-layout", action="store_true",
                        help="with a folder as source: not the plain state_dict but the dictionary that the published loaders "
                             "index (state_dict and hyper_parameters, teacher)")
    unsaid = parser.add_argument_group("what a checkpoint does not say of its network, and is taken as published",
                                       argument_default=argparse.SUPPRESS)
    for name, text in (("spectrum-heads", "attention heads of the spectrum transformer, unless its hyper-parameters say"),
                       ("image-heads", "attention heads of the image transformer"),
                       ("attention-heads", "attention heads of the alignment heads")):
        unsaid.add_argument(f"--{name}", type=natural, metavar="N", help=f"{text} ({models.DEFAULTS[name.replace('-', '_')]})")
    unsaid.add_argument("--image-head-residual", action="store_true", help="z = x + MLP(x) for images too (no)")
    unsaid.add_argument("--image-norm", choices=("none", "imagenet"), help="how images were normalised after RGB (none)")
    unsaid.add_argument("--rgb", choices=("stein", "asinh", "none"), help="colours that a ResNet was trained on (stein; aligned: none)")
    unsaid.add_argument("--crop", type=natural, metavar="PIXELS", help="side of the images that a ResNet is given (96)")
    return vars(parser.parse_args(words))


def natural(word):
    if not word.isascii() or not word.isdigit() or not 1 <= int(word) <= 100_000:
        raise argparse.ArgumentTypeError(f"a number from 1 to 100000 expected, found '{word}'")
    return int(word)


def sha256_of(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish_checkpoint(path, folder, options):
    with torch_file.TorchFile(path) as source:
        model = models.find(source, options)
        origin = {"file": os.fsencode(path.name).decode(errors="replace"), "bytes": path.stat().st_size, "sha256": sha256_of(path)}
        request = model_folder.make_request(options, {"source": origin["sha256"]})
        if not model_folder.begin(folder, request):
            print(f"{folder}: up to date")
            return
        facts = model.metadata | {"source_file": origin["file"], "source_sha256": origin["sha256"]}
        metadata = {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}
        tensors = {name: models.widened(source, tensor) for name, tensor in model.tensors.items()}
        model_folder.publish(folder, request, tensors, metadata, {"source": models.hyper_parameters(source) | origin})
    for note in model.notes:
        print(f"convert_checkpoint: {note}", file=sys.stderr)
    print(summary(folder, model.kind, tensors))


def write_checkpoint(folder, path, layout):
    metadata, tensors = model_folder.read(folder)
    if metadata.get("model") not in models.OPTIONS:
        raise UsageError(f"{folder}: its metadata name the model '{metadata.get('model')}', known are {', '.join(models.OPTIONS)}")
    if path.exists():
        raise OutputConflict(path, "is there already")
    model_folder.publish_file(path, lambda file: torch_file.write(file, layout(metadata, tensors)))
    print(summary(path, metadata["model"], tensors))


def summary(output, kind, tensors):
    return f"{output}: {kind}, {len(tensors)} tensors, {sum(weights.elements for weights in tensors.values())} values"


def convert(words):
    options = read_arguments(words)
    source, output, published = (options.pop(name) for name in ("source", "output", "published_layout"))
    if source.is_dir():
        if options:
            raise UsageError(f"--{next(iter(options)).replace('_', '-')} says nothing of a model in a folder")
        write_checkpoint(source, output, models.published_layout if published else models.state_dict)
    elif published:
        raise UsageError("--published-layout goes with a model's folder as source")
    else:
        publish_checkpoint(source, output, options)


def main(words):
    """The exit status."""
    try:
        convert(words)
    except (ConversionError, OSError) as error:
        print(f"convert_checkpoint: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, ConversionError) else 74
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
