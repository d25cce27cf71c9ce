"""Losses as plain functions (labels, outputs) -> float32 [B], for `compile(loss=...)` and for a loop of one's own.

Keras itself then applies the sample weights and takes the mean over the batch. Options are given with
functools.partial: `compile(loss=functools.partial(sparse_categorical_crossentropy, label_smoothing=0.1))`.

All of them take logits, as TF Transformers heads return them, and compute in float32 whatever the precision of the
model. Under mixed precision let the model return float32: Keras casts float labels and the sample weights to the
outputs' dtype before any loss sees them.
"""

from __future__ import annotations

from tfbert._compat import tf
from tfbert.errors import InputError


def sparse_categorical_crossentropy(labels, logits, *, label_smoothing: float = 0.0):
    """Cross-entropy of one right class for each example.

    Args:
        labels: the index of the right class, integer [B] ([B, 1], as Keras hands it over, is taken too).
        logits: scores before the softmax, any float [B, L].
        label_smoothing: share of the probability spread evenly over all L classes, 0 <= s < 1 (default 0; Szegedy et
            al. 2016).

    Returns:
        The loss of each example, float32 [B].

    Raises:
        InputError: label_smoothing is outside [0, 1).

    Example:
        >>> import numpy as np
        >>> loss = sparse_categorical_crossentropy(np.array([1, 0]), np.array([[0.0, 2.0], [0.0, 2.0]]))
        >>> loss.numpy().tolist()
        [0.1269, 2.1269]
    """
    _check_smoothing(label_smoothing)
    logits = tf.cast(logits, tf.float32)
    labels = tf.reshape(tf.cast(labels, tf.int64), tf.shape(logits)[:-1])
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    if label_smoothing:
        evenly = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
        loss = (1.0 - label_smoothing) * loss + label_smoothing * evenly
    return loss


def binary_crossentropy(labels, logits, *, label_smoothing: float = 0.0):
    """Mean over the labels of the cross-entropy of each yes/no question (multi-label classification).

    Args:
        labels: whether each label applies, 0/1 or bool [B, L].
        logits: scores before the sigmoid, any float [B, L].
        label_smoothing: targets move this share of the way to 0.5, 0 <= s < 1 (default 0).

    Returns:
        The loss of each example, float32 [B].

    Raises:
        InputError: label_smoothing is outside [0, 1).

    Example:
        >>> import numpy as np
        >>> loss = binary_crossentropy(np.array([[1, 0]]), np.array([[0.0, 2.0]]))
        >>> loss.numpy().tolist()
        [1.4100]
    """
    _check_smoothing(label_smoothing)
    logits = tf.cast(logits, tf.float32)
    labels = tf.cast(labels, tf.float32) * (1.0 - label_smoothing) + 0.5 * label_smoothing
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits), axis=-1)


def mean_squared_error(labels, predictions):
    """Squared difference of one number for each example (regression).

    Args:
        labels: the right numbers, [B] or [B, 1].
        predictions: the model's numbers, any float [B] or [B, 1]; the two shapes need not be the same, and never
            broadcast to [B, B].

    Returns:
        The loss of each example, float32 [B].

    Example:
        >>> import numpy as np
        >>> mean_squared_error(np.array([1.0, 2.0]), np.array([[1.5], [4.0]])).numpy().tolist()
        [0.25, 4.0]
    """
    predictions = tf.reshape(tf.cast(predictions, tf.float32), [-1])
    return tf.math.squared_difference(tf.reshape(tf.cast(labels, tf.float32), [-1]), predictions)


def normalize_weights(weights):
    """Scales the weights of a batch to mean 1: w * B / sum(w).

    Keras divides the weighted sum of losses by B, so that with raw weights a batch of heavy examples takes a longer
    step. With these it
    divides by the sum of the weights: a row of weight 2 counts exactly as that row given twice.

    Args:
        weights: non-negative, any float [B].

    Returns:
        float32 [B]; all 0 where the weights are all 0.

    Example:
        >>> import numpy as np
        >>> normalize_weights(np.array([2.0, 1.0, 1.0, 0.0])).numpy().tolist()
        [2.0, 1.0, 1.0, 0.0]
        >>> normalize_weights(np.array([6.0, 2.0])).numpy().tolist()
        [1.5, 0.5]
    """
    weights = tf.cast(weights, tf.float32)
    return weights * tf.math.divide_no_nan(tf.cast(tf.size(weights), tf.float32), tf.reduce_sum(weights))


def _check_smoothing(label_smoothing: float) -> None:
    if not 0.0 <= label_smoothing < 1.0:
        raise InputError(f"label_smoothing is {label_smoothing!r}; give at least 0 and less than 1, say 0.1")
