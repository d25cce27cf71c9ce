"""The tokenizer of a checkpoint as TensorFlow operations, where that can be had exactly."""

from __future__ import annotations

import json

from tfbert.errors import InputError
from tfbert.tokenization import byte_level, sentencepiece, wordpiece
from tfbert.tokenization.tokenizer_graph import TokenizerGraph

# By the kind of the model in tokenizer.json: what tells why a tokenizer's graph would not be exact, and what makes the graph.
_KINDS = {
    "WordPiece": (wordpiece.problem, wordpiece.wordpiece_graph),
    "byte-level BPE": (byte_level.problem, byte_level.byte_level_graph),
    "Unigram": (sentencepiece.problem, sentencepiece.sentencepiece_graph),
}


def graph_tokenizer(tokenizer) -> TokenizerGraph:
    """Turns a tokenizer into TensorFlow ops that give the same ids and offsets for every string.

    Args:
        tokenizer: what `load_tokenizer` returns.

    Returns:
        A `TokenizerGraph`: call it with texts inside the function that is exported.

    Raises:
        InputError: the tokenizer does something that the graph would not repeat exactly.

    Example:
        >>> from tfbert._compat import tf
        >>> from tfbert.tokenization import load_tokenizer
        >>> graph = graph_tokenizer(load_tokenizer("all-MiniLM-L6-v2"))
        >>> graph(tf.constant(["Naïve…", "[SEP]"]), max_length=8)["input_ids"].numpy().tolist()
        [[101, 15743, 1529, 102, 0], [101, 1031, 19802, 1033, 102]]
        >>> pieces = graph.ids_and_offsets(tf.constant(["Zürich!"]))
        >>> pieces.start.to_list(), pieces.end.to_list()
        ([[0, 6]], [[6, 7]])
    """
    settings = _supported(tokenizer)
    _, make = _KINDS[_kind(settings)]
    return make(tokenizer, settings)


def check_graph(tokenizer) -> None:
    """Raises the InputError of `graph_tokenizer` without making the graph: better before a training than after it."""
    _supported(tokenizer)


def _supported(tokenizer) -> dict:
    """The settings of the Rust tokenizer, as tokenizer.json has them; whatever the graph cannot repeat is refused."""
    # Not of a copy: scores of a Unigram model are a little different after they were written as JSON and read again.
    settings = json.loads(tokenizer.backend_tokenizer.to_str())
    kind = _kind(settings)
    if kind not in _KINDS:
        problem = f"its model is {kind}, not one of {', '.join(_KINDS)}"
    elif kind != "Unigram" and (
        added := [token["content"] for token in settings["added_tokens"] if not token["special"]]
    ):
        problem = f"it has added tokens that are not special ({added[0]!r}, ...)"
    elif tokenizer.truncation_side != "right":
        problem = "it cuts long texts on the left"
    else:
        problem = _KINDS[kind][0](settings)
    if problem:
        raise InputError(
            f"this tokenizer cannot be put in the graph exactly: {problem}; train without an export (export=False, --no-export): evaluate "
            "and predict need none"
        )
    return settings


def _kind(settings: dict) -> str:
    """The type of the model; a BPE of bytes, whose pre-tokenizer makes them, is another kind than one of characters."""
    kind = settings["model"]["type"]
    return "byte-level BPE" if kind == "BPE" and '"ByteLevel"' in json.dumps(settings["pre_tokenizer"]) else kind
