"""safetensors: 8 bytes little-endian length, a JSON header of that length, the tensors' bytes."""

import json
import os
import struct

from .errors import DataError
from .weights import Weights, item_bytes

_MAX_HEADER_BYTES = 100_000_000


def read(path):
    """({key: text}, {name: Weights}) in the order of the file; DataError if it is not whole."""
    try:
        with open(path, "rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            header = json.loads(file.read(min(length, _MAX_HEADER_BYTES)))
            data_bytes = os.fstat(file.fileno()).st_size - 8 - length
        metadata = header.pop("__metadata__", {})
        places = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
        tensors = {name: _weights(path, 8 + length, data_bytes, **entry) for name, entry in places}
    except (struct.error, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(path, f"is not a valid safetensors file ({error})") from error
    return metadata, tensors


def _weights(path, start, data_bytes, dtype, shape, data_offsets):
    begin, end = data_offsets

    def read_bytes():
        with open(path, "rb") as file:
            file.seek(start + begin)
            return file.read(end - begin)

    weights = Weights(dtype, tuple(shape), read_bytes)
    if weights.nbytes != end - begin:
        raise ValueError(f"a tensor of shape {shape} has {end - begin} bytes")
    if not 0 <= begin <= end <= data_bytes:
        raise ValueError(f"a tensor ends at byte {end} of {data_bytes}")
    return weights


def write(file, tensors, metadata):
    """{name: Weights}, {key: text} into an open file."""
    ordered = sorted(tensors.items(), key=lambda item: -item_bytes(item[1].dtype))
    header, position = {"__metadata__": dict(sorted(metadata.items()))}, 0
    for name, weights in ordered:
        end = position + weights.nbytes
        header[name] = {"dtype": weights.dtype, "shape": list(weights.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    for _, weights in ordered:
        file.write(weights.read())
