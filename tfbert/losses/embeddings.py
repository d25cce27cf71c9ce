"""Losses of sentence vectors: pairs with a similarity, pairs with in-batch negatives, triplets."""

from __future__ import annotations

from tfbert._compat import tf


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
