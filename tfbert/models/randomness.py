"""The state of all random numbers that training a model draws: what a resumed run must put back."""

from __future__ import annotations

from tfbert._compat import keras
from tfbert.models.keras_model import transformer_of


def random_state(model) -> list:
    """The variables on which the next dropout depends, beside the seed: a counter, or the state of a generator.

    Args:
        model: what `load` or `as_keras` returned. Any other Keras model can be given; of its dropout layers only those whose `rng_type` is
            "stateful" have a state that can be saved.

    Returns:
        int64 variables, in an order that depends on the architecture alone.

    Example:
        >>> from tfbert._compat import transformers
        >>> from tfbert.models.loading import quiet
        >>> config = transformers.BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
        >>> with quiet():
        ...     model = transformers.TFBertForSequenceClassification(config)
        >>> random_state(model)  # not from `load`: these layers draw from kernels that hide their state
        []
    """
    model = transformer_of(model)
    encoder = vars(getattr(model, getattr(model, "base_model_prefix", ""), model)).get("lean")
    generators = [layer._random_generator._generator for layer in dropouts(model) if layer.built]
    beside = vars(model).get("generator")  # see `replaced_tokens`
    return [
        *([] if encoder is None else [encoder.step]),
        *(generator.state for generator in generators if generator is not None),
        *([] if beside is None else random_state(beside)),
    ]


def dropouts(model) -> list:
    """The dropout layers of a TF Transformers model, in an order that depends on the architecture alone."""
    return [layer for layer in model._flatten_layers(include_self=False) if isinstance(layer, keras.layers.Dropout)]
