"""Losses between two answers: of two passes over the same rows, or of a student and its teacher."""

from __future__ import annotations

from tfbert._compat import tf
from tfbert.losses.tokens import mean_of_targets


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
    return apart if apart.shape.rank == 1 else mean_of_targets(apart, targets)


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
    return loss if loss.shape.rank == 1 else mean_of_targets(loss, targets)


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
