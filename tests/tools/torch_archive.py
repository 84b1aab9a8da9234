"""Files as torch.save writes them, written and read without torch: by Python's own pickle, with classes and functions that
stand for torch's. So they are no mirror of the code that they test."""

import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np

STORAGES = {"<f8": "DoubleStorage", "<f4": "FloatStorage", "<f2": "HalfStorage", "<i8": "LongStorage", "<i4": "IntStorage"}


def stand_in(module, name, value=None):
    """A class (or `value`) that pickles as module.name; the same each time."""
    for i in range(module.count(".") + 1):
        sys.modules.setdefault(module.rsplit(".", i)[0], types.ModuleType(module.rsplit(".", i)[0]))
    value = value or getattr(sys.modules[module], name, None) or type(name, (), {})
    value.__module__, value.__qualname__ = module, name
    setattr(sys.modules[module], name, value)
    return value


def _view(storage, offset, shape, strides, *_):
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, [stride * storage.itemsize for stride in strides])


rebuild_tensor = stand_in("torch._utils", "_rebuild_tensor_v2", _view)
rebuild_parameter = stand_in("torch._utils", "_rebuild_parameter", lambda data, *_: data)


class Storage:
    """One record of the file; `kind`: torch's class where numpy has no such type."""

    def __init__(self, values, kind=None):
        self.values, self.kind = values, stand_in("torch", kind or STORAGES[values.dtype.str])


class View:
    """A tensor: what of a storage it shows. Strides are in elements."""

    def __init__(self, storage, shape, strides, offset=0):
        self.storage, self.layout = storage, (offset, tuple(shape), tuple(strides))

    def __reduce__(self):
        return rebuild_tensor, (self.storage, *self.layout, False, OrderedDict())


class Parameter:
    def __init__(self, view):
        self.view = view

    def __reduce__(self):
        return rebuild_parameter, (self.view, True, OrderedDict())


def tensor(values, kind=None):
    """A tensor with a storage of its own."""
    values = np.ascontiguousarray(values).reshape(np.shape(values))
    return View(Storage(values.reshape(-1), kind), values.shape, [s // values.itemsize for s in values.strides])


class _Pickler(pickle.Pickler):
    def __init__(self, file, storages):
        super().__init__(file, protocol=2)
        self.storages = storages

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        if obj not in self.storages:
            self.storages.append(obj)
        return "storage", obj.kind, str(self.storages.index(obj)), "cpu", obj.values.size


def save(path, content):
    program, storages = io.BytesIO(), []
    _Pickler(program, storages).dump(content)
    save_program(path, program.getvalue(), [storage.values.tobytes() for storage in storages])


def save_program(path, program, records=()):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", "little")
        for number, record in enumerate(records):
            archive.writestr(f"archive/data/{number}", record)
        archive.writestr("archive/version", "3\n")


class _Unpickler(pickle.Unpickler):
    def __init__(self, archive):
        super().__init__(archive.open("archive/data.pkl"))
        self.archive = archive

    def find_class(self, module, name):
        known = {("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor, ("collections", "OrderedDict"): OrderedDict}
        return known.get((module, name)) or {("torch", storage): dtype for dtype, storage in STORAGES.items()}[module, name]

    def persistent_load(self, pid):
        _, dtype, key, _, elements = pid
        values = np.frombuffer(self.archive.read(f"archive/data/{key}"), dtype)
        assert len(values) == elements, pid
        return values


def load(path):
    """What a file of tensors and plain values holds."""
    with zipfile.ZipFile(path) as archive:
        return _Unpickler(archive).load()
