"""Keras' training step with what it lacks: a batch computed in parts, adversarial word embeddings, agreement of two dropouts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tfbert import batch_parts
from tfbert._compat import keras, tf, traced
from tfbert.errors import InputError
from tfbert.models.frozen import STATES, given
from tfbert.models.keras_model import transformer_of, word_embeddings


class FromStates(keras.Model):
    """A functional model that can be given, beside its inputs, the states of its encoder's frozen bottom, under the name STATES.

    Its layers and weights are those of the model that it is made of (see `tfbert.frozen_states`).

    Args:
        model: what `as_keras` returned, or a wrapper of it.
    """

    def __init__(self, model):
        super().__init__(model.inputs, model.output, name=model.name)
        object.__setattr__(self, "transformer", transformer_of(model))  # past Keras' tracking, as in as_keras

    def call(self, inputs, training=None, mask=None):
        """The model's outputs, computed from the states where there are some."""
        if not isinstance(inputs, Mapping) or STATES not in inputs:
            return super().call(inputs, training=training, mask=mask)
        ids = {name: tensor for name, tensor in inputs.items() if name != STATES}
        with given(inputs[STATES]):
            return super().call(ids, training=training, mask=mask)


class TrainingModel(FromStates):
    """A functional model that learns from a batch in another way than Keras' step; everything else, and its weights, are the model's.

    `fit`, callbacks, schedules and clipping keep their meaning: a step is still one update from one batch. The ways can be combined.

    Args:
        model: a functional Keras model, such as `as_keras` returns; its layers are shared, not copied.
        accumulate: parts in which a batch is computed one after the other, their gradients added up: the update is the whole batch's
            (dropout draws other masks), the memory a part's. Parts are of equal size but for the last. Default 1.
        fgm: how far the word embeddings are moved along their gradient (its length, in all) before a second pass over the same rows, whose
            gradient is added to the first: the fast gradient method of Miyato et al. (2017, "Adversarial Training Methods for
            Semi-Supervised Text Classification"), of the table and not of each text's vectors. 0 switches it off (default).
        r_drop: how much two passes with different dropout must agree: the loss is (loss_1 + loss_2 + r_drop * divergence) / 2, half of
            that of Liang et al. (2021, "R-Drop", equation 4, r_drop being its alpha). 0 switches it off (default).
        divergence: (targets, output, output) -> float32 [B], of each of the model's outputs: what `r_drop` weighs.

    Raises:
        InputError: an option outside its range, or r_drop without a divergence.

    Example:
        >>> import numpy as np
        >>> inputs = keras.Input([2])
        >>> plain = keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="ones")(inputs))
        >>> model = TrainingModel(plain, accumulate=3)
        >>> model.compile(keras.optimizers.SGD(0.1), "mse")
        >>> _ = model.fit(np.eye(4, 2), np.zeros(4), batch_size=4, verbose=0)
        >>> plain.layers[1].kernel.numpy()[:, 0].tolist()  # 1 - 0.1 * 2 / 4: one row of four has a one
        [0.95, 0.95]
    """

    def __init__(
        self, model, *, accumulate: int = 1, fgm: float = 0.0, r_drop: float = 0.0, divergence: Callable | None = None
    ):
        if accumulate < 1:
            raise InputError(f"accumulate is {accumulate}; a batch has at least 1 part")
        for name, value in (("fgm", fgm), ("r_drop", r_drop)):
            if not value >= 0:
                raise InputError(f"{name} is {value}; it must be at least 0, which switches it off")
        if r_drop and divergence is None:
            raise InputError("r_drop needs a divergence of two outputs, which this model or task does not have")
        super().__init__(model)
        self._parts, self._fgm, self._r_drop, self._divergence = accumulate, fgm, r_drop, divergence

    def make_train_function(self, force=False):
        """Keras' own, which `fit` calls first; what learns may have changed since the last time."""
        if self._fgm and not any(variable is word_embeddings(self) for variable in self.trainable_variables):
            raise InputError(
                "fgm moves the word embeddings along their gradient, but they are frozen; leave out one of the two"
            )
        return super().make_train_function(force)

    def train_step(self, data):
        """One update from one batch; returns the metrics' values, as Keras' own does."""
        inputs, targets, weights = keras.utils.unpack_x_y_sample_weight(data)
        count = batch_parts.count(targets)
        size = -(-count // self._parts)
        # A function of its own is traced once for all parts.
        learn = traced(self._gradients, reduce_retracing=True)
        sums = learn(*batch_parts.cut(inputs, targets, weights, 0, size), size / count)
        for part in range(1, self._parts):
            # One after the other: side by side, the parts would need the memory of the whole batch.
            with tf.control_dependencies(tf.nest.flatten(sums, expand_composites=True)):
                begin = tf.minimum(part * size, count)
                end = tf.minimum(begin + size, count)
                found = tf.cond(
                    begin < end,
                    lambda begin=begin, end=end: learn(
                        *batch_parts.cut(inputs, targets, weights, begin, end), (end - begin) / count
                    ),
                    lambda sums=sums: [_nothing(gradient) for gradient in sums],
                )
            sums = _sum(sums, found)
        if isinstance(self.optimizer, keras.mixed_precision.LossScaleOptimizer):
            sums = self.optimizer.get_unscaled_gradients(sums)
        self.optimizer.apply_gradients(zip(sums, self.trainable_variables, strict=True))
        return {metric.name: metric.result() for metric in self.metrics}

    def _gradients(self, inputs, targets, weights, share) -> list:
        """The gradients of `share` times the mean loss of these rows, those of the adversarial pass added."""
        found = self._backward(inputs, targets, weights, share)
        if not self._fgm:
            return found
        table, counted = word_embeddings(self), [variable for metric in self.metrics for variable in metric.variables]
        place = next(i for i, variable in enumerate(self.trainable_variables) if variable is table)
        gradient, rows = _by_row(found[place])
        before, metrics = tf.gather(table, rows), [tf.identity(variable) for variable in counted]
        step = tf.cast(self._fgm, gradient.dtype) * tf.math.divide_no_nan(gradient, tf.norm(gradient))
        table.scatter_update(tf.IndexedSlices(before + step, rows))
        again = self._backward(inputs, targets, weights, share)
        with tf.control_dependencies(tf.nest.flatten(again, expand_composites=True)):
            # Put back and not subtracted: the bits are those from before.
            table.scatter_update(tf.IndexedSlices(before, rows))
            for variable, value in zip(counted, metrics, strict=True):
                variable.assign(value)
        return _sum(found, again)

    def _backward(self, inputs, targets, weights, share) -> list:
        with tf.GradientTape() as tape:
            outputs = self(inputs, training=True)
            loss = self.compute_loss(inputs, targets, outputs, weights)
            if self._r_drop:
                others = self(inputs, training=True)
                loss += self.compute_loss(inputs, targets, others, weights)
                # Keras has divided the loss by the replicas, whose gradients are summed up.
                weight = self._r_drop / tf.distribute.get_strategy().num_replicas_in_sync
                loss = (loss + weight * self._apart(targets, outputs, others, weights)) / 2
            loss *= tf.cast(share, loss.dtype)
            if isinstance(self.optimizer, keras.mixed_precision.LossScaleOptimizer):
                loss = self.optimizer.get_scaled_loss(loss)
        # Not compute_metrics, which also reads the results: a replica cannot, within a function that is traced once for all parts.
        self.compiled_metrics.update_state(targets, outputs, weights)
        # Whatever a frozen or unused variable's gradient is, there are as many as variables.
        return tape.gradient(loss, self.trainable_variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    def _apart(self, targets, outputs, others, weights):
        """The mean divergence of two passes over the rows, of several outputs the sum, as of the losses."""
        both = list(zip(tf.nest.flatten(outputs), tf.nest.flatten(others), strict=True))
        of_each = tf.nest.flatten(targets) if tf.nest.is_nested(targets) else [targets] * len(both)
        apart = tf.add_n([self._divergence(target, *pair) for target, pair in zip(of_each, both, strict=True)])
        return tf.reduce_mean(apart if weights is None else apart * weights)


def _by_row(gradient):
    """A table's gradient as values [r, D] and the numbers of their rows [r], each once."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient, tf.range(tf.shape(gradient)[0])
    rows, place = tf.unique(gradient.indices)
    return tf.math.unsorted_segment_sum(gradient.values, place, tf.size(rows)), rows


def _sum(ours: list, others: list) -> list:
    """The sums of gradients by variable: of sparse ones both sides' rows."""
    return [
        tf.IndexedSlices(
            tf.concat([mine.values, other.values], 0), tf.concat([mine.indices, other.indices], 0), mine.dense_shape
        )
        if isinstance(mine, tf.IndexedSlices)
        else mine + other
        for mine, other in zip(ours, others, strict=True)
    ]


def _nothing(gradient):
    """A gradient of zeros: of a sparse one no rows."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(gradient.values[:0], gradient.indices[:0], gradient.dense_shape)
    return tf.zeros_like(gradient)
