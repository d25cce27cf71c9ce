"""Losses as plain functions (labels, outputs) -> float32 [B], for `compile(loss=...)` and for a loop of one's own.

Keras itself then applies the sample weights and takes the mean over the batch. Options are given with
functools.partial: `compile(loss=functools.partial(sparse_categorical_crossentropy, label_smoothing=0.1))`.

All of them take logits, as TF Transformers heads return them, and compute in float32 whatever the precision of the
model. Under mixed precision let the model return float32: Keras casts float labels and the sample weights to the
outputs' dtype before any loss sees them.
"""

from __future__ import annotations

import math

from tfbert._compat import tf
from tfbert.errors import InputError

# The target of a token that is not learnt from: a special token, the inner piece of a word, padding.
IGNORED = -100


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


def softmax_divergence(targets, first, second):
    """How far two answers to the same rows are apart: half the Kullback-Leibler divergences both ways (Liang et al. 2021, equation 2).

    Args:
        targets: integer [B], of which nothing is read; or [B, T], where tokens with IGNORED count for nothing.
        first: scores before the softmax, any float [B, L] or [B, T, L].
        second: the same, of another pass.

    Returns:
        float32 [B]; of tokens the mean over a row's.

    Example:
        >>> import numpy as np
        >>> softmax_divergence(np.array([0, 1]), np.array([[0.0, 2.0], [1.0, 1.0]]), np.array([[2.0, 0.0], [5.0, 5.0]])).numpy().tolist()
        [1.5232, 0.0]
    """
    first, second = (tf.nn.log_softmax(tf.cast(logits, tf.float32)) for logits in (first, second))
    apart = tf.reduce_sum((tf.exp(first) - tf.exp(second)) * (first - second), -1) / 2
    return apart if apart.shape.rank == 1 else _mean_of_targets(apart, targets)


def _mean_of_targets(values, targets):
    """The mean of a row's values, float32 [B, T], at the tokens that have a target: [B]."""
    there = tf.cast(tf.cast(targets, tf.int32) != IGNORED, tf.float32)
    return tf.math.divide_no_nan(tf.reduce_sum(values * there, -1), tf.reduce_sum(there, -1))


def sigmoid_divergence(targets, first, second):
    """`softmax_divergence` of yes/no questions: the mean over the labels.

    Args:
        targets: [B, L], of which nothing is read.
        first: scores before the sigmoid, any float [B, L].
        second: the same, of another pass.

    Returns:
        float32 [B].

    Example:
        >>> import numpy as np
        >>> sigmoid_divergence(np.zeros([1, 2]), np.array([[2.0, 1.0]]), np.array([[-2.0, 1.0]])).numpy().tolist()
        [0.7616]
    """
    first, second = tf.cast(first, tf.float32), tf.cast(second, tf.float32)
    return tf.reduce_mean((tf.sigmoid(first) - tf.sigmoid(second)) * (first - second), -1) / 2


def soft_crossentropy(targets, teacher, logits, *, temperature: float = 1.0):
    """Cross-entropy with a teacher's softened probabilities, times temperature ** 2, as its gradient falls by that (Hinton et al. 2015).

    Args:
        targets: as for `softmax_divergence`.
        teacher: the teacher's scores before the softmax, any float [B, L] or [B, T, L].
        logits: the model's own, of the same shape.
        temperature: what both scores are divided by, positive: the higher, the more the unlikely classes count (default 1.0).

    Returns:
        float32 [B]; of tokens the mean over a row's.

    Example:
        >>> import numpy as np
        >>> soft_crossentropy(np.array([0]), np.array([[0.0, 4.0]]), np.array([[0.0, 0.0]]), temperature=2.0).numpy().tolist()
        [2.7726]
    """
    teacher, logits = (tf.cast(scores, tf.float32) / temperature for scores in (teacher, logits))
    loss = -(temperature**2) * tf.reduce_sum(tf.nn.softmax(teacher) * tf.nn.log_softmax(logits), -1)
    return loss if loss.shape.rank == 1 else _mean_of_targets(loss, targets)


def soft_binary_crossentropy(targets, teacher, logits, *, temperature: float = 1.0):
    """`soft_crossentropy` of yes/no questions: the mean over the labels.

    Example:
        >>> import numpy as np
        >>> soft_binary_crossentropy(np.zeros([1, 2]), np.array([[0.0, 4.0]]), np.array([[0.0, 0.0]]), temperature=2.0).numpy().tolist()
        [2.7726]
    """
    teacher, logits = (tf.cast(scores, tf.float32) / temperature for scores in (teacher, logits))
    each = tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.sigmoid(teacher), logits=logits)
    return temperature**2 * tf.reduce_mean(each, axis=-1)


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


def cosine_similarity(similarities, embeddings):
    """Squared difference between the cosine of two embeddings and the one wanted.

    Args:
        similarities: the cosines wanted, [B] or [B, 1].
        embeddings: any float [2 B, D]: the two of each example one after the other.

    Returns:
        The loss of each example, float32 [B].

    Example:
        >>> import numpy as np
        >>> cosine_similarity(np.array([1.0, 0.5]), np.array([[1.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 1.0]])).numpy().tolist()
        [0.0, 0.25]
    """
    sides = _sides(embeddings, similarities)
    cosines = tf.reduce_sum(sides[:, 0] * sides[:, 1], -1)
    return tf.math.squared_difference(tf.reshape(tf.cast(similarities, tf.float32), [-1]), cosines)


