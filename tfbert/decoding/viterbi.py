"""The best legal sequence of labels, where an entity cannot begin with "I-", as TensorFlow operations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tfbert._compat import tf

if TYPE_CHECKING:
    from collections.abc import Sequence


def allowed(labels: Sequence[str]) -> np.ndarray:
    """Which label may follow which: bool [L + 1, L + 1], from row to column; row L is the beginning of a text.

    In the BIO scheme "I-X" goes on with an entity of kind X, so it follows "B-X" or "I-X" only. All other labels, also those without
    prefix, may stand anywhere, and so may "I-X" where no label "B-X" exists, for then nothing else could begin an entity.

    Args:
        labels: the names of the L labels.

    Example:
        >>> allowed(["O", "B-PER", "I-PER"]).astype(int).tolist()
        [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 0]]
    """
    table = np.ones((len(labels) + 1, len(labels) + 1), bool)
    table[:, -1] = False
    for column, name in enumerate(labels):
        begin = "B-" + name[2:]
        if name.startswith("I-") and begin in labels:
            table[:, column] = [other in (begin, name) for other in labels] + [False]
    return table


def viterbi(scores, example, count, *, labels: Sequence[str]) -> tuple:
    """The legal sequence of labels with the greatest product of scores, for each example by itself.

    The algorithm is Viterbi's (1967), in float64. Legal is what `allowed` says. Scores of 0 count as the least float32, so a legal sequence
    is always found. Takes as many steps as the longest example has units.

    Args:
        scores: float32 [U, L], probabilities.
        example: int32 [U], ascending: the number of the example that each unit is of.
        count: int32 scalar, the number of examples B.
        labels: the names of the L labels.

    Returns:
        label int32 [U], and score float32 [U]: the score that the unit itself has for that label.

    Example:
        >>> scores = tf.constant([[0.5, 0.375, 0.125], [0.25, 0.125, 0.625]])  # by themselves: O, I-PER
        >>> label, score = viterbi(scores, tf.constant([0, 0]), 1, labels=["O", "B-PER", "I-PER"])
        >>> label.numpy().tolist(), score.numpy().tolist()
        ([1, 2], [0.375, 0.625])
    """
    length = tf.math.unsorted_segment_sum(tf.ones_like(example), example, count)
    first = tf.cumsum(length, exclusive=True)
    # At least one step, though without effect: TensorFlow cannot stack an array of no steps.
    steps = tf.reduce_max(tf.concat([[1], length], 0))
    back, last = _forward(scores, first, length, steps, labels)
    path = _backward(back, last, steps)
    place = tf.range(tf.size(example)) - tf.gather(first, example)
    label = tf.gather_nd(path, tf.stack([place, example], 1))
    return label, tf.gather(scores, label, batch_dims=1)


def _forward(scores, first, length, steps, labels) -> tuple:
    """The way back from each label at each step, and the last label of each example, int32 [B].

    A path begins in the state L, before the first unit. After an example's last unit its paths stay as they are.
    """
    states = len(labels) + 1
    barrier = tf.constant(np.where(allowed(labels), 0.0, -np.inf))
    logs = tf.math.log(tf.maximum(tf.cast(scores, tf.float64), np.finfo(np.float32).tiny))
    logs = tf.pad(logs, [[0, 1], [0, 1]])  # a row for examples that have ended, a column for the state L
    before = tf.one_hot(tf.fill(tf.shape(first), states - 1), states, 0.0, -np.inf, dtype=tf.float64)
    stay = tf.range(states)[tf.newaxis, :]

    def step(t, total, back):
        runs = (t < length)[:, tf.newaxis]
        ways = total[:, :, tf.newaxis] + barrier  # [B, from, to]
        here = tf.gather(logs, tf.where(t < length, first + t, tf.shape(scores)[0]))
        back = back.write(t, tf.where(runs, tf.argmax(ways, axis=1, output_type=tf.int32), stay))
        return t + 1, tf.where(runs, tf.reduce_max(ways, axis=1) + here, total), back

    back = tf.TensorArray(tf.int32, steps, element_shape=[None, states])
    _, total, back = tf.while_loop(lambda t, *_: t < steps, step, (0, before, back))
    return back, tf.argmax(total, axis=-1, output_type=tf.int32)


def _backward(back, last, steps):
    """The label of each example at each step, int32 [N, B], following the ways back from the last."""

    def step(t, label, path):
        return t - 1, tf.gather(back.read(t), label, batch_dims=1), path.write(t, label)

    path = tf.TensorArray(tf.int32, steps, element_shape=[None])
    return tf.while_loop(lambda t, *_: t >= 0, step, (steps - 1, last, path))[2].stack()
