"""Checkpoint + head -> TF Transformers model: every weight in its place, or an error that says which is not."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfbert._compat import keras, plain, transformers
from tfbert.checkpoint_folder import find_checkpoint
from tfbert.errors import InputError
from tfbert.models.configuration import change_config, read_config
from tfbert.models.families import Family, Head, family_of
from tfbert.models.fewer_layers import fewer_layers
from tfbert.models.heads import choose, settle_labels, starts
from tfbert.models.lean import check_encoder, put
from tfbert.models.randomness import dropouts
from tfbert.models.weights import Tensor, list_weights, read_weights, turned, variables_of


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What did not pass one to one from a checkpoint into a model; names are PyTorch's, without the encoder's prefix.

    Args:
        source: the checkpoint folder.
        missing: weights that the checkpoint lacks and that begin anew (a new head; a pooler that was never trained).
        unexpected: tensors of the checkpoint that the model has no place for (pre-training heads, buffers, a head that was dropped).
        mismatched: tensors of a dropped head whose name the new head has too, with another shape.
    """

    source: str
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]


def load(
    checkpoint: str | Path,
    head: str | None,
    *,
    num_labels: int | None = None,
    id2label: Mapping[int, str] | None = None,
    new_head: bool = False,
    seed: int = 0,
    encoder: str = "lean",
    gradient_checkpointing: bool = False,
    keep_layers: str | None = None,
    **config_changes: Any,
):
    """Builds a TF Transformers model and reads a checkpoint's weights into it.

    A new head is allowed when the checkpoint is a base model; anything else that is missing, left over or of another shape is an error.
    No file of the checkpoint can make code run: config.json is data and only safetensors are read. The result's `load_report` says
    what did not pass one to one. Dropout takes its seeds from Keras: call `keras.utils.set_random_seed` before.

    Args:
        checkpoint: a folder, the packaged "all-MiniLM-L6-v2", or a name on the Hugging Face hub.
        head: "sequence-classification", "token-classification", ... (see `families`), or None for the bare encoder.
        num_labels: outputs of the head, where only their number matters (default: those of `id2label`, else the checkpoint's, else 2).
        id2label: label names by output, 0 to L-1.
        new_head: drop the head that the checkpoint has and begin a new one (default False).
        seed: of the new head's numbers; the same seed gives the same head whatever was drawn before (default 0).
        encoder: "lean", faster and of equal outputs (see `lean`; default), or "transformers", the layers of TF Transformers.
        gradient_checkpointing: compute each layer of the lean encoder again in the backward pass, for less memory (see `lean.put`).
        keep_layers: which of the checkpoint's layers the model has, as Python slices a list: "::2" is every second one, "0,2,5" three of
            them; None (default): all.
        **config_changes: other settings of config.json, such as hidden_dropout_prob=0.2 or problem_type="regression".

    Returns:
        The model, built, such as a TFBertForSequenceClassification, with float32 weights.

    Raises:
        InputError: a setting or file of the checkpoint is wrong (see `configuration` and `weights`), or the weights do not fit the head.

    Example:
        >>> import tempfile
        >>> load(tempfile.mkdtemp(), "sequence-classification", num_labels=3)
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: ...
    """
    check_encoder(encoder, gradient_checkpointing)
    if type(seed) is not int or seed < 0:
        raise InputError(f"seed is {seed!r}; expected a whole number of at least 0")
    folder = find_checkpoint(str(checkpoint))
    config = read_config(folder)
    family = family_of(config["model_type"])
    kind = family.head(head)
    if not family.float16 and keras.mixed_precision.global_policy().compute_dtype == "float16":
        raise InputError(
            f"{folder}: the states of {family.model_type} grow beyond float16's range; take precision bfloat16 or float32"
        )
    tensors = list_weights(folder, family)
    _check_sizes(config, tensors, family, folder)
    if keep_layers is not None:
        tensors, config = fewer_layers(tensors, config, family, keep_layers, folder)
    _tie(tensors, kind, config, folder)
    kept, dropped = choose(tensors, config, family, head, new_head, folder)
    if head is not None:
        config_changes |= settle_labels(config, kept, kind, num_labels, id2label, folder)
    config = change_config(config, config_changes, f"the settings for {folder}")
    config["architectures"] = [kind.pytorch_class]
    with quiet():
        own = {family.names.get(name, name): value for name, value in config.items()}
        model = getattr(transformers, kind.tf_class)(getattr(transformers, family.config_class)(**own))
        plain(model.build_in_name_scope)()
    if family.prepare is not None:
        family.prepare(model, kind)
    build_dropout(model)
    model.config._name_or_path = str(folder)
    model.load_report = _fill(model, kept, dropped, family, kind, folder, seed)
    if encoder == "lean":
        put(model, first_token=kind.first_token, gradient_checkpointing=gradient_checkpointing)
    model.call = plain(model.call)
    return model


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Transformers from printing its advice (deprecated TensorFlow classes, weights that begin anew): ours is in the report.

    And Keras from warning of Longformer's layers that are built twice: all their first values are replaced here. XLNet's layers are told
    to have been deleted in a version of Transformers that is past.
    """
    logging = transformers.utils.logging
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The initializer TruncatedNormal is unseeded", UserWarning)
            warnings.filterwarnings("ignore", "`TFSharedEmbeddings` is scheduled for deletion", DeprecationWarning)
            yield
    finally:
        logging.set_verbosity(before)


def build_dropout(model) -> None:
    """Makes the dropout layers' random generators now, where Keras would at the first call, and of the kind that has a state.

    So their seeds depend on the global seed at loading, and on nothing that happens in between (wrapping, predicting). The state is a
    variable (see `random_state`); the operations that Keras draws from by default count inside their kernels, where nobody can save it.
    """
    for layer in dropouts(model):
        layer._random_generator._set_rng_type("stateful")
        layer.build(None)


def _check_sizes(config: dict[str, Any], tensors: dict[str, Tensor], family: Family, folder: Path) -> None:
    """Compares the sizes that config.json claims with the files, before memory is taken for them."""
    last = family.feed_forward and f"{family.layers}{family.own_layers(config) - 1}.{family.feed_forward}"
    for name, sizes, layers in (
        (family.word_embeddings, ("vocab_size", family.width), ()),
        (family.position_embeddings, ("max_position_embeddings", family.position_width or family.width), ()),
        (last, ("intermediate_size", family.inside), (family.shared or "num_hidden_layers",)),
    ):
        if name is None:
            continue
        shape = tuple(config[size] for size in sizes)
        *others, end = (family.names.get(setting, setting) for setting in (*layers, *sizes))
        settings = f"{', '.join(others)} and {end}"
        if name not in tensors:
            raise InputError(
                f"{folder}: the weights have no {name}, which config.json ({settings}) asks for; the two are not of one model"
            )
        if tensors[name].shape != shape:
            raise InputError(
                f"{folder}: {name} is {list(tensors[name].shape)} in the weights, but config.json ({settings}) says {list(shape)}; "
                "the two are not of one model"
            )


def _tie(tensors: dict[str, Tensor], kind: Head, config: dict[str, Any], folder: Path) -> None:
    """Takes away copies of tied weights; where only the copy is there, it stands for the weight. TensorFlow's models cannot untie them."""
    for copy, name in kind.tied.items():
        if config.get("tie_word_embeddings") is False and starts(copy, kind.weights):
            continue  # the head has a matrix of its own
        if copy in tensors and name not in tensors:
            tensors[name] = tensors.pop(copy)
        elif copy in tensors:
            one, other = (dict(read_weights({key: tensors[key]}))[key] for key in (copy, name))
            if not np.array_equal(one, other):
                raise InputError(
                    f"{folder}: {copy} differs from {name}; tfbert's models share the two; choose a checkpoint that ties them"
                )
            del tensors[copy]


