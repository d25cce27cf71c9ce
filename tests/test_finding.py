"""FindLearningRate: nothing of the model remembers it, and what it suggests is where a known loss falls."""

from __future__ import annotations

import numpy as np
import pytest
from test_groups import BATCH, LABELS, build

from tfbert import plots
from tfbert._compat import keras, tf
from tfbert.callbacks import FindLearningRate
from tfbert.callbacks.finding import valley
from tfbert.errors import InputError
from tfbert.optimizers import AdamW
from tfbert.schedules import WarmupLinear

DATA = tf.data.Dataset.from_tensor_slices((BATCH, LABELS)).batch(2)


def bert():
    model = build(lean=True, num_hidden_layers=1)
    model.compile(AdamW(0.01), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def test_the_training_after_it_is_the_training_without_it_bit_for_bit():
    """With dropout in the lean encoder and in Keras' own layer before the head."""
    model, weights, states = bert(), [], []
    finder = FindLearningRate(1e-5, 10.0, steps=20)
    for find in (False, True):
        if find:
            model = bert()
            keras.utils.set_random_seed(1)
            model.fit(DATA.repeat(), steps_per_epoch=20, verbose=0, callbacks=[finder])
        assert int(model.optimizer.iterations) == 0 and float(model.optimizer.learning_rate) == pytest.approx(0.01)
        keras.utils.set_random_seed(2)
        model.fit(DATA, epochs=2, verbose=0)
        weights.append([variable.numpy() for variable in model.weights])
        states.append([variable.numpy() for variable in model.optimizer.variables])
    for one, other in zip(weights[0] + states[0], weights[1] + states[1], strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(finder.rates, 1e-5 * (1e6 ** (np.arange(len(finder.rates)) / 19)))


def test_the_scale_of_a_float16_loss_is_put_back():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = bert()
        scale = model.optimizer._loss_scale
        model.fit(DATA.repeat(), steps_per_epoch=20, verbose=0, callbacks=[FindLearningRate(1e-5, 1e-2, steps=20)])
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert (float(scale.current_loss_scale), int(scale.counter)) == (2.0**15, 0)


class Replay(keras.Model):
    """Its loss at each step is the next of a list, whatever the rate."""

    def __init__(self, losses):
        super().__init__()
        self.weight = self.add_weight("weight", (), tf.float32, "zeros")
        self.losses_to_come = list(losses)

    def train_step(self, data):
        return {"loss": self.losses_to_come.pop(0)}


def replay(losses, steps=None):
    model, finder = Replay(losses), FindLearningRate(1e-6, 1.0, steps=steps or len(losses))
    model.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
    model.fit(tf.data.Dataset.range(1000), steps_per_epoch=len(losses), verbose=0, callbacks=[finder])
    return finder


def test_losses_are_smoothed_as_fastai_does_and_the_suggestion_is_its_valley():
    random = np.random.default_rng(0)
    x = np.linspace(-6, 0, 100)
    losses = 2 - 1.5 / (1 + np.exp(-4 * (x + 3))) + np.exp(6 * (x + 0.8)) + random.normal(0, 0.05, 100)
    finder = replay(losses)
    mean, smoothed = 0.0, []
    for i, loss in enumerate(losses, 1):
        mean = 0.98 * mean + 0.02 * loss
        smoothed.append(mean / (1 - 0.98**i))
    count = len(finder.rates)
    np.testing.assert_allclose(finder.smoothed, smoothed[:count], rtol=1e-6)
    chosen = smoothed[:count][10:-5]
    # The longest falling subsequence by the definition: of all that end at a place, one more than the longest before it.
    longest = [1] * len(chosen)
    for i in range(len(chosen)):
        for j in range(i):
            if chosen[i] < chosen[j] and longest[i] < longest[j] + 1:
                longest[i] = longest[j] + 1
    end = longest.index(max(longest))
    section = max(longest) / 3
    place = end - max(longest) + int(section) + int(section / 2)
    assert finder.suggestion == finder.rates[10 + place]
    assert 1e-5 < finder.suggestion < 1e-1


@pytest.mark.parametrize("losses, place", [(range(30, 0, -1), 14), ([3, 2, 1, *range(9, 0, -1), 5], 6)])
def test_valley(losses, place):
    assert valley(list(losses)) == place


def test_it_ends_when_the_loss_diverges_or_is_not_finite():
    finder = replay([1.0] * 50 + [200.0] * 50)
    assert len(finder.rates) == 51 and finder.losses[-1] == 200  # the mean is then over four
    finder = replay([1.0] * 40 + [np.nan] * 60)
    assert len(finder.rates) == 40


MISTAKES = {
    "the rates rise from 1 to 0.1; give two positive numbers": lambda: FindLearningRate(1, 0.1),
    "steps is 3; give at least 20": lambda: FindLearningRate(steps=3),
    r"the data ended after 30 of 100 steps; fit dataset.repeat\(\) with steps_per_epoch=100": lambda: replay(
        [1.0] * 30, 100
    ),
    "the loss diverged at a rate of .*, after 20 steps; begin with a lower rate": lambda: replay(
        [1.0] * 20 + [np.inf] * 80
    ),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_told(message):
    with pytest.raises(InputError, match=message):
        MISTAKES[message]()


@pytest.mark.parametrize("optimizer", [keras.optimizers.legacy.SGD(), keras.optimizers.SGD(WarmupLinear(0.5, 9))])
def test_other_optimizers_are_refused(optimizer):
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(optimizer, "mse")
    with pytest.raises(InputError, match="FindLearningRate (cannot put back a legacy|needs an optimizer whose)"):
        model.fit(np.ones([4, 2]), np.ones(4), verbose=0, callbacks=[FindLearningRate()])


def test_a_model_that_is_not_built_is_refused():
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(InputError, match="needs a model that is built; call it once before"):
        model.fit(np.ones([4, 2]), np.ones(4), verbose=0, callbacks=[FindLearningRate()])


def test_its_picture_is_a_png():
    if not plots.available():
        pytest.skip("matplotlib is not installed")
    picture = replay([1.0 - 0.005 * i for i in range(60)]).plot()
    assert picture.startswith(b"\x89PNG") and len(picture) > 5000
