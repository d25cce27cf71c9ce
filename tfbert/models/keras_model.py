"""TF Transformers model -> functional Keras model: a dict of ids in, a dict of float32 outputs out."""

from __future__ import annotations

from tfbert._compat import keras
from tfbert.models.families import family_of


def as_keras(model):
    """Wraps a TF Transformers model as a functional Keras model whose inputs and outputs are dicts of plain tensors.

    `compile`, `fit`, `evaluate` and `predict` keep their Keras meaning; the same weights, losses and updates come out as from training
    the Transformers model itself. The outputs are float32 under every precision policy.

    Args:
        model: what `load` returned.

    Returns:
        A keras.Model. Inputs: int32 input_ids, attention_mask and (where the family has them) token_type_ids, each [B, T], or [B, C, T]
        for multiple choice. Outputs by head: {"logits": [B, L]}, {"logits": [B, T, L]}, {"start_logits", "end_logits": [B, T]}, ... Its
        attribute `transformer` is the wrapped model.

    Example:
        >>> from tfbert._compat import transformers
        >>> from tfbert.models.loading import quiet
        >>> config = transformers.BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
        >>> with quiet():
        ...     model = as_keras(transformers.TFBertForSequenceClassification(config))
        >>> model.output["logits"].shape
        TensorShape([None, 2])
    """
    family = family_of(model.config.model_type)
    head = next(head for head in family.heads.values() if head.tf_class == type(model).__name__)
    inputs = {name: keras.Input([None] * (head.rank - 1), dtype="int32", name=name) for name in family.inputs}
    outputs = model(inputs)
    # A layer, not tf.cast: it carries the output's name, which Keras' losses and metrics go by.
    named = {
        name: keras.layers.Activation("linear", dtype="float32", name=name)(outputs[name]) for name in head.outputs
    }
    wrapped = keras.Model(inputs, named, name="tfbert")
    # Set past Keras' tracking: the model is among the layers already, and must not be counted a second time.
    object.__setattr__(wrapped, "transformer", model)
    return wrapped


def transformer_of(model):
    """Returns the TF Transformers model inside what `as_keras` returned; any other model is returned as it is."""
    return getattr(model, "transformer", model) if "transformer" in vars(model) else model