def _fill(
    model, kept: dict[str, Tensor], dropped: dict[str, Tensor], family: Family, kind: Head, folder: Path, seed: int
) -> LoadReport:
    """Puts the weights into the model's variables, begins the new ones, and reports; refuses all that is not as it should be."""
    wanted = variables_of(model, family)
    shapes = {
        name: turned(np.empty(variable.shape, np.bool_), turn, to_tf=False).shape
        for name, (variable, turn) in wanted.items()
    }
    missing = [name for name in wanted if name not in kept]
    unexpected = [name for name in kept if name not in wanted]
    _refuse(missing, unexpected, kept, shapes, family, kind, folder)
    for name, values in read_weights({name: tensor for name, tensor in kept.items() if name in wanted}):
        variable, turn = wanted[name]
        variable.assign(turned(values, turn, to_tf=True))
    for name in missing:
        variable, turn = wanted[name]
        values = new_weight(name, shapes[name], family.deviation(model.config), seed)
        variable.assign(turned(values, turn, to_tf=True))
    mismatched = [name for name, tensor in dropped.items() if shapes.get(name, tensor.shape) != tensor.shape]
    left = [*unexpected, *(name for name in dropped if name not in mismatched)]
    return LoadReport(str(folder), tuple(sorted(missing)), tuple(sorted(left)), tuple(sorted(mismatched)))


