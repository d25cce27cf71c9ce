"""The encoder's elementwise mathematics with gradients written by hand: fewer passes over memory than the derived ones, and less kept.

A layer's matrix products are fast everywhere; on a CPU what lies between them is bound by memory. Times of [1024, 1536] float32 on one
core (AVX2) are given where a form was chosen for them.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
from collections.abc import Callable, Iterator

import numpy as np

from tfbert._compat import tf
from tfbert.models.gradients import custom_gradient

_ANSWERS = contextvars.ContextVar("answers", default=False)
PHILOX = 1  # the algorithm of tf.random.Generator by its number
MASKED = -10000.0  # added to the scores of padding, as Transformers does: e^-10000 is 0


@contextlib.contextmanager
def without_gradients() -> Iterator[None]:
    """What is traced within has no gradients by hand, of which loading a SavedModel would warn, and the forms that are fused in serving."""
    token = _ANSWERS.set(True)
    try:
        yield
    finally:
        _ANSWERS.reset(token)


def _with_gradient(function: Callable) -> Callable:
    """`custom_gradient`, where there are gradients."""
    return (lambda *arguments: function(*arguments)[0]) if _ANSWERS.get() else custom_gradient(function)


def dense(x, kernel, bias, *, transposed: bool = False, activated: bool = False):
    """x @ kernel + bias: [N, D] x [D, E] + [E] -> [N, E].

    In float32 in a form that oneDNN fuses. In bfloat16 as a product and a sum: for weights that are variables the fused form falls back
    to a kernel without AMX (`python benchmarks/products.py --tokens 934`; benchmarks/tried.md).

    Args:
        x: float [N, D].
        kernel: [D, E] of the same dtype.
        bias: [E] of the same dtype.
        transposed: the kernel is given as [E, D].
        activated: a GELU follows, which oneDNN fuses as well where nothing asks for gradients: worth more than the faster product.
    """
    if x.dtype != tf.bfloat16 or (activated and _ANSWERS.get()):
        return tf.nn.bias_add(tf.matmul(x, kernel, transpose_b=transposed), bias)

    @_with_gradient
    def forward(x, kernel, bias):
        def gradient(upstream):
            # A product with ones sums in float32, as BiasAddGrad does, and faster.
            ones = tf.ones([1, tf.shape(upstream)[0]], upstream.dtype)
            to_x = tf.matmul(upstream, kernel, transpose_b=not transposed)
            factors = (upstream, x) if transposed else (x, upstream)
            return to_x, tf.matmul(*factors, transpose_a=True), tf.matmul(ones, upstream)[0]

        # TensorFlow's optimizer would fuse MatMul with the sum.
        return tf.raw_ops.BatchMatMulV2(x=x, y=kernel, adj_y=transposed) + bias, gradient

    return forward(x, kernel, bias)


def gelu(x):
    """The exact GELU, x * Phi(x) (Hendrycks and Gimpel 2016), float [N, E]: 5.8 ms with its gradient, 10.5 derived."""
    if _ANSWERS.get():
        return tf.nn.gelu(
            x, approximate=False
        )  # in this form, TensorFlow's optimizer fuses it with the product before it
    half = tf.constant(0.5, x.dtype)

    @_with_gradient
    def forward(x):
        share = half * tf.math.erf(x * tf.constant(np.sqrt(0.5), x.dtype)) + half

        def gradient(upstream):
            density = tf.constant(1 / np.sqrt(2 * np.pi), x.dtype) * tf.exp(-half * x * x)
            return upstream * (share + x * density)

        return x * share, gradient

    return forward(x)


def layer_norm(x, scale, shift, epsilon: float):
    """Layer normalization over the last axis (Ba et al. 2016), computed in float32.

    Args:
        x: float [N, D], in any precision.
        scale: float32 [D].
        shift: float32 [D].
        epsilon: added to the variance.

    Returns:
        The same shape and dtype as x.
    """

    @_with_gradient
    def normalize(x, scale, shift):
        centred = x - tf.reduce_mean(x, -1, keepdims=True)
        inverse = tf.math.rsqrt(tf.reduce_mean(tf.square(centred), -1, keepdims=True) + epsilon)
        unit = centred * inverse

        def gradient(upstream):
            scaled = upstream * scale
            along = tf.reduce_mean(scaled * unit, -1, keepdims=True)
            to_x = inverse * (scaled - tf.reduce_mean(scaled, -1, keepdims=True) - unit * along)
            return to_x, tf.reduce_sum(upstream * unit, 0), tf.reduce_sum(upstream, 0)

        return unit * scale + shift, gradient

    scale, shift = tf.cast(scale, tf.float32), tf.cast(shift, tf.float32)
    return tf.cast(normalize(tf.cast(x, tf.float32), scale, shift), x.dtype)


def turn(x, order):
    """tf.transpose that leaves the last axis where it is, eight bytes at a time where they fit.

    oneDNN takes float transposes over from TensorFlow, and is slower at them; it leaves integers alone.

    Args:
        x: float [..., d], with d known.
        order: as tf.transpose takes it; its last number is the last axis.
    """
    several = 8 // x.dtype.size
    if x.shape[-1] % several:
        return tf.transpose(x, order)
    back = np.argsort(order).tolist()

    def turned(x, order):
        shape = tf.concat([tf.shape(x)[:-1], [x.shape[-1] // several, several]], 0)
        wide = tf.transpose(tf.bitcast(tf.reshape(x, shape), tf.int64), order)
        return tf.reshape(tf.bitcast(wide, x.dtype), tf.concat([tf.shape(wide)[:-1], [x.shape[-1]]], 0))

    @_with_gradient
    def forward(x):
        return turned(x, order), lambda upstream: turned(upstream, back)

    result = forward(x)
    result.set_shape([x.shape[axis] for axis in order])
    return result


class Places:
    """Where the real tokens of a padded batch are, so that padding costs nothing between the attentions.

    [[a b .] [c . .]] is kept as the rows a, b, c, and as much of the padding as makes their number a round one (see `_round`). With
    `dense` no row is left out, padding is computed as well: shapes are static then, as XLA wants them.

    Args:
        mask: int32 or bool [B, T], not 0 where a token is.
        dense: keep the padding.
    """

    def __init__(self, mask, dense: bool):
        self.batch, self.length = tf.unstack(tf.shape(mask))
        if mask.shape.is_fully_defined():
            self.batch, self.length = mask.shape
        flat = tf.reshape(mask, [-1]) > 0  # [B * T]
        self.dense, self._real = dense, flat[:, tf.newaxis]
        if not dense:
            real = tf.cast(flat, tf.int32)
            self.count = tf.reduce_sum(real)  # of real tokens
            spare = _round(self.count) - self.count
            kept = flat | (tf.cumsum(1 - real) <= spare)  # the first places of padding make up the number
            self._of_row = tf.where(kept)[:, 0]  # [N]: the place of each row
            self._is_real = tf.gather(flat, self._of_row)  # [N]
            # [B * T]: the row of each place; those of padding without a row get a neighbour's, which nothing reads
            self._of_place = tf.maximum(tf.cumsum(tf.cast(kept, tf.int32)) - 1, 0)

    def real(self, x):
        """[N, D] -> the rows of real tokens alone."""
        return x if self.dense else tf.boolean_mask(x, self._is_real)

    def rows(self, x):
        """[B * T, D] -> [N, D]. Its gradient at padding is 0."""
        if self.dense:
            return x
        of_row, of_place, real = self._of_row, self._of_place, self._real

        @_with_gradient
        def pick(x):
            return tf.gather(x, of_row), lambda up: tf.where(real, tf.gather(up, of_place), tf.zeros([], up.dtype))

        return pick(x)

    def padded(self, x):
        """[N, D] -> [B * T, D]; what stands at padding is finite and must not be used."""
        if self.dense:
            return x
        of_row, of_place = self._of_row, self._of_place

        @_with_gradient
        def spread(x):
            # Nothing downstream reads padding, so its gradient is 0, and a row's own place has all of it.
            return tf.gather(x, of_place), lambda up: tf.gather(up, of_row)

        return spread(x)

    def zero_padded(self, x):
        """[N, D] -> [B, T, D] with zeros at padding."""
        shape = [self.batch, self.length, x.shape[-1]]
        return tf.reshape(tf.where(self._real, self.padded(x), tf.zeros([], x.dtype)), shape)

    def flat(self, ids):
        """int32 [B, T] -> [N]."""
        ids = tf.reshape(ids, [-1])
        return ids if self.dense else tf.gather(ids, self._of_row)

    def apart(self):
        """float32 [N, N]: 1 from a token to one of another row of the batch, or to padding, 0 to those of its own row."""
        row = self._of_row // tf.cast(self.length, tf.int64)
        together = (row[:, tf.newaxis] == row) & self._is_real
        return 1 - tf.cast(together, tf.float32)

    def first(self, x):
        """[N, D] -> [B, D]: the first token of each row of the batch."""
        return tf.gather(x, self.firsts())

    def firsts(self):
        """int32 [B]: which of the N is the first of each row of the batch."""
        starts = tf.range(self.batch) * self.length  # in the padded batch
        return starts if self.dense else tf.gather(self._of_place, starts)


def _round(count):
    """The next of eight numbers in an octave, of multiples of eight at least: int32 scalars, such as 12 -> 16, 934 -> 960, 1030 -> 1152.

    oneDNN makes and keeps a program for each shape of a product, in 2 ms, of which a step of six layers with a new number of tokens had
    some 25: an eighth of its time. At most an eighth more rows, and half a step, 4.5 %, on average, cost less.
    """
    octave = tf.cast(tf.floor(tf.math.log(tf.cast(tf.maximum(count, 1), tf.float32)) / np.log(2.0) + 1e-6), tf.int32)
    step = tf.bitwise.left_shift(1, tf.maximum(octave - 3, 3))
    return (count + step - 1) // step * step


class Noise:
    """Dropout from one byte of randomness an element: a quarter of the numbers that tf.nn.dropout draws, a fifth of its time.

    The bytes are Philox's (Salmon et al. 2011), a function of (seed, step, number of the draw) alone, so that a resumed run drops what
    the unbroken one would have dropped. A byte knows 256 rates: each draw drops floor(256 rate + u) / 256, u uniform in [0, 1), so an
    element is dropped with the probability `rate`, neither more nor less.

    Args:
        seed: int64 scalar, of the run (and the replica).
        step: int64 scalar: the number of this pass.
    """

    def __init__(self, seed, step):
        self._key, self.step, self._draws = tf.reshape(tf.cast(seed, tf.uint64), [1]), tf.cast(step, tf.uint64), 0

    def again(self, step):
        """The same noise from here on, drawn by operations of its own: those of `step`, uint64 scalar of the same value."""
        same = copy.copy(self)
        same.step = step
        return same

    def drop(self, x, rate: float):
        """Sets elements to 0 with the probability `rate`, and does NOT scale the others by `scale_of(rate)`: a smaller factor can.

        Args:
            x: float, of any shape.
            rate: 0 (x is returned) up to, but without, 1.
        """
        if rate == 0:
            return x
        size = tf.size(x)
        counter = tf.stack([tf.constant(0, tf.uint64), self.step * tf.constant(1024, tf.uint64) + self._draws])
        self._draws += 1
        words = tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=[size // 8 + 2], key=self._key, counter=counter, alg=PHILOX, dtype=tf.uint64
        )
        uniform = (
            tf.cast(tf.bitwise.right_shift(words[0], 40), tf.float32) / 2.0**24
        )  # the highest 24 bits of the first word
        threshold = tf.cast(tf.floor(256 * rate + uniform), tf.int32)
        bytes_ = tf.reshape(tf.bitcast(words[1:], tf.uint8), [-1])[:size]
        kept = tf.reshape(bytes_, tf.shape(x)) >= tf.cast(tf.minimum(threshold, 255), tf.uint8)

        @_with_gradient
        def forward(x):
            zero = tf.zeros([], x.dtype)
            return tf.where(kept, x, zero), lambda upstream: tf.where(kept, upstream, zero)

        return forward(x)


def scale_of(rate: float) -> float:
    """The factor by which dropout raises what it keeps, so that sums stay what they are on average."""
    return 1 / (1 - rate)
