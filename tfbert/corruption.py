"""Span corruption: which stretches of a text an encoder does not see, and a decoder must write; drawn in the graph for each batch."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfbert import losses
from tfbert._compat import tf
from tfbert.masking import draws_by_row


@dataclasses.dataclass(frozen=True, eq=False)
class Corruption:
    """Hides spans of a batch's rows, as T5's pretraining does; what is drawn for a row depends on (seed, epoch, row) alone.

    A row of n tokens loses a share of them in as many spans as make the mean length wanted. Numbers of tokens and of spans are functions of
    n; where the spans are is drawn: the tokens that are lost, and those that stay, are each cut into that many stretches, every way of
    cutting as likely as another, and a row is a stretch that stays, one that is lost, and so on, as in the authors' code (Raffel et al.
    2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", section 3.1.4; `random_spans_noise_mask`).
    So a row begins with text and ends with a span. In the place of each span the encoder reads a sentinel, a token that stands for it, and
    the decoder writes each sentinel and behind it the span:

        [5, 6, 7, 8, 9] losing 6 and 8, 9 -> encoder [5, <0>, 7, <1>, <end>], decoder [<0>, 6, <1>, 8, 9, <end>]

    Args:
        share: of a row's tokens that are lost, between 0 and 1.
        mean: tokens of a span on average, at least 1.
        sentinels: int32 [S], their ids.
        lead: the tokens that the tokenizer puts before a text.
        end: the id of the token that ends a text.
        longest: tokens of the longest row there can be.
        rows: how many rows the data set has.

    Example:
        >>> corruption = Corruption(share=0.4, mean=2.0, sentinels=(90, 91), lead=(), end=1, longest=5, rows=1)
        >>> ids, mask = tf.constant([[5, 6, 7, 8, 9]]), tf.ones([1, 5], tf.int32)
        >>> inputs, targets = corruption(ids, mask, tf.constant([0], tf.int64), tf.constant(0, tf.int64), seed=0)
        >>> inputs["input_ids"].numpy().tolist(), inputs["is_target"].numpy().tolist()
        ([[5, 6, 7, 90, 1, 1, 90, 8, 9]], [[0, 0, 0, 0, 0, 1, 1, 1, 1]])
        >>> targets.numpy().tolist()
        [[-100, -100, -100, -100, -100, 90, 8, 9, 1]]
    """

    share: float
    mean: float
    sentinels: tuple[int, ...]
    lead: tuple[int, ...]
    end: int
    longest: int
    rows: int

    def __call__(self, ids, mask, rows, epoch, *, seed: int):
        """Draws the spans of a batch.

        Args:
            ids, mask: int32 [B, T], text alone.
            rows: int64 [B], the rows' numbers.
            epoch: int64 scalar, or `masking.FIXED`.
            seed: of the run.

        Returns:
            {"input_ids": what the encoder reads, and behind it the decoder, "is_target": 1 where it is the decoder, "attention_mask"},
            int32 [B, W], and the targets, int32 [B, W]: at each token that the decoder reads the one to be written, IGNORED elsewhere.
        """
        length = tf.reduce_sum(mask, 1)
        tables = counts(self.longest, self.share, self.mean, len(self.sentinels))
        lost, spans = (tf.gather(tf.constant(table), length) for table in tables)  # int32 [B]
        drawn = draws_by_row(rows, epoch, self.rows, [2, self.longest], seed + 2**34)
        first, second = tf.unstack(drawn[:, :, : tf.shape(ids)[1]], axis=1)
        # The tokens of each stretch that stays, and of each span.
        sizes = cut(first, length - lost, spans), cut(second, lost, spans)
        hidden, span = spans_of(*sizes, tf.shape(ids)[1])
        hidden, seen = hidden & (mask > 0), ~hidden & (mask > 0)
        before_seen, before_lost = (tf.cumsum(tf.cast(those, tf.int32), 1, exclusive=True) for those in (seen, hidden))
        read, written = (len(self.lead) + tokens + spans + 1 for tokens in (length - lost, lost))
        written = tf.where(length > 0, written, 0)  # of a row without text there is nothing to learn
        width, none = tf.reduce_max(read + written), tf.zeros_like(read)
        source = self._stream(width, none, read, (before_seen + span, ids, seen), (tf.cumsum(sizes[0], 1), spans))
        target = self._stream(
            width, read, written, (before_lost + span + 1, ids, hidden), (tf.cumsum(sizes[1], 1, exclusive=True), spans)
        )
        place, after = tf.range(width)[tf.newaxis], read[:, tf.newaxis]
        second = (place >= after) & (place < after + written[:, tf.newaxis])
        # The first that the decoder reads is the model's to choose, and is put there in the graph.
        behind = tf.where(place == after, self.end, tf.concat([target[:, :1], target[:, :-1]], 1))
        inputs = {
            "input_ids": tf.where(second, behind, source),
            "is_target": tf.cast(second, tf.int32),
            "attention_mask": tf.cast(second | (place < after), tf.int32),
        }
        return inputs, tf.where(second, target, losses.IGNORED)

    def over(self, rows: int, longest: int) -> Corruption:
        """The same for a data set of so many rows, of which the longest has `longest` tokens: one that comes in a stream."""
        return dataclasses.replace(self, rows=rows, longest=longest)

    def _stream(self, width, begin, length, tokens, sentinels):
        """What one side reads or writes, int32 [B, width], 0 where it is not: lead, tokens with sentinels between them, end.

        Args:
            width: of the rows.
            begin, length: int32 [B], where it is in the row.
            tokens: places behind the lead, ids, and which of them are of this side, [B, T] each.
            sentinels: how many tokens are before each, int32 [B, T], and how many sentinels there are, int32 [B].
        """
        begin, (places, ids, there), (before, spans) = begin[:, tf.newaxis], tokens, sentinels
        lead = tf.range(len(self.lead))[tf.newaxis] + tf.zeros_like(begin)
        number = tf.range(tf.shape(ids)[1])[tf.newaxis] + tf.zeros_like(ids)
        kinds = tf.gather(tf.constant(self.sentinels), tf.minimum(number, len(self.sentinels) - 1))
        first, ends = begin + len(self.lead), tf.fill(tf.shape(begin), self.end)
        return _placed(
            width,
            (begin + lead, tf.constant(self.lead, tf.int32) + tf.zeros_like(lead), lead >= 0),
            (first + places, ids, there),
            (first + before + number, kinds, number < spans[:, tf.newaxis]),
            (begin + length[:, tf.newaxis] - 1, ends, ends == self.end),
        )

    def batch(self, inputs, words, rows, epoch, weight, *, seed: int) -> tuple:
        """Draws the spans of a batch, as Keras' `fit` takes it; as of `masking.Masking`, of which `words` is not read."""
        inputs, targets = self(inputs["input_ids"], inputs["attention_mask"], rows, epoch, seed=seed)
        weight *= tf.cast(tf.reduce_sum(inputs["is_target"], 1), tf.float32)
        return inputs, targets, losses.normalize_weights(weight)


