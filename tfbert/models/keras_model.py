"""TF Transformers model -> functional Keras model: a dict of ids in, a dict of float32 outputs out."""

from __future__ import annotations

from tfbert._compat import keras, tf
from tfbert.models.families import family_of, last_state


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
    head = family.head_of(model)
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


POOLINGS = ("mean", "max")


def pooled(model, pooling: str):
    """Wraps a model of rows so that the rows of an example have one output: the mean or the maximum of theirs.

    Args:
        model: what `as_keras` returned, its outputs [R, ...].
        pooling: "mean" or "max".

    Returns:
        A keras.Model with the further input `example`, int32 [R], ascending from 0: the number of each row's example, of which there are
        B. Outputs [B, ...].
    """
    segments = {"mean": tf.math.segment_mean, "max": tf.math.segment_max}[pooling]
    inputs = {tensor.name: tensor for tensor in model.inputs}
    inputs["example"] = keras.Input([], dtype="int32", name="example")
    named = {
        name: keras.layers.Lambda(lambda both: segments(*both), dtype="float32", name=name)([output, inputs["example"]])
        for name, output in model(inputs_of(model, inputs)).items()
    }
    wrapped = keras.Model(inputs, named, name="tfbert_pooled")
    object.__setattr__(wrapped, "transformer", transformer_of(model))
    return wrapped


def by_choice(model):
    """Wraps a multiple-choice model so that a choice is a row, as everywhere else: ids [R, T] in, {"logits": [R, 1]} out.

    Transformers' class takes [B, C, T]; it reads each choice by itself all the same, and only then puts an example's C numbers side
    by side.

    Args:
        model: what `load` returned for the head "multiple-choice".
    """
    choices = as_keras(model)
    inputs = {tensor.name: keras.Input([None], dtype="int32", name=tensor.name) for tensor in choices.inputs}
    one = keras.layers.Lambda(lambda ids: ids[:, tf.newaxis])  # [R, T] -> [R, 1, T]
    outputs = choices({name: one(tensor) for name, tensor in inputs.items()})
    wrapped = keras.Model(
        inputs, {"logits": keras.layers.Activation("linear", dtype="float32", name="logits")(outputs["logits"])}
    )
    object.__setattr__(wrapped, "transformer", model)
    return wrapped


def at_masked(model):
    """Wraps a masked-LM model so that a row has the logits of the tokens that are to be guessed, and of no other.

    Only they go through the head: over a vocabulary of 30,000, all places of 64 rows of 128 tokens would take 1 GB.

    Args:
        model: what `load` returned for the head "masked-lm".

    Returns:
        A keras.Model with the further input `masked`, int32 [R, T], 1 where a token is to be guessed. Its output is {"logits": float32
        [R, P, V]}: P is the most that a row has (at least 1); those of a row come in their order, and what is beyond its last means
        nothing.
    """
    inputs, states, _ = picked(model)
    guess = family_of(model.config.model_type).head_of(model).guess
    logits = keras.layers.Activation("linear", dtype="float32", name="logits")(guess(model, states))
    wrapped = keras.Model(inputs, {"logits": logits}, name="tfbert_masked_lm")
    object.__setattr__(wrapped, "transformer", model)
    return wrapped


def pretraining(model):
    """Wraps a model with BERT's two heads: `at_masked`, and beside it whether the second segment is in its place.

    Args:
        model: what `load` returned for the head "pretraining".

    Returns:
        A keras.Model with the inputs of `at_masked`. Outputs: {"logits": float32 [R, P, V], "order": float32 [R, 2]}.
    """
    inputs, states, pooled = picked(model)
    head = family_of(model.config.model_type).head_of(model)
    named = {
        name: keras.layers.Activation("linear", dtype="float32", name=name)(logits)
        for name, logits in (("logits", head.guess(model, states)), ("order", head.order(model, pooled)))
    }
    wrapped = keras.Model(inputs, named, name="tfbert_pretraining")
    object.__setattr__(wrapped, "transformer", model)
    return wrapped


