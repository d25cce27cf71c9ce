"""Models that write text: as Keras models for training, and step by step, with what was computed before, for writing."""

from __future__ import annotations

from tfbert._compat import keras, tf
from tfbert.decoding.generation import Generation, Steps, generate
from tfbert.models.keras_model import as_keras, transformer_of, word_embeddings


class TiedHead(keras.layers.Layer):
    """Hidden states [.., D] -> logits [.., V]: times the word embeddings, which the head of a language model is.

    TF Transformers' own copies the table in each step, and cannot compute in bfloat16.

    Args:
        model: the TF Transformers model.
    """

    def __init__(self, model):
        super().__init__(name="tied_head")
        object.__setattr__(self, "_model", model)  # past Keras' tracking: the table is counted where it is

    def call(self, hidden):
        return tf.matmul(hidden, tf.cast(word_embeddings(self._model), hidden.dtype), transpose_b=True)


def next_tokens(model, ends: tuple[int, ...]):
    """Wraps a causal language model so that each token has the logits of the one after it.

    Args:
        model: what `load` returned for the head "causal-lm".
        ends: the ids of the tokens that end a text.

    Returns:
        A keras.Model: int32 input_ids and attention_mask [R, T] in, {"logits": float32 [R, T, V]} out.
    """
    inputs = {tensor.name: tensor for tensor in as_keras(model).inputs}
    hidden = getattr(model, model.base_model_prefix)(inputs, use_cache=False)[0]
    logits = keras.layers.Activation("linear", dtype="float32", name="logits")(TiedHead(model)(hidden))
    wrapped = keras.Model(inputs, {"logits": logits}, name="tfbert_causal_lm")
    object.__setattr__(wrapped, "transformer", model)
    can_write(model, CausalSteps(model), ends)
    return wrapped


def can_write(model, steps: Steps, ends: tuple[int, ...]) -> None:
    """Gives a TF Transformers model what `write` needs, past Keras' tracking."""
    for name, value in (("steps", steps), ("ends", ends), ("writers", {})):
        object.__setattr__(model, name, value)


def write(model, ids, mask, settings: Generation):
    """Writes on from prompts, or what they are to become: int32 [B, T] twice -> int32 [B, max_new_tokens] (see `decoding.generation`).

    Traced once for all batches.

    Args:
        model: what `next_tokens` returned.
        ids: int32 [B, T], padded on the right.
        mask: int32 [B, T], 0 in padding.
        settings: how.
    """
    model = transformer_of(model)
    if settings not in model.writers:

        @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)] * 2, autograph=False)
        def written(ids, mask):
            return generate(model.steps, ids, mask, settings, model.ends)

        model.writers[settings] = written
    return model.writers[settings](ids, mask)


class CausalSteps:
    """A causal language model, step by step (see `tfbert.decoding.generation.Steps`).

    Prompts are moved to the right, so that the newest token of all rows stands in one column; their positions count from their own first
    token, and the padding before it is masked.

    Args:
        model: what `next_tokens` returned, or the TF Transformers model itself.
    """

    def __init__(self, model):
        self._model = transformer_of(model)
        self._decoder = getattr(self._model, self._model.base_model_prefix)

    def begin(self, ids, mask):
        """int32 [B, T] twice -> logits [B, V], state, prompts int32 [B, T]."""
        width, lengths = tf.shape(ids)[1], tf.reduce_sum(mask, 1, keepdims=True)
        # Rows of T = 5 that hold 3 tokens begin with column 3, which is padding: a b c . . -> . . a b c
        columns = (tf.range(width) + lengths) % tf.maximum(width, 1)
        ids, mask = (tf.gather(each, columns, batch_dims=1) for each in (ids, mask))
        positions = tf.maximum(tf.cumsum(mask, axis=1) - 1, 0)
        logits, past = self._next(ids, mask, positions, None)
        return logits, (past, mask), tf.where(mask > 0, ids, -1)

    def step(self, token, state):
        """int32 [B] and the state -> logits [B, V] and the state."""
        past, mask = state
        mask = tf.pad(mask, [[0, 0], [0, 1]], constant_values=1)
        positions = tf.reduce_sum(mask, 1, keepdims=True) - 1
        logits, past = self._next(token[:, tf.newaxis], mask, positions, past)
        return logits, (past, mask)

    def take(self, state, rows):
        """The state of these rows."""
        past, mask = state
        return tuple(tf.gather(each, rows, axis=1) for each in past), tf.gather(mask, rows)

    def _next(self, ids, mask, positions, past):
        found = self._decoder(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=past,
            use_cache=True,
            return_dict=True,
            training=False,
        )
        hidden = found.last_hidden_state[:, -1]
        logits = tf.matmul(hidden, tf.cast(word_embeddings(self._model), hidden.dtype), transpose_b=True)
        return logits, tuple(found.past_key_values)  # each layer's keys and values, [2, B, H, T, d]