def counts(longest: int, share: float, mean: float, most: int) -> tuple[np.ndarray, np.ndarray]:
    """How many tokens rows of 0, 1, ... `longest` tokens lose, and in how many spans, at most `most`: int32 [longest + 1] twice.

    As in the authors' code: `share` of them, at least one lost and one left, and that number by `mean`, at least one. A row of one token
    loses it.

    Example:
        >>> lost, spans = counts(40, 0.15, 3.0, 100)
        >>> lost[[1, 2, 10, 20, 40]].tolist(), spans[[1, 2, 10, 20, 40]].tolist()
        ([1, 1, 2, 3, 6], [1, 1, 1, 1, 2])
    """
    length = np.arange(longest + 1)
    lost = np.minimum(np.maximum(np.round(length * share), 1), np.maximum(length - 1, 1)) * (length > 0)
    spans = np.minimum(np.maximum(np.round(lost / mean), 1), np.minimum(np.maximum(length - lost, 1), most)) * (
        length > 0
    )
    return lost.astype(np.int32), np.minimum(spans, lost).astype(np.int32)


def room(max_length: int, specials: int, share: float, mean: float, most: int) -> int:
    """The most tokens of text that become an encoder's row of `max_length`, with its sentinels and `specials`; 0 where none does.

    Example:
        >>> room(512, 1, 0.15, 3.0, 100)  # T5's, as in the paper's code
        568
    """
    longest = 2 * max_length + int(max_length / max(1e-6, 1 - share))
    lost, spans = counts(longest, share, mean, most)
    fits = np.flatnonzero(np.arange(longest + 1) - lost + spans + specials <= max_length)
    return int(fits[-1]) if len(fits) else 0


