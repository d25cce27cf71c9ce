"""The top of a pretrained encoder begun anew."""

from __future__ import annotations

import re
import zlib

from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.models.families import family_of
from tfbert.models.groups import layer_groups
from tfbert.models.keras_model import transformer_of
from tfbert.names import UNDECAYED, is_bias


def reinitialize(model, layers: int, *, seed: int = 0) -> None:
    """Draws the highest layers and the pooler anew, as before pretraining: normal, cut at two deviations; biases 0, scales 1.

    With some thousand examples or fewer this scores better and varies less between seeds than starting from layers that are specialized on
    the pretraining (Zhang et al. 2021, "Revisiting Few-sample BERT Fine-tuning", section 5; 1 to 6 layers there, of 24).

    Args:
        model: what `task.build` returned, or the TF Transformers model itself.
        layers: how many, from the top, at least 1. Layers that share their variables, as ALBERT's do, count as one.
        seed: the same seed gives the same numbers, whatever was drawn before (default 0).

    Raises:
        InputError: the model has fewer layers.

    Example:
        >>> from tfbert._compat import transformers
        >>> from tfbert.models.loading import quiet
        >>> config = transformers.BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
        >>> with quiet():
        ...     model = transformers.TFBertModel(config)
        ...     model.build_in_name_scope()
        >>> reinitialize(model, 1, seed=3)
        >>> reinitialize(model, 3)
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: reinitialize is 3; the model has 1 to 2 layers that can begin anew
    """
    config = transformer_of(model).config
    scale = family_of(config.model_type).deviation(config)
    for variable in drawn_anew(model, layers):
        variable.assign(_beginning(variable, scale, seed))


def drawn_anew(model, layers: int) -> list:
    """The variables that `reinitialize` draws; an InputError for more layers than there are."""
    groups = layer_groups(model)
    names = [name for name in groups if name.startswith("layers[")]
    if not 1 <= layers <= len(names):
        raise InputError(f"reinitialize is {layers}; the model has 1 to {len(names)} layers that can begin anew")
    return [variable for name in [*names[-layers:], "pooler"] for variable in groups.get(name, ())]


def _beginning(variable, scale: float, seed: int):
    inside = variable.name.split("/", 1)[1]  # Keras numbers the models of a process in what stands before
    if is_bias(inside):
        return tf.zeros_like(variable)
    if re.search(UNDECAYED, inside):  # a scale, whatever a family calls it
        return tf.ones_like(variable)
    return tf.random.stateless_truncated_normal(variable.shape, [seed, zlib.crc32(inside.encode())], stddev=scale)
