"""config.json, read as data: only known settings are taken, each is checked, nothing in it can name code to run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tfbert.errors import InputError, suggest
from tfbert.files import read_json
from tfbert.models.families import Family, family_of

# The largest sizes that are taken, far above any published encoder: a config must not be able to ask for all memory.
SIZES = {
    "vocab_size": 2_000_000,
    "hidden_size": 16_384,
    "num_hidden_layers": 200,
    "num_attention_heads": 1_024,
    "intermediate_size": 131_072,
    "max_position_embeddings": 1_048_576,
    "type_vocab_size": 1_024,
}
MAX_LABELS = 1_000_000
RATES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
SCALES = ("layer_norm_eps", "initializer_range")
ACTIVATIONS = ("gelu", "gelu_new", "relu", "silu", "swish", "tanh")
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")
TOKEN_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id")
LABELS = ("id2label", "label2id", "num_labels", "problem_type")
KNOWN = (*SIZES, *RATES, *SCALES, *TOKEN_IDS, *LABELS, "hidden_act", "architectures", "model_type")
# Settings that change what the model computes and that TF Transformers would read differently or not at all.
ONLY = {
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "pruned_heads": ({}, None),
}


def read_config(folder: Path) -> dict[str, Any]:
    """Reads and checks config.json; settings that tfbert does not know (`auto_map`, `_attn_implementation`, ...) are left out.

    Args:
        folder: the checkpoint folder.

    Returns:
        The known settings; `id2label`, where present, has int keys 0 to L-1 in order.

    Raises:
        InputError: the file is missing, is not JSON, or a setting is of the wrong kind, out of bounds or one that tfbert lacks.

    Example:
        >>> import tempfile, pathlib
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "config.json").write_text('{"model_type": "bert", "vocab_size": 1e9}')
        >>> read_config(folder)
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: ...config.json: vocab_size is 1000000000.0; expected a whole number from 1 to 2000000
    """
    where = str(folder / "config.json")
    raw = read_json(where)
    if not isinstance(raw, dict):
        raise InputError(
            f"{where}: expected an object of settings, found {type(raw).__name__}; restore the checkpoint's config.json"
        )
    family = family_of(raw.get("model_type"), where)
    if raw.get("quantization_config"):
        raise InputError(
            f"{where}: has a quantization_config, but tfbert reads plain weights only; use the unquantized checkpoint"
        )
    for name, allowed in ONLY.items():
        if name in raw and raw[name] not in allowed:
            raise InputError(
                f"{where}: {name} is {raw[name]!r}; tfbert's models have {allowed[0]!r} only; choose another checkpoint"
            )
    own = {name: family.names.get(name, name) for name in known(family)}
    config = {name: raw[key] for name, key in own.items() if raw.get(key) is not None}
    if family.times and type(config.get("hidden_size")) is int:
        config.setdefault("intermediate_size", family.times * config["hidden_size"])
    check_config(config, where)
    return config


def known(family: Family) -> tuple[str, ...]:
    """The settings of a family's config.json that tfbert knows, by BERT's names."""
    names = (*KNOWN, *family.settings, *family.windows)
    return tuple(name for name in dict.fromkeys(names) if name not in family.absent or name in family.settings)


def check_config(config: dict[str, Any], where: str) -> None:
    """Raises InputError unless every setting is of its kind and within bounds; puts `id2label` in order, with int keys."""
    family = family_of(config["model_type"], where)
    sizes = {name: largest for name, largest in SIZES.items() if name not in family.absent}
    bounds = {name: (1, largest) for name, largest in sizes.items()} | dict.fromkeys(
        TOKEN_IDS, (0, SIZES["vocab_size"])
    )
    for name, (least, largest) in bounds.items():
        _whole(config, name, least, largest, where, family)
    for name in (*sizes, *family.required):
        if name not in config:
            raise InputError(f"{where}: has no {family.names.get(name, name)}; restore the checkpoint's config.json")
    for name, largest in {**dict.fromkeys(RATES, 1), **dict.fromkeys(SCALES, 10)}.items():
        _number(config, name, 0, largest, where, family)
    for name, options in (("hidden_act", ACTIVATIONS), ("problem_type", PROBLEM_TYPES)):
        value = config.get(name, options[0])
        if value not in options:
            raise InputError(
                f"{where}: {name} is {value!r}; tfbert knows {', '.join(options)}.{suggest(value, options)}"
            )
    if config["hidden_size"] % config["num_attention_heads"]:
        raise InputError(
            f"{where}: hidden_size {config['hidden_size']} is not a multiple of num_attention_heads {config['num_attention_heads']}"
        )
    architectures = config.get("architectures", [])
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise InputError(f"{where}: architectures is {architectures!r}; expected a list of class names")
    for name in family.windows:
        _windows(config, name, where)
    for name, check in family.settings.items():
        expected = check(config[name], config) if name in config else None
        if expected:
            raise InputError(f"{where}: {name} is {str(config[name])[:80]}; expected {expected}")
    _labels(config, where, family)


def change_config(config: dict[str, Any], changes: dict[str, Any], where: str) -> dict[str, Any]:
    """Returns the settings with some changed; a setting that does not exist is an InputError that names the nearest right one."""
    family = family_of(config["model_type"], where)
    names = known(family)
    rate = changes.get("classifier_dropout")
    if rate is not None and family.classifier_rates:
        changes = {**dict.fromkeys(family.classifier_rates, rate), **changes}
    changes = {name: value for name, value in changes.items() if not (name in DROPOUTS and name in family.absent)}
    for name in changes:
        if name not in names:
            raise InputError(
                f"no setting {name!r} in a model's config; there are {', '.join(names)}.{suggest(name, names)}"
            )
    changed = {**config, **{name: value for name, value in changes.items() if value is not None}}
    check_config(changed, where)
    return changed


def _whole(config: dict[str, Any], name: str, least: int, largest: int, where: str, family: Family) -> None:
    value = config.get(name, least)
    if type(value) is not int or not least <= value <= largest:
        name = family.names.get(name, name)
        raise InputError(f"{where}: {name} is {value!r}; expected a whole number from {least} to {largest}")


def _number(config: dict[str, Any], name: str, least: float, largest: float, where: str, family: Family) -> None:
    value = config.get(name, least)
    if type(value) not in (int, float) or not math.isfinite(value) or not least <= value <= largest:
        name = family.names.get(name, name)
        raise InputError(f"{where}: {name} is {value!r}; expected a number from {least} to {largest}")


def _windows(config: dict[str, Any], name: str, where: str) -> None:
    value, layers = config.get(name, 2), config["num_hidden_layers"]
    values = value if isinstance(value, list) else [value] * layers
    largest = SIZES["max_position_embeddings"]
    even = all(type(window) is int and 2 <= window <= largest and window % 2 == 0 for window in values)
    if len(values) != layers or not even:
        raise InputError(
            f"{where}: {name} is {str(value)[:80]}; expected an even whole number from 2 to {largest}, or a list of {layers}, one a layer"
        )


def _labels(config: dict[str, Any], where: str, family: Family) -> None:
    _whole(config, "num_labels", 1, MAX_LABELS, where, family)
    names = config.get("id2label")
    config.pop("label2id", None)
    if names is None:
        return
    if (
        not isinstance(names, dict)
        or len(names) > MAX_LABELS
        or not all(isinstance(name, str) for name in names.values())
    ):
        raise InputError(f"{where}: id2label is {str(names)[:80]}; expected an object from numbers to label names")
    try:
        ordered = {int(key): name for key, name in names.items()}
    except ValueError:
        ordered = {}
    if sorted(ordered) != list(range(len(names))) or not names:
        raise InputError(
            f"{where}: id2label has the keys {str(list(names))[:80]}; expected the numbers 0 to {max(len(names) - 1, 0)}"
        )
    if config.get("num_labels", len(names)) != len(names):
        raise InputError(
            f"{where}: num_labels is {config['num_labels']}, but id2label names {len(names)} labels; make them agree"
        )
    if len(set(ordered.values())) < len(ordered):
        raise InputError(f"{where}: id2label has a name twice: {', '.join(sorted(ordered.values()))[:80]}")
    config["id2label"] = {key: ordered[key] for key in sorted(ordered)}
    config["label2id"] = {
        name: key for key, name in config["id2label"].items()
    }  # always anew, so that the two cannot disagree
    config["num_labels"] = len(ordered)


def dropout(rate: float | None) -> dict[str, float]:
    """The changes of a configuration that set every dropout rate; none for None, the checkpoint's own.

    Example:
        >>> sorted(dropout(0.0))
        ['attention_probs_dropout_prob', 'classifier_dropout', 'hidden_dropout_prob']
    """
    return {} if rate is None else dict.fromkeys(DROPOUTS, rate)
