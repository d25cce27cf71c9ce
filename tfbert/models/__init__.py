"""Models: checkpoint + head -> Keras model, and back to a folder that PyTorch reads too."""

from __future__ import annotations

from tfbert.models.inspection import check_tokenizer, describe
from tfbert.models.keras_model import as_keras, transformer_of
from tfbert.models.loading import LoadReport, load
from tfbert.models.saving import save

__all__ = ["LoadReport", "as_keras", "check_tokenizer", "describe", "load", "save", "transformer_of"]
