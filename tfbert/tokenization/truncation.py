"""Texts that are longer than a row, cut to their head, their tail, or both, as TensorFlow operations."""

from __future__ import annotations

from tfbert._compat import tf
from tfbert.errors import InputError


def keep(ids, room, way: str):
    """Cuts texts to at most `room` tokens.

    Args:
        ids: ragged int32 [B, (n)].
        room: int, or int32 [B] for each text its own.
        way: "head" keeps the first tokens, "tail" the last, "head+tail" 128 of 510 from the head and the rest from the tail (Sun et al.
            2019, "How to Fine-Tune BERT for Text Classification?", section 5.3.1).

    Returns:
        ragged int32 [B, (m)], m at most `room`.

    Example:
        >>> ids = tf.ragged.constant([[1, 2, 3, 4, 5, 6], [7]], dtype=tf.int32)
        >>> [keep(ids, 4, way).to_list() for way in ("head", "tail", "head+tail")]
        [[[1, 2, 3, 4], [7]], [[3, 4, 5, 6], [7]], [[1, 4, 5, 6], [7]]]
    """
    starts, ends = tf.cast(ids.row_splits[:-1], tf.int32), tf.cast(ids.row_splits[1:], tf.int32)
    kept = tf.minimum(ends - starts, room)
    if way == "head":
        head = kept
    elif way == "tail":
        head = tf.zeros_like(kept)
    elif way == "head+tail":
        head = tf.where(ends - starts > room, kept * 128 // 510, kept)
    else:
        raise InputError(f"way is {way!r}; it must be one of head, tail, head+tail")
    # Two stretches of each text, one after the other: the head and the tail.
    first = tf.reshape(tf.stack([starts, ends - kept + head], 1), [-1])
    limits = tf.reshape(tf.stack([starts + head, ends], 1), [-1])
    values = tf.gather(ids.values, tf.ragged.range(first, limits).values)
    return tf.RaggedTensor.from_row_lengths(values, tf.cast(kept, tf.int64), validate=False)


def longest_first(first, second, room: int) -> list:
    """The lengths that two texts keep in a row with `room` tokens for both: the longer one is cut first, then both to a half.

    This is the rule of the Rust tokenizers (utils/truncation.rs), which gives the odd token of a half to the longer text (to the second,
    where both are equally long).

    Args:
        first: int32 [B], how many tokens the first texts have.
        second: int32 [B], the same of the second.
        room: how many tokens both may have together.

    Returns:
        [int32 [B], int32 [B]].

    Example:
        >>> [x.numpy().tolist() for x in longest_first(tf.constant([2, 9, 9, 3]), tf.constant([9, 2, 9, 4]), 7)]
        [[2, 5, 3, 3], [5, 2, 4, 4]]
    """
    shorter = tf.minimum(first, second)
    halve = 2 * shorter > room
    short, long = tf.where(halve, room // 2, shorter), tf.where(halve, room - room // 2, room - shorter)
    fits, swapped = first + second <= room, first > second
    return [
        tf.where(fits, first, tf.where(swapped, long, short)),
        tf.where(fits, second, tf.where(swapped, short, long)),
    ]
