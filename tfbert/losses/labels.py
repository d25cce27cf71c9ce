"""Losses with a target for each row: a class, several labels, a number; and the rows' weights."""

from __future__ import annotations

import math

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


def sparse_categorical_focal(labels, logits, *, gamma: float = 2.0, label_smoothing: float = 0.0):
    """Cross-entropy of one right class, less of it the surer the model is of that class: (1 - p) ** gamma * -log p (Lin et al. 2017).

    Args:
        labels: as for `sparse_categorical_crossentropy`.
        logits: scores before the softmax, any float [B, L].
        gamma: how fast the easy examples' share falls, >= 0; 0 is the cross-entropy itself (default 2.0, the paper's).
        label_smoothing: of the cross-entropy (default 0); p stays the probability of the right class.

    Returns:
        The loss of each example, float32 [B].

    Raises:
        InputError: gamma is negative, or label_smoothing is outside [0, 1).

    Example:
        >>> import numpy as np
        >>> sparse_categorical_focal(np.array([1, 0]), np.array([[0.0, 2.0], [0.0, 2.0]])).numpy().tolist()
        [0.0018, 1.6501]
    """
    _check_gamma(gamma)
    loss = sparse_categorical_crossentropy(labels, logits, label_smoothing=label_smoothing)
    right = -sparse_categorical_crossentropy(labels, logits) if label_smoothing else -loss  # log p
    return tf.pow(tf.maximum(-tf.math.expm1(right), 1e-12), gamma) * loss


def binary_focal(labels, logits, *, gamma: float = 2.0, label_smoothing: float = 0.0):
    """Mean over the labels of the focal loss of each yes/no question (Lin et al. 2017, without its alpha: see `class_weights`, `weight`).

    Args:
        labels: whether each label applies, 0/1 or bool [B, L].
        logits: scores before the sigmoid, any float [B, L].
        gamma: how fast the easy questions' share falls, >= 0; 0 is the cross-entropy itself (default 2.0, the paper's).
        label_smoothing: of the cross-entropy (default 0); p stays the probability of the right answer.

    Returns:
        The loss of each example, float32 [B].

    Raises:
        InputError: gamma is negative, or label_smoothing is outside [0, 1).

    Example:
        >>> import numpy as np
        >>> binary_focal(np.array([[1, 0]]), np.array([[0.0, 2.0]])).numpy().tolist()
        [0.9117]
    """
    _check_gamma(gamma)
    _check_smoothing(label_smoothing)
    labels, logits = tf.cast(labels, tf.float32), tf.cast(logits, tf.float32)
    smoothed = labels * (1.0 - label_smoothing) + 0.5 * label_smoothing
    loss = tf.nn.sigmoid_cross_entropy_with_logits(labels=smoothed, logits=logits)
    right = tf.math.log_sigmoid(tf.where(labels > 0.5, logits, -logits))  # log p
    return tf.reduce_mean(tf.pow(tf.maximum(-tf.math.expm1(right), 1e-12), gamma) * loss, axis=-1)


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


def log_odds(count: int, rows: int) -> float:
    """The logit of a label that `count` of `rows` rows have, at which its binary cross-entropy is least.

    Half a row is added to both sides, as a logit is finite.

    Example:
        >>> log_odds(1, 4), log_odds(0, 4)
        (-0.847298, -2.197225)
    """
    return round(math.log((count + 0.5) / (rows - count + 0.5)), 6)


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


def _check_gamma(gamma: float) -> None:
    if not gamma >= 0.0:
        raise InputError(f"gamma is {gamma!r}; give at least 0, which is the cross-entropy; 2 suits most data")
