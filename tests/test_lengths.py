"""Rows of mixed lengths in groups: the numbers of the whole batch, in its order, from fewer columns."""

from __future__ import annotations

import numpy as np
import pytest

from tfbert._compat import tf
from tfbert.serving import lengths

SPECS = {
    "row": tf.TensorSpec([None, 2], tf.float32),
    "token": tf.TensorSpec([None, None, 3], tf.float32),
    "score": tf.TensorSpec([None, None], tf.float32),
}


def model(calls):
    """Numbers that depend on every real token of a row and on no other row or column."""

    def function(input_ids, attention_mask):
        calls.append(tf.shape(input_ids))
        x = tf.cast(input_ids * attention_mask, tf.float32)
        whole = tf.reduce_sum(tf.sin(x), 1)
        return {
            "row": tf.stack([whole, tf.reduce_max(x, 1)], 1),
            "token": tf.stack([x, x * whole[:, None], tf.sin(x)], 2),
            # As where an answer may begin, over which a softmax is taken: never in padding, of whichever group.
            "score": tf.where(attention_mask > 0, x - whole[:, None], -1e9),
        }

    return function


def features(sizes, width) -> dict:
    rng = np.random.default_rng(1)
    mask = np.arange(width) < np.asarray(sizes, int)[:, None]
    ids = rng.integers(1, 1000, mask.shape) * mask
    return {"input_ids": tf.constant(ids, tf.int32), "attention_mask": tf.constant(mask, tf.int32)}


@pytest.mark.parametrize(
    ("sizes", "width", "groups"),
    [
        ([200, 20, 130, 90, 256, 64, 65, 128], 256, {(3, 256), (3, 128), (2, 64)}),
        ([5, 100, 127], 127, {(3, 127)}),
        ([129, 250], 256, {(2, 250)}),
        ([1000, 3], 1024, {(1, 1000), (1, 3)}),
        ([130, 20], 130, {(2, 130)}),
        ([130, 20, 10, 5], 130, {(1, 130), (3, 20)}),
        ([300], 300, {(1, 300)}),
        ([0, 500], 500, {(1, 1), (1, 500)}),
        ([], 1, set()),
    ],
)
def test_groups_give_the_numbers_of_the_whole_batch(sizes, width, groups):
    given, seen = features(sizes, width), []
    found = lengths.by_length(model(seen), given, SPECS)
    assert {tuple(shape.numpy()) for shape in seen} == groups and len(seen) == len(groups)
    for name, expected in model([])(**given).items():
        assert found[name].shape == expected.shape
        np.testing.assert_allclose(found[name], expected, atol=1e-4, rtol=1e-4)

    @tf.function(input_signature=[{name: tf.TensorSpec([None, None], tf.int32) for name in given}])
    def graph(given):
        return lengths.by_length(model([]), given, SPECS)

    for name, tensor in graph(given).items():
        np.testing.assert_allclose(tensor, found[name], atol=1e-4, rtol=1e-4)


def test_a_group_of_too_many_tokens_or_pairs_is_several(monkeypatch):
    monkeypatch.setattr(lengths, "MOST_TOKENS", 1200)
    monkeypatch.setattr(lengths, "MOST_PAIRS", 100_000)
    given, seen = features([200, 20, 130, 90, 180, 64, 65, 128, 190, 140, 30, 25] + [10] * 30, 200), []
    found = lengths.by_length(model(seen), given, SPECS)
    shapes = [tuple(shape.numpy()) for shape in seen]
    assert sum(rows for rows, _ in shapes) == 42 and len(shapes) > 4
    assert all(rows * columns <= 1200 and rows * columns**2 <= 100_000 for rows, columns in shapes)
    for name, expected in model([])(**given).items():
        np.testing.assert_allclose(found[name], expected, atol=1e-4, rtol=1e-4)


def test_models_whose_rows_depend_on_each_other_or_that_give_much_are_left_whole():
    ids = tf.TensorSpec([None, None], tf.int32)
    inputs = {"input_ids": ids, "attention_mask": ids}
    assert lengths.can_be_grouped(inputs, SPECS)
    assert not lengths.can_be_grouped(inputs | {"example": tf.TensorSpec([None], tf.int32)}, SPECS)
    assert not lengths.can_be_grouped({"input_ids": ids}, SPECS)
    assert not lengths.can_be_grouped(inputs, {"logits": tf.TensorSpec([None, None, 30_522])})
    assert not lengths.can_be_grouped(inputs, {"logits": tf.TensorSpec(None)})
    assert not lengths.can_be_grouped(inputs, {"logits": tf.TensorSpec([None, None, None])})
