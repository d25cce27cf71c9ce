"""Runs of neighbouring elements that belong together (the pieces of a word, the words of an entity), as TensorFlow operations."""

from __future__ import annotations

from tfbert._compat import tf


def changes(values):
    """Where a value differs from the one before it, bool of the same length; the first always does.

    Args:
        values: [N], of any dtype.

    Example:
        >>> changes(tf.constant([3, 3, 5])).numpy().tolist()
        [True, False, True]
    """
    return tf.concat([[True], values[1:] != values[:-1]], 0)[: tf.size(values)]


def runs(begins) -> tuple:
    """The places where runs begin and where they end, int64 [M], and the number of each element's run, int32 [N].

    Args:
        begins: bool [N], where an element begins a run; the first one does.

    Example:
        >>> [places.numpy().tolist() for places in runs(tf.constant([True, False, True]))]
        [[0, 2], [1, 2], [0, 0, 1]]
    """
    ends = tf.concat([begins, [True]], 0)[1:]
    return tf.where(begins)[:, 0], tf.where(ends)[:, 0], tf.cumsum(tf.cast(begins, tf.int32)) - 1