def cut(draws, items, parts):
    """Cuts rows of things into parts of at least one, every way as likely as another.

    Args:
        draws: numbers from 0 to 1, float32 [B, T].
        items: int32 [B], how many things a row has, at most T.
        parts: int32 [B], how many parts, at most `items` (where that is not 0).

    Returns:
        int32 [B, T], the things of the first part, of the second, ...; 0 beyond the last.

    Example:
        >>> cut(tf.constant([[0.9, 0.1, 0.5, 0.3, 0.7]]), tf.constant([5]), tf.constant([3])).numpy().tolist()
        [[2, 2, 1, 0, 0]]
    """
    count, width = tf.shape(draws)[0], tf.shape(draws)[1]
    place = tf.range(width)[tf.newaxis]
    order = tf.argsort(tf.argsort(tf.where(place < items[:, tf.newaxis] - 1, draws, 2.0), stable=True))
    part = tf.cumsum(tf.cast(order < parts[:, tf.newaxis] - 1, tf.int32), 1, exclusive=True)
    flat = tf.where(place < items[:, tf.newaxis], part + width * tf.range(count)[:, tf.newaxis], -1)
    sizes = tf.math.unsorted_segment_sum(tf.ones_like(flat), flat, count * width)
    return tf.reshape(sizes, [count, width])


def spans_of(seen, lost, width):
    """Which tokens are lost, of rows that are a stretch that is seen, one that is lost, and so on.

    Args:
        seen, lost: int32 [B, T], the tokens of the first stretch, of the second, ...
        width: T'.

    Returns:
        Whether each of T' tokens is lost, bool [B, T'], and the number of its stretch, int32 [B, T'].

    Example:
        >>> hidden, span = spans_of(tf.constant([[2, 1]]), tf.constant([[1, 2]]), 6)
        >>> hidden.numpy().astype(int).tolist(), span.numpy().tolist()
        ([[0, 0, 1, 0, 1, 1]], [[0, 0, 0, 1, 1, 1]])
    """
    both = tf.reshape(tf.stack([seen, lost], 2), [tf.shape(seen)[0], -1])
    places = tf.tile(tf.range(width)[tf.newaxis], [tf.shape(seen)[0], 1])
    stretch = tf.searchsorted(tf.cumsum(both, 1), places, side="right")
    return stretch % 2 == 1, stretch // 2


def _placed(width, *parts):
    """int32 [B, width] with the values of each part, [B, n], at its places, [B, n], where its third, bool [B, n], says so; 0 elsewhere."""
    count = tf.shape(parts[0][1])[0]
    found = tf.zeros([count, width + 1], tf.int32)
    for places, values, there in parts:
        places = tf.where(there, places, width)  # what is not there goes into a column that is cut off
        rows = tf.range(count)[:, tf.newaxis] + tf.zeros_like(places)
        found = tf.tensor_scatter_nd_update(found, tf.stack([rows, places], 2), values)
    return found[:, :width]
