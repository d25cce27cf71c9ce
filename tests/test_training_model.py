"""Batches in parts, adversarial embeddings and R-Drop, against Keras' own step, a formula by hand, and plain gradients."""

from __future__ import annotations

import numpy as np
import pytest

from tfbert import losses, models
from tfbert._compat import keras, tf, transformers
from tfbert.callbacks import UseMovingAverages
from tfbert.errors import InputError
from tfbert.models import lean
from tfbert.models.loading import quiet
from tfbert.models.training_model import TrainingModel
from tfbert.optimizers import AdamW

RANDOM = np.random.default_rng(5)
LENGTHS = RANDOM.integers(2, 10, 22)
MASK = (np.arange(9) < LENGTHS[:, np.newaxis]).astype(np.int32)
IDS = RANDOM.integers(1, 50, MASK.shape).astype(np.int32) * MASK
INPUTS = {
    "input_ids": IDS,
    "attention_mask": MASK,
    "token_type_ids": RANDOM.integers(0, 2, MASK.shape).astype(np.int32) * MASK,
}
LABELS = RANDOM.integers(0, 3, 22)
WEIGHTS = RANDOM.uniform(0.5, 2, 22).astype(np.float32)


def bert(model_class="TFBertForSequenceClassification", **options):
    """A model without dropout, so that only the arithmetic differs."""
    keras.utils.set_random_seed(3)
    sizes = {
        "vocab_size": 50,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    with quiet():
        model = getattr(transformers, model_class)(transformers.BertConfig(**sizes, **none, **options))
        model.build_in_name_scope()
    lean.put(model)
    return model


def classifier():
    return models.as_keras(bert(num_labels=3))


def fitted(model, data, loss=losses.sparse_categorical_crossentropy, optimizer=None, epochs=2, **ways):
    """The losses of the epochs and the weights after them."""
    learner = TrainingModel(model, **ways) if ways else model
    learner.compile(optimizer or AdamW(1e-2), loss=loss)
    history = learner.fit(data, epochs=epochs, verbose=0).history["loss"]
    return history, [np.array(weight) for weight in model.get_weights()]


def equal(ours, theirs, tolerance):
    np.testing.assert_allclose(ours[0], theirs[0], rtol=tolerance)
    for mine, other in zip(ours[1], theirs[1], strict=True):
        np.testing.assert_allclose(mine, other, atol=tolerance)


@pytest.fixture(scope="module")
def data():
    """Batches of 8, 8 and 6 rows, their weights of mean 1."""
    found = tf.data.Dataset.from_tensor_slices((INPUTS, LABELS, WEIGHTS)).batch(8)
    return found.map(lambda inputs, labels, weights: (inputs, labels, losses.normalize_weights(weights)))


# SGD, whose step is the gradient: Adam makes a difference of 1e-8 in a gradient near 0 one of a whole step.
def sgd():
    return keras.optimizers.SGD(0.5, global_clipnorm=1.0, jit_compile=False)


@pytest.fixture(scope="module")
def whole(data):
    return fitted(classifier(), data, optimizer=sgd())


@pytest.mark.parametrize(
    "parts", [1, 3, 7]
)  # the last batch: 6 rows in parts of 6; 2, 2, 2; six of 1, and an empty one
def test_a_batch_in_parts_is_the_whole_batch(data, whole, parts):
    equal(fitted(classifier(), data, optimizer=sgd(), accumulate=parts), whole, 1e-6 if parts > 1 else 1e-9)


def test_updates_are_counted_by_batches_and_rows_that_learn_are_kept_sparse(data):
    optimizers, found = [AdamW(1e-3), AdamW(1e-3)], []
    for optimizer, ways in zip(optimizers, ({}, {"accumulate": 4}), strict=True):
        model = classifier()
        optimizer.learn_rows(models.word_embeddings(model), np.arange(30))
        rows = data.map(lambda inputs, *rest: ({**inputs, "input_ids": inputs["input_ids"] % 30}, *rest))
        found.append(fitted(model, rows, optimizer=optimizer, epochs=1, **ways))
        assert int(optimizer.iterations) == 3
    equal(*found, 3e-5)


def test_float16_scales_the_loss_of_every_part(data):
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        plain, parts = (fitted(classifier(), data, optimizer=sgd(), **ways) for ways in ({}, {"accumulate": 3}))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    equal(parts, plain, 5e-3)


def test_rows_of_an_example_stay_together():
    """Six examples of 1 to 4 windows, whose logits are pooled; and eleven of two choices."""
    counts = np.array([2, 1, 4, 3, 1, 2])
    rows = {name: values[:13] for name, values in INPUTS.items()} | {
        "example": np.repeat(np.arange(6), counts).astype(np.int32)
    }
    windows = tf.data.Dataset.from_tensors((rows, LABELS[:6]))
    pooled = [
        fitted(models.pooled(classifier(), "mean"), windows, optimizer=sgd(), **w) for w in ({}, {"accumulate": 4})
    ]
    equal(*pooled[::-1], 1e-6)

    def choice_loss(labels, logits):
        return losses.sparse_categorical_crossentropy(labels, tf.reshape(logits, [-1, 2]))

    choices = tf.data.Dataset.from_tensors((INPUTS, LABELS[:11] % 2))
    found = [
        fitted(models.by_choice(bert("TFBertForMultipleChoice")), choices, choice_loss, sgd(), **ways)
        for ways in ({}, {"accumulate": 3})
    ]
    equal(*found[::-1], 1e-6)


def test_fgm_adds_the_gradient_at_the_moved_embeddings():
    model, step, rate = classifier(), 0.7, 0.5
    table, variables = models.word_embeddings(model), model.trainable_variables

    def gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(losses.sparse_categorical_crossentropy(LABELS, model(INPUTS)["logits"]))
        return float(loss), [tf.convert_to_tensor(gradient).numpy() for gradient in tape.gradient(loss, variables)]

    before = [variable.numpy() for variable in variables]
    loss, first = gradients()
    place = next(i for i, variable in enumerate(variables) if variable is table)
    table.assign_add(step * first[place] / np.linalg.norm(first[place]))
    _, second = gradients()
    expected = [old - rate * (one + two) for old, one, two in zip(before, first, second, strict=True)]
    for variable, old in zip(variables, before, strict=True):
        variable.assign(old)

    rows = tf.data.Dataset.from_tensors((INPUTS, LABELS))
    optimizer = keras.optimizers.SGD(rate, jit_compile=False)
    history, _ = fitted(model, rows, optimizer=optimizer, epochs=1, fgm=step)
    np.testing.assert_allclose(history, [loss], rtol=1e-6)  # that of the embeddings as they are
    for variable, value in zip(variables, expected, strict=True):
        np.testing.assert_allclose(variable, value, atol=1e-6)
    assert np.abs(second[place] - first[place]).max() > 1e-3


class Alternating(keras.layers.Layer):
    """A dropout that one can calculate with: passes are multiplied by 1, 2, 1, 2, ..."""

    def build(self, shape):
        self.passes = self.add_weight("passes", dtype="int32", initializer="zeros", trainable=False)

    def call(self, x):
        return x * (1 + tf.cast((self.passes.assign_add(1) - 1) % 2, x.dtype))


@pytest.mark.parametrize("weighted", [False, True])
def test_r_drop_is_the_papers_formula(weighted):
    x, labels, alpha = RANDOM.normal(0, 1, (6, 4)).astype(np.float32), np.array([0, 2, 1, 1, 0, 2]), 1.5
    weights = np.array([2, 1, 1, 0.5, 0.5, 1], np.float32) if weighted else np.ones(6, np.float32)
    inputs = keras.Input([4])
    model = keras.Model(inputs, keras.layers.Dense(3, use_bias=False)(Alternating()(inputs)))
    kernel = model.layers[-1].kernel
    start = tf.constant(kernel)
    with tf.GradientTape() as tape:
        tape.watch(start)
        one, two = (tf.nn.log_softmax(tf.matmul(k * x, start)) for k in (1.0, 2.0))
        nll = -tf.gather(one, labels, batch_dims=1) - tf.gather(two, labels, batch_dims=1)
        apart = tf.reduce_sum(tf.exp(one) * (one - two), -1) / 2 + tf.reduce_sum(tf.exp(two) * (two - one), -1) / 2
        loss = tf.reduce_mean((nll + alpha * apart) / 2 * weights)
    expected = start - 0.5 * tape.gradient(loss, start)
    rows = tf.data.Dataset.from_tensors((x, labels, weights) if weighted else (x, labels))
    options = {"r_drop": alpha, "divergence": losses.softmax_divergence}
    fitted(model, rows, optimizer=keras.optimizers.SGD(0.5, jit_compile=False), epochs=1, **options)
    np.testing.assert_allclose(kernel, expected, atol=1e-6)


def test_moving_averages_are_scored_and_the_training_goes_on_from_the_weights():
    momentum, rate, steps = 0.8, 0.1, 3
    inputs = keras.Input([1])
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")(inputs))
    model.compile(keras.optimizers.SGD(rate, use_ema=True, ema_momentum=momentum, jit_compile=False), "mse")
    seen = []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(float(model.get_weights()[0][0, 0]))
    )
    model.fit(
        np.ones([steps, 1]), np.ones(steps), batch_size=1, epochs=2, verbose=0, callbacks=[UseMovingAverages(), keep]
    )
    weight = average = 0.0
    expected = []
    for _ in range(2 * steps):
        weight -= rate * 2 * (weight - 1)
        average = momentum * average + (1 - momentum) * weight
        expected.append(average)
    np.testing.assert_allclose(seen, expected[steps - 1 :: steps], rtol=1e-6)
    np.testing.assert_allclose(model.get_weights()[0][0, 0], expected[-1], rtol=1e-6)


def test_moving_averages_need_an_optimizer_that_keeps_them():
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(InputError, match="use_ema=True"):
        model.fit(np.ones([2, 1]), np.ones(2), verbose=0, callbacks=[UseMovingAverages()])


@pytest.mark.parametrize(
    ("ways", "message"),
    [
        ({"accumulate": 0}, "accumulate is 0; a batch has at least 1 part"),
        ({"fgm": -1.0}, "fgm is -1.0; it must be at least 0"),
        ({"r_drop": float("nan")}, "r_drop is nan; it must be at least 0"),
        ({"r_drop": 1.0}, "r_drop needs a divergence"),
    ],
)
def test_each_wrong_option_is_told(ways, message):
    inputs = keras.Input([1])
    with pytest.raises(InputError, match=message):
        TrainingModel(keras.Model(inputs, keras.layers.Dense(1)(inputs)), **ways)


def test_fgm_on_frozen_embeddings_is_told(data):
    model = classifier()
    model.transformer.bert.embeddings.trainable = False
    with pytest.raises(InputError, match="word embeddings .* frozen"):
        fitted(model, data, fgm=1.0)
