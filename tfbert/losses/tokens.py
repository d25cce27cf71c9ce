"""Losses with a target for each token, or for some of them."""

from __future__ import annotations

from tfbert._compat import tf

# The target of a token that is not learnt from: a special token, the inner piece of a word, padding.
IGNORED = -100


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
    return mean_of_targets(each, labels)


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


def replaced_crossentropy(originals, outputs, *, weight: float = 1.0):
    """Mean over a row's tokens of the cross-entropy of telling whether each is another than the text has (Clark et al. 2020, equation 2).

    Args:
        originals: the text's ids, integer [B, T]; IGNORED (-100) in padding.
        outputs: any float [B, T, 2]: the logit that a token was replaced, and the id that was read.
        weight: what the loss is multiplied by (default 1; 50 in the paper's sum with the generator's).

    Returns:
        The loss of each row, float32 [B].

    Example:
        >>> import numpy as np
        >>> outputs = np.array([[[2.0, 7.0], [2.0, 8.0], [9.0, 0.0]]])  # the second was replaced
        >>> replaced_crossentropy(np.array([[7, 9, IGNORED]]), outputs).numpy().tolist()
        [1.1269]
    """
    originals, outputs = tf.cast(originals, tf.int32), tf.cast(outputs, tf.float32)
    replaced = tf.cast(tf.cast(outputs[..., 1], tf.int32) != originals, tf.float32)
    each = tf.nn.sigmoid_cross_entropy_with_logits(labels=replaced, logits=outputs[..., 0])
    return weight * mean_of_targets(each, originals)


def at_labels(labels, width):
    """The labels of each row that are not IGNORED, side by side: integer [B, T] -> int32 [B, width], filled up with IGNORED.

    Example:
        >>> at_labels([[IGNORED, 7, IGNORED, 8], [9, IGNORED, IGNORED, IGNORED]], 2).numpy().tolist()
        [[7, 8], [9, -100]]
    """
    labels = tf.cast(labels, tf.int32)
    found = tf.ragged.boolean_mask(labels, labels != IGNORED)
    return found.to_tensor(IGNORED, shape=tf.stack([-1, width]))


def mean_of_targets(values, targets):
    """The mean of a row's values, float32 [B, T], at the tokens that have a target: [B]."""
    there = tf.cast(tf.cast(targets, tf.int32) != IGNORED, tf.float32)
    return tf.math.divide_no_nan(tf.reduce_sum(values * there, -1), tf.reduce_sum(there, -1))
