"""Which tokens a masked language model must guess, drawn in the graph for each batch: single tokens, whole words, or spans of words."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import numpy as np

from tfbert import losses
from tfbert._compat import tf

SHARE = 0.15  # of a row's tokens are to be guessed (Devlin et al. 2019, section 3.1)
HIDDEN, OTHER = 0.8, 0.1  # of these, what the mask token stands for, and what another token; the rest stays as it is
# Of spans the geometric distribution's p, and the most words (Joshi et al. 2020, section 3.1).
SHORTER, LONGEST = 0.2, 10
UNITS = ("token", "whole-word", "span")
STEPS = 2**23  # as many numbers from 0 to 1 as float32 has at even distances
FIXED = -1  # in place of an epoch's number: masks that are always the same


@dataclasses.dataclass(frozen=True, eq=False)
class Masking:
    """Hides tokens of a batch's rows, as BERT's pretraining does; what is drawn for a row depends on (seed, epoch, row) alone.

    Units of text (tokens, words or spans) are taken in random order until 15 % of the row's tokens are. The unit with which they would be
    more is taken with a probability by which their expected number is just 15 %, and every unit, short or long, as likely as another. The
    first is always taken, so that a row of text has one. Of the tokens taken 80 % become the mask token, 10 % another token of the
    vocabulary, drawn evenly, and 10 % stay: each for itself, in spans all of one span alike. Spans do not overlap: a row is cut into spans,
    of which some are taken.

    Args:
        units: "token" (Devlin et al. 2019), "whole-word" (all pieces of a word or none; BERT's later checkpoints), or "span" (SpanBERT;
            Joshi et al. 2020): whole words, their number from a geometric distribution of p 0.2 cut at 10, 3.8 on average.
        mask_id: the mask token's id.
        others: int32 [V'], the ids that may stand for another: the vocabulary without special tokens.
        longest: tokens of the longest row there can be.
        rows: how many rows the data set has.

    Example:
        >>> masking = Masking("whole-word", mask_id=4, others=np.array([7, 8, 9], np.int32), longest=6, rows=1)
        >>> ids, words = tf.constant([[2, 11, 12, 13, 14, 3]]), tf.constant([[-1, 0, 0, 1, 2, -1]])
        >>> inputs, targets = masking(ids, words, tf.constant([0], tf.int64), tf.constant(3, tf.int64), seed=0)
        >>> inputs["masked"].numpy().tolist(), targets.numpy().tolist()
        ([[0, 0, 0, 0, 1, 0]], [[-100, -100, -100, -100, 14, -100]])
    """

    hidden: ClassVar[float] = HIDDEN
    other: ClassVar[float] = OTHER
    numbers: ClassVar[int] = 5  # drawn for each token

    units: str
    mask_id: int
    others: np.ndarray
    longest: int
    rows: int

    def __call__(self, ids, words, rows, epoch, *, seed: int):
        """Draws the masks of a batch.

        Args:
            ids: int32 [B, T].
            words: int32 [B, T], the number of each token's word, ascending; -1 for special tokens and padding.
            rows: int64 [B], the rows' numbers.
            epoch: int64 scalar, or FIXED.
            seed: of the run.

        Returns:
            {"input_ids": what the model reads, "masked": 1 where it must guess}, both int32 [B, T], and the targets, int32 [B, T]: the ids
            to guess, losses.IGNORED elsewhere.
        """
        drawn = self._draws(rows, epoch, seed)[:, :, : tf.shape(ids)[1]]
        order, crossing, kind, other, length = tf.unstack(drawn, axis=1)[:5]  # float32 [B, T] each
        unit = number_units(words, self.units, span_lengths(length))
        taken = take(unit, order, crossing)
        if self.units == "span":
            kind = tf.gather(kind, tf.maximum(unit, 0), batch_dims=1)
        other = tf.gather(tf.constant(self.others), tf.cast(other * len(self.others), tf.int32))
        seen = tf.where(kind < self.hidden, self.mask_id, tf.where(kind < self.hidden + self.other, other, ids))
        inputs = {"input_ids": tf.where(taken, seen, ids), "masked": tf.cast(taken, tf.int32)}
        return inputs, tf.where(taken, ids, losses.IGNORED)

    def batch(self, inputs, words, rows, epoch, weight, *, seed: int) -> tuple:
        """Draws the masks of a batch, as Keras' `fit` takes it.

        Args:
            inputs: {"input_ids", "attention_mask", ...}, int32 [B, T].
            words, rows, epoch, seed: as of the call.
            weight: float32 [B], the rows' own.

        Returns:
            Inputs, targets, and weights of mean 1, by which the mean of the rows' losses is the mean over all tokens to be guessed.
        """
        changed, targets = self(inputs["input_ids"], words, rows, epoch, seed=seed)
        weight *= tf.cast(tf.reduce_sum(changed["masked"], 1), tf.float32)
        return {**inputs, **changed}, targets, losses.normalize_weights(weight)

    def over(self, rows: int, longest: int) -> Masking:
        """The same for a data set of so many rows, of which the longest has `longest` tokens: one that comes in a stream."""
        return dataclasses.replace(self, rows=rows)

    def _draws(self, rows, epoch, seed: int):
        return draws_by_row(rows, epoch, self.rows, [self.numbers, self.longest], seed + 2**32)


class ReplacedMasking(Masking):
    """Draws the masks of replaced token detection (Clark et al. 2020, "ELECTRA"), and the numbers that choose what the generator writes.

    Of the tokens taken 85 % become the mask token, 15 % stay, as in the authors' code. The inputs have "draw" beside, int32 [B, T], a
    number below STEPS for each token. Targets and weights of a batch are dicts: of "logits" as in `Masking`; of "replaced" the row's own
    ids, IGNORED in padding, and by the weights the mean of the rows' losses is the mean over all tokens.
    """

    hidden: ClassVar[float] = 0.85
    other: ClassVar[float] = 0.0
    numbers: ClassVar[int] = 6

    def batch(self, inputs, words, rows, epoch, weight, *, seed: int) -> tuple:
        """As of `Masking`."""
        ids, real = inputs["input_ids"], inputs["attention_mask"]
        inputs, targets, weights = super().batch(inputs, words, rows, epoch, weight, seed=seed)
        draw = self._draws(rows, epoch, seed)[:, 5, : tf.shape(ids)[1]]
        inputs["draw"] = tf.cast(draw * STEPS, tf.int32)
        tokens = losses.normalize_weights(weight * tf.cast(tf.reduce_sum(real, 1), tf.float32))
        originals = tf.where(real > 0, ids, losses.IGNORED)
        return inputs, {"logits": targets, "replaced": originals}, {"logits": weights, "replaced": tokens}


def draws_by_row(rows, epoch, count: int, shape: list[int], seed: int):
    """Numbers from 0 to 1 for every row by itself, float32 [B, *shape]: whatever stands beside a row in its batch changes nothing.

    Args:
        rows: int64 [B], the rows' numbers.
        epoch: int64 scalar, or FIXED.
        count: how many rows the data set has.
        shape: what is drawn for each.
        seed: another one for each purpose; that of the run itself orders the epoch's rows.
    """
    seeds = tf.stack([tf.fill(tf.shape(rows), tf.constant(seed, tf.int64)), epoch * count + rows], 1)
    return tf.map_fn(
        lambda own: tf.random.stateless_uniform(shape, own, alg="philox"),
        seeds,
        fn_output_signature=tf.TensorSpec(shape, tf.float32),
    )


def span_lengths(draws):
    """Numbers from 0 to 1 -> lengths of spans in words, int32: geometric, p = 0.2, given that they are at most 10.

    Example:
        >>> span_lengths(tf.constant([0.0, 0.3, 0.6, 0.999999])).numpy().tolist()
        [1, 2, 4, 10]
    """
    within = 1 - (1 - SHORTER) ** LONGEST
    lengths = 1 + tf.floor(tf.math.log1p(-draws * within) / math.log(1 - SHORTER))
    return tf.cast(tf.minimum(lengths, LONGEST), tf.int32)


def number_units(words, units: str, lengths):
    """Numbers the units of each row from 0: int32 [B, T], -1 where there is no text.

    Args:
        words: int32 [B, T], as `Masking` takes them.
        units: "token", "whole-word" or "span".
        lengths: int32 [B, T], the words of the row's first span, of its second, ...

    Example:
        >>> words, lengths = tf.constant([[-1, 4, 4, 5, 6, 7, -1]]), tf.constant([[2, 1, 9, 9, 9, 9, 9]])
        >>> [number_units(words, units, lengths).numpy().tolist() for units in ("whole-word", "span")]
        [[[-1, 0, 0, 1, 2, 3, -1]], [[-1, 0, 0, 0, 1, 2, -1]]]
    """
    text = words >= 0
    if units == "token":
        return tf.where(text, tf.range(tf.shape(words)[1]), -1)
    before = tf.concat([tf.fill([tf.shape(words)[0], 1], -1), words[:, :-1]], 1)
    number = tf.cumsum(tf.cast(text & (words != before), tf.int32), 1) - 1
    if units == "span":
        number = tf.searchsorted(tf.cumsum(lengths, 1), number, side="right")
    return tf.where(text, number, -1)


def take(unit, order, crossing):
    """Takes units in random order until SHARE of a row's tokens are taken.

    Args:
        unit: int32 [B, T], the unit of each token, 0 to T - 1; -1 where there is no text.
        order: numbers from 0 to 1 by unit, float32 [B, T], in whose order they come.
        crossing: numbers from 0 to 1, float32 [B, T]: whether the unit that goes beyond the share is taken.

    Returns:
        Whether each token is taken, bool [B, T].

    Example:
        >>> unit, half = tf.constant([[-1, *range(18), -1]]), tf.fill([1, 20], 0.5)
        >>> order = tf.constant([[0.1, *[0.9] * 8, 0.2, 0.3, *[0.9] * 9]])  # units 0, 9 and 10 come first, and 15 % of 18 are 2.7
        >>> tf.where(take(unit, order, half)[0])[:, 0].numpy().tolist(), tf.where(take(unit, order, half + 0.3)[0])[:, 0].numpy().tolist()
        ([1, 10, 11], [1, 10])
    """
    count, width = tf.shape(unit)[0], tf.shape(unit)[1]
    text = unit >= 0
    flat = tf.where(text, unit + width * tf.range(count)[:, tf.newaxis], -1)
    size = tf.reshape(tf.math.unsorted_segment_sum(tf.cast(text, tf.float32), flat, count * width), [count, width])
    places = tf.argsort(tf.where(size > 0, order, 2.0), stable=True)
    size = tf.gather(size, places, batch_dims=1)
    tokens = tf.reduce_sum(size, 1, keepdims=True)
    left = SHARE * tokens - tf.cumsum(size, 1, exclusive=True)
    # Long units would cross the line, and be left out, more often than short ones: the line is moved by size, on average not at all.
    left += (0.5 - SHARE) * (size - tf.math.divide_no_nan(tf.reduce_sum(size**2, 1, keepdims=True), tokens))
    taken = (tf.math.divide_no_nan(left, size) > crossing) | ((tf.range(width) == 0) & (size > 0))
    taken = tf.gather(taken, tf.argsort(places), batch_dims=1)  # by unit
    return text & tf.gather(taken, tf.maximum(unit, 0), batch_dims=1)
