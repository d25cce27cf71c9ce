"""Masks: their shares over a million tokens against the papers' probabilities, and that (seed, epoch, row) alone decides them."""

from __future__ import annotations

import numpy as np
import pytest

from tfbert._compat import tf
from tfbert.losses import IGNORED
from tfbert.masking import FIXED, SHARE, UNITS, Masking, number_units, span_lengths, take

MASK, LENGTH, ROWS = 4, 128, 8000  # 8,000 rows of 126 tokens of text
OTHERS = np.arange(1000, 1500, dtype=np.int32)
WORDS = np.random.default_rng(3).choice([1, 1, 1, 1, 2, 3], [ROWS, LENGTH])  # pieces of each word
# The mean of a geometric distribution of p = 0.2, given that it is at most 10: 3.797
MEAN = sum(k * 0.2 * 0.8 ** (k - 1) for k in range(1, 11)) / (1 - 0.8**10)


def words_of_rows() -> np.ndarray:
    """The number of each token's word, [ROWS, LENGTH], -1 for the special tokens at both ends."""
    words = np.full([ROWS, LENGTH], -1, np.int32)
    for row, pieces in zip(words, WORDS):
        row[1:-1] = 7 + np.repeat(np.arange(LENGTH), pieces)[: LENGTH - 2]
    return words


IDS = np.where(words_of_rows() < 0, 2, np.arange(2000, 2000 + LENGTH, dtype=np.int32))  # never one of OTHERS


def masks(units: str, epoch: int = 0, seed: int = 0, rows=None, width: int = LENGTH) -> tuple:
    rows = np.arange(ROWS) if rows is None else np.asarray(rows)
    masking = Masking(units, MASK, OTHERS, longest=LENGTH, rows=ROWS)
    inputs, targets = tf.function(masking)(
        tf.constant(IDS[rows, :width]),
        tf.constant(words_of_rows()[rows, :width]),
        tf.constant(rows, tf.int64),
        tf.constant(epoch, tf.int64),
        seed=seed,
    )
    return inputs["input_ids"].numpy(), inputs["masked"].numpy(), targets.numpy()


def near(share: float, expected: float, count: int, clustered: float = 1.0) -> None:
    """Within five standard deviations of a share of `count` draws."""
    assert abs(share - expected) < 5 * clustered * np.sqrt(expected * (1 - expected) / count), share


@pytest.mark.parametrize("units", UNITS)
def test_a_million_tokens_have_the_papers_shares(units):
    ids, masked, targets = masks(units)
    text, words = words_of_rows() >= 0, words_of_rows()
    assert text.sum() == 1_008_000 and not masked[~text].any()
    taken = masked > 0
    np.testing.assert_array_equal(targets, np.where(taken, IDS, IGNORED))
    np.testing.assert_array_equal(ids[~taken], IDS[~taken])
    # The share of each row is met to a unit, so that the whole is met far closer than by a coin for each token.
    assert abs(taken.sum() / text.sum() - SHARE) < {"token": 2e-4, "whole-word": 5e-4, "span": 2e-3}[units]
    count = taken.sum()
    of_spans = 3.0 if units == "span" else 1.0  # the tokens of a span go together: so much more spread
    near((ids[taken] == MASK).mean(), 0.8, count, of_spans)
    near(((ids >= 1000) & (ids < 1500))[taken].mean(), 0.1, count, of_spans)
    near((ids == IDS)[taken].mean(), 0.1, count, of_spans)
    drawn = np.bincount(ids[taken & (ids >= 1000) & (ids < 1500)] - 1000, minlength=500)
    assert drawn.min() > 0 and (drawn - drawn.mean()).std() < 1.25 * np.sqrt(drawn.mean())
    # Everywhere in a row as often: the mean of 8,000 rows by place.
    by_place = taken[:, 1:-1].mean(0)
    assert np.abs(by_place - SHARE).max() < 0.025
    if units != "token":
        same = words[:, 1:] == words[:, :-1]
        np.testing.assert_array_equal(taken[:, 1:][same & text[:, 1:]], taken[:, :-1][same & text[:, 1:]])


def test_of_single_tokens_the_number_is_that_of_the_share_rounded_up_or_down():
    counts = masks("token")[1].sum(1)
    assert set(counts) == {18, 19}  # 15 % of 126 are 18.9
    near((counts == 19).mean(), 0.9, ROWS)


