"""Losses as plain functions (labels, outputs) -> float32 [B], for `compile(loss=...)` and for a loop of one's own.

Keras itself then applies the sample weights and takes the mean over the batch. Options are given with
functools.partial: `compile(loss=functools.partial(sparse_categorical_crossentropy, label_smoothing=0.1))`.

All of them take logits, as TF Transformers heads return them, and compute in float32 whatever the precision of the
model. Under mixed precision let the model return float32: Keras casts float labels and the sample weights to the
outputs' dtype before any loss sees them.
"""

from __future__ import annotations

from tfbert.losses.agreement import (
    sigmoid_divergence,
    soft_binary_crossentropy,
    soft_crossentropy,
    softmax_divergence,
)
from tfbert.losses.embeddings import (
    cosine_similarity,
    multiple_negatives_ranking,
    triplet,
)
from tfbert.losses.labels import (
    binary_crossentropy,
    binary_focal,
    log_odds,
    mean_squared_error,
    normalize_weights,
    sparse_categorical_crossentropy,
    sparse_categorical_focal,
)
from tfbert.losses.tokens import (
    IGNORED,
    at_labels,
    masked_crossentropy,
    replaced_crossentropy,
    token_crossentropy,
)

__all__ = [
    "IGNORED",
    "at_labels",
    "binary_crossentropy",
    "binary_focal",
    "cosine_similarity",
    "log_odds",
    "masked_crossentropy",
    "mean_squared_error",
    "multiple_negatives_ranking",
    "normalize_weights",
    "replaced_crossentropy",
    "sigmoid_divergence",
    "soft_binary_crossentropy",
    "soft_crossentropy",
    "softmax_divergence",
    "sparse_categorical_crossentropy",
    "sparse_categorical_focal",
    "token_crossentropy",
    "triplet",
]
