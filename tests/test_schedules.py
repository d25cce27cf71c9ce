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


@pytest.mark.parametrize("warmup", [1, 4, 300])
def test_inverse_square_root_is_the_transformer_s(warmup):
    steps = np.arange(1, 1000)
    rates = schedules.InverseSquareRoot(PEAK, 1000, warmup_steps=warmup)(steps)
    vaswani = np.minimum(steps**-0.5, steps * warmup**-1.5)  # section 5.3, without the width of the model
    np.testing.assert_allclose(rates, PEAK * vaswani * warmup**0.5, rtol=1e-6)
    assert float(schedules.InverseSquareRoot(PEAK, 1000, warmup_steps=warmup)(0)) == 0


def test_inverse_square_root_without_a_warmup_is_hugging_face_s():
    steps = np.arange(0, 50_001, 100)
    rates = schedules.InverseSquareRoot(PEAK, 50_000)(steps)
    np.testing.assert_allclose(rates, PEAK / np.sqrt((steps + 10_000) / 10_000), rtol=1e-6)


def one_cycle(t, total, fraction, start_ratio, end_ratio):
    """torch.optim.lr_scheduler.OneCycleLR.get_lr with anneal_strategy="cos" and two phases."""
    up, end = fraction * total - 1, total - 1
    first, last = 1 / start_ratio, 1 / start_ratio / end_ratio
    begin, stop, share = (first, 1.0, t / up) if t <= up else (1.0, last, (t - up) / (end - up))
    return stop + (begin - stop) / 2 * (math.cos(math.pi * share) + 1)


@pytest.mark.parametrize("total, fraction", [(20, 0.3), (7, 0.3), (101, 0.1), (1_000_000, 0.06)])
def test_one_cycle_is_pytorch_s(total, fraction):
    steps = np.arange(total) if total < 1000 else np.r_[0:30, 59_980:60_010, 999_990:1_000_000]
    rates = schedules.OneCycle(PEAK, total, warmup_fraction=fraction)(steps)
    np.testing.assert_allclose(rates, [PEAK * one_cycle(t, total, fraction, 25, 1e4) for t in steps], rtol=1e-5)
    assert float(schedules.OneCycle(PEAK, total)(total + 5)) == pytest.approx(PEAK / 25e4)


def test_one_cycle_in_figures_of_pytorch():
    """torch 2.13: OneCycleLR(SGD(lr=0), max_lr=1, total_steps=8, pct_start=0.5), the rates of its eight steps."""
    expected = [0.04, 0.28, 0.76, 1.0, 0.85355398, 0.500002, 0.14645002, 4e-06]
    np.testing.assert_allclose(schedules.OneCycle(1.0, 8, warmup_fraction=0.5)(range(8)), expected, rtol=1e-5)


def test_one_cycle_without_a_rise_falls_from_the_peak():
    rates = schedules.OneCycle(1.0, 4, warmup_fraction=0, start_ratio=2, end_ratio=5)(range(5)).numpy()
    np.testing.assert_allclose(rates, [1, 0.775, 0.325, 0.1, 0.1], rtol=1e-6)


def test_joined_schedules_count_from_their_own_beginning():
    parts = [(schedules.WarmupLinear(1.0, 5, warmup_steps=2), 3), (schedules.WarmupCosine(0.5, 8), 4)]
    last = schedules.SlantedTriangular(2.0, 10)
    joined = schedules.Joined([*parts, (last, 6)])
    steps = np.arange(20)
    expected = [parts[0][0](t) if t < 3 else parts[1][0](t - 3) if t < 7 else last(t - 7) for t in steps]
    np.testing.assert_array_equal(joined(steps), np.array(expected))
    np.testing.assert_array_equal([tf.function(joined)(tf.constant(t)) for t in steps], np.array(expected))


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
        schedules.InverseSquareRoot(PEAK, 50, warmup_steps=5),
        schedules.OneCycle(PEAK, 50, warmup_fraction=0.2, start_ratio=10),
        schedules.Joined(
            [(schedules.WarmupConstant(PEAK, 9, warmup_steps=3), 9), (schedules.WarmupCosine(PEAK, 30), None)]
        ),
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
        "inverse-square-root": schedules.InverseSquareRoot,
    }.items():
        made = schedules.by_name(name, PEAK, total_steps=40, warmup_fraction=0.2)
        expected = {"learning_rate": PEAK, "total_steps": 40, "warmup_steps": 8}
        assert type(made) is kind and made.get_config() == expected
    made = schedules.by_name("slanted-triangular", PEAK, total_steps=40, warmup_fraction=0.2)
    assert made.get_config() == {"learning_rate": PEAK, "total_steps": 40, "cut_frac": 0.2, "ratio": 32.0}
    made = schedules.by_name("one-cycle", PEAK, total_steps=40, warmup_fraction=0.2)
    assert type(made) is schedules.OneCycle and made.warmup_fraction == 0.2
    made = schedules.by_name("constant", PEAK, total_steps=40, warmup_fraction=0.2)
    np.testing.assert_array_equal(made(range(50)), np.float32(PEAK))
    assert len(schedules.NAMES) == 7 and list(schedules.NAMES) == sorted(schedules.NAMES)


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
    "OneCycle: warmup_fraction is 1; give at least 0": lambda: schedules.OneCycle(1.0, 10, warmup_fraction=1),
    "end_ratio is 0.1; give a number of at least 1": lambda: schedules.OneCycle(1.0, 10, end_ratio=0.1),
    "Joined: there are no parts": lambda: schedules.Joined([]),
    "part 1 is 0.5; give a Keras learning-rate schedule": lambda: schedules.Joined([(0.5, 3)]),
    "part 1 has None steps; give a whole number": lambda: schedules.Joined(
        [(schedules.WarmupLinear(1.0, 10), None), (schedules.WarmupLinear(1.0, 10), 3)]
    ),
    "cut_frac is 1": lambda: schedules.SlantedTriangular(1.0, 10, cut_frac=1),
    "ratio is 0.5; give a number of at least 1": lambda: schedules.SlantedTriangular(1.0, 10, ratio=0.5),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_told(message):
    with pytest.raises(InputError, match=message):
        MISTAKES[message]()