def test_spans_are_geometric_cut_at_ten_and_3_8_words_long():
    draws = np.random.default_rng(0).random(1_000_000, np.float32)
    lengths = span_lengths(tf.constant(draws)).numpy()
    expected = 0.2 * 0.8 ** np.arange(10) / (1 - 0.8**10)
    assert lengths.min() == 1 and lengths.max() == 10
    for k in range(1, 11):
        near((lengths == k).mean(), expected[k - 1], len(lengths))
    assert lengths.mean() == pytest.approx(MEAN, abs=0.01) and round(MEAN, 1) == 3.8


def test_the_spans_that_are_taken_have_that_length_too():
    """Counted where spans are known: by their numbers, of rows of one-piece words, without the last one, which the row's end cuts."""
    rows, width = 4000, 256
    words = tf.tile(tf.range(width)[tf.newaxis], [rows, 1])
    order, crossing, length = tf.unstack(tf.random.stateless_uniform([3, rows, width], [5, 6]))
    unit = number_units(words, "span", span_lengths(length))
    taken = take(unit, order, crossing).numpy()
    unit = unit.numpy()
    lengths = []
    for own, numbers in zip(taken, unit):
        counts = np.bincount(numbers[own & (numbers < numbers[-1])])
        lengths += counts[counts > 0].tolist()
    # Those that end within a row are a little shorter: 3.76 by renewal theory.
    assert len(lengths) > 30_000 and np.mean(lengths) == pytest.approx(3.76, abs=0.03)
    assert taken.mean() == pytest.approx(SHARE, abs=2e-3)


def test_a_long_word_is_taken_as_often_as_a_short_one():
    words, taken = words_of_rows(), masks("whole-word")[1]
    flat = words + 1000 * np.arange(ROWS)[:, np.newaxis]
    _, first, sizes = np.unique(flat[words >= 0], return_index=True, return_counts=True)
    whole = taken[words >= 0][first] > 0
    for size in (1, 2, 3):
        near(whole[sizes == size].mean(), SHARE, (sizes == size).sum())


@pytest.mark.parametrize("units", UNITS)
def test_seed_epoch_and_row_alone_decide(units):
    rows = np.array([5, 17, 4096])
    first = masks(units, epoch=3, seed=2, rows=rows)
    for one, other in zip(first, masks(units, epoch=3, seed=2, rows=rows[::-1])):
        np.testing.assert_array_equal(one, other[::-1])
    for one, other in zip(first, masks(units, epoch=3, seed=2, rows=[17, 18, 19, 20])):
        np.testing.assert_array_equal(one[1], other[0])
    for changes in ({"epoch": 4, "seed": 2}, {"epoch": 3, "seed": 3}, {"epoch": FIXED, "seed": 2}):
        assert (masks(units, rows=rows, **changes)[1] != first[1]).any(1).all()


def test_padding_does_not_change_what_is_drawn():
    """Rows of 40 tokens in a batch as wide as they are, and in one of 128."""
    masking = Masking("span", MASK, OTHERS, longest=LENGTH, rows=3)
    rows, epoch = tf.range(3, dtype=tf.int64), tf.constant(1, tf.int64)
    wide = np.where(np.arange(LENGTH) < 40, words_of_rows()[:3], -1)
    narrow_inputs, narrow = masking(tf.constant(IDS[:3, :40]), tf.constant(wide[:, :40]), rows, epoch, seed=0)
    wide_inputs, targets = masking(tf.constant(IDS[:3]), tf.constant(wide), rows, epoch, seed=0)
    np.testing.assert_array_equal(targets[:, :40], narrow)
    assert (targets.numpy()[:, 40:] == IGNORED).all() and narrow_inputs["masked"].numpy().sum() > 3
    np.testing.assert_array_equal(wide_inputs["input_ids"][:, :40], narrow_inputs["input_ids"])


def test_a_short_row_has_one_token_to_guess_and_one_without_text_none():
    masking = Masking("token", MASK, OTHERS, longest=LENGTH, rows=400)
    words = np.tile([[-1, 0, 1, -1], [-1, -1, -1, -1]], [200, 1]).astype(np.int32)
    _, targets = masking(
        tf.fill([400, 4], 2000), tf.constant(words), tf.range(400, dtype=tf.int64), tf.constant(0, tf.int64), seed=0
    )
    counts = (targets.numpy() != IGNORED).sum(1)
    assert (counts[::2] == 1).all() and (counts[1::2] == 0).all()
