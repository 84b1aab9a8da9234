"""Weights that have a type and a shape, and are read only when they are written elsewhere."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# How numpy reads the element types that safetensors names. It has no bfloat16: the upper half of a float32.
NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
         "U8": "u1", "BOOL": "?"}


def item_bytes(dtype):
    return np.dtype(NUMPY[dtype]).itemsize


def floats(values, dtype):
    """Values as numpy reads them, bfloat16 as the float32 that they are."""
    return (values.astype("<u4") << 16).view("<f4") if dtype == "BF16" else values


@dataclass(frozen=True)
class Weights:
    """`read` gives the values, little-endian, contiguous, row by row."""

    dtype: str
    shape: tuple
    read: Callable

    @property
    def elements(self):
        return math.prod(self.shape)

    @property
    def nbytes(self):
        return self.elements * item_bytes(self.dtype)

    def values(self):
        """As an array; bfloat16 as float32, all else in its own type."""
        return floats(np.frombuffer(self.read(), NUMPY[self.dtype]), self.dtype).reshape(self.shape)
