"""FindLearningRate: how the loss goes as the rate rises, tried on a model that is put back afterwards."""

from __future__ import annotations

import numpy as np

from tfbert import models, plots
from tfbert._compat import keras
from tfbert.callbacks.rates import settable_rate
from tfbert.errors import InputError

SMOOTHING = 0.98
DIVERGED = 4.0  # times the lowest smoothed loss
AT_LEAST = 10  # points that a suggestion is made from


class FindLearningRate(keras.callbacks.Callback):
    """Raises the rate from step to step, from far too low to far too high, and suggests one (Smith 2017).

    Weights, the optimizer's state and rate, and the count of dropout's masks are put back when `fit` ends: a training afterwards is
    that which would have been without it. The loss is smoothed by a mean that forgets (0.98, corrected for its beginning). The run
    ends when that exceeds four times its lowest, or is not finite. The suggested rate lies in the middle of the longest fall of the
    smoothed loss: the `valley` of fastai (Howard and Gugger 2020), without the first tenth of the steps and the last five.

    Fit it alone, on one epoch of data that repeat, with an optimizer whose rate is a number.

    Args:
        lowest: the first rate (default 1e-7).
        highest: the last rate (default 1.0).
        steps: updates from one to the other, at least 20 (default 100).

    Attributes:
        rates, losses, smoothed: a number for each step; suggestion: the rate. Empty and None before `fit`.

    Raises:
        InputError: from the constructor, for rates that do not rise or too few steps; from `fit`, where the data end before, the loss
            diverges before there is anything to choose from, the optimizer has a schedule or is a legacy one, or the model is not built.

    Example:
        >>> data = keras.utils.timeseries_dataset_from_array(np.ones([8, 2]), np.ones(8), 1, batch_size=4).repeat()
        >>> layers = [keras.layers.Flatten(input_shape=[1, 2]), keras.layers.Dense(1, kernel_initializer="zeros")]
        >>> model = keras.Sequential(layers)
        >>> model.compile(keras.optimizers.SGD(0.1), "mse")
        >>> finder = FindLearningRate(1e-5, 10.0, 40)
        >>> _ = model.fit(data, steps_per_epoch=40, verbose=0, callbacks=[finder])
        >>> 1e-4 < finder.suggestion < 1, float(model.optimizer.learning_rate.numpy().round(3))
        (True, 0.1)
    """

    def __init__(self, lowest: float = 1e-7, highest: float = 1.0, steps: int = 100):
        super().__init__()
        if not 0 < lowest < highest < np.inf:
            raise InputError(
                f"the rates rise from {lowest!r} to {highest!r}; give two positive numbers, the lower one first"
            )
        if steps < 20:
            raise InputError(f"steps is {steps!r}; give at least 20, say 100")
        self._plan = np.geomspace(lowest, highest, steps)
        self.rates, self.losses, self.smoothed, self.suggestion = [], [], [], None

    def on_train_begin(self, logs=None):
        model = self.model
        optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        if not isinstance(optimizer, keras.optimizers.Optimizer):
            raise InputError(
                "FindLearningRate cannot put back a legacy optimizer; compile with one of keras.optimizers"
            )
        self._rate = settable_rate(model, "FindLearningRate")
        try:
            learning = model.trainable_variables
        except ValueError as error:
            raise InputError("FindLearningRate needs a model that is built; call it once before") from error
        with model.distribute_strategy.scope():
            model.optimizer.build(learning)
        # Of Keras' LossScaleOptimizer the variables are those of the optimizer that it wraps.
        scale = getattr(model.optimizer, "_loss_scale", None)
        scales = [] if scale is None else [scale.current_loss_scale, scale.counter]
        variables = [*model.variables, *model.optimizer.variables, *scales, *models.random_state(model)]
        self._before = [(variable, variable.numpy()) for variable in variables]
        self.rates, self.losses, self.smoothed, self.suggestion, self._mean = [], [], [], None, 0.0

    def on_train_batch_begin(self, batch, logs=None):
        self.model.reset_metrics()  # Keras' loss is the mean since the last reset
        self.model.optimizer.learning_rate = float(self._plan[len(self.rates)])

    def on_train_batch_end(self, batch, logs=None):
        loss, done = float(logs["loss"]), len(self.rates) + 1
        self._mean = SMOOTHING * self._mean + (1 - SMOOTHING) * loss
        smoothed = self._mean / (1 - SMOOTHING**done)
        if np.isfinite(smoothed):
            self.rates.append(float(self._plan[done - 1]))
            self.losses.append(loss)
            self.smoothed.append(smoothed)
        diverged = not np.isfinite(smoothed) or smoothed > DIVERGED * min(self.smoothed)
        self._ended = diverged or done == len(self._plan)
        self.model.stop_training = self._ended

    def on_train_end(self, logs=None):
        for variable, value in self._before:
            variable.assign(value)
        self.model.optimizer.learning_rate = self._rate
        self.model.make_train_function(force=True)  # Keras' own dropout begins again as well
        if not self._ended:
            raise InputError(
                f"the data ended after {len(self.rates)} of {len(self._plan)} steps; "
                f"fit dataset.repeat() with steps_per_epoch={len(self._plan)}"
            )
        skipped = len(self._plan) // 10
        chosen = self.smoothed[skipped:-5]
        if len(chosen) < AT_LEAST:
            raise InputError(
                f"the loss diverged at a rate of {self.rates[-1] if self.rates else self._plan[0]:.1e}, after {len(self.rates)} "
                "steps; begin with a lower rate, or look for numbers that are not finite in the data"
            )
        self.suggestion = self.rates[skipped + valley(chosen)]

    def plot(self) -> bytes:
        """A picture of the losses over the rates, as PNG."""
        return plots.found_rate(self.rates, self.losses, self.smoothed, self.suggestion)


def valley(losses) -> int:
    """Returns a place half-way down the longest fall, the longest subsequence of losses of which each is lower than the last.

    Example:
        >>> valley([5, 5, 5, 4, 3, 6, 2, 1, 7, 8])  # 5 4 3 2 1, which ends at place 7
        3
    """
    lengths = [1] * len(losses)
    for i in range(len(losses)):
        lengths[i] = 1 + max((lengths[j] for j in range(i) if losses[i] < losses[j]), default=0)
    end = int(np.argmax(lengths))
    third = lengths[end] / 3
    return max(0, end - lengths[end] + int(third) + int(third / 2))
