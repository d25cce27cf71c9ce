"""The groups of a model's variables from the bottom up, and which of them learn: `freeze`, `unfreeze`, and how many numbers they hold."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfbert._compat import transformers
from tfbert.errors import InputError, suggest
from tfbert.models.families import family_of
from tfbert.models.keras_model import transformer_of
from tfbert.models.weights import variables_of
from tfbert.names import from_the_bottom, group_of, is_bias

WEIGHTS = "weights"  # all of the encoder but its biases


def layer_groups(model) -> dict[str, list]:
    """Puts each variable of a model into one group.

    A TF Transformers encoder, alone, with a head or inside a Keras model, has "embeddings", "layers[0]" to "layers[n - 1]", "pooler"
    (where there is one) and "head", whatever is none of these. Layers that share their variables, as ALBERT's do, are one group,
    "layers[0:12]". A model of an encoder and a decoder has "embeddings", "encoder" and "decoder". Any other Keras model has a group for
    each of its layers that has variables, by the layer's name.

    Args:
        model: a built TF Transformers or Keras model.

    Returns:
        Name -> variables, from the bottom.

    Example:
        >>> from tfbert._compat import keras
        >>> model = keras.Sequential([keras.layers.Dense(2, name="below"), keras.layers.Dense(1, name="above")])
        >>> model.build([None, 3])
        >>> {name: len(variables) for name, variables in layer_groups(model).items()}
        {'below': 2, 'above': 2}
    """
    model_with_layers = _transformer(model)
    if model_with_layers is None:
        found = {layer.name: [v for v in layer.weights if v.trainable] for layer in model.layers}
        return {name: variables for name, variables in found.items() if variables}
    config = model_with_layers.config
    groups: dict[str, list] = {}
    if getattr(config, "is_encoder_decoder", False):
        for variable in model.weights:
            if variable.trainable:
                part = re.search(r"/(encoder|decoder)/", variable.name)
                groups.setdefault(part[1] if part else "embeddings", []).append(variable)
        return groups
    for variable in model.weights:
        if variable.trainable:
            groups.setdefault(group_of(variable.name), []).append(variable)
    shared = shared_layers(getattr(config, "num_hidden_layers", 0), getattr(config, "num_hidden_groups", None))
    names = list(dict.fromkeys(shared))
    return {_renamed(name, names): groups[name] for name in from_the_bottom(groups)}


def shared_layers(layers: int, groups: int | None) -> list[str]:
    """The group of each layer where layers share their variables; empty where they do not.

    Args:
        layers: how many layers there are.
        groups: how many of them have variables of their own (ALBERT's num_hidden_groups).

    Example:
        >>> shared_layers(4, 2)
        ['layers[0:2]', 'layers[0:2]', 'layers[2:4]', 'layers[2:4]']
    """
    if groups is None:
        return []
    numbers = [i * groups // layers for i in range(layers)]
    return [f"layers[{numbers.index(number)}:{numbers.index(number) + numbers.count(number)}]" for number in numbers]


def select(text: str, groups: Sequence[str], layers: Sequence[str]) -> list[str]:
    """Reads the names of groups.

    Args:
        text: names with commas between: a group, "layers" (all), "layers[2]", "layers[:6]", "layers[-2:]" (as Python slices a list), or
            "encoder" (all but "head").
        groups: the names that there are, from the bottom.
        layers: the group of each layer, from the lowest; empty for a model that is no encoder.

    Returns:
        The chosen groups, from the bottom.

    Raises:
        InputError: a name that is none, with the nearest; a layer that is not there; a part of layers that share their variables.

    Example:
        >>> layers = ["layers[0]", "layers[1]", "layers[2]"]
        >>> select("embeddings, layers[:-1]", ["embeddings", *layers, "head"], layers)
        ['embeddings', 'layers[0]', 'layers[1]']
        >>> select("embedings", ["embeddings", *layers, "head"], layers)
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: there is no group 'embedings'; Did you mean 'embeddings'? there are embeddings, layers[0:3], head, ...
    """
    chosen: set[str] = set()
    for name in (part.strip() for part in text.split(",")):
        if name in groups:
            chosen.add(name)
        elif layers and name == "encoder":
            chosen.update(group for group in groups if group != "head")
        elif layers and re.match(r"layers(\[|$)", name):
            chosen.update(_layers(name, layers))
        else:
            others = [group for group in groups if group not in layers]
            known = [*others, "layers", "encoder", WEIGHTS] if layers else list(groups)
            listed = ", ".join([*known[:1], f"layers[0:{len(layers)}]", *known[1:]] if layers else known)
            raise InputError(f"there is no group {name!r};{suggest(name, known)} there are {listed}")
    return [group for group in groups if group in chosen]


def frozen(text: str, group: str, bias: bool, groups: Sequence[str], layers: Sequence[str]) -> bool:
    """Whether a variable is among those that `freeze(model, text)` stops, by its group and by whether it is a bias.

    Args:
        text: as `select` takes it, and "weights" for all of the encoder but its biases.
        group: the variable's own.
        bias: whether it is one.
        groups: see `select`.
        layers: see `select`.
    """
    names = [name.strip() for name in text.split(",")]
    if layers and WEIGHTS in names and group != "head" and not bias:
        return True
    named = [name for name in names if not (layers and name == WEIGHTS)]
    return bool(named) and group in select(",".join(named), groups, layers)


def _layers(name: str, layers: Sequence[str]) -> list[str]:
    """The groups that "layers", "layers[3]" or "layers[a:b:c]" stands for."""
    inside = re.fullmatch(r"layers(?:\[\s*(-?\d*)\s*(?:(:)\s*(-?\d*)\s*(?::\s*(-?\d*)\s*)?)?\])?", name)
    if inside is None:
        raise InputError(f"cannot read {name!r}; write layers[3], layers[:6], layers[-2:] or layers[0:12:2]")
    start, colon, stop, step = inside.groups()
    try:
        numbers = [int(part) if part else None for part in (start, stop, step)]
        places = range(len(layers))[slice(*numbers)] if colon or start is None else [range(len(layers))[numbers[0]]]
    except (IndexError, TypeError, ValueError):
        places = []
    if not places:
        raise InputError(f"{name} is no layer; the model has layers[0] to layers[{len(layers) - 1}]")
    chosen = {layers[place] for place in places}
    for i, group in enumerate(layers):
        if group in chosen and i not in places:
            raise InputError(f"{name}: the layers of {group} share their variables; name all of them")
    return list(chosen)


def freeze(model, *names: str) -> None:
    """Stops groups of a model from learning; compile the model after it.

    No gradient is computed for what is frozen, and none passes below the lowest group that learns. There, in models that `load` built
    with the lean encoder, no dropout is drawn: the frozen bottom computes as it does in serving. (Keras' `trainable=False` does not
    switch dropout off, and so it stays on in TF Transformers' own layers.)

    What `layer.trainable = False` switched off is not touched. As ever in Keras 2, the order of `model.weights` depends on what learns:
    do not freeze between `get_weights` and `set_weights`.

    Args:
        model: a built TF Transformers or Keras model.
        names: the groups of `layer_groups`, "layers[:6]" (as Python slices), "layers" or "encoder" (all but the head: feature
            extraction); several in one string with commas between. "weights" is all of the encoder but its biases: BitFit (Ben Zaken et
            al. 2022, https://arxiv.org/abs/2106.10199).

    Raises:
        InputError: a name that is none, with the nearest.

    Example:
        >>> from tfbert._compat import transformers
        >>> from tfbert.models.loading import quiet
        >>> config = transformers.BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
        >>> with quiet():
        ...     model = transformers.TFBertForSequenceClassification(config)
        ...     model.build_in_name_scope()
        >>> freeze(model, "embeddings", "layers[:1]")
        >>> [name for name, count in count_parameters(model).items() if count["trainable"] == 0]
        ['embeddings', 'layers[0]']
    """
    _move(model, _variables(model, names), learn=False)


def unfreeze(model, *names: str) -> None:
    """Lets groups of a model learn again that `freeze` stopped; compile the model after it.

    Args:
        model: a built TF Transformers or Keras model.
        names: as `freeze` takes them; none for all.

    Raises:
        InputError: a name that is none, with the nearest.

    Example:
        >>> from tfbert._compat import keras
        >>> model = keras.Sequential([keras.layers.Dense(2, name="below"), keras.layers.Dense(1, name="above")])
        >>> model.build([None, 3])
        >>> freeze(model, "below", "above")
        >>> unfreeze(model, "above")
        >>> [variable.name for variable in model.trainable_weights]
        ['above/kernel:0', 'above/bias:0']
    """
    _move(model, _variables(model, names) if names else model.weights, learn=True)


def unfreeze_new(model) -> None:
    """Lets what the model's checkpoint lacks of the encoder learn, such as a pooler: frozen, it would stay what was drawn.

    Args:
        model: what `load` or `task.build` returned; of other models nothing is known, and nothing changes.
    """
    transformer = _transformer(model)
    report = None if transformer is None else vars(transformer).get("load_report")
    if report is not None and report.missing:
        variables = variables_of(transformer, family_of(transformer.config.model_type))
        found = (variables[name][0] for name in report.missing if name in variables)
        _move(model, (variable for variable in found if group_of(variable.name) != "head"), learn=True)


def count_parameters(model) -> dict[str, dict[str, int]]:
    """Counts the numbers in each group of a model, and those that learn.

    Args:
        model: a built TF Transformers or Keras model.

    Returns:
        Group -> {"total", "trainable"}, from the bottom, and "all" with the sums.

    Example:
        >>> from tfbert._compat import keras
        >>> model = keras.Sequential([keras.layers.Dense(2, name="below"), keras.layers.Dense(1, name="above")])
        >>> model.build([None, 3])
        >>> freeze(model, "below")
        >>> count_parameters(model)["below"], count_parameters(model)["all"]
        ({'total': 8, 'trainable': 0}, {'total': 11, 'trainable': 3})
    """
    learning = {variable.ref() for variable in model.trainable_weights}
    table = {}
    for name, variables in layer_groups(model).items():
        sizes = [(math.prod(variable.shape), variable.ref() in learning) for variable in variables]
        table[name] = {"total": sum(size for size, _ in sizes), "trainable": sum(size for size, yes in sizes if yes)}
    table["all"] = {kind: sum(count[kind] for count in table.values()) for kind in ("total", "trainable")}
    return table


def weights_in_order(model) -> list:
    """All variables of a model, in an order that does not depend on which of them learn, as that of Keras' `model.weights` does.

    Args:
        model: a built TF Transformers or Keras model.

    Example:
        >>> from tfbert._compat import keras
        >>> model = keras.Sequential([keras.layers.Dense(2, name="below"), keras.layers.Dense(1, name="above")])
        >>> model.build([None, 3])
        >>> freeze(model, "below")
        >>> [variable.name for variable in weights_in_order(model)]
        ['below/kernel:0', 'below/bias:0', 'above/kernel:0', 'above/bias:0']
    """
    there = {variable.ref() for variable in model.weights}
    found = {variable.ref(): variable for layer in model._flatten_layers() for variable in _own(layer)}
    return [
        *(variable for key, variable in found.items() if key in there),
        *(v for v in model.weights if v.ref() not in found),
    ]


def layers_of(groups: Iterable[str], config: Mapping[str, Any]) -> list[str]:
    """The group of each layer of an encoder, from the lowest; empty for a model that has none."""
    shared = shared_layers(config.get("num_hidden_layers", 0), config.get("num_hidden_groups"))
    return shared or [name for name in groups if name.startswith("layers[")]


def _transformer(model):
    """The TF Transformers model that a model is, or that is one of its layers; None where there is none."""
    model = transformer_of(model)
    inside = (layer for layer in model._flatten_layers() if isinstance(layer, transformers.TFPreTrainedModel))
    return next(inside, None)


def _variables(model, names: Sequence[str]) -> list:
    groups, transformer, text = layer_groups(model), _transformer(model), ",".join(names)
    layers = [] if transformer is None else layers_of(groups, transformer.config.to_dict())
    return [
        variable
        for group, variables in groups.items()
        for variable in variables
        if frozen(text, group, is_bias(variable.name), list(groups), layers)
    ]


def _renamed(name: str, shared: Sequence[str]) -> str:
    """ALBERT numbers its groups of layers; their names here say which layers they are."""
    return shared[int(name[len("layers[") : -1])] if shared and name.startswith("layers[") else name


def _move(model, variables: Iterable, *, learn: bool) -> None:
    """Keras 2 has a switch for a layer, none for a variable: it is moved from the layer's list of those that learn, or back."""
    chosen = {variable.ref() for variable in variables}
    for layer in model._flatten_layers():
        order = _own(layer)
        if not any(variable.ref() in chosen for variable in order):
            continue
        object.__setattr__(layer, "order_of_weights", order)  # past Keras' tracking
        learning = {variable.ref() for variable in layer._trainable_weights}
        learning = learning | chosen if learn else learning - chosen
        layer._trainable_weights[:] = [v for v in order if v.trainable and v.ref() in learning]
        layer._non_trainable_weights[:] = [v for v in order if not (v.trainable and v.ref() in learning)]


def _own(layer) -> list:
    """A layer's own variables as it made them, whatever was moved since; and some may have come or gone (see `lora`)."""
    own = [*layer._trainable_weights, *layer._non_trainable_weights]
    before = [v for v in vars(layer).get("order_of_weights", ()) if any(v is each for each in own)]
    return [*before, *(v for v in own if not any(v is each for each in before))]
