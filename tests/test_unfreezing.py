"""GradualUnfreezing in real `fit` calls: what learns when, the bits of what learns, and one tracing for each change."""

from __future__ import annotations

import numpy as np
import pytest
from test_groups import BATCH, LABELS, build, learning

from tfbert import models
from tfbert._compat import keras, tf
from tfbert.callbacks import GradualUnfreezing, ScoreTask
from tfbert.errors import InputError
from tfbert.optimizers import AdamW

X = np.linspace(-1, 1, 24, dtype=np.float32).reshape(8, 3)
Y = np.arange(8, dtype=np.float32)


def stack(optimizer=None, **options):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.layers.Dense(4, name=name) for name in ("low", "middle")] + [keras.layers.Dense(1, name="top")]
    )
    model.build([None, 3])
    model.compile(optimizer or keras.optimizers.SGD(0.01), "mse", **options)
    return model


class Watch(keras.callbacks.Callback):
    """What learned in each epoch, what moved, and how often the step was traced."""

    def on_train_begin(self, logs=None):
        self.names, self.moved, self.functions = [], [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.before = {variable.name: variable.numpy() for variable in self.model.weights}

    def on_epoch_end(self, epoch, logs=None):
        self.names.append(learning(self.model) if "/" in self.model.weights[0].name else None)
        now = {variable.name: variable.numpy() for variable in self.model.weights}
        self.moved.append({name for name, value in now.items() if not np.array_equal(value, self.before[name])})
        if self.functions[-1:] != [self.model.train_function]:
            self.functions.append(self.model.train_function)


def fit(model, *used, epochs=4, **options):
    watch = Watch()
    model.fit(X, Y, batch_size=4, shuffle=False, epochs=epochs, verbose=0, callbacks=[*used, watch], **options)
    return watch


def test_a_group_joins_with_each_epoch_and_the_step_is_traced_once_for_each():
    watch = fit(stack(), GradualUnfreezing())
    top = {"top/kernel:0", "top/bias:0"}
    middle, low = {"middle/kernel:0", "middle/bias:0"}, {"low/kernel:0", "low/bias:0"}
    assert watch.moved == [top, top | middle, top | middle | low, top | middle | low]
    assert len(watch.functions) == 3
    assert all(function.experimental_get_tracing_count() == 1 for function in watch.functions)


def test_bert_s_plan_begins_with_the_head_then_pooler_and_highest_layer():
    model = build(num_hidden_layers=2)
    model.compile("sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    watch = Watch()
    model.fit(BATCH, LABELS, batch_size=4, epochs=4, verbose=0, callbacks=[GradualUnfreezing(), watch])
    groups = {
        name: {each.name.split("/", 1)[1] for each in found} for name, found in models.layer_groups(model).items()
    }
    orders = [["head"], ["pooler", "layers[1]"], ["layers[0]"], ["embeddings"]]
    expected: set[str] = set()
    for names, order in zip(watch.names, orders, strict=True):
        expected = expected.union(*(groups[name] for name in order))
        assert names == expected


def test_a_plan_of_one_s_own_may_leave_groups_out_and_skip_epochs():
    watch = fit(stack(), GradualUnfreezing({0: "top", 2: "low"}))
    assert [sorted({name.split("/")[0] for name in names}) for names in watch.moved] == [["top"]] * 2 + [
        ["low", "top"]
    ] * 2
    assert len(watch.functions) == 2


def test_averages_of_what_learned_before_are_kept_and_what_joins_is_updated_as_by_a_new_adamw():
    """One epoch is one step here: the whole run again in plain TensorFlow, with an optimizer for each group."""
    model = stack(AdamW(0.01, clip_norm=None, weight_decay=0.1))
    model.fit(X, Y, batch_size=8, epochs=5, verbose=0, callbacks=[GradualUnfreezing({0: "top", 2: "middle"})])
    other = stack()
    optimizers = {name: AdamW(0.01, clip_norm=None, weight_decay=0.1) for name in ("top", "middle")}
    for epoch in range(5):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((other(X)[:, 0] - Y) ** 2)
        groups = ["top"] if epoch < 2 else ["top", "middle"]
        layers = [other.get_layer(name) for name in groups]
        gradients = tape.gradient(loss, [layer.trainable_weights for layer in layers])
        for name, layer, found in zip(groups, layers, gradients):
            optimizers[name].apply_gradients(zip(found, layer.trainable_weights))
    for mine, expected in zip(
        model.get_layer("middle").weights + model.get_layer("top").weights,
        other.layers[1].weights + other.layers[2].weights,
    ):
        np.testing.assert_allclose(mine.numpy(), expected.numpy(), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(model.get_layer("low").kernel, other.get_layer("low").kernel)


def test_a_fit_that_goes_on_knows_what_had_joined():
    whole, parts = stack(AdamW(0.01)), stack(AdamW(0.01))
    plan = {0: "top", 1: "middle", 3: "low"}
    fit(whole, GradualUnfreezing(plan))
    fit(parts, GradualUnfreezing(plan), epochs=2)
    fit(parts, GradualUnfreezing(plan), epochs=4, initial_epoch=2)
    for mine, expected in zip(parts.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(mine.numpy(), expected.numpy())


@pytest.mark.parametrize("optimizer", [keras.optimizers.Adam, keras.optimizers.legacy.Adam])
def test_any_optimizer_of_keras_and_the_best_weights_in_their_places(optimizer):
    model = stack(optimizer(0.01))
    scores, kept = iter([0.1, 0.9, 0.2, 0.3]), {}

    def score(trained):
        kept.update(
            {variable.name: variable.numpy() for variable in trained.weights} if (now := next(scores)) == 0.9 else {}
        )
        return {"f1": now}

    fit(model, GradualUnfreezing(), ScoreTask(score, monitor="f1", mode="max"))
    for variable in model.weights:
        np.testing.assert_array_equal(variable.numpy(), kept[variable.name])


def test_mistakes_are_told():
    with pytest.raises(InputError, match=r"plan has the epochs \[1, 2\]; give whole numbers from 0, and 0 among"):
        GradualUnfreezing({1: "top", 2: "low"})
    with pytest.raises(InputError, match="there is no group 'lo'; Did you mean 'low'"):
        fit(stack(), GradualUnfreezing({0: "lo"}))
    model = stack(keras.optimizers.Adam(0.01))
    model.get_layer("top").trainable = False
    model.compile("sgd", "mse")
    with pytest.raises(InputError, match="nothing learns at epoch 0, for Keras has top switched off"):
        fit(model, GradualUnfreezing({0: "top"}))
    model = stack(keras.optimizers.Adam(0.01))
    models.freeze(model, "low")
    fit(model, epochs=1)
    with pytest.raises(InputError, match="does not know low/kernel:0; compile again"):
        fit(model, GradualUnfreezing())
