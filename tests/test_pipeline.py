"""Batches: every row once an epoch, an order that (seed, epoch) decides, exact restart, padding and weights."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.features import Features
from tfbert.pipeline import batches, epoch_order, statistics, whole_examples


def make_features(count: int = 203, seed: int = 0, weights=None) -> Features:
    """Row i holds the id i, repeated 2 to 40 times, and has the target i."""
    lengths = np.random.default_rng(seed).integers(2, 41, size=count)
    splits = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.repeat(np.arange(count), lengths).astype(np.int32)
    types = np.concatenate([np.arange(n) % 2 for n in lengths]).astype(np.int32)
    return Features(
        ragged={"input_ids": (ids, splits), "token_type_ids": (types, splits)},
        padding={"input_ids": -7, "token_type_ids": 0},
        targets=np.arange(count, dtype=np.int32),
        weights=np.ones(count, np.float32) if weights is None else weights,
    )


def one_pass(dataset) -> list:
    return [(inputs, targets.numpy(), weights.numpy()) for inputs, targets, weights in dataset]


def order_of(dataset) -> list[int]:
    return [int(i) for _, targets, _ in one_pass(dataset) for i in targets]


def test_each_epoch_holds_every_row_once_in_a_new_order():
    dataset = batches(make_features(), batch_size=16, training=True, seed=3)
    first, second = order_of(dataset), order_of(dataset)
    assert sorted(first) == sorted(second) == list(range(203))
    assert first != second
    assert int(dataset.cardinality()) == 13


def test_order_depends_on_seed_and_epoch_alone():
    one, two = (batches(make_features(), batch_size=16, training=True, seed=3) for _ in range(2))
    assert [order_of(one), order_of(one)] == [order_of(two), order_of(two)]
    assert order_of(batches(make_features(), batch_size=16, training=True, seed=4)) != order_of(
        batches(make_features(), batch_size=16, training=True, seed=3)
    )


@pytest.mark.parametrize("epoch, batch", [(0, 1), (0, 12), (1, 0), (1, 7), (2, 5)])
def test_a_restart_gives_the_remaining_batches_and_then_the_next_epoch(epoch, batch):
    whole = batches(make_features(), batch_size=16, training=True, seed=5)
    passes = [one_pass(whole) for _ in range(4)]
    restarted = batches(make_features(), batch_size=16, training=True, seed=5, start=(epoch, batch))
    for expected in (passes[epoch][batch:], passes[epoch + 1]):
        got = one_pass(restarted)
        assert len(got) == len(expected)
        for (inputs, targets, _), (inputs_expected, targets_expected, _) in zip(got, expected):
            np.testing.assert_array_equal(targets, targets_expected)
            np.testing.assert_array_equal(inputs["input_ids"], inputs_expected["input_ids"])


def test_rows_are_padded_with_their_own_value_and_masked():
    features = make_features(50)
    for inputs, targets, _ in batches(features, batch_size=8, training=True):
        widest = max(features.lengths[i] for i in targets.numpy())
        assert inputs["input_ids"].shape == inputs["attention_mask"].shape == (len(targets), widest)
        for row, i in enumerate(targets.numpy()):
            n = features.lengths[i]
            assert inputs["input_ids"][row].numpy().tolist() == [i] * n + [-7] * (widest - n)
            assert inputs["token_type_ids"][row].numpy().tolist() == [j % 2 for j in range(n)] + [0] * (widest - n)
            assert inputs["attention_mask"][row].numpy().tolist() == [1] * n + [0] * (widest - n)


def test_without_training_the_order_is_that_of_the_rows():
    assert order_of(batches(make_features(37), batch_size=8)) == list(range(37))


def make_examples(count: int = 61, seed: int = 2) -> Features:
    """Example i has 1 to 5 rows; every token of its rows is the id i, and has the word number of its place in the row."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, count)
    lengths = rng.integers(2, 20, sizes.sum())
    splits = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.repeat(np.repeat(np.arange(count), sizes), lengths).astype(np.int32)
    places = np.concatenate([np.arange(n) for n in lengths]).astype(np.int32)
    return Features(
        ragged={"input_ids": (ids, splits)},
        padding={"input_ids": -7},
        targets=np.arange(count, dtype=np.int32),
        examples=np.concatenate([[0], np.cumsum(sizes)]),
        aligned={"word": (places, splits), "owned": (places % 2 == 0, splits)},
    )


def test_the_rows_of_an_example_are_in_one_batch_whatever_the_order():
    features = make_examples()
    given = np.random.default_rng(1).permutation(61)
    seen = []
    for rows in whole_examples(features, batch_size=8, order=given):
        ids, mask, example = rows.ids["input_ids"].numpy(), rows.ids["attention_mask"].numpy(), rows.example.numpy()
        assert len(ids) <= 8 and example.tolist() == sorted(example) and set(example) == set(range(int(rows.count)))
        numbers = [int(ids[list(example).index(k), 0]) for k in range(int(rows.count))]
        seen += numbers
        for row, own, number in zip(ids, mask, example):
            assert (row[own > 0] == numbers[number]).all() and (row[own == 0] == -7).all()
        for k, number in enumerate(numbers):
            first, last = features.examples[number], features.examples[number + 1]
            assert mask[example == k].sum(1).tolist() == features.lengths[first:last].tolist()
        places = np.cumsum(mask, 1) - 1
        np.testing.assert_array_equal(rows.word.numpy(), np.where(mask > 0, places, 0))
        np.testing.assert_array_equal(rows.owned.numpy(), (mask > 0) & (places % 2 == 0))
        assert rows.piece is None and rows.start is None
    assert seen == given.tolist()


