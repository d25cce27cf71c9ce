"""Models that write text: as Keras models for training, and step by step, with what was computed before, for writing."""

from __future__ import annotations

from tfbert._compat import keras, lazy, tf, transformers
from tfbert.decoding.generation import Generation, Steps, generate
from tfbert.models.keras_model import as_keras, transformer_of, word_embeddings

tied_head = lazy("tfbert.models.tied_head")  # it subclasses a Keras class


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
    logits = keras.layers.Activation("linear", dtype="float32", name="logits")(tied_head.TiedHead(model)(hidden))
    wrapped = keras.Model(inputs, {"logits": logits}, name="tfbert_causal_lm")
    object.__setattr__(wrapped, "transformer", model)
    can_write(model, CausalSteps(model), ends)
    return wrapped


def text_to_text(model, ends: tuple[int, ...]):
    """Wraps a model of an encoder and a decoder so that a row holds a text and, behind it, the text that is written from it.

    A row is cut apart in the graph: the encoder reads the first part, the decoder the second, whose first token is set to the one that
    the model begins with (`decoder_start_token_id`).

        input_ids [7, 8, 9, ., 5, 6, <padding>], is_target [0, 0, 0, 1, 1, 1, 0] -> encoder [7, 8, 9], decoder [<start>, 5, 6]

    Args:
        model: what `load` returned for the head "seq2seq".
        ends: the ids of the tokens that end a text.

    Returns:
        A keras.Model: int32 input_ids, attention_mask and is_target [R, T] in, {"logits": float32 [R, P, V]} out: those of a row's 1st,
        2nd, ... token of the second part, of which one row has P; what is beyond a row's last means nothing.
    """
    names = ("input_ids", "attention_mask", "is_target")
    inputs = {name: keras.Input([None], dtype="int32", name=name) for name in names}
    start = start_of(model)

    def apart(tensors):
        ids, mask, second = tensors
        first, lengths = mask * (1 - second), tf.reduce_sum(mask * second, 1)
        sizes = tf.reduce_sum(first, 1, keepdims=True)
        width, most = tf.reduce_max(sizes), tf.maximum(1, tf.reduce_max(lengths))
        places = tf.minimum(sizes + tf.range(most), tf.shape(ids)[1] - 1)
        read = tf.gather(ids, places, batch_dims=1)
        read = tf.where(tf.sequence_mask(lengths, most), read, start)
        return ids[:, :width], first[:, :width], tf.concat([tf.fill([tf.shape(ids)[0], 1], start), read[:, 1:]], 1)

    ids, mask, read = keras.layers.Lambda(apart, name="apart")([inputs[name] for name in names])
    outputs = model({"input_ids": ids, "attention_mask": mask, "decoder_input_ids": read}, use_cache=False)
    logits = keras.layers.Activation("linear", dtype="float32", name="logits")(outputs["logits"])
    wrapped = keras.Model(inputs, {"logits": logits}, name="tfbert_seq2seq")
    object.__setattr__(wrapped, "transformer", model)
    can_write(model, Seq2SeqSteps(model), ends)
    return wrapped


def start_of(model) -> int:
    """The id of the token that a decoder begins with: by default the padding, as T5's."""
    start = model.config.decoder_start_token_id
    return model.config.pad_token_id if start is None else start


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
            rows = tf.shape(ids)[0]
            # TF Transformers' BART cannot read a batch without rows, which a server may get.
            one = tf.cast(rows == 0, tf.int32)
            ids, mask = tf.pad(ids, [[0, one], [0, 0]]), tf.pad(mask, [[0, one], [0, 0]], constant_values=1)
            return generate(model.steps, ids, mask, settings, model.ends)[:rows]

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


class Seq2SeqSteps:
    """A model of an encoder and a decoder, step by step (see `tfbert.decoding.generation.Steps`): the text is read once.

    Args:
        model: the TF Transformers model.
    """

    def __init__(self, model):
        self._model = model

    def begin(self, ids, mask):
        """int32 [B, T] twice -> logits [B, V], state, the decoder's first tokens int32 [B, 1]."""
        hidden = self._model.get_encoder()(ids, attention_mask=mask, return_dict=True, training=False)[0]
        start = tf.fill([tf.shape(ids)[0], 1], start_of(self._model))
        logits, past = self._next(start, hidden, mask, None)
        return logits, (past, hidden, mask), start

    def step(self, token, state):
        """int32 [B] and the state -> logits [B, V] and the state."""
        past, hidden, mask = state
        logits, past = self._next(token[:, tf.newaxis], hidden, mask, past)
        return logits, (past, hidden, mask)

    def take(self, state, rows):
        """The state of these rows."""
        return tf.nest.map_structure(lambda each: tf.gather(each, rows), state)

    def _next(self, ids, hidden, mask, past):
        found = self._model(
            input_ids=None,
            encoder_outputs=transformers.modeling_tf_outputs.TFBaseModelOutput(last_hidden_state=hidden),
            attention_mask=mask,
            decoder_input_ids=ids,
            past_key_values=past,
            use_cache=True,
            return_dict=True,
            training=False,
        )
        # Of each layer the keys and values of what was written, and of the text: [B, H, T, d].
        return found.logits[:, -1], tuple(tuple(layer) for layer in found.past_key_values)
