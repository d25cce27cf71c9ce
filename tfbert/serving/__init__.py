"""Serving: write a SavedModel that a stock TF Serving runs, and call it back from Python."""

from __future__ import annotations

from tfbert.serving.embedder import SentenceEmbedder
from tfbert.serving.export import export
from tfbert.serving.operations import check_operations
from tfbert.serving.predictor import Predictor
from tfbert.serving.rows import rows

__all__ = ["Predictor", "SentenceEmbedder", "check_operations", "export", "rows"]
