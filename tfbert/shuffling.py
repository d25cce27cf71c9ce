"""The order of the rows in an epoch: a function of the seed and the epoch's number, with rows of like length in one batch."""

from __future__ import annotations

from tfbert._compat import tf

# Rows are sorted by length within windows of this many batches, or of half the data set where that is smaller: larger windows save
# little padding, and a single one would put the same rows together in every epoch. Hugging Face's group_by_length has 50 as well.
WINDOW_BATCHES = 50


def epoch_order(lengths, batch_size: int, seed: int, epoch):
    """The order of one epoch: a permutation of the rows, grouped by length, and a permutation of the batches.

    A permutation drawn from (seed, epoch) is cut into windows (see WINDOW_BATCHES); within a window the rows are sorted by length
    and cut into batches, so the rows of a batch are alike in length; at last the batches are put in random order.

    With batch size 2 and one window, rows of lengths 5 9 4 8 may come as:  permuted 9 4 8 5 -> sorted 4 5 8 9 -> batches (4 5) (8 9)
    -> (8 9) (4 5).

    Args:
        lengths: int64 [N].
        batch_size: rows in a batch.
        seed: a Python int.
        epoch: int64 scalar.

    Returns:
        order int64 [N] (batch b holds the rows order[b * batch_size : (b + 1) * batch_size]) and batch_numbers int64 [steps].
    """
    count = tf.size(lengths, tf.int64)
    steps = -(-count // batch_size)
    order = permutation(count, seed, 2 * epoch)
    window = tf.range(count, dtype=tf.int64) // (batch_size * tf.clip_by_value(steps // 2, 1, WINDOW_BATCHES))
    widest = tf.reduce_max(tf.concat([lengths, [0]], 0)) + 1
    by_length = tf.argsort(window * widest + tf.gather(lengths, order), stable=True)
    return tf.gather(order, by_length), permutation(steps, seed, 2 * epoch + 1)


def permutation(count, seed: int, draw):
    """A permutation of 0..count-1, int64, that depends on (seed, draw) alone.

    Args:
        count: int64 scalar.
        seed: a Python int.
        draw: int64 scalar, another one for each permutation.

    Example:
        >>> sorted(permutation(tf.constant(4, tf.int64), 0, tf.constant(7, tf.int64)).numpy().tolist())
        [0, 1, 2, 3]
    """
    bits = tf.random.stateless_uniform(
        [count], tf.stack([tf.constant(seed, tf.int64), draw]), None, None, tf.int64, alg="philox"
    )
    return tf.cast(tf.argsort(bits, stable=True), tf.int64)
