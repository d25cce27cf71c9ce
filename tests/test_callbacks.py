"""Callbacks in real `fit` calls: the rate of every step against NumPy formulas, and everything else counted."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest

from tfbert import callbacks, schedules
from tfbert._compat import keras, tf, transformers
from tfbert.callbacks import EpochTimer, Progress, ScoreTask, SlantedTriangularLearningRate, StopOnNonFinite, Warmup
from tfbert.errors import InputError

X = np.linspace(-1, 1, 24, dtype=np.float32).reshape(12, 2)
Y = np.arange(12, dtype=np.float32)


def linear(t, total, warmup):
    return t / warmup if t < warmup else (total - t) / (total - warmup)


class Moves(keras.callbacks.Callback):
    """The rate that each update really used: this loss has gradient 1, so that plain SGD moves the weight by the rate."""

    def on_train_begin(self, logs=None):
        self.rates, self.weight = [], self.model.weight.numpy()

    def on_train_batch_end(self, batch, logs=None):
        now = self.model.weight.numpy()
        self.rates.append(float(self.weight - now))
        self.weight = now


class Slope(keras.Model):
    """Its loss is its one weight, in float64."""

    def __init__(self):
        super().__init__()
        self.weight = self.add_weight("weight", (), tf.float64, "zeros")

    def train_step(self, data):
        with tf.control_dependencies([data]):  # no update when there is no batch
            with tf.GradientTape() as tape:
                loss = tf.identity(self.weight)
            self.optimizer.apply_gradients([(tape.gradient(loss, self.weight), self.weight)])
        return {"loss": loss}


def slope(optimizer=None, *, run_eagerly=True, **options):
    model = Slope()
    model.compile(optimizer or keras.optimizers.SGD(0.5), run_eagerly=run_eagerly, **options)
    return model


def fit(model, *used, epochs=3, steps=4, **options):
    moves = Moves()
    data = tf.data.Dataset.range(steps * 2).batch(2)
    history = model.fit(data, epochs=epochs, verbose=0, callbacks=[*used, moves], **options)
    return moves.rates, history.history


def test_warmup_sets_the_rate_of_every_step():
    rates, history = fit(slope(run_eagerly=False), Warmup(3))
    expected = [0.5 * linear(t, 12, 3) for t in range(12)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(history["learning_rate"], [expected[3], expected[7], expected[11]], rtol=1e-6)


@pytest.mark.parametrize(
    "callback, schedule",
    [
        (Warmup(2), schedules.WarmupLinear(0.5, 12, warmup_steps=2)),
        (Warmup(warmup_fraction=0.3), schedules.WarmupLinear(0.5, 12, warmup_steps=4)),
        (Warmup(0, decay="cosine"), schedules.WarmupCosine(0.5, 12)),
        (Warmup(5, decay="constant"), schedules.WarmupConstant(0.5, 12, warmup_steps=5)),
        (Warmup(2, total_steps=7), schedules.WarmupLinear(0.5, 7, warmup_steps=2)),
        (Warmup(2, learning_rate=0.25), schedules.WarmupLinear(0.25, 12, warmup_steps=2)),
        (SlantedTriangularLearningRate(), schedules.SlantedTriangular(0.5, 12)),
        (SlantedTriangularLearningRate(0.4, 8), schedules.SlantedTriangular(0.5, 12, cut_frac=0.4, ratio=8)),
    ],
)
def test_callbacks_equal_the_schedules_step_by_step(callback, schedule):
    by_callback, _ = fit(slope(), callback)
    by_schedule, _ = fit(slope(keras.optimizers.SGD(schedule), run_eagerly=False))
    assert len(by_callback) == 12
    np.testing.assert_array_equal(by_callback, by_schedule)


def test_slanted_triangular_is_the_paper_s_formula():
    rates, _ = fit(slope(), SlantedTriangularLearningRate(), epochs=5)  # T = 20, cut = 2
    p = [t / 2 if t < 2 else 1 - (t - 2) / (2 * (1 / 0.1 - 1)) for t in range(20)]
    np.testing.assert_allclose(rates, [0.5 * (1 + each * 31) / 32 for each in p], rtol=1e-6)


def test_a_resumed_training_goes_on_with_its_rates():
    whole, _ = fit(slope(), Warmup(3))
    begun = slope()
    first, _ = fit(begun, Warmup(3, total_steps=12), epochs=1)
    resumed = slope()
    resumed.optimizer.iterations.assign(begun.optimizer.iterations)
    rest, history = fit(resumed, Warmup(3), initial_epoch=1)
    np.testing.assert_array_equal(first + rest, whole)
    assert len(history["learning_rate"]) == 2


def test_a_restored_rate_is_not_taken_for_the_peak_that_is_given():
    whole, _ = fit(slope(), Warmup(3))
    model = slope()
    fit(model, Warmup(3, total_steps=12), epochs=1)  # leaves the rate of step 3 in the optimizer, as a checkpoint would
    rest, _ = fit(model, Warmup(3, learning_rate=0.5), initial_epoch=1)
    np.testing.assert_array_equal(rest, whole[4:])


def test_one_callback_in_two_fits_keeps_the_peak():
    whole, _ = fit(slope(), Warmup(3))
    model, callback = slope(), Warmup(3, total_steps=12)
    first, _ = fit(model, callback, epochs=1)
    rest, _ = fit(model, callback, initial_epoch=1)
    np.testing.assert_array_equal(first + rest, whole)
    model.compile(keras.optimizers.SGD(0.25), run_eagerly=True)  # begun anew, with another peak
    again, _ = fit(model, callback)
    np.testing.assert_array_equal(again, np.array(whole) / 2)


def test_legacy_optimizers_and_loss_scaling():
    expected = [0.5 * linear(t, 12, 3) for t in range(12)]
    rates, _ = fit(slope(keras.optimizers.legacy.SGD(0.5)), Warmup(3))
    np.testing.assert_allclose(rates, expected, rtol=1e-6, atol=1e-12)
    scaled = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD(0.5), dynamic=False, initial_scale=1)
    rates, _ = fit(slope(scaled), Warmup(3))
    np.testing.assert_allclose(rates, expected, rtol=1e-6, atol=1e-12)


def test_the_count_of_steps_is_the_optimizer_s_own():
    class Overflows(Slope):
        def train_step(self, data):
            factor = tf.where(data[0] == 2, np.inf, 1.0)  # the second batch overflows, and loss scaling skips it
            gradient = self.optimizer.get_scaled_loss(tf.constant(1.0, tf.float64)) * tf.cast(factor, tf.float64)
            self.optimizer.apply_gradients([(self.optimizer.get_unscaled_gradients([gradient])[0], self.weight)])
            return {"loss": self.weight}

    def run(rate, *used):
        model = Overflows()
        scaled = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD(rate), initial_scale=2)
        model.compile(scaled, run_eagerly=True)
        return fit(model, *used, epochs=2)[0]

    expected = [0.5 * linear(t, 8, 2) for t in range(8)]  # tf_keras counts the skipped steps too
    expected[1] = expected[5] = 0.0
    rates = run(0.5, Warmup(2))
    np.testing.assert_allclose(rates, expected, rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(rates, run(schedules.WarmupLinear(0.5, 8, warmup_steps=2)))


def test_warmup_on_a_transformers_model():
    config = transformers.BertConfig(
        vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4
    )
    model = transformers.TFBertForSequenceClassification(config)
    model.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
    seen = []
    record = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(float(model.optimizer.learning_rate.numpy()))
    )
    data = {"input_ids": np.arange(12).reshape(6, 2) % 9, "labels": np.arange(6) % 2}
    model.fit(data, batch_size=2, epochs=1, verbose=0, callbacks=[Warmup(1), record])
    np.testing.assert_allclose(seen, [0.0, 0.5, 0.25])


MISTAKES = {
    "Warmup: give either warmup_steps or warmup_fraction": lambda: Warmup(),
    "give either warmup_steps or": lambda: Warmup(1, warmup_fraction=0.1),
    r"decay is 'cosin'; Did you mean 'cosine'\? give one of constant, cosine, linear": lambda: Warmup(1, decay="cosin"),
    "warmup_steps is 12 of 12 steps in all": lambda: fit(slope(), Warmup(12)),
    "Warmup needs an optimizer whose learning rate is a plain number, not a schedule": lambda: fit(
        slope(keras.optimizers.SGD(schedules.WarmupLinear(0.5, 12))), Warmup(1)
    ),
    "needs an optimizer whose": lambda: fit(
        slope(keras.optimizers.legacy.SGD(schedules.WarmupLinear(0.5, 12))), SlantedTriangularLearningRate()
    ),
    "steps_per_execution is above 1; compile without it": lambda: fit(slope(steps_per_execution=2), Warmup(1)),
    "Warmup: the optimizer's learning rate is 0.0; compile with the peak": lambda: fit(
        slope(keras.optimizers.SGD(0.0)), Warmup(1)
    ),
    "mode is 'auto'; give \"max\" where more of f1 is better": lambda: ScoreTask(dict, monitor="f1", mode="auto"),
    "patience is 0; give at least 1 epoch": lambda: ScoreTask(dict, monitor="f1", mode="max", patience=0),
    r"no score is called 'acuracy'; Did you mean 'accuracy'\? there are accuracy, f1": lambda: fit(
        slope(), ScoreTask(lambda model: {"accuracy": 0.1, "f1": 0.2}, monitor="acuracy", mode="max")
    ),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_told(message):
    with pytest.raises(InputError, match=message):
        MISTAKES[message]()


def test_unknown_steps_need_total_steps():
    data = tf.data.Dataset.range(8).batch(2).filter(lambda batch: True)
    with pytest.raises(InputError, match="does not say how many steps an epoch has; pass total_steps"):
        slope().fit(data, epochs=2, verbose=0, callbacks=[Warmup(2)])
    moves = Moves()
    slope().fit(data, epochs=2, verbose=0, callbacks=[Warmup(2, total_steps=8), moves])
    np.testing.assert_allclose(moves.rates, [0.5 * linear(t, 8, 2) for t in range(8)], rtol=1e-6, atol=1e-12)


def test_a_schedule_that_is_over_is_not_begun_again_in_silence():
    model = slope()
    fit(model, Warmup(3))
    with pytest.raises(
        InputError, match="the optimizer has done 12 updates, and its schedule ends at 12; pass a larger"
    ):
        fit(model, Warmup(3, learning_rate=0.5))


def dense(rate=0.05):
    model = keras.Sequential([keras.layers.Dense(1, input_shape=(2,), kernel_initializer="ones")])
    model.compile(keras.optimizers.SGD(rate), "mse", run_eagerly=True)
    return model


def test_a_loss_that_is_not_finite_ends_the_training_before_anything_is_saved():
    labels = Y.copy()
    saved = []
    save = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: saved.append(epoch),
        on_train_batch_end=lambda batch, logs: saved.append("step"),
    )
    poison = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: model.layers[0].bias.assign([np.nan]) if epoch == 1 else None
    )
    model = dense()
    with pytest.raises(
        InputError, match=r"^the loss is nan at epoch 2, step 1; lower the learning rate \(0.05 at this"
    ):
        model.fit(X, labels, batch_size=4, epochs=3, verbose=0, callbacks=[poison, StopOnNonFinite(), save])
    assert saved == ["step"] * 3 + [0]
    labels[7] = np.inf
    with pytest.raises(InputError, match="the loss is inf at epoch 1, step 2"):
        dense().fit(X, labels, batch_size=4, shuffle=False, verbose=0, callbacks=[StopOnNonFinite()])
    with pytest.raises(InputError, match=r"the loss is (nan|inf) at epoch \d, step \d; .*\(1e\+20 at this step\)"):
        dense(1e20).fit(X, Y, batch_size=4, epochs=5, verbose=0, callbacks=[StopOnNonFinite()])


def test_the_last_update_s_weights_are_checked_too():
    with pytest.raises(
        InputError, match=r"dense.*/(kernel|bias):0 is not finite after epoch 1; lower the learning rate"
    ):
        dense(1e39).fit(X, Y, batch_size=12, verbose=0, callbacks=[StopOnNonFinite()])


def scored(values, *, epochs=None, model=None, **options):
    """Fits with the given scores; returns (ScoreTask, weights after each epoch, history, final weights)."""
    model = model or dense()
    found, after = iter(values), []

    def score(trained):
        assert trained is model
        after.append(trained.get_weights())
        return {"f1": next(found), "other": 0.5}

    scorer = ScoreTask(score, monitor="f1", **options)
    history = model.fit(X, Y, batch_size=4, epochs=epochs or len(values), verbose=0, callbacks=[scorer])
    return scorer, after, history.history, model.get_weights()


@pytest.mark.parametrize("mode, values, best", [("max", [0.2, 0.9, 0.4, 0.9], 1), ("min", [0.9, 0.4, 0.2, 0.3], 2)])
def test_the_best_weights_come_back(mode, values, best):
    scorer, after, history, final = scored(values, mode=mode)
    assert (scorer.best_epoch, scorer.best_score) == (best, values[best])
    assert history["val_f1"] == values and history["val_other"] == [0.5] * 4
    for restored, kept, last in zip(final, after[best], after[-1]):
        np.testing.assert_array_equal(restored, kept)
        assert (kept != last).any()
    scorer, after, _, final = scored(values, mode=mode, restore_best=False)
    assert scorer.best_epoch == best and scorer.best_weights is None
    np.testing.assert_array_equal(final[0], after[-1][0])


def test_patience_counts_epochs_without_a_new_best():
    scorer, after, history, final = scored([0.5, 0.4, 0.6, 0.6, 0.1, 0.9], mode="max", patience=2)
    assert len(after) == 5 and scorer.best_epoch == 2
    np.testing.assert_array_equal(final[0], after[2][0])


def test_nan_is_never_the_best():
    scorer, after, _, final = scored([math.nan, 0.3, math.nan], mode="max")
    assert scorer.best_epoch == 1 and scorer.best_score == 0.3
    np.testing.assert_array_equal(final[0], after[1][0])
    scorer, after, _, final = scored([math.nan, math.nan], mode="min")
    assert scorer.best_epoch is None
    np.testing.assert_array_equal(final[0], after[1][0])


def test_a_resumed_scorer_goes_on_from_its_best_and_a_new_training_forgets():
    found = iter([0.8, 0.5, 0.6, 0.1])
    scorer = ScoreTask(lambda model: {"f1": next(found)}, monitor="val_f1", mode="max")
    model = dense()
    model.fit(X, Y, epochs=1, verbose=0, callbacks=[scorer])
    best = model.get_weights()
    model.fit(X, Y, epochs=3, initial_epoch=1, verbose=0, callbacks=[scorer])
    assert (scorer.best_epoch, scorer.best_score) == (0, 0.8)
    np.testing.assert_array_equal(model.get_weights()[0], best[0])
    model.fit(X, Y, epochs=1, verbose=0, callbacks=[scorer])
    assert (scorer.best_epoch, scorer.best_score) == (0, 0.1)


def test_a_score_of_keras_own_validation_may_decide():
    scorer = ScoreTask(lambda model: {}, monitor="val_loss", mode="min")
    history = dense().fit(X, Y, epochs=3, verbose=0, validation_data=(X, Y), callbacks=[scorer])
    assert scorer.best_score == min(history.history["val_loss"])


class Clock:
    """time.monotonic that adds a second at every batch's end and ten at every epoch's."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(callbacks.watching.time, "monotonic", lambda: self.now)

    def callback(self):
        def add(seconds):
            self.now += seconds

        return keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: add(1.0), on_epoch_end=lambda epoch, logs: add(10.0)
        )


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(stream, monkeypatch, **options):
    clock = Clock(monkeypatch)
    scorer = ScoreTask(lambda model: {"accuracy": 0.75}, monitor="accuracy", mode="max")
    progress = Progress(stream, tokens_per_epoch=12345, padding_share=0.0406, **options)
    timer = EpochTimer()
    model = slope(keras.optimizers.SGD(0.0))
    fit(model, timer, clock.callback(), scorer, progress, epochs=3, steps=4)
    return stream.getvalue(), timer


