"""LoRA (Hu et al. 2021, https://arxiv.org/abs/2106.09685): small matrices learn what is added to large ones that stay as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tfbert._compat import tf
from tfbert.errors import InputError, suggest
from tfbert.models.groups import freeze, unfreeze_new
from tfbert.models.keras_model import transformer_of
from tfbert.models.parts import PARTS

TARGETS = ("query", "key", "value", "output", "up", "down")


class Adapted:
    """Stands for a layer's matrix: kernel + scale * down @ up, [D, E], made anew wherever it is used.

    Args:
        kernel: the layer's own variable [D, E].
        down: variable [D, r].
        up: variable [r, E], 0 at first.
        scale: alpha / r.
    """

    def __init__(self, kernel, down, up, scale: float):
        self.kernel, self.down, self.up, self.scale = kernel, down, up, scale

    @property
    def shape(self):
        """[D, E]."""
        return self.kernel.shape

    @property
    def dtype(self):
        """The kernel's."""
        return self.kernel.dtype

    def __tf_tensor__(self, dtype=None, name=None):
        kernel = tf.convert_to_tensor(self.kernel, dtype=dtype, name=name)
        return kernel + tf.cast(self.scale * tf.matmul(self.down, self.up), kernel.dtype)

    def __mul__(self, factor):
        return tf.convert_to_tensor(self) * factor

    def __array__(self, dtype=None, copy=None):
        return np.asarray(tf.convert_to_tensor(self), dtype=dtype)


def add_lora(
    model, rank: int = 8, *, alpha: float = 16.0, targets: Sequence[str] = ("query", "value"), seed: int = 0
) -> None:
    """Freezes the encoder and adds two small matrices to some of each layer's, which learn with the head; compile after it.

    The model computes what it did until they have learned. `save` writes, and an export holds, the sum: an ordinary checkpoint.

    Args:
        model: what `load` or `as_keras` returned, of a family that the lean encoder knows; or a built TF Transformers model of one.
        rank: columns of the one and rows of the other, from 1 to the width of the smallest matrix (default 8).
        alpha: their product is multiplied by alpha / rank (default 16).
        targets: which of a layer's matrices: query, key, value, output, up (the first of the feed-forward), down (default: query, value).
        seed: of the first values, uniform within 1 / sqrt(D), as in the authors' code; the others begin at 0 (default 0).

    Raises:
        InputError: a rank or name outside its range, a family without a table of its parts, or a model that has LoRA already.

    Example:
        >>> from tfbert._compat import transformers
        >>> from tfbert.models.loading import quiet
        >>> config = transformers.BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
        >>> with quiet():
        ...     model = transformers.TFBertForSequenceClassification(config)
        ...     model.build_in_name_scope()
        >>> add_lora(model, rank=2)
        >>> sum(int(tf.size(variable)) for variable in model.trainable_weights)  # 2 layers * 2 matrices * (8 * 2 + 2 * 8), and the head
        146
    """
    wrong = [name for name in targets if name not in TARGETS]
    if wrong:
        raise InputError(
            f"there is no target {wrong[0]!r};{suggest(wrong[0], TARGETS)} give some of {', '.join(TARGETS)}"
        )
    projections = projections_of(model, targets)
    if any(isinstance(projection.kernel, Adapted) for projection in projections):
        raise InputError("the model has LoRA already; merge_lora first")
    widest = min(min(projection.kernel.shape) for projection in projections)
    if type(rank) is not int or not 1 <= rank <= widest:
        raise InputError(f"rank is {rank!r}; give a whole number from 1 to {widest}, the width of the smallest matrix")
    freeze(model, "encoder")
    unfreeze_new(model)
    generator = np.random.default_rng(seed)
    for projection in projections:
        inputs, outputs = projection.kernel.shape
        first = generator.uniform(-(inputs**-0.5), inputs**-0.5, [inputs, rank])
        attach(projection, first, np.zeros([rank, outputs]), alpha / rank)


def attach(projection, down: np.ndarray, up: np.ndarray, scale: float) -> None:
    """Adds scale * down @ up to the matrix of a Keras layer, and lets the two learn.

    Args:
        projection: the layer, with a kernel [D, E].
        down: [D, r].
        up: [r, E].
        scale: alpha / r.
    """
    kernel, place = projection.kernel, projection.kernel.name.removesuffix("kernel:0")
    variables = [
        tf.Variable(values.astype(np.float32), name=f"{place}lora_{name}")
        for name, values in (("down", down), ("up", up))
    ]
    projection._trainable_weights.extend(variables)
    object.__setattr__(projection, "kernel", Adapted(kernel, *variables, scale))  # past Keras' tracking


def merge_lora(model) -> None:
    """Adds what LoRA has learned to the matrices themselves and takes the small ones away; compile after it.

    The encoder stays frozen (see `unfreeze`). A model without LoRA is left as it is.

    Args:
        model: what `add_lora` was given.
    """
    for projection in adapted(model):
        one = projection.kernel
        one.kernel.assign(tf.convert_to_tensor(one))
        object.__setattr__(projection, "kernel", one.kernel)
        small = {one.down.ref(), one.up.ref()}
        for own in (projection._trainable_weights, projection._non_trainable_weights):
            own[:] = [variable for variable in own if variable.ref() not in small]


def adapted(model) -> Iterator:
    """The Keras layers of a model that have LoRA."""
    return (layer for layer in model._flatten_layers() if isinstance(vars(layer).get("kernel"), Adapted))


def lora_weights(model) -> list:
    """The small matrices of a model that has LoRA."""
    return [variable for layer in adapted(model) for variable in (layer.kernel.down, layer.kernel.up)]


def projections_of(model, targets: Sequence[str]) -> list:
    """The Keras layers, each once, also where layers share them."""
    model = transformer_of(model)
    parts = PARTS.get(getattr(getattr(model, "config", None), "model_type", None))
    if parts is None:
        raise InputError(f"LoRA knows the layers of {', '.join(PARTS)}; the model is none of these")
    layers = parts(getattr(model, model.base_model_prefix)).layers
    return list({id(each): each for layer in layers for each in (getattr(layer, name) for name in targets)}.values())
