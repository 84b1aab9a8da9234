"""Files of torch.save, read and written without torch: a zip archive of `data.pkl`, which describes the objects, and of
one raw little-endian record for each storage."""

import math
import pickle
import struct
import zipfile
from dataclasses import dataclass

import numpy as np

from . import pickle_program
from .errors import DataError, MissingInput
from .pickle_program import Call, Name, Reference
from .weights import NUMPY, Weights, floats, item_bytes

# torch's storage class of each element type.
_STORAGES = {"F64": "DoubleStorage", "F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage",
             "I64": "LongStorage", "I32": "IntStorage", "I16": "ShortStorage", "I8": "CharStorage", "U8": "ByteStorage",
             "BOOL": "BoolStorage"}
_TYPES = {f"torch.{storage}": dtype for dtype, storage in _STORAGES.items()}
_ALIGNMENT = 64  # of the records in the file, as torch has them


@dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides in elements."""

    name: str
    dtype: str
    shape: tuple
    strides: tuple
    offset: int
    record: str


class TorchFile:
    """A file of torch.save, open for reading. `content` is what was saved, with all that is not plain data as
    pickle_program leaves it; tensors are read one at a time."""

    def __init__(self, path):
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except FileNotFoundError as error:
            raise MissingInput(path, "no such file") from error
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise DataError(path, "is not a zip archive as torch.save writes them since torch 1.6, or was cut short") from error
        try:
            self._entries = {entry.filename: entry for entry in self._zip.infolist()}
            self._root = self._find_root()
            if f"{self._root}byteorder" in self._entries and self._read("byteorder") != b"little":
                raise DataError(path, "was written on a big-endian machine")
            self.content = pickle_program.load(self._read("data.pkl"))
        except pickle_program.PickleError as error:
            raise DataError(path, f"data.pkl {error}") from error
        self._last = ("", b"")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._zip.close()

    def _find_root(self):
        roots = [name[:-len("data.pkl")] for name in self._entries if name.endswith("/data.pkl")]
        if len(roots) != 1 or f"{roots[0]}constants.pkl" in self._entries:
            raise DataError(self.path, "is a zip archive, but not one of torch.save")
        return roots[0]

    def _read(self, record):
        entry = self._entries.get(self._root + record)
        if entry is None:
            raise DataError(self.path, f"has no record '{record}'")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:  # stored, it is no larger than the file
            raise DataError(self.path, f"record '{record}' is compressed or encrypted: torch.save does not write such")
        try:
            return self._zip.read(entry)
        except (zipfile.BadZipFile, EOFError) as error:
            raise DataError(self.path, f"record '{record}' is damaged: {error}") from error

    def tensor(self, name, value):
        """The tensor that an object of `content` describes. Throws DataError if it is none, or not a valid one."""
        call = _innermost(value)
        if not isinstance(call, Call) or call.function not in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
            what = f"a call of {call.function}" if isinstance(call, Call) else f"of type {type(call).__name__}"
            raise DataError(self.path, f"'{name}' is {what}, not a dense tensor")
        if not isinstance(call.arguments, tuple) or len(call.arguments) < 4 or not _is_layout(*call.arguments[1:4]):
            raise DataError(self.path, f"'{name}': its offset, shape and strides are not those of a tensor")
        storage, offset, shape, strides = call.arguments[:4]
        dtype, record, elements = self._storage(name, storage)
        if math.prod(shape) > 0 and offset + sum((n - 1) * s for n, s in zip(shape, strides)) >= elements:
            raise DataError(self.path, f"'{name}' of shape {list(shape)} reaches beyond its storage of {elements} elements")
        return Tensor(name, dtype, shape, strides, offset, record)

    def _storage(self, name, reference):
        """Element type, record and number of elements of the storage in which '{name}' lies."""
        identity = reference.identity if isinstance(reference, Reference) else None
        if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage" or not _is_natural(identity[4]):
            raise DataError(self.path, f"'{name}' does not lie in a storage")
        _, storage, key, _, elements = identity[:5]
        if not isinstance(storage, Name) or storage not in _TYPES:
            raise DataError(self.path, f"'{name}' lies in a {storage}, known are {', '.join(_STORAGES.values())}")
        dtype, record = _TYPES[storage], f"data/{key}"
        entry = self._entries.get(self._root + record)
        if entry is None or entry.file_size != elements * item_bytes(dtype):
            found = "is missing" if entry is None else f"has {entry.file_size} bytes, {elements * item_bytes(dtype)} expected"
            raise DataError(self.path, f"record '{record}', the storage of '{name}', {found}")
        return dtype, record, elements

    def array(self, tensor):
        """Its values, contiguous; bfloat16 as float32, all else in its own type."""
        if math.prod(tensor.shape) == 0:
            return np.empty(tensor.shape, "<f4" if tensor.dtype == "BF16" else NUMPY[tensor.dtype])
        if self._last[0] != tensor.record:  # the storage that was read last is kept: neighbours often share one
            self._last = (tensor.record, self._read(tensor.record))
        flat = np.frombuffer(self._last[1], NUMPY[tensor.dtype])[tensor.offset:]
        strides = tuple(stride * flat.itemsize for stride in tensor.strides)
        values = np.lib.stride_tricks.as_strided(flat, tensor.shape, strides, writeable=False).flatten()
        return floats(values, tensor.dtype).reshape(tensor.shape)


def _innermost(value):
    """The call that makes a tensor, out of those that make a parameter of it or give it attributes."""
    while isinstance(value, Call) and isinstance(value.arguments, tuple):
        if value.function in ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state") and value.arguments:
            value = value.arguments[0]
        elif value.function == "torch._tensor._rebuild_from_type_v2" and len(value.arguments) >= 3:
            value = Call(value.arguments[0], value.arguments[2])
        else:
            break
    return value


def _is_natural(number):
    return isinstance(number, int) and 0 <= number < 2**62


def _is_layout(offset, shape, strides):
    return _is_natural(offset) and isinstance(shape, tuple) and isinstance(strides, tuple) and \
        len(shape) == len(strides) <= 16 and all(map(_is_natural, shape + strides))


# --- writing -------------------------------------------------------------------------------------------------------


def write(file, content):
    """Writes `content`, dictionaries of Weights and plain values, as torch.save would: torch.load takes it with
    weights_only=True."""
    records = []
    program = b"\x80\x02" + _program(content, records) + b"."
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, "data.pkl", program)
        _add(archive, "byteorder", b"little")
        for number, weights in enumerate(records):
            _add(archive, f"data/{number}", weights.read())
        _add(archive, "version", b"3\n")


def _add(archive, name, data):
    entry = zipfile.ZipInfo(f"archive/{name}")  # of 1980: equal contents are equal bytes
    begin = archive.fp.tell() + 30 + len(entry.filename) + 4
    padding = -begin % _ALIGNMENT
    entry.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    archive.writestr(entry, data)


def _program(value, records):
    """Pickle opcodes (protocol 2) that build the value; its Weights are appended to `records`."""
    if isinstance(value, Weights):
        records.append(value)
        identity = (_text("storage"), _global("torch", _STORAGES[value.dtype]), _text(str(len(records) - 1)), _text("cpu"),
                    _number(math.prod(value.shape)))
        strides = [math.prod(value.shape[i + 1:]) for i in range(len(value.shape))]
        arguments = (_tuple(identity) + b"Q", _number(0), _tuple(map(_number, value.shape)), _tuple(map(_number, strides)),
                     b"\x89", _global("collections", "OrderedDict") + b")R")
        return _global("torch._utils", "_rebuild_tensor_v2") + _tuple(arguments) + b"R"
    if isinstance(value, dict):
        items = b"".join(_text(key) + _program(item, records) for key, item in value.items())
        return b"}(" + items + b"u"
    if isinstance(value, bool) or value is None:
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        return _number(value)
    return b"G" + struct.pack(">d", value) if isinstance(value, float) else _text(value)


def _text(text):
    encoded = text.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _number(number):
    if -2**31 <= number < 2**31:
        return b"J" + struct.pack("<i", number)
    encoded = pickle.encode_long(number)
    return b"\x8a" + struct.pack("<B", len(encoded)) + encoded


def _global(module, name):
    return f"c{module}\n{name}\n".encode()


def _tuple(items):
    return b"(" + b"".join(items) + b"t"