def picked(model) -> tuple:
    """The inputs with `masked`, the states of the tokens that it marks, [R, P, D], and what the encoder gives beside its states."""
    inputs = {tensor.name: tensor for tensor in as_keras(model).inputs}
    outputs = getattr(model, model.base_model_prefix)(inputs)
    inputs["masked"] = keras.Input([None], dtype="int32", name="masked")

    def gather(both):
        most = tf.maximum(1, tf.reduce_max(tf.reduce_sum(both[1], 1)))
        places = tf.math.top_k(both[1], most).indices  # of equal numbers the lower index comes first
        return tf.gather(both[0], places, batch_dims=1)

    states = keras.layers.Lambda(gather, name="at_masked")([outputs[0], inputs["masked"]])  # [R, T, D] -> [R, P, D]
    return inputs, states, outputs.get("pooler_output")


def without_padding(model):
    """Wraps a model with a number for each token so that those of the padding are -1e9: a softmax over a row then ends with its tokens.

    Args:
        model: what `as_keras` returned, its outputs [R, T].
    """
    inputs = {tensor.name: tensor for tensor in model.inputs}
    named = {
        name: keras.layers.Lambda(lambda both: tf.where(both[1] > 0, both[0], -1e9), dtype="float32", name=name)(
            [output, inputs["attention_mask"]]
        )
        for name, output in model(inputs).items()
    }
    wrapped = keras.Model(inputs, named, name="tfbert_answers")
    object.__setattr__(wrapped, "transformer", transformer_of(model))
    return wrapped


def sentence_encoder(model, pooling: str, *, normalize: bool):
    """Wraps a bare encoder so that a row has one vector: {"embedding": float32 [R, D]}.

    Args:
        model: what `load` returned for no head.
        pooling: "mean" over the tokens that are no padding, "cls" the first (XLNet's last), or "max".
        normalize: whether vectors have length 1 (at least 1e-12 of it, as PyTorch's `normalize`).
    """

    cls_last = family_of(model.config.model_type).cls_last

    def pool(both):
        hidden, mask = (
            tf.cast(both[0], tf.float32),
            tf.cast(both[1], tf.float32)[:, :, tf.newaxis],
        )  # [R, T, D], [R, T, 1]
        if pooling == "cls":
            vector = last_state(hidden, both[1]) if cls_last else hidden[:, 0]
        elif pooling == "max":
            vector = tf.reduce_max(tf.where(mask > 0, hidden, hidden.dtype.min), 1)
        else:
            vector = tf.reduce_sum(hidden * mask, 1) / tf.maximum(tf.reduce_sum(mask, 1), 1e-9)
        return tf.math.l2_normalize(vector, -1, epsilon=1e-24) if normalize else vector

    # The pooler takes no part: it stays as it is, and Keras has no gradient to miss.
    if getattr(getattr(model, model.base_model_prefix), "pooler", None) is not None:
        getattr(model, model.base_model_prefix).pooler.trainable = False
    encoder = as_keras(model)
    inputs = {tensor.name: tensor for tensor in encoder.inputs}
    hidden = encoder.output["last_hidden_state"]
    vector = keras.layers.Lambda(pool, dtype="float32", name="embedding")([hidden, inputs["attention_mask"]])
    wrapped = keras.Model(inputs, {"embedding": vector}, name="tfbert_embedding")
    object.__setattr__(wrapped, "transformer", model)
    return wrapped


def inputs_of(model, features: dict) -> dict:
    """Of a dict of features those that the model takes: Keras warns of others."""
    return {tensor.name: features[tensor.name] for tensor in model.inputs}


def transformer_of(model):
    """Returns the TF Transformers model inside what `as_keras` returned; any other model is returned as it is."""
    # A TF Transformers model has a config; GPT-2's has an attribute of this name too.
    return model if "config" in vars(model) else vars(model).get("transformer", model)


def word_embeddings(model):
    """Returns the variable [V, D] that ids are looked up in.

    Args:
        model: what `as_keras` returned, or the TF Transformers model itself.
    """
    table = transformer_of(model).get_input_embeddings()
    return table.embeddings if isinstance(table, keras.layers.Embedding) else table.weight
