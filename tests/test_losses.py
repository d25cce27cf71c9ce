"""Losses against their formulas in NumPy float64, and weights against repeated rows."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from tfbert import losses
from tfbert._compat import keras, tf
from tfbert.errors import InputError

RANDOM = np.random.default_rng(3)
LOGITS = RANDOM.normal(0, 3, (7, 5))
CLASSES = RANDOM.integers(0, 5, 7)
SEVERAL = RANDOM.random((7, 5)) < 0.4


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.35])
@pytest.mark.parametrize("shape", [(7,), (7, 1)])
def test_sparse_categorical_crossentropy_is_the_formula(smoothing, shape):
    targets = np.eye(5)[CLASSES] * (1 - smoothing) + smoothing / 5
    expected = -(targets * log_softmax(LOGITS)).sum(-1)
    loss = losses.sparse_categorical_crossentropy(CLASSES.reshape(shape), LOGITS, label_smoothing=smoothing)
    assert loss.dtype == tf.float32 and loss.shape == (7,)
    np.testing.assert_allclose(loss, expected, rtol=2e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("dtype", [bool, np.int64, np.float32])
def test_binary_crossentropy_is_the_formula(smoothing, dtype):
    targets = SEVERAL * (1 - smoothing) + smoothing / 2
    chance = 1 / (1 + np.exp(-LOGITS))
    expected = -(targets * np.log(chance) + (1 - targets) * np.log(1 - chance)).mean(-1)
    loss = losses.binary_crossentropy(SEVERAL.astype(dtype), LOGITS, label_smoothing=smoothing)
    assert loss.dtype == tf.float32 and loss.shape == (7,)
    np.testing.assert_allclose(loss, expected, rtol=2e-6)


@pytest.mark.parametrize("left", [(7,), (7, 1)])
@pytest.mark.parametrize("right", [(7,), (7, 1)])
def test_mean_squared_error_never_broadcasts(left, right):
    labels, predictions = LOGITS[:, 0], LOGITS[:, 1]
    loss = losses.mean_squared_error(labels.reshape(left), predictions.reshape(right))
    np.testing.assert_allclose(loss, (labels - predictions) ** 2, rtol=2e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_large_label_indices_survive_low_precision_logits(dtype):
    # 30521 is no bfloat16 or float16 number; a label that passes through either would point at another class.
    logits = np.zeros((2, 30522), np.float32)
    logits[0, 30521], logits[1, 301] = 8, 4
    low = tf.cast(logits, dtype)
    expected = losses.sparse_categorical_crossentropy(np.array([30521, 301]), logits)
    loss = losses.sparse_categorical_crossentropy(np.array([30521, 301]), low)
    assert loss.dtype == tf.float32
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_huge_logits_stay_finite():
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]])
    assert losses.sparse_categorical_crossentropy(np.array([0, 0]), logits).numpy().tolist() == [0.0, 20000.0]
    assert losses.binary_crossentropy(np.array([[1, 0], [1, 0]]), logits).numpy().tolist() == [0.0, 10000.0]


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_outside_its_range_is_refused(smoothing):
    with pytest.raises(InputError, match="label_smoothing is .*give at least 0 and less than 1"):
        losses.sparse_categorical_crossentropy(CLASSES, LOGITS, label_smoothing=smoothing)
    with pytest.raises(InputError, match="label_smoothing is"):
        losses.binary_crossentropy(SEVERAL, LOGITS, label_smoothing=smoothing)


def test_normalized_weights_have_mean_one():
    weights = RANDOM.random(9) * 5
    np.testing.assert_allclose(losses.normalize_weights(weights), weights / weights.mean(), rtol=1e-6)
    assert losses.normalize_weights(np.zeros(3)).numpy().tolist() == [0.0, 0.0, 0.0]
    assert losses.normalize_weights(np.zeros(0)).shape == (0,)


CASES = {
    "classification": (functools.partial(losses.sparse_categorical_crossentropy, label_smoothing=0.1), CLASSES),
    "multi-label": (functools.partial(losses.binary_crossentropy, label_smoothing=0.1), SEVERAL.astype(np.float32)),
    "regression": (losses.mean_squared_error, LOGITS[:, 0].astype(np.float32)),
}


@pytest.mark.parametrize("case", CASES)
def test_weight_two_is_the_row_twice_in_keras_fit(case):
    """One step of plain SGD moves the weights by the gradient, so that equal models mean equal gradients."""
    loss, labels = CASES[case]
    features = RANDOM.normal(size=(7, 4)).astype(np.float32)
    start = RANDOM.normal(size=(4, 1 if case == "regression" else 5)).astype(np.float32)
    counts = np.array([2, 1, 1, 0, 3, 1, 1])

    def step(x, y, weights):
        model = keras.Sequential([keras.layers.Dense(start.shape[1], use_bias=False, input_shape=(4,))])
        model.set_weights([start])
        model.compile(keras.optimizers.SGD(1.0), loss=loss)
        history = model.fit(x, y, sample_weight=weights, batch_size=len(x), shuffle=False, verbose=0)
        return start - model.get_weights()[0], history.history["loss"][0]

    weighted, weighted_loss = step(features, labels, losses.normalize_weights(counts).numpy())
    rows = np.repeat(np.arange(7), counts)
    repeated, repeated_loss = step(features[rows], labels[rows], None)
    np.testing.assert_allclose(weighted, repeated, rtol=0, atol=1e-6)
    assert weighted_loss == pytest.approx(repeated_loss, rel=1e-6)
    raw, _ = step(features, labels, counts.astype(np.float32))
    assert np.abs(raw - repeated).max() > 1e-3  # without the scaling they differ


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.mark.parametrize("texts", [2, 3])
def test_losses_of_embeddings_are_their_formulas(texts):
    vectors = RANDOM.normal(size=(5, texts, 4))
    sides, flat = unit(vectors), vectors.reshape(-1, 4)
    wanted = RANDOM.random(5)
    cosines = (sides[:, 0] * sides[:, 1]).sum(-1)
    if texts == 2:
        np.testing.assert_allclose(losses.cosine_similarity(wanted[:, None], flat), (cosines - wanted) ** 2, atol=1e-6)
    else:
        far = (sides[:, 0] * sides[:, 2]).sum(-1)
        expected = np.maximum(0, far - cosines + 0.4)
        np.testing.assert_allclose(losses.triplet(wanted, flat, margin=0.4), expected, atol=1e-6)
    scores = 7.0 * sides[:, 0] @ np.concatenate([sides[:, k] for k in range(1, texts)]).T
    expected = -np.diagonal(log_softmax(scores))
    np.testing.assert_allclose(losses.multiple_negatives_ranking(wanted, flat, scale=7.0), expected, atol=1e-5)


def test_the_loss_of_tokens_is_the_mean_over_those_with_a_label():
    logits, labels = RANDOM.normal(0, 3, (4, 6, 5)), RANDOM.integers(0, 5, (4, 6))
    labels[RANDOM.random((4, 6)) < 0.4] = losses.IGNORED
    labels[2] = losses.IGNORED
    loss = losses.token_crossentropy(labels, logits).numpy()
    each = -np.take_along_axis(log_softmax(logits), np.maximum(labels, 0)[..., None], -1)[..., 0]
    there = labels != losses.IGNORED
    for row in range(4):
        assert loss[row] == pytest.approx(each[row][there[row]].mean() if there[row].any() else 0.0, abs=1e-5)
    # With the numbers of labels as weights, Keras' mean over rows is the mean over all tokens.
    weights = losses.normalize_weights(there.sum(1).astype(np.float32)).numpy()
    assert (loss * weights).mean() == pytest.approx(each[there].mean(), abs=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_focal_losses_are_the_formula(gamma, smoothing):
    of_class = log_softmax(LOGITS)
    right = np.take_along_axis(of_class, CLASSES[:, None], 1)[:, 0]
    targets = np.eye(5)[CLASSES] * (1 - smoothing) + smoothing / 5
    expected = (1 - np.exp(right)) ** gamma * -(targets * of_class).sum(-1)
    found = losses.sparse_categorical_focal(CLASSES, LOGITS, gamma=gamma, label_smoothing=smoothing)
    np.testing.assert_allclose(found, expected, rtol=5e-5, atol=1e-6)

    chance = 1 / (1 + np.exp(-LOGITS))
    targets = SEVERAL * (1 - smoothing) + smoothing / 2
    entropy = -(targets * np.log(chance) + (1 - targets) * np.log(1 - chance))
    expected = ((1 - np.where(SEVERAL, chance, 1 - chance)) ** gamma * entropy).mean(-1)
    found = losses.binary_focal(SEVERAL, LOGITS, gamma=gamma, label_smoothing=smoothing)
    np.testing.assert_allclose(found, expected, rtol=5e-5, atol=1e-6)


def test_focal_loss_of_a_sure_model_has_a_finite_gradient():
    logits = tf.Variable([[60.0, 0.0]])
    with tf.GradientTape() as tape:
        loss = losses.sparse_categorical_focal(np.array([0]), logits, gamma=0.5)
    assert np.isfinite(tape.gradient(loss, logits)).all()


def test_divergences_are_the_formula():
    other = RANDOM.normal(0, 2, LOGITS.shape)
    one, two = log_softmax(LOGITS), log_softmax(other)
    expected = ((np.exp(one) * (one - two)).sum(-1) + (np.exp(two) * (two - one)).sum(-1)) / 2
    np.testing.assert_allclose(losses.softmax_divergence(CLASSES, LOGITS, other), expected, rtol=1e-5)
    tokens = np.array([[0, 1, losses.IGNORED, 2, losses.IGNORED, 4, 3]])
    found = losses.softmax_divergence(tokens, LOGITS[np.newaxis], other[np.newaxis])
    np.testing.assert_allclose(found, [expected[[0, 1, 3, 5, 6]].mean()], rtol=1e-5)
    p, q = (1 / (1 + np.exp(-x)) for x in (LOGITS, other))
    both = sum(a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b)) for a, b in ((p, q), (q, p))) / 2
    np.testing.assert_allclose(losses.sigmoid_divergence(SEVERAL, LOGITS, other), both.mean(-1), rtol=1e-4)
