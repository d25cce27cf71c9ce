"""Model -> folder: config.json and model.safetensors that this package, PyTorch Transformers 4 and 5 all read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tfbert._compat import transformers
from tfbert.errors import InputError
from tfbert.files import new_directory, told, write_json
from tfbert.models.configuration import known
from tfbert.models.families import Family, family_of
from tfbert.models.keras_model import transformer_of
from tfbert.models.lora import adapted
from tfbert.models.weights import WHOLE, turned, variables_of

GENERATOR = "generator"  # the folder, in that of a discriminator, of the generator that it was trained with


def save(model, folder: str | Path, tokenizer=None) -> None:
    """Writes config.json, model.safetensors (PyTorch's names, float32) and the tokenizer's files.

    A discriminator's generator (see `replaced_tokens`) is a checkpoint of its own, in the folder `generator` inside.

    `load(folder, ...)` gives back the same bits, and `BertForSequenceClassification.from_pretrained(folder)` the same model in PyTorch.

    Args:
        model: what `load` or `as_keras` returned.
        folder: a new folder, which appears whole or not at all; or one that exists, such as `files.new_directory` gives, to write into.
        tokenizer: a Transformers tokenizer, whose files are written beside the weights (default: none).

    Raises:
        InputError: a weight is not finite (nothing is written then), or the disk refuses.
    """
    model = transformer_of(model)
    if Path(folder).is_dir():
        _write(model, Path(folder), tokenizer)
        return
    with new_directory(folder) as temporary:
        _write(model, temporary, tokenizer)


def _write(model, folder: Path, tokenizer) -> None:
    family = family_of(model.config.model_type)
    sums = {layer.kernel.kernel.ref(): layer.kernel for layer in adapted(model)}
    small = {variable.ref() for each in sums.values() for variable in (each.down, each.up)}
    arrays = {
        name_in_pytorch(name, family, model): _values(
            name, np.asarray(sums.get(variable.ref(), variable.numpy())), turn
        )
        for name, (variable, turn) in variables_of(model, family).items()
        if variable.ref() not in small
    }
    write_json(folder / "config.json", _config(model, family))
    with told(folder / WHOLE):
        save_file(arrays, folder / WHOLE, metadata={"format": "pt"})
        (folder / WHOLE).chmod(0o644)
    if tokenizer is not None:
        with told(folder):
            tokenizer.save_pretrained(folder)
    if "generator" in vars(model):  # see `replaced_tokens`
        with told(folder):
            (folder / GENERATOR).mkdir()
        _write(model.generator, folder / GENERATOR, tokenizer)


def name_in_pytorch(name: str, family: Family, model) -> str:
    """The name in PyTorch's model of the same class: a model with a head has the encoder's prefix, a bare one has not."""
    head = family.head_of(model)
    return name if not head.weights or name.startswith(head.weights) else family.encoder + name


def _values(name: str, values: np.ndarray, turn) -> np.ndarray:
    if not np.isfinite(values).all():
        bad = int(values.size - np.isfinite(values).sum())
        raise InputError(
            f"the weight {name} holds {bad} values that are not finite (NaN or infinity), so the model is not saved; "
            "lower the learning rate and train again from the last good checkpoint"
        )
    return np.ascontiguousarray(turned(values, turn, to_tf=False), dtype=np.float32)


def _config(model, family: Family) -> dict[str, Any]:
    """The settings that `configuration` knows, in full, so that no reader's defaults matter; no path of this machine among them."""
    config = model.config
    settings = {
        family.names.get(name, name): getattr(config, family.names.get(name, name), None)
        for name in sorted(known(family))
        if name not in ("id2label", "label2id", "num_labels")
    }
    labels = dict(sorted(config.id2label.items()))
    return {
        **{name: value for name, value in settings.items() if value is not None},
        "architectures": [family.head_of(model).pytorch_class],
        "dtype": "float32",
        "id2label": {str(key): name for key, name in labels.items()},
        "label2id": {name: key for key, name in labels.items()},
        "transformers_version": transformers.__version__,
    }
