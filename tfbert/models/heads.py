"""Which head a checkpoint has, and whether it is the one that was asked for, with the labels that were asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tfbert.errors import InputError
from tfbert.models.families import Family, Head
from tfbert.models.weights import Tensor


def choose(tensors: dict[str, Tensor], config: dict, family: Family, head: str | None, new_head: bool, folder: Path):
    """Parts the checkpoint's tensors into those to be read and those of heads to be dropped; a foreign head is an error."""
    kind = family.head(head)
    trained = [name for name, other in family.heads.items() if name and _is_class(other, config)]
    foreign, own = [], []
    for name in tensors:
        if name.startswith(kind.weights):
            # A head of pretraining is as good whatever else the checkpoint was pretrained for.
            fits = not trained or head in trained or starts(name, family.pretraining)
            (own if fits else foreign).append(name)
        elif starts(name, (prefix for other in family.heads.values() for prefix in other.weights)) and not starts(
            name, (*family.pretraining, *family.pooler)
        ):
            foreign.append(name)
    if head is None:
        dropped = foreign
    elif foreign and not new_head:
        other = trained[0] if trained and head not in trained else "another task"
        raise InputError(
            f"{folder} is fine-tuned for {other} (it has {foreign[0]}), not for {head}; pass new_head=True to keep its encoder and begin "
            "a new head, or choose the base checkpoint"
        )
    else:
        # What is learnt in pretraining is a head of no fine-tuning.
        dropped = [*foreign, *(name for name in own if not starts(name, family.pretraining))] if new_head else []
    return {name: tensor for name, tensor in tensors.items() if name not in dropped}, {
        name: tensors[name] for name in dropped
    }


def _is_class(head: Head, config: dict[str, Any]) -> bool:
    return bool({head.pytorch_class, head.tf_class} & set(config.get("architectures", [])))


def starts(name: str, prefixes: Iterable[str]) -> bool:
    return name.startswith(tuple(prefixes))


def settle_labels(
    config: dict, kept: dict[str, Tensor], kind: Head, num_labels: int | None, id2label, folder: Path
) -> dict[str, Any]:
    """Settles the head's labels from what was asked and what the checkpoint has; two that contradict each other are an error."""
    if kind.labels is not None:
        if (num_labels or len(id2label or {}) or kind.labels) != kind.labels:
            raise InputError(f"{kind.tf_class} has {kind.labels} outputs a place; leave num_labels and id2label out")
        return {"id2label": {i: f"LABEL_{i}" for i in range(kind.labels)}, "num_labels": kind.labels}
    weight = kept.get(f"{kind.output or kind.weights[-1]}weight")
    stored = config.get("id2label")
    rows = weight.shape[0] if weight else None
    if id2label is not None and num_labels not in (None, len(id2label)):
        raise InputError(f"num_labels is {num_labels}, but id2label names {len(id2label)} labels; leave num_labels out")
    asked = len(id2label) if id2label is not None else num_labels
    if rows is not None and asked not in (None, rows):
        raise InputError(
            f"{folder}: the checkpoint's {kind.weights[-1].rstrip('.')} has {rows} labels{_named(stored)}, the task has {asked}"
            f"{_named(id2label)}; give the task the checkpoint's labels, or pass new_head=True to begin a new head"
        )
    if id2label is None:
        same = stored is not None and asked in (None, len(stored))
        count = len(stored) if same else asked or rows or 2
        return {"id2label": stored if same else {i: f"LABEL_{i}" for i in range(count)}, "num_labels": count}
    names = {int(key): str(name) for key, name in id2label.items()}
    if rows is not None and stored and _real(stored) and _real(names) and names != stored:
        raise InputError(
            f"{folder}: the checkpoint's labels are{_named(stored)}, the task's{_named(names)}; give the task the checkpoint's labels in "
            "their order, or pass new_head=True to begin a new head"
        )
    return {"id2label": names, "num_labels": len(names)}


def _real(names: Mapping[int, str]) -> bool:
    """Whether labels have names of their own; Transformers calls those without LABEL_0, LABEL_1, ..."""
    return any(name != f"LABEL_{key}" for key, name in names.items())


def _named(names: Mapping | None) -> str:
    if not names:
        return ""
    shown = [str(name) for name in list(names.values())[:5]]
    return f" ({', '.join(shown)}{', ...' if len(names) > 5 else ''})"
