"""What LoRA learned, in a folder of its own: the small matrices and the head, in the form of Hugging Face's PEFT, and back."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.files import new_directory, read_json, told, write_json
from tfbert.models.families import Family, family_of
from tfbert.models.groups import freeze, unfreeze_new
from tfbert.models.keras_model import transformer_of
from tfbert.models.lora import TARGETS, Adapted, adapted, attach, projections_of
from tfbert.models.saving import name_in_pytorch
from tfbert.models.weights import opened, turned, variables_of
from tfbert.names import group_of

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BEGIN = "base_model.model."  # of each name
TASKS = {
    "sequence-classification": "SEQ_CLS",
    "token-classification": "TOKEN_CLS",
    "question-answering": "QUESTION_ANS",
    None: "FEATURE_EXTRACTION",
}
# What this package does not do, and how PEFT says that it is not asked for.
OTHERS = {
    "use_dora": (False, None),
    "use_rslora": (False, None),
    "fan_in_fan_out": (False, None),
    "lora_bias": (False, None),
    "bias": ("none", None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "layer_replication": (None,),
}


@dataclasses.dataclass(frozen=True)
class Adapter:
    """The small matrices of LoRA with the head, apart from their model.

    Args:
        config: what adapter_config.json holds.
        arrays: PEFT's names -> float32 arrays.
    """

    config: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def save(self, folder: str | Path) -> None:
        """Writes adapter_config.json and adapter_model.safetensors into a new folder, or into one that exists.

        `PeftModel.from_pretrained(model, folder)` reads it in PyTorch, and `read_adapter(folder).put_on(model)` here, onto the checkpoint
        that LoRA began with: of MiniLM at rank 8, 0.9 MB of 87.
        """
        if Path(folder).is_dir():
            self._write(Path(folder))
            return
        with new_directory(folder) as temporary:
            self._write(temporary)

    def _write(self, folder: Path) -> None:
        write_json(folder / CONFIG, self.config)
        with told(folder / WEIGHTS):
            save_file(self.arrays, folder / WEIGHTS, metadata={"format": "pt"})
            (folder / WEIGHTS).chmod(0o644)

    def put_on(self, model) -> None:
        """Adds the matrices to a model of the same checkpoint and head, as `add_lora` does, and sets the head; compile after it.

        Args:
            model: what `load` or `as_keras` returned, without LoRA.

        Raises:
            InputError: the model has LoRA already, or is of other names or sizes.
        """
        if any(adapted(model)):
            raise InputError("the model has LoRA already; merge_lora first")
        model = transformer_of(model)
        family = family_of(model.config.model_type)
        variables = variables_of(model, family)
        pairs, others = self._parted(family)
        places = {module: each for module, each in _places(model, variables).items() if module in pairs}
        strange = [*(pairs.keys() - places.keys()), *(others.keys() - variables.keys())]
        if strange:
            raise InputError(
                f"the model has no place for the adapter's {sorted(strange)[0]}; it was made for another model"
            )
        for name, values in others.items():
            variable, turn = variables[name]
            _fits(name, turned(values, turn, to_tf=True).shape, variable.shape)
        for module, (down, up) in pairs.items():
            _fits(module, (down.shape[1], up.shape[0]), places[module].kernel.shape)
        freeze(model, "encoder")
        unfreeze_new(model)
        for module, (down, up) in pairs.items():
            attach(places[module], down.T, up.T, self.config["lora_alpha"] / down.shape[0])
        for name, values in others.items():
            variable, turn = variables[name]
            variable.assign(turned(values, turn, to_tf=True))

    def _parted(self, family: Family) -> tuple[dict, dict]:
        """Module -> (A [r, D], B [E, r]), and the other weights by name; both without PEFT's prefix and the encoder's."""
        pairs: dict[str, dict[str, np.ndarray]] = {}
        others = {}
        for name, values in self.arrays.items():
            name = name.removeprefix(BEGIN).removeprefix(family.encoder)
            small = re.fullmatch(r"(.*)\.lora_([AB])\.weight", name)
            if small is None:
                others[name] = values
            else:
                pairs.setdefault(small[1], {})[small[2]] = values
        for module, both in pairs.items():
            if both.keys() != {"A", "B"} or both["A"].shape[0] != both["B"].shape[1]:
                raise InputError(f"the adapter's {module} lacks one of its two matrices, or they are of two ranks")
        return {module: (both["A"], both["B"]) for module, both in pairs.items()}, others


def adapter_of(model) -> Adapter:
    """Takes from a model what LoRA has learned, and the weights that began anew with it: the head, and a pooler that was not there.

    Args:
        model: what `add_lora` was given, before `merge_lora`.

    Raises:
        InputError: the model has no LoRA.
    """
    if not any(adapted(model)):
        raise InputError("the model has no LoRA; save saves models")
    model = transformer_of(model)
    family = family_of(model.config.model_type)
    variables, arrays = variables_of(model, family), {}
    for module, projection in _places(model, variables).items():
        one = projection.kernel
        if isinstance(one, Adapted):
            place = f"{BEGIN}{name_in_pytorch(module, family, model)}"
            arrays[f"{place}.lora_A.weight"] = np.ascontiguousarray(one.down.numpy().T)
            arrays[f"{place}.lora_B.weight"] = np.ascontiguousarray(one.up.numpy().T)
            rank, alpha = one.down.shape[1], one.scale * one.down.shape[1]
    targets = sorted({name.removeprefix(BEGIN).rsplit(".lora_", 1)[0] for name in arrays})
    began = {name for name, (v, _) in variables.items() if group_of(v.name) == "head" or name in _missing(model)}
    for name in sorted(began):
        variable, turn = variables[name]
        values = np.ascontiguousarray(turned(variable.numpy(), turn, to_tf=False), np.float32)
        arrays[BEGIN + name_in_pytorch(name, family, model)] = values
    head = next(name for name, each in family.heads.items() if each is family.head_of(model))
    config = {
        "base_model_name_or_path": None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": 0.0,
        "modules_to_save": sorted({name.split(".")[0] for name in began}) or None,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": targets,
        "task_type": TASKS.get(head),
    }
    return Adapter(config, arrays)


def read_adapter(folder: str | Path) -> Adapter:
    """Reads a folder that `Adapter.save` or PEFT's `save_pretrained` wrote.

    Raises:
        InputError: a file is missing or damaged, or what it asks for is not LoRA as published.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise InputError(
            f"{folder / CONFIG}: expected peft_type LORA, got {config.get('peft_type') if isinstance(config, dict) else config!r}"
        )
    for name, allowed in OTHERS.items():
        if config.get(name, allowed[0]) not in allowed:
            raise InputError(
                f"{folder / CONFIG}: {name} is {config[name]!r}, which tfbert does not know; it reads {name} {allowed[0]!r}"
            )
    if not isinstance(config.get("lora_alpha"), int | float):
        raise InputError(f"{folder / CONFIG}: lora_alpha is {config.get('lora_alpha')!r}; expected a number")
    with opened(folder / WEIGHTS) as file:
        arrays = {name: np.asarray(file.get_tensor(name)).astype(np.float32) for name in file.keys()}  # noqa: SIM118
    wrong = next((name for name, values in arrays.items() if not np.isfinite(values).all()), None)
    if wrong is not None:
        raise InputError(
            f"{folder / WEIGHTS}: {wrong} holds values that are not finite; take the file from before that"
        )
    return Adapter(config, arrays)


def _places(model, variables) -> dict:
    """Module's name, without the encoder's prefix -> the Keras layer that LoRA can be added to."""
    names = {variable.ref(): name.removesuffix(".weight") for name, (variable, _) in variables.items()}
    found = {}
    for projection in projections_of(model, TARGETS):
        kernel = projection.kernel
        found[names[(kernel.kernel if isinstance(kernel, Adapted) else kernel).ref()]] = projection
    return found


def _missing(model) -> tuple[str, ...]:
    report = vars(model).get("load_report")
    return report.missing if report else ()


def _fits(name: str, found, expected) -> None:
    if tuple(found) != tuple(tf.TensorShape(expected)):
        raise InputError(
            f"the adapter's {name} is {list(found)}, the model's {list(expected)}; it was made for another model"
        )
