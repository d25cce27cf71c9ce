"""A checkpoint with some of its layers left out: how a smaller student begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfbert.errors import InputError
from tfbert.models.families import Family
from tfbert.models.groups import select
from tfbert.models.weights import Tensor


def fewer_layers(
    tensors: dict[str, Tensor], config: dict[str, Any], family: Family, chosen: str, folder: Path
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Leaves layers out of a checkpoint, as DistilBERT begins with every second one of BERT (Sanh et al. 2019, section 3).

    Nothing is read for it: the layers that stay are only given the names of those from the bottom up.

    Args:
        tensors: what `list_weights` returned.
        config: what `read_config` returned.
        family: the row of the table of families.
        chosen: the layers that stay, as Python slices a list: "::2", ":3", "0,2,5", "-1".
        folder: the checkpoint's, for messages.

    Returns:
        The tensors and the config of the smaller model.

    Raises:
        InputError: there is no such layer, or layers share their weights.
    """
    count = config["num_hidden_layers"]
    names = [f"layers[{i}]" for i in range(count)]
    owned = {_layer(name, family) for name in tensors}
    if not set(map(str, range(count))) <= owned:
        raise InputError(
            f"{folder}: not each of the {count} layers has weights of its own, so that none can be left out; drop keep_layers"
        )
    try:
        found = select(",".join(f"layers[{part}]" for part in chosen.split(",")), names, names)
    except InputError as error:
        raise InputError(f"keep_layers is {chosen!r}; write ::2, :3 or 0,2,5, as Python slices: {error}") from error
    places = {str(names.index(name)): str(place) for place, name in enumerate(found)}
    kept = {}
    for name, tensor in tensors.items():
        old = _layer(name, family)
        if old is None:
            kept[name] = tensor
        elif old in places:
            kept[f"{family.layers}{places[old]}{name.removeprefix(family.layers + old)}"] = tensor
    each = {name: config[name] for name in family.windows if isinstance(config.get(name), list)}
    changed = {name: [values[int(old)] for old in places] for name, values in each.items()}
    return kept, {**config, **changed, "num_hidden_layers": len(places)}


def _layer(name: str, family: Family) -> str | None:
    """The number of the layer that a tensor is of; None for the embeddings, the pooler and the head."""
    return name.removeprefix(family.layers).split(".")[0] if name.startswith(family.layers) else None
