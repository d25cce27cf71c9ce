"""Moving averages of the weights, where they are scored and kept."""

from __future__ import annotations

from tfbert import models
from tfbert._compat import keras
from tfbert.errors import InputError


class UseMovingAverages(keras.callbacks.Callback):
    """Puts the moving averages of the weights into the model at each epoch's end, and the weights themselves back at the next one's begin.

    Keras' optimizers keep such averages with `use_ema=True, ema_momentum=0.99`, and put them in when `fit` ends; with this callback,
    what scores or saves at the end of an epoch and stands behind it sees them as well: the averages are what is chosen between.
    An average of the last steps scores more evenly than the last step (Polyak and Juditsky 1992; Izmailov et al. 2018).

    Raises:
        InputError: from `fit`, where the optimizer keeps no averages.

    Example:
        >>> import numpy as np
        >>> model = keras.Sequential([keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
        >>> model.compile(keras.optimizers.SGD(0.25, use_ema=True, ema_momentum=0.5), "mse")
        >>> seen = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: print(model.layers[0].kernel.numpy().tolist()))
        >>> _ = model.fit(np.ones([2, 1]), np.ones(2), epochs=2, verbose=0, batch_size=2, callbacks=[UseMovingAverages(), seen])
        [[0.25]]
        [[0.5]]
    """

    def __init__(self):
        super().__init__()
        self._own = None

    def on_train_begin(self, logs=None):
        if not getattr(self.model.optimizer, "use_ema", False):
            raise InputError(
                "UseMovingAverages needs an optimizer that keeps averages: AdamW(..., use_ema=True, ema_momentum=0.99)"
            )
        self._own = None

    def on_epoch_begin(self, epoch, logs=None):
        if self._own is not None:
            for variable, value in zip(models.weights_in_order(self.model), self._own, strict=True):
                variable.assign(value)
            self._own = None

    def on_epoch_end(self, epoch, logs=None):
        self._own = [variable.numpy() for variable in models.weights_in_order(self.model)]
        self.model.optimizer.finalize_variable_values(self.model.trainable_variables)

    def state(self) -> dict:
        """The weights themselves, where the averages are in their place."""
        return {"own": self._own}

    def restore(self, state: dict) -> None:
        """Goes on from what `state` gave."""
        self._own = state["own"]
