"""The tensors of a checkpoint by name, and their strict comparison with what a network has."""

import re

from .errors import DataError

_INTEGERS = ("num_batches_tracked", "queue_ptr")  # counters, int64; all else is floating point
_LISTED = 12  # names of each kind that an error lists


class State:
    """`tensors`: {name: Tensor} of the TorchFile `source`."""

    def __init__(self, source, tensors):
        self.source, self.path, self.tensors = source, source.path, tensors

    def has(self, *beginnings):
        return any(name.startswith(beginnings) for name in self.tensors)

    def pop(self, name):
        return self.tensors.pop(name, None)

    def length(self, name, dimension):
        """Of a tensor that the sizes of the network are read from."""
        if name not in self.tensors:
            raise DataError(self.path, f"has no tensor '{name}'")
        shape = self.tensors[name].shape
        if dimension >= len(shape) or not 0 < shape[dimension] <= 1_000_000:
            raise DataError(self.path, f"'{name}' has the shape {list(shape)}")
        return shape[dimension]

    def count(self, beginning):
        """1 + the largest N of the names BEGINNING + N. ..., at least 1."""
        found = [re.match(r"(\d{1,6})\.", name[len(beginning):]) for name in self.tensors if name.startswith(beginning)]
        count = 1 + max((int(match[1]) for match in found if match), default=0)
        if count > len(self.tensors):
            raise DataError(self.path, f"has a tensor '{beginning}{count - 1}...' among only {len(self.tensors)}")
        return count

    def renamed(self, new_name):
        tensors = {}
        for name, tensor in self.tensors.items():
            if new_name(name) in tensors:
                raise DataError(self.path, f"'{name}' and '{tensors[new_name(name)].name}' are both '{new_name(name)}'")
            tensors[new_name(name)] = tensor
        return State(self.source, tensors)

    def require(self, shapes):
        """Exactly these names {name: shape}, or DataError that lists what is missing, unexpected or misshaped."""
        found = self.tensors
        misshaped = [f"{name} {list(found[name].shape)}, expected {list(shape)}" for name, shape in shapes.items()
                     if name in found and found[name].shape != shape]
        mistyped = [f"{name} {tensor.dtype}" for name, tensor in found.items()
                    if name in shapes and tensor.dtype not in (("I64",) if name.endswith(_INTEGERS) else ("F32", "F16", "BF16"))]
        problems = "; ".join(filter(None, (_listed([name for name in shapes if name not in found], "missing"),
                                           _listed([name for name in found if name not in shapes], "unexpected"),
                                           _listed(misshaped, "misshaped"), _listed(mistyped, "of another element type"))))
        if problems:
            raise DataError(self.path, f"does not fit the network: {problems}")


def _listed(names, what):
    more = ", …" if len(names) > _LISTED else ""
    return f"{len(names)} {what} ({', '.join(names[:_LISTED])}{more})" if names else ""