def multiple_negatives_ranking(targets, embeddings, *, scale: float = 20.0):
    """Cross-entropy of finding each text's own partner among the partners of the whole batch (Henderson et al. 2017, section 4.4).

    Negatives of their own, where examples have them, stand among the wrong partners of every text of the batch.

    Args:
        targets: [B]; only their number is read.
        embeddings: any float [G B, D]: text, partner and (G = 3) negative of each example one after the other.
        scale: what the cosines are multiplied by (default 20).

    Returns:
        The loss of each example, float32 [B].

    Example:
        >>> import numpy as np
        >>> apart = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> multiple_negatives_ranking(np.zeros(2), apart, scale=1.0).numpy().tolist()
        [0.3133, 0.3133]
    """
    sides = _sides(embeddings, targets)
    text, others = sides[:, 0], tf.transpose(sides[:, 1:], [1, 0, 2])  # the partners first, then the negatives
    others = tf.reshape(others, [-1, sides.shape[-1]])
    scores = scale * tf.matmul(text, others, transpose_b=True)  # [B, (G - 1) B]
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.range(tf.shape(text)[0]), logits=scores)


def triplet(targets, embeddings, *, margin: float = 0.3):
    """How much the far text's cosine is above the near text's, less `margin`; 0 where it is far enough (Schroff et al. 2015).

    Args:
        targets: [B]; only their number is read.
        embeddings: any float [3 B, D]: text, near and far text of each example one after the other.
        margin: the difference of the cosines wanted (default 0.3).

    Returns:
        The loss of each example, float32 [B].

    Example:
        >>> import numpy as np
        >>> triplet(np.zeros(1), np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])).numpy().tolist()
        [1.3]
    """
    sides = _sides(embeddings, targets)
    near, far = (tf.reduce_sum(sides[:, 0] * sides[:, k], -1) for k in (1, 2))
    return tf.nn.relu(far - near + margin)


def _sides(embeddings, targets):
    """Embeddings [G B, D] as unit vectors, float32 [B, G, D]."""
    embeddings = tf.math.l2_normalize(tf.cast(embeddings, tf.float32), axis=-1)
    return tf.reshape(embeddings, [tf.shape(targets)[0], -1, embeddings.shape[-1]])


def token_crossentropy(labels, logits):
    """Mean over the tokens that have a label of the cross-entropy of one right class for each.

    With the number of labelled tokens as the weight of each row, Keras' mean over rows is the mean over all tokens of the batch.

    Args:
        labels: the index of the right class, integer [B, T]; IGNORED (-100) where there is none.
        logits: scores before the softmax, any float [B, T, L].

    Returns:
        The loss of each row, float32 [B]; 0 for a row without labels.

    Example:
        >>> import numpy as np
        >>> logits = np.array([[[0.0, 2.0], [0.0, 2.0], [9.0, 9.0]]])
        >>> token_crossentropy(np.array([[1, 0, IGNORED]]), logits).numpy().tolist()
        [1.1269]
    """
    labels = tf.cast(labels, tf.int32)
    there = labels != IGNORED
    each = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=tf.where(there, labels, 0), logits=tf.cast(logits, tf.float32)
    )
    return _mean_of_targets(each, labels)


def masked_crossentropy(labels, logits):
    """`token_crossentropy` where there are logits for the places with a label only: a masked language model's.

    Args:
        labels: the ids to be guessed, integer [B, T]; IGNORED (-100) elsewhere.
        logits: scores before the softmax of a row's 1st, 2nd, ... such place, any float [B, P, V]; what is beyond a row's last counts not.

    Returns:
        The loss of each row, the mean over its places, float32 [B]; 0 for a row without labels.

    Example:
        >>> import numpy as np
        >>> labels = np.array([[IGNORED, 1, IGNORED, 0], [IGNORED, IGNORED, 1, IGNORED]])
        >>> masked_crossentropy(labels, np.array([[[0.0, 2.0], [2.0, 0.0]], [[2.0, 0.0], [9.0, 9.0]]])).numpy().tolist()
        [0.1269, 2.1269]
    """
    return token_crossentropy(at_labels(labels, tf.shape(logits)[1]), logits)


def at_labels(labels, width):
    """The labels of each row that are not IGNORED, side by side: integer [B, T] -> int32 [B, width], filled up with IGNORED.

    Example:
        >>> at_labels([[IGNORED, 7, IGNORED, 8], [9, IGNORED, IGNORED, IGNORED]], 2).numpy().tolist()
        [[7, 8], [9, -100]]
    """
    labels = tf.cast(labels, tf.int32)
    found = tf.ragged.boolean_mask(labels, labels != IGNORED)
    return found.to_tensor(IGNORED, shape=tf.stack([-1, width]))
