"""The Unigram model as TensorFlow ops: the way through all pieces of a word with the greatest sum of scores (Kudo, 2018, arXiv:1804.10959).

All words of a batch are searched at once, and long words in parts: no way passes a place where no piece goes on from before it to after
it. Of equal sums the one with the longer last piece is kept, as in the Rust tokenizers. These add up float64 scores from the beginning of
the word, and rounding decides where sums are equal on paper ("aaa" as "a", "aa" or "aa", "a"): words with sums so close are searched
again, as a whole and with the same additions.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfbert._compat import tf
from tfbert.tokenization.trie import Trie
from tfbert.tokenization.viterbi import best_pieces

_UNKNOWN_PENALTY = 10.0
_ROUNDING = 2.0**-50  # each of the additions along a word is wrong by less than this part of the sum


@dataclasses.dataclass(frozen=True)
class Unigram:
    """The search.

    Args:
        trie: the pieces, as strings of letters.
        scores: float64 [E + 1], of the entries of the trie, and of an unknown character.
        ids: int32 [E + 1], the same for the ids.
        whole: bool [E], the entries that are one piece where they are a whole word.
        reach: the most letters of an entry.
        guarded: bool [E], the entries in whose place a text is cut after the first character (see `load_tokenizer`).
    """

    trie: Trie
    scores: np.ndarray
    ids: np.ndarray
    whole: np.ndarray
    reach: int
    guarded: np.ndarray

    def __call__(self, letters, begins) -> tuple:
        """Cuts words into pieces.

        Args:
            letters: int32 [K], the characters of all words; 0 for one that is in no piece.
            begins: bool [K], where a word begins.

        Returns:
            (starts, ids, begins): int32 [N], the character where each piece begins and its id, -1 for unknown characters, one by
            one; bool [K], where a word begins after the cuts in guarded strings.
        """
        trie = self.trie.constants()
        first = tf.concat([letters, [0]], 0)
        inner = tf.concat([tf.where(begins, 0, letters), [0]], 0)
        words = tf.cast(tf.where(begins)[:, 0], tf.int32)
        edges = trie.find(words, first, inner)
        word_ends = tf.concat([words[1:], [tf.size(letters)]], 0)
        # Most words are one piece, and need no search.
        number = tf.cumsum(tf.cast(begins, tf.int32)) - 1
        done = tf.gather(self.whole, edges[2]) & (edges[1] == tf.gather(word_ends, tf.gather(number, edges[0])))
        simple = [tf.gather(part, tf.where(done)[:, 0]) for part in (edges[0], edges[2])]
        search = tf.tensor_scatter_nd_update(
            tf.ones_like(words, tf.bool), tf.gather(number, simple[0])[:, tf.newaxis], tf.zeros_like(simple[0], tf.bool)
        )
        found = tf.fill([tf.size(letters)], -2)
        found = tf.tensor_scatter_nd_update(found, simple[0][:, tf.newaxis], tf.gather(self.ids, simple[1]))
        searched = tf.gather(search, number)
        found, begins = tf.cond(
            tf.reduce_any(search),
            lambda: self._search(trie, first, inner, begins, searched, edges, found),
            lambda: (found, begins),
        )
        places = tf.where(found != -2)[:, 0]
        return tf.cast(places, tf.int32), tf.gather(found, places), begins

    def _search(self, trie: Trie, first, inner, begins, searched, edges, found) -> tuple:
        """Fills in the ids of the words that are searched: (found, begins), int32 and bool [K]."""
        keep = tf.where(tf.gather(searched, edges[0]))[:, 0]
        rest = tf.cast(tf.where(searched & ~begins)[:, 0], tf.int32)
        more = trie.find(rest, first, inner)
        edges = tuple(tf.concat([tf.gather(edge, keep), other], 0) for edge, other in zip(edges, more, strict=True))
        if self.guarded.any():
            guarded = tf.gather(self.guarded, edges[2])
            edges, begins = tf.cond(
                tf.reduce_any(guarded), lambda: _cut(edges, begins, guarded), lambda: (edges, begins)
            )
        # From here on there are no other characters than those of the words that are searched.
        places = tf.cast(tf.where(searched)[:, 0], tf.int32)
        starts = tf.gather(tf.cumsum(tf.cast(searched, tf.int32)) - 1, edges[0])
        best, entries = self._best(starts, starts + edges[1] - edges[0], edges[2], tf.gather(begins, places))
        places = tf.gather(places, best)
        return tf.tensor_scatter_nd_update(found, places[:, tf.newaxis], tf.gather(self.ids, entries)), begins

    def _best(self, starts, ends, entries, begins) -> tuple:
        """Where the best pieces begin, and their entries, int32 [N], among all pieces, int32 [E]; begins: bool [K]."""
        size = tf.size(begins)
        single = tf.gather(starts, tf.where(ends == starts + 1)[:, 0])
        unknown = tf.math.unsorted_segment_sum(tf.ones_like(single), single, size) == 0
        unknown = tf.cast(tf.where(unknown)[:, 0], tf.int32)
        starts, ends = tf.concat([starts, unknown], 0), tf.concat([ends, unknown + 1], 0)
        entries = tf.concat([entries, tf.fill([tf.size(unknown)], len(self.ids) - 1)], 0)
        scores = tf.gather(self.scores, entries)
        ones = tf.ones_like(starts)
        going = tf.math.unsorted_segment_sum(ones, starts + 1, size + 1)
        going = tf.cumsum(going - tf.math.unsorted_segment_sum(ones, ends, size + 1))
        word = tf.cumsum(tf.cast(begins, tf.int32)) - 1
        longest = tf.cast(tf.reduce_max(tf.math.segment_sum(tf.ones_like(word), word)), tf.float64)
        error = _ROUNDING * float(np.abs(self.scores).max()) * longest * longest
        search = tf.function(
            lambda *edges: best_pieces(*edges, error, self.reach),
            input_signature=[tf.TensorSpec([None], kind) for kind in (tf.int32, tf.int32, tf.float64, tf.bool)],
        )  # made once, used twice
        best, close = search(starts, ends, scores, begins | (going[:-1] == 0))
        doubtful = tf.math.unsorted_segment_sum(close, tf.gather(word, tf.gather(starts, best)), size) > 0
        doubtful = tf.gather(doubtful, tf.gather(word, starts))

        def again():
            own = tf.where(doubtful)[:, 0]
            exact, _ = search(*(tf.gather(part, own) for part in (starts, ends, scores)), begins)
            certain = tf.gather(best, tf.where(~tf.gather(doubtful, best))[:, 0])
            return tf.concat([certain, tf.gather(own, exact)], 0)

        best = tf.cond(tf.reduce_any(doubtful), again, lambda: best)
        return tf.gather(starts, best), tf.gather(entries, best)


def _cut(edges, begins, guarded) -> tuple:
    """Lets words begin after the first characters of guarded strings, and takes away the pieces that go over there."""
    starts, ends, entries = edges
    cut = tf.gather(starts, tf.where(guarded)[:, 0]) + 1
    cuts = tf.math.unsorted_segment_max(tf.ones_like(cut), cut, tf.size(begins)) > 0
    count = tf.cumsum(tf.cast(cuts, tf.int32))
    stay = tf.where(tf.gather(count, ends - 1) == tf.gather(count, starts))[:, 0]
    return tuple(tf.gather(edge, stay) for edge in edges), begins | cuts


def unknown_score(scores: np.ndarray) -> float:
    """What a character in no piece adds to the sum."""
    return float(scores.min()) - _UNKNOWN_PENALTY
