"""Data larger than memory: tokenized once into sharded TFRecords with a manifest, and streamed into training from any place on."""

from tfbert.prepared.folder import Prepared, is_prepared
from tfbert.prepared.streaming import Streamed, batches, pieces_in_use, served, statistics
from tfbert.prepared.writing import prepare

__all__ = ["Prepared", "Streamed", "batches", "is_prepared", "pieces_in_use", "prepare", "served", "statistics"]
