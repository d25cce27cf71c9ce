"""Models: checkpoint + head -> Keras model, and back to a folder that PyTorch reads too."""

from __future__ import annotations

from tfbert.models.configuration import dropout
from tfbert.models.inspection import check_task, check_tokenizer, describe
from tfbert.models.keras_model import (
    POOLINGS,
    as_keras,
    at_token,
    by_choice,
    pooled,
    sentence_encoder,
    transformer_of,
    without_padding,
    word_embeddings,
)
from tfbert.models.lean import for_answers
from tfbert.models.loading import LoadReport, load
from tfbert.models.saving import save
from tfbert.models.served import check_precision

__all__ = [
    "POOLINGS",
    "LoadReport",
    "as_keras",
    "at_token",
    "by_choice",
    "check_precision",
    "check_task",
    "check_tokenizer",
    "describe",
    "dropout",
    "for_answers",
    "load",
    "pooled",
    "save",
    "sentence_encoder",
    "transformer_of",
    "without_padding",
    "word_embeddings",
]
