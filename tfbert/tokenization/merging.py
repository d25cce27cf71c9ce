"""Byte pair encoding of many words at once, as TensorFlow operations: the merges that the Rust tokenizer makes, in its order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tfbert._compat import tf

_NONE = 2**31 - 1  # the rank of a pair that is not merged
_CHUNK = 128  # symbols; longer words are merged in parts first


class _Table(NamedTuple):
    """The merges as tensors of the graph that uses them, each there once."""

    keys: tf.Tensor  # int64 [M + 1], left << 32 | right, ascending; the last is above all pairs
    ranks: tf.Tensor  # int32 [M + 1], those of the keys
    products: tf.Tensor  # int32 [M], by rank


class Merges:
    """The merges of one BPE vocabulary (Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units").

    Of all neighbours in a word those whose merge has the lowest rank become one symbol, of overlapping ones ("aaa") the left one, until no
    neighbours have a merge. One turn does this in all words, so there are as many turns as the word with most different merges needs.

    A long word would need thousands. It is cut every 128 symbols, and the parts are mended where they meet: symbols are the encoding of a
    word exactly if each two neighbours are the encoding of what both spell. For the encoding makes the merge of the lowest rank first, and
    the first one across the border of two of these symbols would be the first of the two alone as well, which have none.

    Args:
        merges: (left, right, product) in the order of their ranks, as symbol ids; a product is in no merge of a lower rank than its own.

    Example:
        >>> merges = Merges([(1, 2, 12), (12, 3, 123)])
        >>> ids, place, splits = merges(tf.constant([1, 2, 3, 1, 3, 2]), tf.constant([0, 3, 6]))
        >>> ids.numpy().tolist(), place.numpy().tolist(), splits.numpy().tolist()
        ([123, 1, 3, 2], [0, 3, 4, 5], [0, 1, 4])
    """

    def __init__(self, merges: Sequence[tuple[int, int, int]]):
        left, right, product = np.asarray(merges, np.int64).reshape(-1, 3).T
        keys = left << 32 | right
        order = np.argsort(keys, kind="stable")
        self._keys = np.append(keys[order], np.iinfo(np.int64).max)
        self._ranks = np.append(order, _NONE).astype(np.int32)
        self._products = product.astype(np.int32)

    def __call__(self, symbols, splits) -> tuple:
        """Merges the symbols of words.

        Args:
            symbols: int32 [N], those of all words, one after the other.
            splits: int32 [W + 1], where each word begins; no word is empty.

        Returns:
            ids int32 [T]; place int32 [T], where the first symbol of each stood, in N; splits int32 [W + 1], where each word begins, in T.
        """
        table = _Table(tf.constant(self._keys), tf.constant(self._ranks), tf.constant(self._products))
        parts = tf.ragged.range(splits[:-1], splits[1:], _CHUNK)
        begins = parts.values
        joints = tf.boolean_mask(begins, begins != tf.gather(splits, parts.value_rowids()))
        ids, place = _merge(table, symbols, _numbers(begins, tf.size(symbols)))
        ids, place = tf.cond(
            tf.size(joints) > 0, lambda: _mend(table, symbols, ids, place, splits, joints), lambda: (ids, place)
        )
        return ids, place, tf.searchsorted(place, splits)


def _merge(table: _Table, symbols, word) -> tuple:
    """Merges the symbols of words without cutting them: (ids, place) [T]; word int32 [N] is ascending."""
    every = tf.range(tf.size(symbols))

    def turn(ids, rank, word, place):
        lowest = tf.gather(tf.math.segment_min(rank, word), word)
        pairs = _leftmost(tf.where((rank == lowest) & (rank < _NONE))[:, 0])
        ids = tf.tensor_scatter_nd_update(ids, pairs[:, tf.newaxis], tf.gather(table.products, tf.gather(rank, pairs)))
        gone = tf.scatter_nd(pairs[:, tf.newaxis] + 1, tf.ones_like(pairs, tf.bool), tf.shape(ids, tf.int64))
        stay = tf.where(~gone)[:, 0]
        ids, rank, word, place = (tf.gather(x, stay) for x in (ids, rank, word, place))
        pairs = tf.cast(pairs, tf.int32) - tf.range(tf.size(pairs))
        changed = tf.concat([pairs, tf.maximum(0, pairs - 1)], 0)
        rank = tf.tensor_scatter_nd_update(rank, changed[:, tf.newaxis], _rank(table, ids, word, changed))
        return ids, rank, word, place

    some = tf.TensorSpec([None], tf.int32).shape
    ids, _, _, place = tf.while_loop(
        lambda ids, rank, word, place: tf.reduce_min(rank) < _NONE,
        turn,
        (symbols, _rank(table, symbols, word, every), word, every),
        shape_invariants=(some, some, some, some),
        parallel_iterations=1,
    )
    return ids, place


def _rank(table: _Table, ids, word, at):
    """The rank of the symbol at each of these places and the one after it, in the same word."""
    following = tf.minimum(at + 1, tf.size(ids) - 1)
    pair = tf.bitwise.left_shift(tf.cast(tf.gather(ids, at), tf.int64), 32) + tf.cast(
        tf.gather(ids, following), tf.int64
    )
    found = tf.searchsorted(table.keys, pair)
    known = (
        (tf.gather(table.keys, found) == pair) & (following > at) & (tf.gather(word, at) == tf.gather(word, following))
    )
    return tf.where(known, tf.gather(table.ranks, found), _NONE)


def _mend(table: _Table, symbols, ids, place, splits, joints) -> tuple:
    """Makes of words that were merged in parts what they are as wholes: (ids, place).

    At every second joint, what is merged `reach` symbols to its left and right is merged anew. If the first and the last symbol come
    out as before, all neighbours there are as they should be. Otherwise, the next try reaches twice as far.

    Args:
        joints: int32 [J], where the second and later parts of words begin.
    """
    end = tf.size(symbols)
    spelled = tf.scatter_nd(place[:, tf.newaxis], ids + 1, [end])  # 0 within a symbol

    def mend(spelled, joints, reach):
        starts = tf.concat([tf.cast(tf.where(spelled > 0)[:, 0], tf.int32), [end]], 0)
        word = tf.searchsorted(splits, joints, side="right")
        edges = tf.gather(splits, word - 1), tf.gather(splits, word)
        low = tf.maximum(edges[0], tf.concat([[0], joints[:-1]], 0))[::2]
        high = tf.minimum(edges[1], tf.concat([joints[1:], [end]], 0))[::2]
        joint = joints[::2]
        first = tf.maximum(low, tf.gather(starts, tf.searchsorted(starts, joint - reach)))
        last = tf.minimum(high, tf.gather(starts, tf.searchsorted(starts, joint + reach, side="right") - 1))
        window = tf.ragged.range(first, last)
        number = tf.cast(window.value_rowids(), tf.int32)
        ids, place = _merge(table, tf.gather(symbols, window.values), number)
        anew = tf.scatter_nd(place[:, tf.newaxis], ids + 1, tf.shape(window.values))
        before = tf.tensor_scatter_nd_update(spelled, window.values[:, tf.newaxis], anew)

        def same(at):
            return tf.gather(before, at) == tf.gather(spelled, at)

        final = tf.gather(starts, tf.searchsorted(starts, last) - 1)
        whole = (first < joint) & (joint < last) & ((first == low) | same(first)) & ((last == high) | same(final))
        mended = tf.where(tf.gather(whole, number), anew, tf.gather(spelled, window.values))
        spelled = tf.tensor_scatter_nd_update(spelled, window.values[:, tf.newaxis], mended)
        left = tf.tensor_scatter_nd_update(
            tf.ones_like(joints, tf.bool), 2 * tf.range(tf.size(joint))[:, tf.newaxis], ~whole
        )
        return spelled, tf.boolean_mask(joints, left), tf.where(tf.reduce_all(whole), reach, 2 * reach)

    some = tf.TensorSpec([None], tf.int32).shape
    spelled, _, _ = tf.while_loop(
        lambda spelled, joints, reach: tf.size(joints) > 0,
        mend,
        (spelled, joints, tf.constant(_CHUNK // 2)),
        shape_invariants=(some, some, tf.TensorShape([])),
        parallel_iterations=1,
    )
    place = tf.where(spelled > 0)[:, 0]
    return tf.gather(spelled, place) - 1, tf.cast(place, tf.int32)


def _numbers(begins, size):
    """The number of the part that each of `size` symbols is in, int32 [size], from where the parts begin."""
    return tf.cumsum(tf.scatter_nd(begins[:, tf.newaxis], tf.ones_like(begins), [size])) - 1


def _leftmost(pairs):
    """Of pairs that overlap, as at 3, 4, 5 in "aaaa", the first, the third, ...: what merges from the left leave."""
    fresh = tf.concat([[True], pairs[1:] != pairs[:-1] + 1], 0)[: tf.size(pairs)]
    run = tf.cumsum(tf.cast(fresh, tf.int32)) - 1
    first = tf.gather(tf.boolean_mask(pairs, fresh), run)
    return tf.boolean_mask(pairs, (pairs - first) % 2 == 0)
