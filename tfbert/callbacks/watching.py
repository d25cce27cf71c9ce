"""Timing, watching and scoring a `fit`: EpochTimer, StopOnNonFinite, StopAfter, ScoreTask, Progress, History.

Those that remember something have `state()`, which gives it as JSON values and NumPy arrays, and `restore(state)`, which is called after
`on_train_begin` (see `tfbert.checkpoints`)."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable

import numpy as np

from tfbert import models
from tfbert._compat import keras, tf
from tfbert.errors import Diverged, InputError, suggest


class EpochTimer(keras.callbacks.Callback):
    """Measures the seconds of each epoch; put before ScoreTask it leaves the scoring out.

    Attributes:
        seconds: one float for each epoch of the latest `fit`.

    Example:
        >>> model = keras.Sequential([keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> timer = EpochTimer()
        >>> _ = model.fit(np.zeros([4, 2]), np.zeros(4), epochs=3, verbose=0, callbacks=[timer])
        >>> len(timer.seconds)
        3
    """

    def __init__(self):
        super().__init__()
        self.on_train_begin()

    def on_train_begin(self, logs=None):
        self.seconds: list[float] = []
        self._began, self._before = None, 0.0  # seconds of this epoch before it was interrupted

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.monotonic() - self._before

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.monotonic() - self._began)
        self._began, self._before = None, 0.0

    def state(self) -> dict:
        """The seconds of the epochs that are over, and of the one that is not; a copy, written while the training goes on."""
        return {"seconds": list(self.seconds), "before": 0.0 if self._began is None else time.monotonic() - self._began}

    def restore(self, state: dict) -> None:
        """Goes on counting where `state` was given."""
        self.seconds, self._before = state["seconds"], state["before"]


class StopOnNonFinite(keras.callbacks.Callback):
    """Ends the training with an error as soon as a batch's loss, or a weight at an epoch's end, is NaN or infinite.

    Keras' TerminateOnNaN ends `fit` as if all were well, and what saves at the end of an epoch then saves NaN. This one
    raises; put it before whatever saves.

    Raises:
        Diverged: from `fit`, naming epoch and step, both counted from 1.

    Example:
        >>> model = keras.Sequential([keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.SGD(0.5), "mse")
        >>> model.fit(np.ones([4, 2]), np.array([0, 0, np.inf, 0]), batch_size=1, verbose=0, shuffle=False,
        ...           callbacks=[StopOnNonFinite()])
        Traceback (most recent call last):
        ...
        tfbert.errors.Diverged: the loss is inf at epoch 1, step 3; lower the learning rate (0.5 at this step), or
        look for numbers that are not finite in the data
    """

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch, logs=None):
        loss = (logs or {}).get("loss", 0.0)
        if not np.isfinite(loss):
            raise Diverged(
                f"the loss is {loss} at epoch {self._epoch}, step {batch + 1}; lower the learning rate{self._rate()}, "
                "or look for numbers that are not finite in the data"
            )

    def on_epoch_end(self, epoch, logs=None):
        for variable in self.model.trainable_variables:
            if not tf.reduce_all(tf.math.is_finite(variable)):
                place = f"{variable.name} is not finite after epoch {self._epoch}"
                raise Diverged(f"{place}; lower the learning rate{self._rate()}")

    def _rate(self) -> str:
        rate = self.model.optimizer.learning_rate
        return "" if callable(rate) else f" ({float(keras.backend.get_value(rate)):g} at this step)"


class StopAfter(keras.callbacks.Callback):
    """Ends `fit` after so many steps, within an epoch too: what scores and saves at an epoch's end does so then.

    Args:
        steps: counted from the first epoch's beginning, also where `fit` begins later.

    Example:
        >>> model = keras.Sequential([keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> history = model.fit(np.zeros([8, 2]), np.zeros(8), batch_size=2, epochs=5, verbose=0, callbacks=[StopAfter(6)])
        >>> int(model.optimizer.iterations), len(history.history["loss"])
        (6, 2)
    """

    def __init__(self, steps: int):
        super().__init__()
        self.steps = steps

    def on_epoch_begin(self, epoch, logs=None):
        self._before = epoch * self.params["steps"]

    def on_train_batch_end(self, batch, logs=None):
        if self._before + batch + 1 >= self.steps:
            self.model.stop_training = True


class ScoreTask(keras.callbacks.Callback):
    """Scores the whole task after each epoch, keeps the best weights, and stops when they no longer get better.

    The scores go into the epoch's logs as "val_<name>", so that History and CSVLogger show them. Copies of the best
    weights are kept in memory and put back at the end of the training. A NaN is never the best. A training resumed with
    `initial_epoch` above 0 and this same object goes on from the best so far.

    Args:
        score_fn: model -> dict of floats.
        monitor: the score that decides; it may also be one that Keras' validation_data brings, as "val_loss".
        mode: "max" where more is better, "min" where less is; `tfbert.metrics.direction` knows it for the usual names.
        patience: stop after this many epochs in a row without a new best, >= 1; None never stops (default).
        restore_best: put the best weights back at the end (default True).

    Attributes:
        best_epoch, best_score: the best epoch so far, counted from 0, and its score; None before the first.

    Raises:
        InputError: from the constructor for a wrong option; from `fit` where nothing called `monitor` is scored.

    Example:
        >>> model = keras.Sequential([keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.SGD(0.1), "mse")
        >>> found = iter([0.5, 0.8, 0.7])
        >>> scorer = ScoreTask(lambda model: {"accuracy": next(found)}, monitor="accuracy", mode="max")
        >>> history = model.fit(np.ones([4, 2]), np.ones(4), epochs=3, verbose=0, callbacks=[scorer])
        >>> history.history["val_accuracy"], scorer.best_epoch, scorer.best_score
        ([0.5, 0.8, 0.7], 1, 0.8)
    """

    def __init__(
        self, score_fn: Callable, *, monitor: str, mode: str, patience: int | None = None, restore_best: bool = True
    ):
        super().__init__()
        if mode not in ("max", "min"):
            raise InputError(f'mode is {mode!r}; give "max" where more of {monitor} is better, "min" where less is')
        if patience is not None and patience < 1:
            raise InputError(f"patience is {patience!r}; give at least 1 epoch, or None never to stop early")
        self.score_fn, self.monitor, self.mode = score_fn, monitor.removeprefix("val_"), mode
        self.patience, self.restore_best = patience, restore_best
        self.on_epoch_begin(0)

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 0:  # a new training; a resumed one goes on from its best
            self.best_epoch = self.best_score = self.best_weights = None
            self._waited = 0

    def on_epoch_end(self, epoch, logs=None):
        logs = {} if logs is None else logs
        for name, value in self.score_fn(self.model).items():
            logs[f"val_{name}"] = float(value)
        score = logs.get(f"val_{self.monitor}")
        if score is None:
            names = [name.removeprefix("val_") for name in logs if name.startswith("val_")]
            hint = suggest(self.monitor, names)
            raise InputError(f"no score is called {self.monitor!r};{hint} there are {', '.join(names)}")
        best = self.best_score
        if not math.isnan(score) and (best is None or (score > best if self.mode == "max" else score < best)):
            self.best_epoch, self.best_score, self._waited = epoch, score, 0
            if self.restore_best:
                # Keras' order of the weights depends on which of them learn at the time.
                self.best_weights = [variable.numpy() for variable in models.weights_in_order(self.model)]
            return
        self._waited += 1
        if self.patience is not None and self._waited >= self.patience:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        if self.best_weights is not None:
            variables = models.weights_in_order(self.model)
            keras.backend.batch_set_value(list(zip(variables, self.best_weights, strict=True)))

    def state(self) -> dict:
        """The best so far, and for how many epochs there has been no better."""
        return {
            "epoch": self.best_epoch,
            "score": self.best_score,
            "weights": self.best_weights,
            "waited": self._waited,
        }

    def restore(self, state: dict) -> None:
        """Goes on from the best when `state` was given."""
        self.best_epoch, self.best_score = state["epoch"], state["score"]
        self.best_weights, self._waited = state["weights"], state["waited"]


class Progress(keras.callbacks.Callback):
    """Writes one line for each epoch: position, loss, real tokens a second, padding, and the time left of the whole run.

    On a terminal the line is refreshed in place, at most five times a second; elsewhere (a log file) only the finished
    line of each epoch is written. Pass verbose=0 to `fit`.

    Args:
        stream: a text stream; sys.stderr by default.
        tokens_per_epoch: tokens of an epoch without padding; without it no speed is shown.
        padding_share: share of positions that are padding, 0 to 1; without it none is shown.
        monitor: the score to show of those that ScoreTask writes; without it all are shown.
        unit: what an epoch of `fit` is called (default "epoch").

    Example:
        >>> model = keras.Sequential([keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> _ = model.fit(np.zeros([8, 2]), np.zeros(8), batch_size=2, epochs=2, verbose=0,
        ...               callbacks=[Progress(sys.stdout, padding_share=0.041)])
        epoch 1/2  4/4  100%  loss 0.0000  padding 4.1%  0:0... left
        epoch 2/2  4/4  100%  loss 0.0000  padding 4.1%  0:0... in all
    """

    def __init__(
        self, stream=None, *, tokens_per_epoch: int | None = None, padding_share=None, monitor=None, unit="epoch"
    ):
        super().__init__()
        self.stream, self.tokens_per_epoch, self.padding_share = stream, tokens_per_epoch, padding_share
        self.monitor, self.unit = f"val_{monitor}" if monitor else "val_", unit

    def on_train_begin(self, logs=None):
        self._out = self.stream or sys.stderr
        self._terminal = self._out.isatty()
        self._began = self._shown = time.monotonic()
        self._steps = self.params.get("steps")
        self._before = 0.0  # seconds of this epoch before it was interrupted
        self._run_done = 0  # steps of this fit
        self._first_at = None  # when its first step, which also builds the graph, was over

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._done = epoch + 1, 0
        self._epoch_began = self._step_at = time.monotonic() - self._before
        self._before = 0.0

    def on_train_batch_end(self, batch, logs=None):
        now = self._step_at = time.monotonic()
        self._run_done += batch + 1 - self._done
        self._done = batch + 1
        if self._first_at is None:
            self._first_at, self._counted_from = now, self._run_done
        if self._terminal and now - self._shown >= 0.2:
            self._shown = now
            line = "  ".join([*self._parts(logs), *self._left(now)])
            self._out.write(f"\r{line[: shutil.get_terminal_size().columns - 1]}\x1b[K")
            self._out.flush()

    def on_epoch_end(self, epoch, logs=None):
        logs, now = logs or {}, time.monotonic()
        self._steps = self._done
        scores = [f"{name} {value:.4f}" for name, value in logs.items() if name.startswith(self.monitor)]
        last = self._epoch == self.params["epochs"]
        end = [f"{_clock(now - self._began)} in all"] if last else self._left(now)
        line = "  ".join([*self._parts(logs), *scores, *end])
        self._out.write(f"\r{line}\x1b[K\n" if self._terminal else f"{line}\n")
        self._out.flush()
        self._epoch_began = time.monotonic()

    def state(self) -> dict:
        """The seconds of the run and of its epoch."""
        now = time.monotonic()
        return {"seconds": now - self._began, "before": now - self._epoch_began}

    def restore(self, state: dict) -> None:
        """Goes on counting where `state` was given."""
        self._began -= state["seconds"]
        self._before = state["before"]

    def _parts(self, logs) -> list[str]:
        parts = [f"{self.unit} {self._epoch}/{self.params['epochs']}", f"{self._done}/{self._steps or '?'}"]
        if self._steps:
            parts.append(f"{100 * self._done // self._steps}%")
        if "loss" in logs:
            parts.append(f"loss {logs['loss']:.4f}")
        seconds = self._step_at - self._epoch_began
        if self.tokens_per_epoch and self._steps and seconds > 0:
            parts.append(f"{self.tokens_per_epoch * self._done / self._steps / seconds:,.0f} tokens/s")
        if self.padding_share is not None:
            parts.append(f"padding {100 * self.padding_share:.1f}%")
        return parts

    def _left(self, now: float) -> list[str]:
        counted = self._run_done - self._counted_from
        if not self._steps or counted < 1:
            return []
        steps = (self.params["epochs"] - self._epoch + 1) * self._steps - self._done
        return [f"{_clock(steps * (now - self._first_at) / counted)} left"]


class History(keras.callbacks.History):
    """Keras' record of each epoch's logs, which goes on where an interrupted one stopped.

    Attributes:
        epoch: the epochs that are over, counted from 0.
        history: name -> its value in each of them.

    Example:
        >>> model = keras.Sequential([keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> history = History()
        >>> _ = model.fit(np.zeros([4, 2]), np.zeros(4), epochs=2, verbose=0, callbacks=[history])
        >>> history.state()
        {'epoch': [0, 1], 'history': {'loss': [0.0, 0.0]}}
    """

    def state(self) -> dict:
        """All of it; a copy, written while the training goes on."""
        return {
            "epoch": list(self.epoch),
            "history": {name: [float(value) for value in column] for name, column in self.history.items()},
        }

    def restore(self, state: dict) -> None:
        """Goes on from what `state` gave."""
        self.epoch, self.history = state["epoch"], state["history"]


def _clock(seconds: float) -> str:
    """65 -> "1:05", 3665 -> "1:01:05"."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"
