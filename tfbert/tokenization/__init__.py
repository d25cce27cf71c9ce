"""Text to ids, offsets and word ids: with the Rust tokenizer for training, and as TensorFlow ops for serving."""

from __future__ import annotations

from tfbert.tokenization.encoding import clean, encode, padding
from tfbert.tokenization.loading import load_tokenizer
from tfbert.tokenization.wordpiece import Pieces, WordPieceGraph, graph_tokenizer

__all__ = ["Pieces", "WordPieceGraph", "clean", "encode", "graph_tokenizer", "load_tokenizer", "padding"]
