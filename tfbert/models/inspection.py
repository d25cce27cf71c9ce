"""What a checkpoint is, from its small files alone; and whether a tokenizer and a model belong together."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tfbert.checkpoint_folder import find_checkpoint
from tfbert.errors import InputError
from tfbert.files import read_json, told
from tfbert.models.configuration import read_config
from tfbert.models.families import Family, family_of
from tfbert.models.groups import frozen, shared_layers
from tfbert.models.keras_model import transformer_of
from tfbert.models.weights import Tensor, list_weights

SPECIAL = ("pad", "unk", "cls", "sep", "mask")


def describe(checkpoint: str | Path, *, freeze: str | None = None) -> dict[str, Any]:
    """Says what a checkpoint is, without reading its weights and without TensorFlow.

    Args:
        checkpoint: a folder, the packaged "all-MiniLM-L6-v2", or a name on the Hugging Face hub.
        freeze: groups of layers, as `freeze` takes them: what would still learn is counted too, under "trainable_parameters".

    Returns:
        Plain values, ready for JSON: model_type, architectures, sizes, labels, parameters by group, special tokens with their ids.

    Raises:
        InputError: something of the checkpoint is wrong, or a name in `freeze` is none.

    Example:
        >>> about = describe("all-MiniLM-L6-v2")
        >>> about["layers"], about["hidden_size"], about["parameters"]["total"]
        (6, 384, 22713216)
        >>> about["special_tokens"]["mask"]
        {'token': '[MASK]', 'id': 103}
    """
    folder = find_checkpoint(str(checkpoint))
    config = read_config(folder)
    family = family_of(config["model_type"])
    tensors = list_weights(folder, family)
    labels = config.get("id2label")
    counted = {"parameters": _parameters(tensors, family, config)}
    if freeze is not None:
        learning = {name: tensor for name, tensor in tensors.items() if _learns(name, family, config, freeze)}
        counted["trainable_parameters"] = _parameters(learning, family, config)
    return {
        "source": str(folder),
        "model_type": config["model_type"],
        "architectures": config.get("architectures", []),
        "layers": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
        "hidden_size": config["hidden_size"],
        "intermediate_size": config["intermediate_size"],
        "vocab_size": config["vocab_size"],
        "positions": family.positions(config.get("max_position_embeddings"), config.get("pad_token_id")),
        "type_ids": config.get("type_vocab_size") if family.has_types else 0,
        "labels": list(labels.values()) if labels else [],
        **counted,
        "special_tokens": _special_tokens(folder),
    }


def _parameters(tensors: dict[str, Tensor], family: Family, config: dict[str, Any]) -> dict[str, Any]:
    """Counts the floating-point numbers by group; `layers` is a list of those that have their own, lowest layer first."""
    layers = family.own_layers(config)
    counts: dict[str, Any] = {"embeddings": 0, "layers": [0] * layers, "pooler": 0, "head": 0, "total": 0}
    for name, tensor in tensors.items():
        size = math.prod(tensor.shape)
        if name in (*family.buffers, *family.idle):
            continue
        counts["total"] += size
        group = _group(name, family)
        if group in counts:
            counts[group] += size
            continue
        index = group.removeprefix("layers[").removesuffix("]")
        if not index.isdecimal() or int(index) >= layers:
            setting = family.shared or family.names.get("num_hidden_layers", "num_hidden_layers")
            raise InputError(f"{tensor.file}: {tensor.name} is there, but config.json has {setting} {layers}")
        counts["layers"][int(index)] += size
    return counts


def _group(name: str, family: Family) -> str:
    """The group of a tensor, by its PyTorch name: "embeddings", "layers[0]", ..., "pooler" or "head"."""
    if name.startswith(family.layers):
        return f"layers[{name.removeprefix(family.layers).split('.')[0]}]"
    return next((group for group in ("embeddings", "pooler") if name.startswith(getattr(family, group))), "head")


def _learns(name: str, family: Family, config: dict[str, Any], freeze: str) -> bool:
    layers = shared_layers(config["num_hidden_layers"], config.get(family.shared))
    layers = layers or [f"layers[{i}]" for i in range(config["num_hidden_layers"])]
    own, group = list(dict.fromkeys(layers)), _group(name, family)
    if group.startswith("layers["):
        group = own[int(group.removeprefix("layers[").removesuffix("]"))]
    return not frozen(freeze, group, name.endswith(".bias"), ["embeddings", *own, "pooler", "head"], layers)


def _special_tokens(folder: Path) -> dict[str, dict[str, Any]]:
    """The special tokens that the tokenizer's files name, with their ids; empty where there are no such files."""
    names: dict[str, str] = {}
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        stored = read_json(folder / file) if (folder / file).is_file() else {}
        for kind in SPECIAL:
            token = stored.get(f"{kind}_token") if isinstance(stored, dict) else None
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                names[kind] = token
    vocabulary = _vocabulary(folder) or {}
    return {kind: {"token": token, "id": vocabulary.get(token)} for kind, token in names.items()}


