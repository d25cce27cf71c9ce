"""Models: checkpoint + head -> Keras model, and back to a folder that PyTorch reads too."""

from __future__ import annotations

from tfbert.models.configuration import dropout
from tfbert.models.groups import count_parameters, freeze, layer_groups, unfreeze
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
from tfbert.models.lean import dropout_steps, for_answers
from tfbert.models.loading import LoadReport, load
from tfbert.models.reinitializing import reinitialize
from tfbert.models.saving import save
from tfbert.models.served import check_precision
from tfbert.models.training_model import TrainingModel

__all__ = [
    "POOLINGS",
    "LoadReport",
    "TrainingModel",
    "as_keras",
    "at_token",
    "by_choice",
    "check_precision",
    "check_task",
    "check_tokenizer",
    "count_parameters",
    "describe",
    "dropout",
    "dropout_steps",
    "for_answers",
    "freeze",
    "layer_groups",
    "load",
    "pooled",
    "reinitialize",
    "save",
    "sentence_encoder",
    "transformer_of",
    "unfreeze",
    "without_padding",
    "word_embeddings",
]
