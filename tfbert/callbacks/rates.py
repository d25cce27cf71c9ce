"""The learning rate of every step: Warmup and SlantedTriangularLearningRate."""

from __future__ import annotations

import numpy as np

from tfbert._compat import keras
from tfbert.errors import InputError, suggest
from tfbert.schedules import SlantedTriangular, WarmupConstant, WarmupCosine, WarmupLinear

_DECAYS = {"constant": WarmupConstant, "cosine": WarmupCosine, "linear": WarmupLinear}


def settable_rate(model, name: str) -> float:
    """The rate of a model's optimizer, once it is known that a number may be put in its place; `name` is of who asks."""
    try:
        rate = float(keras.backend.get_value(model.optimizer.learning_rate))
        model.optimizer.learning_rate = rate  # Keras refuses this where the rate is a schedule
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} needs an optimizer whose learning rate is a plain number, not a schedule; use only one of the two"
        ) from error
    return rate


class _EveryStep(keras.callbacks.Callback):
    """Sets the rate before every update to what a schedule says for the optimizer's own count of updates."""

    def __init__(self, total_steps: int | None, learning_rate: float | None):
        super().__init__()
        self.total_steps, self.learning_rate, self.schedule = total_steps, learning_rate, None
        self._peak = self._rate = None

    def _make(self, peak: float, total_steps: int):
        """The schedule from `peak` over `total_steps`."""
        raise NotImplementedError

    def on_train_begin(self, logs=None):
        name = type(self).__name__
        steps_per_execution = getattr(self.model, "_steps_per_execution", None)
        if steps_per_execution is not None and int(keras.backend.get_value(steps_per_execution)) > 1:
            raise InputError(
                f"{name} cannot set the rate of each step when steps_per_execution is above 1; compile without it, "
                "or give the optimizer a schedule of tfbert.schedules"
            )
        rate = settable_rate(self.model, name)
        # A callback that goes on after an earlier fit finds the rate that it left there, and not the peak.
        if rate != self._rate:
            self._peak = rate
        peak = self._peak if self.learning_rate is None else self.learning_rate
        if not peak > 0:
            raise InputError(f"{name}: the optimizer's learning rate is {peak}; compile with the peak rate instead")
        total = self.total_steps
        if total is None:
            if not self.params.get("steps"):
                raise InputError(f"{name}: the data set does not say how many steps an epoch has; pass total_steps")
            total = self.params["steps"] * self.params["epochs"]
        self.schedule = self._make(peak, total)
        self._first = True

    def on_epoch_begin(self, epoch, logs=None):
        done = self._updates()
        if self._first and done >= self.schedule.total_steps:
            raise InputError(
                f"{type(self).__name__}: the optimizer has done {done} updates, and its schedule ends at "
                f"{self.schedule.total_steps}; pass a larger total_steps, or compile again to begin anew"
            )
        self._first = False

    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate = float(self.schedule(self._updates()))
        self._rate = float(keras.backend.get_value(self.model.optimizer.learning_rate))

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None and self._rate is not None:
            logs["learning_rate"] = float(str(np.float32(self._rate)))  # 5e-05 and not 4.999999873689376e-05

    def _updates(self) -> int:
        return int(keras.backend.get_value(self.model.optimizer.iterations))


class Warmup(_EveryStep):
    """Lets the rate rise from 0 to the optimizer's own rate, then fall (or not), step by step.

    The rate of each step is that of WarmupLinear, WarmupConstant or WarmupCosine at the optimizer's count of updates,
    so a resumed training goes on where it was. Each epoch's logs get "learning_rate", the rate of its last step.

    Args:
        warmup_steps: steps of the rise.
        warmup_fraction: the same as a share of all steps; give exactly one of the two.
        decay: "linear" (to 0; default), "cosine" (to 0) or "constant".
        total_steps: updates in the whole run; by default the steps of an epoch times the epochs of `fit`.
        learning_rate: the peak; by default the optimizer's rate when training begins. Pass it where a restored
            checkpoint has put a rate from the middle of the run into the optimizer.

    Raises:
        InputError: from the constructor for a wrong option; from `fit` where the optimizer has a schedule, the number
            of steps cannot be known, steps_per_execution is above 1, or the schedule has already ended.

    Example:
        >>> model = keras.Sequential([keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.SGD(0.5), "mse")
        >>> history = model.fit(np.zeros([8, 2]), np.zeros(8), batch_size=2, epochs=2, verbose=0, callbacks=[Warmup(2)])
        >>> history.history["learning_rate"]  # of steps 3 and 7, of 8
        [0.41666666, 0.083333336]
    """

    def __init__(
        self,
        warmup_steps: int | None = None,
        *,
        warmup_fraction: float | None = None,
        decay: str = "linear",
        total_steps: int | None = None,
        learning_rate: float | None = None,
    ):
        super().__init__(total_steps, learning_rate)
        if (warmup_steps is None) == (warmup_fraction is None):
            raise InputError("Warmup: give either warmup_steps or warmup_fraction, say warmup_fraction=0.1")
        if decay not in _DECAYS:
            raise InputError(f"decay is {decay!r};{suggest(decay, _DECAYS)} give one of {', '.join(_DECAYS)}")
        self.decay = decay
        self._rise = {"warmup_fraction": warmup_fraction} if warmup_steps is None else {"warmup_steps": warmup_steps}

    def _make(self, peak, total_steps):
        return _DECAYS[self.decay](peak, total_steps, **self._rise)


class SlantedTriangularLearningRate(_EveryStep):
    """A short steep rise of the rate and a long fall, step by step: schedules.SlantedTriangular as a callback.

    Each epoch's logs get "learning_rate", the rate of its last step.

    Args:
        cut_frac: share of the steps in the rise (default 0.1).
        ratio: how many times lower the lowest rate is than the peak (default 32).
        total_steps: updates in the whole run; by default the steps of an epoch times the epochs of `fit`.
        learning_rate: the peak; by default the optimizer's rate when training begins (see Warmup).

    Raises:
        InputError: from `fit`, as for Warmup, or where cut_frac or ratio is outside its range.

    Example:
        >>> model = keras.Sequential([keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.SGD(0.5), "mse")
        >>> rate = SlantedTriangularLearningRate(cut_frac=0.25, ratio=10)
        >>> history = model.fit(np.zeros([8, 2]), np.zeros(8), batch_size=2, epochs=2, verbose=0, callbacks=[rate])
        >>> history.history["learning_rate"]  # of steps 3 and 7, of 8
        [0.425, 0.125]
    """

    def __init__(
        self,
        cut_frac: float = 0.1,
        ratio: float = 32,
        *,
        total_steps: int | None = None,
        learning_rate: float | None = None,
    ):
        super().__init__(total_steps, learning_rate)
        self.cut_frac, self.ratio = cut_frac, ratio

    def _make(self, peak, total_steps):
        return SlantedTriangular(peak, total_steps, cut_frac=self.cut_frac, ratio=self.ratio)