def _vocabulary(folder: Path) -> dict[str, int] | None:
    """Token -> id, added tokens included, from tokenizer.json or vocab.txt; None where the folder has neither."""
    if (folder / "tokenizer.json").is_file():
        where = folder / "tokenizer.json"
        stored = read_json(where)
        try:
            tokens = stored["model"]["vocab"]
            vocabulary = dict(tokens) if isinstance(tokens, dict) else {entry[0]: i for i, entry in enumerate(tokens)}
            return vocabulary | {token["content"]: token["id"] for token in stored.get("added_tokens") or []}
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise InputError(f"{where} is not a tokenizer file ({error!r}); restore it from its source") from error
    if (folder / "vocab.txt").is_file():
        with told(folder / "vocab.txt", "read"):
            lines = (folder / "vocab.txt").read_text(encoding="utf-8").removesuffix("\n")
        return {
            token: i for i, token in enumerate(lines.split("\n"))
        }  # not splitlines: a token may be another kind of line end
    return None


def check_tokenizer(model, tokenizer, *, max_length: int, pair: bool = False) -> None:
    """Raises InputError unless a tokenizer can feed a model: an id or a position out of range is silent on a GPU, not an error.

    Args:
        model: what `load` or `as_keras` returned, or its config.
        tokenizer: a Transformers tokenizer.
        max_length: tokens of an input, special tokens included.
        pair: whether the inputs are pairs of texts, told apart by token_type_ids (default False).

    Raises:
        InputError: naming the model, the tokenizer and both numbers; also when the model's folder has a tokenizer with other ids.
    """
    config = getattr(transformer_of(model), "config", model)
    family = family_of(config.model_type)
    folder = getattr(config, "_name_or_path", "") or "the model"
    name = getattr(tokenizer, "name_or_path", "") or "the tokenizer"
    if len(tokenizer) > config.vocab_size:
        raise InputError(
            f"{name} has {len(tokenizer)} tokens, but {folder} has embeddings for {config.vocab_size}; use the model's own tokenizer"
        )
    for kind in SPECIAL:
        number = getattr(tokenizer, f"{kind}_token_id", None)
        if number is not None and not 0 <= number < config.vocab_size:
            raise InputError(
                f"{name}: the {kind} token has id {number}, but {folder} has ids 0 to {config.vocab_size - 1}"
            )
    for kind in family.special:
        given, expected = (getattr(of, f"{kind}_token_id", None) for of in (tokenizer, config))
        if expected is not None and given != expected:
            raise InputError(
                f"{name}: the {kind} token has id {given}, but {folder}'s config.json says {kind}_token_id {expected}"
            )
    if pair and family.has_types and getattr(config, "type_vocab_size", None) == 1:
        raise InputError(
            f"the inputs are pairs of texts, but {folder} has type_vocab_size {config.type_vocab_size}; pairs need 2"
        )
    positions = family.positions(getattr(config, "max_position_embeddings", None), config.pad_token_id)
    if positions is not None and not 1 <= max_length <= positions:
        raise InputError(
            f"max_length is {max_length}, but {folder} has {positions} positions; choose a max_length from 1 to {positions}"
        )
    _check_vocabulary(Path(folder), tokenizer, name)


def check_task(task, model, tokenizer) -> None:
    """Raises InputError unless a task's inputs and a tokenizer fit a model (see `check_tokenizer`); any other Keras model passes."""
    if hasattr(transformer_of(model), "config"):
        check_tokenizer(model, tokenizer, max_length=task.max_length, pair=len(task.inputs) > 1)


def _check_vocabulary(folder: Path, tokenizer, name: str) -> None:
    """Compares a tokenizer's ids with those of the tokenizer files in the model's own folder, where there are such."""
    own = _vocabulary(folder) if folder.is_dir() else None
    if own is None:
        return
    given = tokenizer.get_vocab()
    for token in given:
        if token in own and own[token] != given[token]:
            raise InputError(
                f"{name} gives {token!r} the id {given[token]}, but {folder}'s own tokenizer {own[token]}; use the model's own"
            )
    lost = [token for token in own if token not in given]
    if lost:
        raise InputError(
            f"{name} lacks {len(lost)} tokens of {folder}'s own tokenizer, {lost[0]!r} among them; use the model's own"
        )
