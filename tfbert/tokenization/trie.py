"""A set of strings as a double array: finding all of them in a text takes two look-ups a character, for all places of the text at once."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfbert._compat import tf

# The array has half as many places again as the trie has nodes, and nodes are put into it a fiftieth at a time.
_ROOM, _SHARE = 1.5, 50


@dataclasses.dataclass(frozen=True)
class Trie:
    """The child of node n for letter l is `base[n] + l` where `parent` says so. Letters count from 1; 0 is in no string.

    Args:
        base: int32 [S].
        parent: int32 [S], -1 for a place that is no node.
        entry: int32 [S], the number of the string that ends at a node; -1 for none.
    """

    base: np.ndarray
    parent: np.ndarray
    entry: np.ndarray

    def constants(self) -> Trie:
        """The same with tensors: in a graph that looks into it more than once it is there once."""
        return Trie(*(tf.constant(array) for array in (self.base, self.parent, self.entry)))

    def find(self, starts, first, inner) -> tuple:
        """All strings that begin at some places of a text.

        Args:
            starts: int32 [P].
            first: int32 [K + 1], the letters of the text, and a 0.
            inner: int32 [K + 1], the same but 0 where no string may go on (at the beginning of a word).

        Returns:
            (starts, ends, entries), int32 [E]: the shorter strings first, and of one length in the order of `starts`.
        """
        arrays = [tf.TensorArray(tf.int32, 0, True, infer_shape=False, element_shape=[None]) for _ in range(3)]

        def step(length, begin, node, letters, found):
            child = tf.gather(self.base, node) + letters
            there = tf.where(tf.gather(self.parent, child) == node)[:, 0]
            begin, node = tf.gather(begin, there), tf.gather(child, there)
            entry = tf.gather(self.entry, node)
            ends = tf.where(entry >= 0)[:, 0]
            at = tf.gather(begin, ends)
            rows = (at, at + length, tf.gather(entry, ends))
            found = tuple(array.write(length - 1, row) for array, row in zip(found, rows, strict=True))
            return length + 1, begin, node, tf.gather(inner, begin + length), found

        root = tf.zeros_like(starts)
        shape = tf.TensorShape([None])
        _, _, _, _, found = tf.while_loop(
            lambda length, begin, *_: (tf.size(begin) > 0) | (length == 1),
            step,
            (1, starts, root, tf.gather(first, starts), tuple(arrays)),
            shape_invariants=(tf.TensorShape([]), shape, shape, shape, tuple(tf.TensorShape(None) for _ in arrays)),
        )
        return tuple(array.concat() for array in found)


def build_trie(strings: list[tuple[int, ...]], letters: int) -> Trie:
    """Packs strings of letters 1 to `letters`, each once and none empty.

    Example:
        >>> trie = build_trie([(1,), (1, 2), (2, 2)], 2)
        >>> text = tf.constant([1, 2, 2, 0])
        >>> [part.numpy().tolist() for part in trie.find(tf.range(3), text, text)]
        [[0, 0, 1], [1, 2, 3], [0, 1, 2]]
    """
    parents, labels, ends = _nodes(strings, letters)
    children = np.argsort(parents, kind="stable")[1:]  # of node 0, the root, of node 1, ...
    counts = np.bincount(parents[1:], minlength=len(parents))
    first = np.cumsum(counts) - counts
    low = letters + 1  # the places before are left free: base 0 of a leaf leads there
    free = np.ones(low + int(_ROOM * len(parents)) + 8 * letters, bool)
    base, place = np.zeros(len(parents), np.int64), np.zeros(len(parents), np.int64)
    free[:low], place[0] = False, 0
    chance = np.random.default_rng(0)
    left = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts > 1)]
    while len(
        left
    ):  # those with most children first; a handful at a time at places by chance, and again where they do not fit
        batch = left[: max(1, np.searchsorted(np.cumsum(counts[left]), len(free) // _SHARE))]
        row = np.repeat(np.arange(len(batch)), counts[batch])
        within = np.arange(len(row)) - np.repeat(np.cumsum(counts[batch]) - counts[batch], counts[batch])
        own = children[first[batch][row] + within]
        bases = chance.integers(low, len(free) - letters, len(batch))
        places = bases[row] + labels[own]
        alone = np.zeros(len(places), bool)
        alone[np.unique(places, return_index=True)[1]] = True
        fits = np.bincount(row, ~(free[places] & alone), len(batch)) == 0
        base[batch[fits]] = bases[fits]
        place[own[fits[row]]] = places[fits[row]]
        free[places[fits[row]]] = False
        left = np.concatenate([batch[~fits], left[len(batch) :]])
    single = np.flatnonzero(counts == 1)
    own = children[first[single]]
    place[own] = np.flatnonzero(free)[: len(own)]
    base[single] = place[own] - labels[own]
    size = int(place.max()) + letters + 1
    arrays = [np.zeros(size, np.int32), np.full(size, -1, np.int32), np.full(size, -1, np.int32)]
    arrays[0][place] = base
    arrays[1][place[1:]] = place[parents[1:]]
    arrays[2][place[ends]] = np.arange(len(ends))
    return Trie(*arrays)


def _nodes(strings: list[tuple[int, ...]], letters: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nodes of the trie, level by level: the parent and the letter of each, and the node where each string ends."""
    lengths = np.array([len(string) for string in strings])
    flat = np.fromiter((letter for string in strings for letter in string), np.int64, int(lengths.sum()))
    offsets = np.cumsum(lengths) - lengths
    parents, labels = [np.array([-1])], [np.array([0])]
    at, count = np.zeros(len(strings), np.int64), 1
    for depth in range(int(lengths.max(initial=0))):
        going = np.flatnonzero(lengths > depth)
        keys, index = np.unique(at[going] * (letters + 1) + flat[offsets[going] + depth], return_inverse=True)
        parents.append(keys // (letters + 1))
        labels.append(keys % (letters + 1))
        at[going] = count + index
        count += len(keys)
    return np.concatenate(parents), np.concatenate(labels), at
