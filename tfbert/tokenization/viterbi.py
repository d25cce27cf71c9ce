"""The best ways through many words at once, as TensorFlow ops (Viterbi 1967): sums from left to right, then the way back."""

from __future__ import annotations

import numpy as np

from tfbert._compat import tf

_LONG = 128  # characters: longer blocks, of which there are few, are gone through one by one, with fewer operations a character
_AT_ONCE = 16  # characters of these in one turn of a loop


def best_pieces(starts, ends, scores, blocks, error, reach: int) -> tuple:
    """The pieces on the best way through each block, a stretch of text; of equal sums those of the longer last piece.

    Args:
        starts: int32 [E], where each piece begins, in characters.
        ends: int32 [E], where it ends.
        scores: float64 [E].
        blocks: bool [K], where a block begins; no piece goes over from one to the next, and some pieces lead through each.
        error: float64 scalar, what may be wrong with a sum.
        reach: the most characters of a piece.

    Returns:
        int64 [N], the numbers of the chosen pieces, in no order; int32 [N], 1 where another piece would be as good, within the error.

    Example:
        >>> starts, ends = tf.constant([0, 0, 1, 2]), tf.constant([1, 2, 3, 3])
        >>> scores = tf.constant([-1, -5, -3, -1], tf.float64)
        >>> best_pieces(starts, ends, scores, tf.constant([True, False, False]), 1e-9, 2)[0].numpy().tolist()
        [0, 2]
    """
    first = tf.cast(tf.where(blocks)[:, 0], tf.int32)
    block = tf.gather(tf.cumsum(tf.cast(blocks, tf.int32)) - 1, starts)
    # A node for each place between characters of a block, and one at either end.
    before, after = starts + block, ends + block
    nodes = tf.size(blocks) + tf.size(first)
    begin = first + tf.range(tf.size(first))
    lengths = tf.concat([begin[1:], [nodes]], 0) - begin - 1
    sums = tf.fill([nodes], tf.constant(-np.inf, tf.float64))
    sums = tf.tensor_scatter_nd_update(sums, begin[:, tf.newaxis], tf.zeros_like(begin, tf.float64))
    long = lengths > _LONG
    far = tf.gather(long, block)
    depth = starts - tf.gather(first, block)
    near = tf.where(~far)[:, 0]
    sums = _forward(sums, *(tf.gather(part, near) for part in (before, after, scores, depth)))
    far = tf.where(far)[:, 0]
    sums = tf.cond(
        tf.size(far) > 0,
        lambda: _forward_long(sums, *(tf.gather(part, far) for part in (before, after, scores)), begin, long, reach),
        lambda: sums,
    )
    # Of the pieces that give the best sum at their end, the longest is the way back from there.
    reached = tf.gather(sums, before) + scores
    good = reached == tf.gather(sums, after)
    back = tf.math.unsorted_segment_min(tf.where(good, before, nodes), after, nodes)
    marks = _on_the_way(tf.where(back < nodes, back, tf.range(nodes)), begin + lengths, tf.reduce_max(lengths))
    chosen = tf.where(good & tf.gather(marks, after) & (tf.gather(back, after) == before))[:, 0]
    rivals = tf.cast(reached >= tf.gather(sums, after) - error, tf.int32)
    rivals = tf.math.unsorted_segment_sum(rivals, after, nodes)
    return chosen, tf.cast(tf.gather(rivals, tf.gather(after, chosen)) > 1, tf.int32)


def _forward(sums, before, after, scores, depth):
    """The best sum at each node: one turn for all pieces that begin at the same distance from the beginning of their block."""
    order = tf.argsort(depth)
    before, after, scores = (tf.gather(part, order) for part in (before, after, scores))
    longest = tf.maximum(tf.reduce_max(depth) + 1, 0)
    splits = tf.searchsorted(tf.gather(depth, order), tf.range(longest + 1))

    def turn(place, sums):
        low, high = splits[place], splits[place + 1]
        reached = tf.gather(sums, before[low:high]) + scores[low:high]
        return place + 1, tf.tensor_scatter_nd_max(sums, after[low:high, tf.newaxis], reached)

    return tf.while_loop(lambda place, _: place < longest, turn, (0, sums), parallel_iterations=1)[1]


def _forward_long(sums, before, after, scores, begin, long, reach: int):
    """The best sums at the nodes of long blocks, node after node.

    A row for each node holds the scores of the pieces that end there by their lengths, a window the sums at the nodes before it. In the
    row of a block's first node only the score of "length 0" is there, for which the window has a 0: with it sums begin anew.
    """
    heads = tf.tensor_scatter_nd_update(tf.zeros_like(sums, tf.int32), begin[:, tf.newaxis], tf.ones_like(begin))
    inside = tf.gather(long, tf.cumsum(heads) - 1)
    row = tf.cumsum(tf.cast(inside, tf.int32)) - 1
    turns = (tf.reduce_max(row) + _AT_ONCE) // _AT_ONCE
    wide = reach + 1
    begin = tf.gather(begin, tf.where(long)[:, 0])
    places = tf.concat([tf.gather(row, after) * wide + after - before, tf.gather(row, begin) * wide], 0)
    given = tf.concat([scores, tf.zeros_like(begin, tf.float64)], 0)
    rows = tf.fill([turns * _AT_ONCE * wide], tf.constant(-np.inf, tf.float64))
    rows = tf.reshape(tf.tensor_scatter_nd_update(rows, places[:, tf.newaxis], given), [-1, _AT_ONCE, wide])

    def turn(number, window, found):
        best = []
        for scores_here in tf.unstack(rows[number]):
            best.append(tf.reduce_max(window + scores_here, keepdims=True))
            window = tf.concat([zero, best[-1], window[1:-1]], 0)
        return number + 1, tf.ensure_shape(window, [wide]), found.write(number, tf.concat(best, 0))

    zero = tf.zeros([1], tf.float64)
    window = tf.concat([zero, tf.fill([reach], tf.constant(-np.inf, tf.float64))], 0)
    found = tf.TensorArray(tf.float64, turns, element_shape=[_AT_ONCE])
    _, _, found = tf.while_loop(lambda number, *_: number < turns, turn, (0, window, found), parallel_iterations=1)
    return tf.tensor_scatter_nd_update(
        sums, tf.where(inside), tf.reshape(found.stack(), [-1])[: tf.reduce_max(row) + 1]
    )


def _on_the_way(back, last, longest):
    """The nodes on the way back from the last nodes of all blocks, bool: in each turn those become known that are twice as far."""
    marks = tf.math.unsorted_segment_max(tf.ones_like(last), last, tf.size(back)) > 0

    def turn(reach, jump, marks):
        there = tf.gather(jump, tf.where(marks)[:, 0])
        marks = tf.tensor_scatter_nd_update(marks, there[:, tf.newaxis], tf.ones_like(there, tf.bool))
        return 2 * reach, tf.gather(jump, jump), marks

    return tf.while_loop(lambda reach, *_: reach <= longest, turn, (1, back, marks), parallel_iterations=1)[2]
