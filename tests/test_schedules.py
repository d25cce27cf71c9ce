"""Schedules against their published formulas in NumPy float64, alone, in a graph and inside an optimizer."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tfbert import schedules
from tfbert._compat import keras, tf
from tfbert.errors import InputError

PEAK = 3e-5


def linear(t, total, warmup):
    return np.where(t < warmup, t / max(warmup, 1), np.maximum(0, (total - t) / (total - warmup)))


def cosine(t, total, warmup):
    progress = np.minimum(1, (t - warmup) / (total - warmup))
    return np.where(t < warmup, t / max(warmup, 1), 0.5 * (1 + np.cos(np.pi * progress)))


def constant(t, total, warmup):
    return np.where(t < warmup, t / max(warmup, 1), 1.0)


def slanted(t, total, cut_frac, ratio):
    cut = math.floor(total * cut_frac)
    p = np.where(t < cut, t / cut, 1 - (t - cut) / (cut * (1 / cut_frac - 1)))
    return (1 + p * (ratio - 1)) / ratio


WARMED_UP = {
    schedules.WarmupLinear: linear,
    schedules.WarmupCosine: cosine,
    schedules.WarmupConstant: constant,
}


@pytest.mark.parametrize("kind", WARMED_UP)
@pytest.mark.parametrize("total, warmup", [(1, 0), (7, 0), (7, 6), (100, 10), (1_000_000, 60_000)])
def test_warmed_up_schedules_are_the_formula_at_every_step(kind, total, warmup):
    steps = np.arange(total + 5) if total < 1000 else np.r_[0:50, 59_950:60_050, 123_457, 999_000:1_000_005]
    rates = kind(PEAK, total, warmup_steps=warmup)(steps)
    assert rates.dtype == tf.float32
    np.testing.assert_allclose(rates, PEAK * WARMED_UP[kind](steps.astype(float), total, warmup), rtol=1e-6, atol=1e-30)


def test_a_graph_gives_the_same_rates_as_eager_calls():
    schedule = schedules.WarmupCosine(PEAK, 1_000_000, warmup_fraction=0.06)
    in_graph = tf.function(schedule)
    for step in (0, 59_999, 60_000, 777_777, 999_999, 1_000_000, 2_000_000):
        expected = PEAK * cosine(np.float64(step), 1_000_000, 60_000)
        np.testing.assert_allclose(in_graph(tf.constant(step, tf.int64)), expected, rtol=1e-6, atol=1e-30)
        np.testing.assert_allclose(schedule(step), expected, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize(
    "total, cut_frac, ratio", [(20, 0.1, 32), (1000, 0.1, 32), (300, 0.29, 8), (1_000_000, 0.06, 32)]
)
def test_slanted_triangular_is_equation_three(total, cut_frac, ratio):
    steps = np.arange(total + 1) if total <= 1000 else np.r_[0:20, 59_990:60_010, 999_990:1_000_001]
    rates = schedules.SlantedTriangular(PEAK, total, cut_frac=cut_frac, ratio=ratio)(steps)
    np.testing.assert_allclose(rates, PEAK * slanted(steps.astype(float), total, cut_frac, ratio), rtol=1e-6)
    assert rates.numpy().argmax() == np.flatnonzero(steps == math.floor(total * cut_frac))[0]
    np.testing.assert_allclose(rates[-1], PEAK / ratio, rtol=1e-6)


def test_slanted_triangular_stays_between_its_bounds_where_the_cut_is_no_whole_number():
    steps = np.arange(26)
    rates = schedules.SlantedTriangular(1.0, 19, cut_frac=0.1, ratio=32)(steps).numpy()  # 1.9 -> cut = 1
    p = np.maximum(0, 1 - (steps - 1) / (1 * (1 / 0.1 - 1)))
    p[0] = 0
    np.testing.assert_allclose(rates, (1 + p * 31) / 32, rtol=1e-6)
    assert slanted(np.float64(18), 19, 0.1, 32) < 0  # the bare formula would climb the loss


def test_slanted_triangular_without_a_rise_falls_from_the_peak():
    rates = schedules.SlantedTriangular(1.0, 4, cut_frac=0.1, ratio=4)(range(6)).numpy()  # 0.4 -> cut = 0
    np.testing.assert_allclose(rates, [1, 0.8125, 0.625, 0.4375, 0.25, 0.25])


def test_rounding_of_the_fraction_is_that_of_the_decimal_number():
    assert schedules.WarmupLinear(1.0, 100, warmup_fraction=0.07).warmup_steps == 7  # 7.000000000000001
    assert schedules.WarmupLinear(1.0, 101, warmup_fraction=0.07).warmup_steps == 8
    assert schedules.WarmupLinear(1.0, 1, warmup_fraction=0.1).warmup_steps == 0
    peak_at = schedules.SlantedTriangular(1.0, 100, cut_frac=0.29)(range(100)).numpy().argmax()
    assert peak_at == 29  # 28.999999999999996


@pytest.mark.parametrize(
    "schedule",
    [
        schedules.WarmupLinear(PEAK, 50, warmup_steps=5),
        schedules.WarmupCosine(PEAK, 50, warmup_fraction=0.2),
        schedules.WarmupConstant(PEAK, 50, warmup_steps=7),
        schedules.SlantedTriangular(PEAK, 50, cut_frac=0.3, ratio=16),
    ],
)
def test_schedules_survive_serialisation_and_an_optimizer(schedule):
    copy = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert type(copy) is type(schedule) and copy.get_config() == schedule.get_config()
    optimizer = keras.optimizers.deserialize(keras.optimizers.serialize(keras.optimizers.SGD(schedule)))
    variable = tf.Variable(0.0, dtype=tf.float64)
    moves = []
    for _ in range(53):
        before = variable.numpy()
        optimizer.apply_gradients([(tf.constant(1.0, tf.float64), variable)])
        moves.append(before - variable.numpy())
    np.testing.assert_allclose(moves, schedule(range(53)).numpy(), rtol=1e-6, atol=1e-20)


def test_by_name():
    for name, kind in {
        "warmup-linear": schedules.WarmupLinear,
        "warmup-cosine": schedules.WarmupCosine,
        "warmup-constant": schedules.WarmupConstant,
    }.items():
        made = schedules.by_name(name, PEAK, total_steps=40, warmup_fraction=0.2)
        expected = {"learning_rate": PEAK, "total_steps": 40, "warmup_steps": 8}
        assert type(made) is kind and made.get_config() == expected
    made = schedules.by_name("slanted-triangular", PEAK, total_steps=40, warmup_fraction=0.2)
    assert made.get_config() == {"learning_rate": PEAK, "total_steps": 40, "cut_frac": 0.2, "ratio": 32.0}
    made = schedules.by_name("constant", PEAK, total_steps=40, warmup_fraction=0.2)
    np.testing.assert_array_equal(made(range(50)), np.float32(PEAK))
    assert len(schedules.NAMES) == 5 and list(schedules.NAMES) == sorted(schedules.NAMES)


MISTAKES = {
    r"no schedule 'warmup_linear'; Did you mean 'warmup-linear'\? give one of constant, ": lambda: schedules.by_name(
        "warmup_linear", 1.0, total_steps=2
    ),
    "WarmupLinear: warmup_steps is 10 of 10 steps in all; give a whole number from 0 to 9": lambda: (
        schedules.WarmupLinear(1.0, 10, warmup_steps=10)
    ),
    "warmup_steps is -1 of 10": lambda: schedules.WarmupCosine(1.0, 10, warmup_steps=-1),
    "warmup_steps is 0.1 of 10": lambda: schedules.WarmupCosine(1.0, 10, warmup_steps=0.1),
    "warmup_fraction is 1.0; give at least 0": lambda: schedules.WarmupConstant(1.0, 10, warmup_fraction=1.0),
    "both given": lambda: schedules.WarmupLinear(1.0, 10, warmup_steps=1, warmup_fraction=0.1),
    "learning_rate is 0; give a positive number": lambda: schedules.WarmupLinear(0, 10),
    "learning_rate is nan": lambda: schedules.WarmupLinear(math.nan, 10),
    "total_steps is 2.5; give the number of updates": lambda: schedules.WarmupLinear(1.0, 2.5),
    "total_steps is None": lambda: schedules.SlantedTriangular(1.0, None),
    "cut_frac is 1": lambda: schedules.SlantedTriangular(1.0, 10, cut_frac=1),
    "ratio is 0.5; give a number of at least 1": lambda: schedules.SlantedTriangular(1.0, 10, ratio=0.5),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_told(message):
    with pytest.raises(InputError, match=message):
        MISTAKES[message]()