def test_progress_writes_a_plain_line_for_each_epoch_into_a_file(monkeypatch):
    text, timer = shown(io.StringIO(), monkeypatch)
    same = "4/4  100%  loss 0.0000  3,086 tokens/s  padding 4.1%  val_accuracy 0.7500"
    # After the first epoch 3 steps and the scoring took 13 s since the first step: 8 steps more take 34.7.
    assert text.splitlines() == [
        f"epoch 1/3  {same}  0:35 left",
        f"epoch 2/3  {same}  0:15 left",
        f"epoch 3/3  {same}  0:42 in all",
    ]
    assert timer.seconds == [4.0, 4.0, 4.0]
    kept = timer.state()
    timer.seconds.append(1.0)  # while a thread writes what was kept
    assert kept["seconds"] == [4.0, 4.0, 4.0]


def test_progress_refreshes_one_line_on_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    text, _ = shown(Terminal(), monkeypatch)
    lines = text.split("\n")
    assert len(lines) == 4 and lines[3] == ""
    refreshed = lines[1].split("\x1b[K")
    assert refreshed[1] == "\repoch 2/3  2/4  50%  loss 0.0000  3,086 tokens/s  padding 4.1%"[:60]
    assert all(len(each) <= 60 for each in refreshed[:-2])
    assert refreshed[-2].endswith("val_accuracy 0.7500  0:15 left")


def test_progress_refreshes_at_most_five_times_a_second(monkeypatch):
    clock = Clock(monkeypatch)
    stream = Terminal()
    tick = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: setattr(clock, "now", clock.now + 0.0625)
    )
    fit(slope(), tick, Progress(stream), epochs=1, steps=41)
    assert stream.getvalue().count("\r") == 10 + 1  # every fourth step, and the finished line


def test_progress_without_known_steps(monkeypatch):
    clock, stream = Clock(monkeypatch), Terminal()
    data = tf.data.Dataset.range(8).batch(2).filter(lambda batch: True)
    slope(keras.optimizers.SGD(0.0)).fit(data, epochs=2, verbose=0, callbacks=[clock.callback(), Progress(stream)])
    first, second, _ = stream.getvalue().split("\n")
    assert "epoch 1/2  3/?  loss 0.0000\x1b" in first and first.endswith("4/4  100%  loss 0.0000  0:17 left\x1b[K")
    assert "epoch 2/2  3/4  75%  loss 0.0000  " in second


@pytest.mark.parametrize(
    "seconds, text", [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (3599.9, "1:00:00"), (3665, "1:01:05")]
)
def test_clock(seconds, text):
    assert callbacks.watching._clock(seconds) == text
