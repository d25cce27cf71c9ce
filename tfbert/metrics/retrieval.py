"""Scores of embeddings: whether each text finds its own partner among all."""

from __future__ import annotations

import numpy as np

_CHUNK = 1024  # texts whose similarities to all partners are in memory at once


def unit_vectors(vectors) -> np.ndarray:
    """The vectors with length 1, float64 [N, D]; zero vectors stay zero.

    Example:
        >>> unit_vectors([[3, 4], [0, 0]]).tolist()
        [[0.6, 0.8], [0.0, 0.0]]
    """
    vectors = np.asarray(vectors, np.float64)
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def retrieval(texts, partners) -> dict[str, float]:
    """Ranks all partners for each text by cosine, and tells how high its own stands.

    Args:
        texts: float [N, D].
        partners: float [N, D]; the partner of text i is row i. Equal partners count as one and the same: the better rank.

    Returns:
        recall_at_1, recall_at_5, recall_at_10 (the share of texts whose partner is among the first k) and mean_reciprocal_rank.

    Example:
        >>> retrieval([[1, 0], [0, 1]], [[1, 1], [2, 1]])
        {'recall_at_1': 0.0, 'recall_at_5': 1.0, 'recall_at_10': 1.0, 'mean_reciprocal_rank': 0.5}
    """
    texts, partners = unit_vectors(texts), unit_vectors(partners)
    ranks = []
    for first in range(0, len(texts), _CHUNK):
        cosines = texts[first : first + _CHUNK] @ partners.T  # [n, N]
        own = cosines[np.arange(len(cosines)), first + np.arange(len(cosines))]
        ranks.append(1 + (cosines > own[:, np.newaxis] + 1e-12).sum(1))
    ranks = np.concatenate(ranks)
    found = {f"recall_at_{k}": float(np.mean(ranks <= k)) for k in (1, 5, 10)}
    return {**found, "mean_reciprocal_rank": float(np.mean(1 / ranks))}
