"""Pieces of texts by code points, as TensorFlow operations."""

from __future__ import annotations

from tfbert._compat import tf


def substrings(text, start, end):
    """Cuts from each text what stands between the places start and end, as Python's `text[start:end]`.

    Places count Unicode code points. Of bytes that are no UTF-8, each fault counts as one U+FFFD, as `tf.strings.unicode_decode` reads them
    with errors="replace", and is U+FFFD in the result. Places after the end of the text are taken as its end; where end is not after start,
    the result is "". The work grows with the text and the results, not with their product.

    Args:
        text: string [B].
        start: int32 [B] or [B, E], 0 or more.
        end: int32, of the shape of start, exclusive.

    Returns:
        string, of the shape of start.

    Example:
        >>> found = substrings(tf.constant(["Zoë 🙂 Kravitz", ""]), tf.constant([[0, 4], [0, 0]]), tf.constant([[3, 5], [0, 0]]))
        >>> [[entity.decode() for entity in row] for row in found.numpy()]
        [['Zoë', '🙂'], ['', '']]
    """
    codes = tf.strings.unicode_decode(text, "UTF-8", errors="replace")
    ends = tf.cast(codes.row_splits[1:], tf.int32)
    begins = ends - tf.cast(codes.row_lengths(), tf.int32)
    if start.shape.rank == 2:
        begins, ends = begins[:, tf.newaxis], ends[:, tf.newaxis]
    first = tf.reshape(tf.minimum(begins + start, ends), [-1])
    limit = tf.reshape(tf.minimum(begins + end, ends), [-1])
    places = tf.ragged.range(first, limit, row_splits_dtype=tf.int64)
    cut = tf.strings.unicode_encode(places.with_values(tf.gather(codes.values, places.values)), "UTF-8")
    return tf.reshape(cut, tf.shape(start))
