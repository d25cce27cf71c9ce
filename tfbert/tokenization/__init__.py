"""Text to ids, offsets and word ids: with the Rust tokenizer for training, and as TensorFlow ops for serving."""

from __future__ import annotations

from tfbert.tokenization.encoding import clean, encode, padding
from tfbert.tokenization.graph import check_graph, graph_tokenizer
from tfbert.tokenization.loading import load_tokenizer
from tfbert.tokenization.pieces import RustPieces
from tfbert.tokenization.rows import Pieces, Rows
from tfbert.tokenization.tokenizer_graph import TokenizerGraph
from tfbert.tokenization.training import KINDS, train_tokenizer
from tfbert.tokenization.truncation import keep
from tfbert.tokenization.vocabulary import Vocabulary
from tfbert.tokenization.windows import windows

__all__ = [
    "KINDS",
    "Pieces",
    "Rows",
    "RustPieces",
    "TokenizerGraph",
    "Vocabulary",
    "clean",
    "encode",
    "check_graph",
    "graph_tokenizer",
    "keep",
    "load_tokenizer",
    "padding",
    "train_tokenizer",
    "windows",
]