def begin_bias(model, values) -> None:
    """Sets the bias of a head's outputs where the head begins anew.

    Args:
        model: what `load` returned, with a head that has outputs for labels.
        values: a number for each label.
    """
    family = family_of(model.config.model_type)
    kind = family.head_of(model)
    name = f"{kind.output or kind.weights[-1]}bias"
    if name in model.load_report.missing:
        variables_of(model, family)[name][0].assign(values)


def _refuse(missing, unexpected, kept, shapes, family: Family, kind: Head, folder: Path) -> None:
    """Raises InputError for weights that are missing, left over or of another shape without a reason known here."""
    new = [
        prefix
        for prefixes in (*([part] for part in kind.weights if kind.apart), kind.weights, family.pooler)
        if not any(name.startswith(tuple(prefixes)) for name in kept)
        for prefix in prefixes
    ]
    spare = (*family.pretraining, *family.buffers, *family.pooler)
    wrong = [name for name in kept if name in shapes and kept[name].shape != shapes[name]]
    for what, names in (
        ("lacks", [f"{name} {list(shapes[name])}" for name in missing if not starts(name, new)]),
        ("has no place for", [f"{name} {list(kept[name].shape)}" for name in unexpected if not starts(name, spare)]),
        (
            "has in another shape",
            [f"{name} ({list(kept[name].shape)}, expected {list(shapes[name])})" for name in wrong],
        ),
    ):
        if names:
            rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
            side = "the model" if what.startswith("has no") else "the checkpoint"
            raise InputError(
                f"{folder}: {side} {what} {', '.join(names[:5])}{rest}; {kind.tf_class} and these weights are not of one model"
            )


def new_weight(name: str, shape: tuple[int, ...], scale: float, seed: int) -> np.ndarray:
    """Draws a new weight as BERT does (Devlin et al. 2019): a normal distribution cut at two standard deviations; biases 0, scales 1.

    Args:
        name: PyTorch's, without the encoder's prefix; each name has numbers of its own.
        shape: in PyTorch's order.
        scale: the standard deviation, the config's initializer_range.
        seed: the same seed gives the same numbers.

    Example:
        >>> new_weight("encoder.layer.0.output.dense.weight", (1, 3), 0.02, seed=0).round(4).tolist()
        [[0.0161, 0.0043, 0.0025]]
    """
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    if "LayerNorm" in name or "layer_norm" in name:
        return np.ones(shape, np.float32)
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    values = generator.standard_normal(shape)
    while (far := np.abs(values) > 2).any():
        values[far] = generator.standard_normal(int(far.sum()))
    return (scale * values).astype(np.float32)
