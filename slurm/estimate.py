"""Memory of a rank and disk of an output, estimated from the configuration and the numbers of objects that it expects
([run] expected-images, expected-spectra, expected-pairs). Rough (a factor of 2): for asking a cluster for resources, and
for seeing that a file system is too small. Where its inputs exist, each stage's own --dry-run knows better."""

from __future__ import annotations

import dataclasses

GIB = 2**30
SPECTRUM_BINS = 7781
BYTES_A_TRAINED_PARAMETER = 16  # float32 weight, gradient and AdamW's two moments
LIBRARIES = 0.4 * GIB           # LibTorch, MPI and HDF5 in a rank before it has data


@dataclasses.dataclass
class Need:
    memory: float  # bytes a rank
    disk: float    # bytes
    what: str

    def text(self):
        return f"{size(self.memory)} of memory a rank, {size(self.disk)} of disk ({self.what})"


def size(count):
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def transformer_parameters(width, layers):
    return 12 * width * width * layers


def spectrum_tokens(s):
    """Overlapping sections, and the one with mean and spread: 778 of the published sizes."""
    overlap = s.number("overlap", 10)
    return int((SPECTRUM_BINS - overlap) // (s.number("section-length", 20) - overlap)) + 1


def patches(s):
    return int(s.number("image-size", 144) // s.number("patch-size", 12)) ** 2


def activations(width, layers, tokens, samples):
    """Kept for the backward pass: about 18 numbers of the width a token and layer, float32."""
    return 18 * 4 * width * layers * tokens * samples


class Settings:
    """A stage's values: as its executable prints them, else as the configuration has them, else `default`."""

    def __init__(self, name, config, values):
        self.name, self.config, self.values = name, config, values.get(name, {})

    def number(self, key, default):
        found = self.values.get(key, self.config.get(self.name, key, default))
        try:
            return float(found)
        except ValueError:
            return float(default)

    def text(self, key, default):
        return self.values.get(key, self.config.get(self.name, key, default))


def ranks_of(name, config):
    nodes = int(config.get(name, "slurm-nodes", 1))
    a_node = config.get(name, "slurm-ntasks-per-node")
    if a_node:
        return nodes * int(a_node)
    return int(config.get(name, "slurm-ntasks", config.get("run", "ranks", 2)))


def expected(config):
    images = float(config.get("run", "expected-images", 2000))
    spectra = float(config.get("run", "expected-spectra", images))
    pairs = float(config.get("run", "expected-pairs", min(images, spectra)))
    return images, spectra, pairs


def ingest_images(s, config, values, ranks):
    bytes_each = 3 * s.number("size", 152) ** 2 * 4
    count = expected(config)[0]
    return Need(LIBRARIES + 4 * GIB / ranks, count * (bytes_each + 64), f"{count:g} cutouts")


def ingest_spectra(s, config, values, ranks):
    count = expected(config)[1]
    return Need(LIBRARIES + 4 * GIB / ranks, count * (SPECTRUM_BINS * 12 + 128), f"{count:g} spectra")


def match(s, config, values, ranks):
    images, spectra, pairs = expected(config)
    return Need(LIBRARIES + 64 * (images + spectra), pairs * 64, f"{pairs:g} pairs expected")


def pretrain_image(s, config, values, ranks):
    width, layers = s.number("width", 1024), s.number("depth", 24)
    moco = s.text("method", "dino") == "moco"
    batch = s.number("batch-size", 0) or (32768 if moco else 1440)
    if moco:  # a group of images at a time
        parameters, kept = resnet(s).parameters, 90e6 * min(batch / ranks, s.number("group-size", 0) or 256)
    else:
        hidden, bottleneck = s.number("head-hidden", 2048), s.number("head-bottleneck", 256)
        head = hidden * (width + hidden + bottleneck) + bottleneck * s.number("prototypes", 65536)
        parameters = transformer_parameters(width, layers) + head
        local = (s.number("local-crop", 60) / s.number("global-crop", 144)) ** 2
        tokens = (2 + s.number("local-crops", 8) * local) * (patches(s) + 1)
        kept = activations(width, layers, tokens, batch / ranks)
    memory = LIBRARIES + parameters * (BYTES_A_TRAINED_PARAMETER + 4) + kept  # + 4: the teacher
    return Need(memory, of_training(parameters, parameters, s), f"{parameters:.3g} parameters, batch {batch:g} over {ranks} ranks")


def pretrain_spectrum(s, config, values, ranks):
    width, layers, batch = s.number("width", 768), s.number("layers", 6), s.number("batch-size", 64)
    parameters = transformer_parameters(width, layers) + 822 * width
    kept = activations(width, layers, spectrum_tokens(s), batch / ranks)
    return Need(LIBRARIES + parameters * BYTES_A_TRAINED_PARAMETER + kept, of_training(parameters, parameters, s),
                f"{parameters:.3g} parameters, batch {batch:g} over {ranks} ranks")


def of_training(parameters, learned, s, keep_best=1):
    """Disk: the published models, and the kept checkpoints with the state, the best models and both moments of what learns."""
    best = s.number("keep-best", keep_best)
    checkpoint = 4 * parameters * (1 + best) + 8 * learned
    return 4 * parameters * max(best, 1) + s.number("keep-checkpoints", 2) * checkpoint


@dataclasses.dataclass
class Encoder:
    width: float
    tokens: int
    layers: float
    parameters: float
    head: float  # parameters that alignment adds


def transformer(s, width, layers, layers_key, tokens, embed):
    width, layers = s.number("width", width), s.number(layers_key, layers)
    return Encoder(width, tokens, layers, transformer_parameters(width, layers), 12 * embed * embed)


def resnet(s):
    scale = s.number("resnet-width", 64) / 64
    width, parameters = (512, 11e6) if s.number("resnet-layers", 50) == 18 else (2048, 24e6)
    width, parameters = width * scale, parameters * scale**2
    projection = width * (width + s.number("embed-dim", 128))
    return Encoder(width, 1, 0, parameters + projection, projection)


def encoders(config, values):
    """The image and the spectrum encoder of this run; the published sizes if it takes them from elsewhere."""
    image, spectrum = Settings("pretrain-image", config, values), Settings("pretrain-spectrum", config, values)
    embed = Settings("align", config, values).number("embed-dim", 1024)
    of_images = resnet(image) if image.text("method", "dino") == "moco" else transformer(image, 1024, 24, "depth", patches(image), embed)
    return of_images, transformer(spectrum, 768, 6, "layers", spectrum_tokens(spectrum), embed)


def keeps_tokens(s, image):
    """Does every epoch see the same tokens of frozen encoders, so that they are cached?"""
    rates = ("image-encoder-rate", "spectrum-encoder-rate", "shift", "spectrum-noise", "brightness", "colour")
    by_batch = image.tokens == 1 and s.text("bn-mode", "train") == "train"
    return s.text("token-cache", "auto") != "off" and s.text("flips", "none") == "none" and not by_batch and \
        all(s.number(key, 0) == 0 for key in rates)


def align(s, config, values, ranks):
    batch, pairs, both = s.number("batch-size", 1024), expected(config)[2], encoders(config, values)
    own = min(batch / ranks, s.number("micro-batch", 0) or batch)
    tokens = 2 * sum(encoder.width * encoder.tokens for encoder in both)
    parameters, learned = sum(encoder.parameters + encoder.head for encoder in both), sum(encoder.head for encoder in both)
    memory = LIBRARIES + 4 * parameters + 4 * batch / ranks * tokens
    for encoder, key in zip(both, ("image-encoder-rate", "spectrum-encoder-rate")):
        if s.number(key, 0) > 0:
            blocks = s.number("trained-blocks", 0) or encoder.layers
            learned += encoder.parameters * (blocks / encoder.layers if encoder.layers else 1)
            memory += activations(encoder.width, blocks, encoder.tokens, own)
    memory += (BYTES_A_TRAINED_PARAMETER - 4) * learned
    disk = of_training(parameters, learned, s, keep_best=2)
    if not keeps_tokens(s, both[0]):
        return Need(memory, disk, "the encoders run in every step: no token cache")
    return Need(memory, disk + pairs * tokens, f"a token cache of {size(tokens)} a pair included")


def embed(s, config, values, ranks):
    width = Settings("align", config, values).number("embed-dim", 1024)
    images, spectra, pairs = expected(config)
    rows = images + spectra - pairs
    both = encoders(config, values)
    weights = 4 * sum(encoder.parameters for encoder in both)
    batch = 32 * 4 * 8 * sum(encoder.width * encoder.tokens for encoder in both)
    return Need(LIBRARIES + weights + batch, rows * (2 * 4 * width + 100), f"{rows:g} rows of the catalogue")


def search(s, config, values, ranks):
    width = Settings("align", config, values).number("embed-dim", 1024)
    images, spectra, pairs = expected(config)
    rows = images + spectra - pairs
    found = 0.2 * pairs * 4 * s.number("neighbours", 10) * 16  # the held-out fifth, in four modes
    return Need(LIBRARIES + rows * 2 * 4 * width / ranks, found, "the catalogue in memory")


def evaluate(s, config, values, ranks):
    width = Settings("align", config, values).number("embed-dim", 1024)
    images, _, pairs = expected(config)
    # of each pair both embeddings in float32; in float64 one of them standardised, and the training sets of two predictors; and
    # some 15 % for what lies between them
    return Need(LIBRARIES + pairs * (2 * 4 + 3 * 8) * width * 1.15, images * 50, "predictions")


FORMULAS = {
    "ingest-images": ingest_images, "ingest-spectra": ingest_spectra, "match": match, "pretrain-image": pretrain_image,
    "pretrain-spectrum": pretrain_spectrum, "align": align, "embed": embed, "search": search, "evaluate": evaluate,
}


def need(name, config, values):
    """`values`: {stage: {key: value}} as the executables print them."""
    return FORMULAS[name](Settings(name, config, values), config, values, ranks_of(name, config))