def test_an_example_of_more_rows_than_a_batch_is_a_batch_by_itself():
    counts = [int(rows.count) for rows in whole_examples(make_examples(), batch_size=1)]
    assert counts == [1] * 61


@pytest.mark.parametrize("alone", [False, True])
def test_training_draws_examples_with_all_their_rows_or_each_row_by_itself(alone):
    features = dataclasses.replace(make_examples(), alone=alone, numbered=not alone)
    if alone:
        owner = np.repeat(np.arange(61), np.diff(features.examples)).astype(np.int32)
        features = dataclasses.replace(features, targets=owner)
    seen, positions = [], 0
    for inputs, targets, weights in batches(features, batch_size=4, training=True):
        ids = inputs["input_ids"].numpy()
        example = np.arange(len(targets)) if alone else inputs["example"].numpy()
        assert ids[:, 0].tolist() == targets.numpy()[example].tolist()
        np.testing.assert_array_equal(weights, np.ones(len(targets)))
        seen += targets.numpy().tolist()
        positions += ids.size
    assert sorted(seen) == sorted(features.targets.tolist())
    cost = statistics(features, batch_size=4, training=True)
    assert cost.tokens == features.lengths.sum() and cost.padding_share == pytest.approx(1 - cost.tokens / positions)
    assert cost.steps == -(-len(seen) // 4)


def test_targets_of_tokens_are_filled_up_as_wide_as_the_ids():
    features = make_features(10)
    values, splits = features.ragged["input_ids"]
    features = dataclasses.replace(features, targets=(values + 1, splits))
    for inputs, targets, _ in batches(features, batch_size=4, pad_to=(64,)):
        mask = inputs["attention_mask"].numpy() > 0
        np.testing.assert_array_equal(targets.numpy(), np.where(mask, inputs["input_ids"].numpy() + 1, -100))


def test_rows_of_like_length_share_a_batch():
    features = make_features(4000)
    cost = statistics(features, batch_size=32, training=True, seed=1)
    positions = sum(
        int(np.prod(inputs["input_ids"].shape))
        for inputs, _, _ in batches(features, batch_size=32, training=True, seed=1)
    )
    assert cost.tokens == features.lengths.sum()
    assert cost.padding_share == pytest.approx(1 - cost.tokens / positions, abs=1e-12)
    assert cost.padding_share < 0.03
    assert statistics(features, batch_size=32).padding_share > 0.4


@pytest.mark.parametrize("pad_to", [(64,), (16, 32, 48)])
def test_static_shapes_fill_the_last_batch_with_rows_of_weight_zero(pad_to):
    features = make_features(35)
    dataset = batches(features, batch_size=8, training=True, pad_to=pad_to)
    width = pad_to[0] if len(pad_to) == 1 else None
    assert dataset.element_spec[0]["input_ids"].shape.as_list() == [8, width]
    seen = []
    for inputs, targets, weights in dataset:
        assert inputs["input_ids"].shape[0] == 8 and inputs["input_ids"].shape[1] in pad_to
        real = weights.numpy() > 0
        seen += targets.numpy()[real].tolist()
        assert weights.numpy().sum() == pytest.approx(8)
    assert sorted(seen) == list(range(35))
    assert statistics(features, batch_size=8, training=True, pad_to=pad_to).padding_share > 0


def test_weights_have_mean_one_in_each_batch():
    weights = np.random.default_rng(2).uniform(0, 3, 40).astype(np.float32)
    for _, targets, got in batches(make_features(40, weights=weights), batch_size=16, training=True):
        expected = weights[targets.numpy()] * len(targets) / weights[targets.numpy()].sum()
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_batches_of_a_permutation_are_sorted_within_their_window():
    lengths = np.random.default_rng(0).integers(1, 100, 500)
    order, numbers = (t.numpy() for t in epoch_order(tf.constant(lengths, tf.int64), 4, 9, tf.constant(2, tf.int64)))
    assert sorted(order) == list(range(500)) and sorted(numbers) == list(range(125))
    for start in range(0, 500, 200):  # 50 batches of 4
        assert (np.diff(lengths[order[start : start + 200]]) >= 0).all()


def test_batches_of_a_small_set_hold_other_rows_in_each_epoch():
    dataset = batches(make_features(64), batch_size=16, training=True, seed=1)
    first, second = ({frozenset(targets.tolist()) for _, targets, _ in one_pass(dataset)} for _ in range(2))
    assert not first & second


def test_options_out_of_range_are_told():
    with pytest.raises(InputError, match="batch_size is 0; it must be at least 1"):
        batches(make_features(5), batch_size=0)
    with pytest.raises(InputError, match="pad_to ends at 8 tokens, but a row has"):
        batches(make_features(50), batch_size=4, pad_to=(8,))
