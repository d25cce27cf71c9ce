"""A checkpoint from nothing: a tokenizer learnt from text, a config of the sizes asked for, and random weights."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tfbert._compat import transformers
from tfbert.errors import InputError
from tfbert.files import new_directory
from tfbert.models.configuration import check_config
from tfbert.models.families import FAMILIES, Beginning, Family, family_of
from tfbert.models.loading import new_weight, quiet
from tfbert.models.saving import save
from tfbert.models.weights import turned, variables_of
from tfbert.sources import from_iterable, read_documents
from tfbert.tokenization.training import STYLES, train_tokenizer


def create_checkpoint(
    directory,
    text,
    *,
    model_type: str = "bert",
    tokenizer: str | None = None,
    lowercase: bool | None = None,
    min_frequency: int = 2,
    vocab_size: int = 8000,
    hidden_size: int = 256,
    num_hidden_layers: int = 4,
    num_attention_heads: int = 4,
    intermediate_size: int | None = None,
    embedding_size: int | None = None,
    max_position_embeddings: int = 512,
    seed: int = 0,
) -> Path:
    """Learns a tokenizer from text and draws a model's weights: a checkpoint that its tasks load, and that has learnt nothing yet.

    It is for pretraining from nothing: `fine_tune(MaskedLM(), directory, ...)` comes next, for T5 `SpanCorruption` or `Seq2Seq`, for GPT-2
    `CausalLM`. The sizes have the names and the meaning of BERT's config.json; the default ones are BERT-Mini's (Turc et al. 2019) with a
    smaller vocabulary. Weights are drawn from a normal distribution cut at two deviations, 0.02 for BERT, those of the authors' code for T5
    and GPT-2; biases are 0. The same text, arguments and seed give the same bytes. The folder appears when all in it is written.

    Args:
        directory: the folder to write, which must not be there.
        text: a file or a pattern, as `read_documents` takes it; or strings, or examples with a `text`.
        model_type: of which architecture, as config.json has it: bert (default), electra, albert, roberta, distilbert, ..., t5 or gpt2.
        tokenizer: wordpiece, as BERT's; bpe, of bytes, as RoBERTa's; or unigram, SentencePiece's model. None (default): what the
            architecture was published with, of t5 unigram, of gpt2 bpe, and wordpiece of the others.
        lowercase: whether the tokenizer makes capitals small and drops accents; None (default): True, but for bpe, which cannot, and t5.
        min_frequency: how often a piece must occur in the text to become a token (default 2); unigram does without.
        vocab_size: tokens, special ones included (default 8000), but not T5's hundred sentinels, which come on top. A text too small for
            them is an error.
        hidden_size: numbers of a token's state (default 256).
        num_hidden_layers: layers (default 4); of T5 as many in the encoder as in the decoder.
        num_attention_heads: heads of a layer's attention, a divisor of hidden_size (default 4).
        intermediate_size: width within the feed-forward layers; None (default): four times hidden_size.
        embedding_size: width of the embeddings in families that have one of its own, as ELECTRA and ALBERT; None (default): hidden_size.
        max_position_embeddings: tokens of the longest row (default 512).
        seed: of the weights (default 0).

    Returns:
        The folder.

    Raises:
        InputError: the text is too small for the vocabulary, a size is out of bounds or no multiple of the heads, or the folder exists.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp()) / "small"
        >>> text = ["a rose is a rose", "the rose is red"] * 2
        >>> folder = create_checkpoint(place, text, vocab_size=27, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
        >>> sorted(path.name for path in folder.iterdir())[:2]
        ['config.json', 'model.safetensors']
    """
    family, directory = family_of(model_type, "model_type"), Path(directory)
    if family.beginning is None and not {None, "masked-lm"} <= set(family.heads):
        others = ", ".join(name for name, each in FAMILIES.items() if each.beginning is not None)
        raise InputError(
            f"model_type is {model_type!r}, which is none that can begin from nothing; choose bert, electra, ..., {others}"
        )
    begin = family.beginning or Beginning()
    if directory.exists():
        raise InputError(f"{directory} exists already; choose another folder")
    if type(seed) is not int or seed < 0:
        raise InputError(f"seed is {seed!r}; expected a whole number of at least 0")
    sizes = {
        "vocab_size": vocab_size + STYLES[begin.style].sentinels,
        "hidden_size": hidden_size,
        "num_hidden_layers": num_hidden_layers,
        "num_attention_heads": num_attention_heads,
        "intermediate_size": 4 * hidden_size if intermediate_size is None else intermediate_size,
        "max_position_embeddings": max_position_embeddings,
    }
    config = _config(family, begin, embedding_size=embedding_size, **sizes)
    check_config(config, "create_checkpoint")
    options = {"vocab_size": vocab_size, "lowercase": lowercase, "min_frequency": min_frequency, "style": begin.style}
    learnt = train_tokenizer(_texts(text), begin.tokenizer if tokenizer is None else tokenizer, **options)
    learnt.model_max_length = max_position_embeddings
    with new_directory(directory) as folder:
        save(_model(family, begin, config, seed), folder, learnt)
    return directory


def _texts(text) -> Iterable[str]:
    if isinstance(text, str | os.PathLike):
        return [row["text"] for row in read_documents(text)]
    rows = from_iterable([{"text": row} if isinstance(row, str) else row for row in text], "text")
    for i, row in enumerate(rows):
        if not isinstance(row.get("text"), str):
            raise InputError(f"{rows.where(i)}: no text in the field 'text'; the row has {', '.join(map(repr, row))}")
    return [row["text"] for row in rows]


def _config(family: Family, begin: Beginning, *, embedding_size: int | None, **sizes: int) -> dict[str, Any]:
    """The settings by BERT's names; what the family has alone is as Transformers has it by default."""
    if embedding_size is not None and family.width == "hidden_size":
        raise InputError(
            f"embedding_size is given, but {family.model_type}'s embeddings are hidden_size wide; leave it out"
        )
    default = getattr(transformers, family.config_class)()
    config = {
        "model_type": family.model_type,
        **sizes,
        "type_vocab_size": 2 if family.has_types else 1,
        **{name: getattr(default, name) for name in family.required},
        **begin.settings(sizes),
    }
    if family.width != "hidden_size":
        config[family.width] = config["hidden_size"] if embedding_size is None else embedding_size
    # Rows of the table that no token uses; the padding token's id is 0.
    config["max_position_embeddings"] += 1 if family.position_offset is None else family.position_offset
    return {name: value for name, value in config.items() if name not in family.absent or name in family.required}


def _model(family: Family, begin: Beginning, config: dict[str, Any], seed: int):
    """With new weights: the bare encoder, or what writes text, whole."""
    settings = {family.names.get(name, name): value for name, value in config.items() if name != "model_type"}
    head = family.head(begin.head)
    with quiet():
        made = getattr(transformers, family.config_class)(**settings)
        model = getattr(transformers, head.tf_class)(made)
        model.build_in_name_scope()
    if family.prepare is not None:
        family.prepare(model, head)
    learning = {variable.ref() for variable in model.trainable_weights}
    for name, (variable, turn) in variables_of(model, family).items():
        if variable.ref() not in learning:  # RoFormer's sinusoids
            continue
        shape = turned(np.empty(variable.shape, np.bool_), turn, to_tf=False).shape
        scale = made.initializer_range if begin.deviation is None else begin.deviation(name, made)
        values = np.ones(shape, np.float32) if scale is None else new_weight(name, shape, scale, seed)
        variable.assign(turned(values, turn, to_tf=True))
    return model
