"""The weights of an encoder as an export holds them: put together beforehand, as float32, as bfloat16, or as int8 with scales."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterable, Iterator

import numpy as np

from tfbert._compat import tf
from tfbert.errors import InputError, suggest
from tfbert.models.kernels import dense, without_gradients

PRECISIONS = ("float32", "bfloat16", "int8")
_SERVED: contextvars.ContextVar[Served | None] = contextvars.ContextVar("served", default=None)


def check_precision(name: str) -> None:
    """Refuses a name that is no precision of an export.

    Example:
        >>> check_precision("int4")
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: precision is 'int4'; it must be one of float32, bfloat16, int8. Did you mean 'int8'?
    """
    if name not in PRECISIONS:
        raise InputError(
            f"precision is {name!r}; it must be one of {', '.join(PRECISIONS)}.{suggest(name, PRECISIONS)}"
        )


def rounded(matrix: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Rounds each column (axis 0) or row (axis 1) of a matrix to 255 levels of its own, 0 among them.

    Args:
        matrix: float32 [D, E].
        axis: 0 for a scale an output of a product, 1 for a scale a row of a table.

    Returns:
        int8 [D, E], from -127 to 127, and float32 [E] or [D]: what to multiply them by, right to half of it.

    Example:
        >>> numbers, scale = rounded(np.array([[1.0, 0.0], [-0.5, 0.0], [0.25, 0.0]], np.float32), axis=0)
        >>> numbers.tolist()
        [[127, 0], [-64, 0], [32, 0]]
        >>> np.round(numbers * scale, 3).tolist()
        [[1.0, 0.0], [-0.504, 0.0], [0.252, 0.0]]
    """
    largest = np.abs(matrix).max(axis, keepdims=True)
    scale = (np.where(largest > 0, largest, 1) / 127).astype(np.float32)
    return np.rint(matrix / scale).astype(np.int8), scale.squeeze(axis)


class Matrix:
    """A kernel with its bias, or a table of embeddings, in one precision.

    With int8 the numbers are turned into floats where they are read, a product at a time: TensorFlow has no CPU kernel for products of
    int8 that is fast for one sentence and exact on every processor (see benchmarks/tried.md), and at a sentence's length, reading the
    weights is what takes the time.

    Args:
        kernel: float32 [D, E].
        bias: float32 [E], or None for a table.
        precision: one of PRECISIONS.
    """

    def __init__(self, kernel: np.ndarray, bias: np.ndarray | None, precision: str):
        self._scale = None
        if precision == "int8":
            kernel, scale = rounded(kernel, axis=1 if bias is None else 0)
            self._scale = _variable(scale)
        narrow = tf.bfloat16 if precision == "bfloat16" else None
        # A kernel the other way round, [E, D]: oneDNN then reads the weights of a short text's product in their own order.
        self._kernel = _variable(kernel if bias is None else kernel.T, narrow)
        self._bias = None if bias is None else _variable(bias, narrow)
        self.variables = [each for each in (self._kernel, self._bias, self._scale) if each is not None]

    def product(self, x, activated: bool = False):
        """x @ kernel + bias: [N, D] -> [N, E], computed in the dtype of x; `activated` as in `dense`."""
        # Not before x is there: TensorFlow would convert all weights at a request's start, and hold them as floats at once.
        with tf.control_dependencies([x]):
            kernel, bias = tf.cast(self._kernel, x.dtype), tf.cast(self._bias, x.dtype)
        if self._scale is None:
            return dense(x, kernel, bias, transposed=True, activated=activated)
        # Times the scale afterwards: [N, E] is less than [D, E] where time counts most, in a request of one sentence.
        return tf.nn.bias_add(tf.matmul(x, kernel, transpose_b=True) * tf.cast(self._scale, x.dtype), bias)

    def columns(self, x):
        """kernel' @ x + bias with the weights as the left factor: float32 [D, N] -> [E, N]."""
        with tf.control_dependencies([x]):
            kernel = tf.cast(self._kernel, tf.float32)
        product = tf.matmul(kernel, x)
        if self._scale is not None:
            product *= tf.expand_dims(self._scale, 1)
        return product + tf.expand_dims(self._bias, 1)

    def rows(self, ids):
        """int32 [N] -> float32 [N, E]."""
        found = tf.cast(tf.gather(self._kernel, ids), tf.float32)
        return found if self._scale is None else found * tf.gather(self._scale, ids)[:, tf.newaxis]


class Served:
    """Matrices by what they stand for; `Served.now()` finds those of the export that is being traced.

    Args:
        precision: one of PRECISIONS.

    Example:
        >>> served, key = Served("int8"), object()
        >>> served.put([key], np.array([[1.0, -2.0], [0.5, 0.0]], np.float32), np.array([0.0, 10.0], np.float32))
        >>> with served.in_use():
        ...     Served.now().get([key]).product(tf.constant([[1.0, 2.0]])).numpy().round(2).tolist()
        [[2.0, 8.0]]
    """

    def __init__(self, precision: str):
        check_precision(precision)
        self.precision, self._matrices = precision, {}

    @staticmethod
    def now() -> Served | None:
        """What is in use here, if anything is."""
        return _SERVED.get()

    @property
    def variables(self) -> list:
        """All that were made; they must outlive the graph's last use in this process."""
        return [variable for matrix in self._matrices.values() for variable in matrix.variables]

    @property
    def lower(self) -> bool:
        """Whether the precision is lower than float32."""
        return self.precision != "float32"

    def put(self, layers: Iterable, kernel, bias) -> None:
        """Makes the matrix that stands for these layers."""
        key = tuple(map(id, layers))
        if key not in self._matrices:  # ALBERT's layers are one
            self._matrices[key] = Matrix(np.asarray(kernel), None if bias is None else np.asarray(bias), self.precision)

    def get(self, layers: Iterable) -> Matrix | None:
        """The matrix that stands for these layers."""
        return self._matrices.get(tuple(map(id, layers)))

    @contextlib.contextmanager
    def in_use(self) -> Iterator[Served]:
        """What is traced or computed within reads these matrices, and is for answers alone."""
        token = _SERVED.set(self)
        try:
            with without_gradients():
                yield self
        finally:
            _SERVED.reset(token)


def _variable(array, dtype=None):
    # As constants they were as fast (AVX2, with oneDNN and without), and took 900 MiB more to serve 42 MiB of them.
    return tf.Variable(tf.cast(array, dtype) if dtype else array, trainable=False, name="served")
