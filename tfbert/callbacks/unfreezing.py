"""GradualUnfreezing: which groups of a model learn, epoch by epoch."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tfbert import models
from tfbert._compat import keras
from tfbert.errors import InputError


class GradualUnfreezing(keras.callbacks.Callback):
    """Lets the top of a model learn first, and the groups below it join epoch by epoch (ULMFiT; Howard and Ruder 2018).

    When a group joins, the training step is traced anew; nothing else changes: the optimizer keeps its averages of what learned
    before, and a schedule goes on. What joins counts its updates from there with `AdamW` (see `AdamW.begin`). With any other Adam its
    steps are at first up to 6.6 times as long as the rate says (4.2 times where it joins after 500 updates).

    What no plan names is frozen, whatever `freeze` said before. Keep the best weights by ScoreTask: Keras' own EarlyStopping
    remembers them in an order that depends on what learns.

    Args:
        plan: epoch, counted from 0 -> the groups that join, in the words of `models.freeze`. By default the head at epoch 0, then
            the pooler with the highest layer, then a layer an epoch, and last the embeddings; a run that is shorter leaves the lower
            ones as they are.

    Raises:
        InputError: from `fit`, for a name that is none, an epoch below 0, a plan without an epoch 0, or an optimizer that was used
            before and has no averages of what joins.

    Example:
        >>> import numpy as np
        >>> model = keras.Sequential([keras.layers.Dense(2, name="below"), keras.layers.Dense(1, name="above")])
        >>> model.build([None, 3])
        >>> model.compile("sgd", "mse")
        >>> learning = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: print(len(model.trainable_weights)))
        >>> _ = model.fit(np.ones([4, 3]), np.ones(4), epochs=2, verbose=0, callbacks=[GradualUnfreezing(), learning])
        2
        4
    """

    def __init__(self, plan: Mapping[int, str] | None = None):
        super().__init__()
        if plan is not None and (0 not in plan or not all(type(epoch) is int and epoch >= 0 for epoch in plan)):
            raise InputError(f"plan has the epochs {list(plan)}; give whole numbers from 0, and 0 among them")
        self.plan = plan

    @classmethod
    def read(cls, text: str) -> GradualUnfreezing:
        """Reads a plan from text.

        Args:
            text: "gradual" for the default, or "0: head; 1: pooler, layers[-1]; 3: encoder".

        Raises:
            InputError: it cannot be read.

        Example:
            >>> GradualUnfreezing.read("0: head; 2: encoder").plan
            {0: 'head', 2: 'encoder'}
        """
        if text == "gradual":
            return cls()
        parts = [re.fullmatch(r"\s*(\d+)\s*:(.*\S)\s*", part) for part in text.split(";")]
        if not all(parts) or len({int(part[1]) for part in parts}) < len(parts):
            raise InputError(
                f"cannot read the plan {text!r}; write gradual, or epochs counted from 0 with the groups that join, each epoch once: "
                "0: head; 1: layers[-2:]; 3: encoder"
            )
        return cls({int(part[1]): part[2].strip() for part in parts})

    def on_train_begin(self, logs=None):
        self._traced, self._begun = _refs(self.model.trainable_weights), -1
        self._names, self._joining, learning = self.names(self.model), {}, set()
        models.freeze(self.model, *models.layer_groups(self.model))
        for epoch, names in self._names.items():
            models.unfreeze(self.model, names)
            self._joining[epoch] = [each for each in self.model.trainable_weights if each.ref() not in learning]
            learning |= _refs(self._joining[epoch])
        if not self._joining[0]:
            raise InputError(
                f"GradualUnfreezing: nothing learns at epoch 0, for Keras has {self._names[0]} switched off"
            )
        self._make_averages()

    def names(self, model) -> dict[int, str]:
        """The plan for a model: epoch, ascending -> the names of the groups that join. All of the model learns afterwards."""
        models.unfreeze(model)
        return dict(sorted((_from_the_top(model) if self.plan is None else self.plan).items()))

    @staticmethod
    def let_learn(model, names: Mapping[int, str], epoch: int) -> None:
        """Freezes all but the groups that have joined up to an epoch, by what `names` gave."""
        models.freeze(model, *models.layer_groups(model))
        models.unfreeze(model, *(joining for start, joining in names.items() if start <= epoch))

    def _make_averages(self) -> None:
        """The optimizer makes its averages once: now, for all that is going to learn."""
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        self._begin = getattr(optimizer, "begin", None)
        if not isinstance(optimizer, keras.optimizers.Optimizer):
            return  # a legacy one makes them as they are needed
        with self.model.distribute_strategy.scope():
            self.model.optimizer.build(self.model.trainable_weights)
        for variable in self.model.trainable_weights:
            if optimizer._var_key(variable) not in optimizer._index_dict:
                raise InputError(
                    f"GradualUnfreezing: the optimizer has updated other variables and does not know {variable.name}; compile again"
                )

    def on_epoch_begin(self, epoch, logs=None):
        self.let_learn(self.model, self._names, epoch)
        if epoch > 0 and epoch > self._begun and epoch in self._joining and self._begin is not None:
            self._begin(self._joining[epoch])
        self._begun = epoch
        now = _refs(self.model.trainable_weights)
        if now != self._traced:
            self.model.make_train_function(force=True)
        self._traced = now

    def state(self) -> dict:
        """The last epoch that began."""
        return {"begun": self._begun}

    def restore(self, state: dict) -> None:
        """Goes on from there: what joined in an epoch that has begun does not begin again."""
        self._begun = state["begun"]


def _from_the_top(model) -> dict[int, str]:
    """A group an epoch, the pooler together with the highest layer."""
    counts = models.count_parameters(model)
    names = [name for name, count in counts.items() if count["trainable"] and name not in ("all", "pooler")][::-1]
    if counts.get("pooler", {"trainable": 0})["trainable"]:
        first = 1 if names[0] == "head" else 0
        names[first] = f"pooler,{names[first]}"
    return dict(enumerate(names))


def _refs(variables) -> set:
    return {variable.ref() for variable in variables}
