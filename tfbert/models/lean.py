"""The lean encoder: what the TF Transformers layers compute, on their own variables, in fewer and larger operations.

`put` replaces the encoder inside a TF Transformers model; heads, weights, names, saving and loading stay as they are. The families whose
layers normalize after adding (attention, add, norm, feed-forward, add, norm) differ only in what their parts are called (see `parts`).
Between the attentions only real tokens are computed, the query, key and value of a layer are one matrix product, dropout draws a byte an
element, and where the head reads nothing but the first token, the last layer computes nothing but that token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfbert._compat import lazy, tf, transformers
from tfbert.errors import InputError, suggest
from tfbert.models.keras_model import transformer_of
from tfbert.models.kernels import Noise, Places, dense, layer_norm, scale_of, turn
from tfbert.models.parts import PARTS, Layer, Parts
from tfbert.models.served import Served

# There is no public way to ask whether XLA compiles what is being traced.
control_flow_util = lazy("tensorflow.python.ops.control_flow_util")

ENCODERS = ("lean", "transformers")
MASKED = -10000.0  # added to the scores of padding, as Transformers does: e^-10000 is 0


def put(model, *, first_token: bool = False) -> None:
    """Puts the lean encoder in the place of a TF Transformers model's own, where its family has one (see PARTS).

    Asked for anything else than hidden states (attentions, a head mask, embeddings as input, a past), the model's own encoder answers.

    Args:
        model: a built TF Transformers model, such as a TFBertForSequenceClassification.
        first_token: the head reads the first token only; `last_hidden_state` is then [B, 1, D].

    Example:
        >>> from tfbert.models.loading import quiet
        >>> config = transformers.BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
        >>> with quiet():
        ...     model = transformers.TFBertForSequenceClassification(config)
        ...     model.build_in_name_scope()
        >>> ids, mask = tf.constant([[2, 7, 9, 3], [2, 8, 3, 0]]), tf.constant([[1, 1, 1, 1], [1, 1, 1, 0]])
        >>> before = model(ids, attention_mask=mask).logits
        >>> put(model, first_token=True)
        >>> bool(tf.reduce_max(tf.abs(model(ids, attention_mask=mask).logits - before)) < 1e-6)
        True
    """
    parts, main = PARTS.get(model.config.model_type), getattr(model, model.base_model_prefix)
    if parts is None or getattr(model.config, "is_decoder", False):
        return
    encoder = LeanEncoder(main, parts, first_token)
    object.__setattr__(main, "lean", encoder)  # past Keras' tracking
    main.call = tf.autograph.experimental.do_not_convert(encoder)


def check_encoder(name: str) -> None:
    """Refuses a name that is no encoder's."""
    if name not in ENCODERS:
        raise InputError(f"encoder is {name!r}; it must be one of {', '.join(ENCODERS)}.{suggest(name, ENCODERS)}")


def for_answers(model, precision: str = "float32") -> Served:
    """The encoder's weights as an export holds them: what belongs together is put together now, not in every request.

    In float32 only what is put together is made anew. In a lower precision all kernels of the layers and the table of words are; the
    other tables, the norms, the pooler and the head stay float32.

    Args:
        model: what `as_keras` returned, or the TF Transformers model itself.
        precision: "float32"; "bfloat16": the encoder computes in bfloat16, its norms in float32; or "int8": the weights are kept
            as int8, with a scale for each output and each word, and the encoder computes in float32.

    Returns:
        The weights; what is traced `with for_answers(model).in_use()` reads them.

    Raises:
        InputError: no such precision, or a lower one for a model without the lean encoder.
    """
    encoder, served = _encoder_of(model), Served(precision)
    if encoder is None:
        if served.lower:
            raise InputError(
                f"precision is {precision!r}, which needs the lean encoder, and this model has none (it was built with "
                f'encoder="transformers", or its family is none of {", ".join(PARTS)}); take float32'
            )
        return served
    parts, layers = encoder.parts(encoder.main), encoder.parts(encoder.main).layers
    for i, layer in enumerate(layers):
        products = _joins(layer, encoder.first_token and i == len(layers) - 1)
        if served.lower:
            products += [([each], [1]) for each in (layer.output, layer.up, layer.down)]
        for projections, factors in products:
            kernel, bias = (
                np.concatenate([np.asarray(v) for v in values], -1) for values in _scaled(projections, factors)
            )
            served.put(projections, kernel, bias)
    if served.lower:
        served.put([parts.embeddings], parts.embeddings.weight, None)
        if parts.project is not None:
            served.put([parts.project], parts.project.kernel, parts.project.bias)
    return served


def _encoder_of(model) -> LeanEncoder | None:
    model = transformer_of(model)
    return vars(getattr(model, getattr(model, "base_model_prefix", ""), model)).get("lean")


class LeanEncoder:
    """What `put` puts in the place of the main layer's `call`."""

    def __init__(self, main, parts: Callable[[Any], Parts], first_token: bool):
        self.main, self.parts, self.first_token, self.own = main, parts, first_token, main.call
        # Keras seeds NumPy's generator with its own (keras.utils.set_random_seed).
        self.seed = int(np.random.randint(2**31))
        # Each replica of a strategy counts for itself.
        self.step = tf.Variable(
            0,
            dtype=tf.int64,
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            name="dropout_step",
        )

    def __call__(
        self, input_ids=None, attention_mask=None, token_type_ids=None, return_dict=True, training=False, **others
    ):
        if isinstance(input_ids, Mapping):
            return self(**input_ids, return_dict=return_dict, training=training, **others)
        others.pop("use_cache", None)  # an encoder has none
        asked = {name: value for name, value in others.items() if value is not None and value is not False}
        # Keras builds a functional model with a placeholder for `training`, to see shapes.
        if input_ids is None or asked or not isinstance(training, bool | int | None):
            return self.own(
                input_ids=input_ids,
                attention_mask=attention_mask,
                token_type_ids=token_type_ids,
                return_dict=return_dict,
                training=training,
                **others,
            )
        if attention_mask is None:
            attention_mask = tf.ones_like(input_ids)
        hidden, pooled = self.encode(input_ids, attention_mask, token_type_ids, self._noise() if training else None)
        if not return_dict:
            return (hidden, pooled)
        if pooled is None:
            return transformers.modeling_tf_outputs.TFBaseModelOutput(last_hidden_state=hidden)
        return transformers.modeling_tf_outputs.TFBaseModelOutputWithPooling(
            last_hidden_state=hidden, pooler_output=pooled
        )

    def encode(self, ids, mask, types, noise: Noise | None):
        """int32 [B, T] each (types may be None) -> hidden states [B, T, D], [B, 1, D] with `first_token`, and [B, D] or None."""
        parts = self.parts(self.main)
        places = Places(mask, dense=mask.shape.is_fully_defined() or _in_xla())
        frozen = _frozen(parts) if noise else 0  # parts from the bottom that compute as in serving
        x = _embed(parts, ids, types, places, None if frozen else noise)
        bias = tf.cast(1 - tf.cast(mask > 0, tf.int32), x.dtype) * tf.constant(MASKED, x.dtype)
        bias = bias[:, tf.newaxis, tf.newaxis]  # [B, 1, 1, T]
        for i, layer in enumerate(parts.layers):
            x = tf.stop_gradient(x) if i < frozen else x
            drawn = None if i + 1 < frozen else noise
            if self.first_token and i == len(parts.layers) - 1:
                first = places.first(x)
                x = _finish(layer, first, _attend_first(layer, first, x, places, bias, drawn), drawn)
            else:
                x = _finish(layer, x, _attend(layer, x, places, bias, drawn), drawn)
        x = tf.stop_gradient(x) if frozen > len(parts.layers) else x
        hidden = x[:, tf.newaxis] if self.first_token else places.zero_padded(x)
        if Served.now():  # the head's precision is its own
            hidden = tf.cast(hidden, tf.float32)
        return hidden, parts.pooler(hidden[:, 0]) if parts.pooler else None

    def _noise(self) -> Noise:
        replica = tf.distribute.get_replica_context()
        number = replica.replica_id_in_sync_group if replica else 0
        seed = tf.cast(number, tf.int64) * (1 << 31) + self.seed
        return Noise(seed, self.step.assign_add(1))


def _frozen(parts: Parts) -> int:
    """How many parts, the embeddings first, lie below the lowest one that learns."""
    rungs = [(parts.embeddings, parts.project), *(vars(layer).values() for layer in parts.layers)]
    for i, rung in enumerate(rungs):
        if any(getattr(part, "trainable_weights", None) for part in rung):
            return i
    return len(rungs)


def _in_xla() -> bool:
    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def _embed(parts: Parts, ids, types, places: Places, noise: Noise | None):
    """Ids [B, T] -> the lowest layer's input [N, D]."""
    tables, length = parts.embeddings, places.length
    served = Served.now()
    words = served and served.get([tables])
    x = words.rows(places.flat(ids)) if words else tf.gather(tables.weight, places.flat(ids))
    if parts.first_position is None:
        positions = tf.broadcast_to(tf.range(length), [places.batch, length])
    else:
        length += parts.first_position
        real = tf.cast(ids != parts.first_position - 1, tf.int32)  # the row before the first is padding's
        positions = tf.cumsum(real, axis=1) * real + parts.first_position - 1
    # Of a slice, not of the table: its gradient is small and dense.
    x += tf.gather(tf.convert_to_tensor(tables.position_embeddings)[:length], places.flat(positions))
    if parts.types is not None:
        chosen = tf.one_hot(
            places.flat(tf.zeros_like(ids) if types is None else types), parts.types.shape[0], dtype=x.dtype
        )
        x += tf.matmul(chosen, parts.types)
    x = _norm(tables.LayerNorm, x)
    if noise:
        rate = tables.dropout.rate
        x = noise.drop(x, rate) * scale_of(rate)
    if served and served.precision == "bfloat16":
        x = tf.cast(x, tf.bfloat16)
    return x if parts.project is None else _product(x, [parts.project])


def _attend(layer: Layer, x, places: Places, bias, noise: Noise | None):
    """What each token takes from the others, [N, D] -> [N, D]."""
    qkv = _product(x, *_joins(layer, False)[0])
    query, key, value = _by_head(places.padded(qkv), 3, layer, places)
    context = _weigh(layer, query, key, value, bias, noise)  # [B, H, T, d]
    return places.rows(tf.reshape(turn(context, [0, 2, 1, 3]), [-1, context.shape[1] * context.shape[3]]))


def _attend_first(layer: Layer, first, x, places: Places, bias, noise: Noise | None):
    """The same for the first token of each row alone: [B, D] and all tokens [N, D] -> [B, D]."""
    of_query, of_others = _joins(layer, True)
    query, others = _product(first, *of_query), _product(x, *of_others)
    key, value = _by_head(places.padded(others), 2, layer, places)
    query = tf.reshape(query, [-1, layer.heads, 1, _size(layer)])
    return tf.reshape(_weigh(layer, query, key, value, bias, noise), [-1, layer.heads * _size(layer)])


def _product(x, projections, factors=(1,)):
    """x times the kernels of projections of one input, each times its factor, side by side, plus their biases: [N, D] -> [N, sum of E]."""
    served = Served.now()
    matrix = served and served.get(projections)
    return matrix.product(x) if matrix else dense(x, *(tf.concat(v, -1) for v in _scaled(projections, factors)))


def _scaled(projections, factors):
    for values in ([each.kernel for each in projections], [each.bias for each in projections]):
        yield [value if factor == 1 else value * factor for value, factor in zip(values, factors)]


def _joins(layer: Layer, first_token: bool):
    """What `_product` is asked for a layer: sqrt(1 / d) goes into the query's weights, where it costs least."""
    share = _size(layer) ** -0.5
    if first_token:
        return [([layer.query], [share]), ([layer.key, layer.value], [1, 1])]
    return [([layer.query, layer.key, layer.value], [share, 1, 1])]


def _size(layer: Layer) -> int:
    return layer.query.kernel.shape[1] // layer.heads


def _by_head(x, count: int, layer: Layer, places: Places):
    """[B * T, count * D] -> `count` tensors [B, H, T, d]."""
    x = tf.reshape(x, [places.batch, places.length, count, layer.heads, _size(layer)])
    return tf.unstack(turn(x, [2, 0, 3, 1, 4]))


def _weigh(layer: Layer, query, key, value, bias, noise: Noise | None):
    """softmax(query key' + bias) value: [B, H, T', d], [B, H, T, d] twice, [B, 1, 1, T] -> [B, H, T', d], not yet scaled for dropout."""
    weights = tf.nn.softmax(tf.matmul(query, key, transpose_b=True) + bias)
    return tf.matmul(noise.drop(weights, layer.attention_dropout) if noise else weights, value)


def _finish(layer: Layer, x, context, noise: Noise | None):
    """From the attention's context to the layer's output: [N, D], [N, D] -> [N, D]."""
    scale = scale_of(layer.attention_dropout) if noise else 1.0
    x = _add(layer.attention_norm, x, context, layer.output, scale, layer.attention_output_dropout, noise)
    between = layer.activation(_product(x, [layer.up]))
    return _add(layer.output_norm, x, between, layer.down, 1.0, layer.output_dropout, noise)


def _add(norm, x, y, projection, scale: float, rate: float, noise: Noise | None):
    """norm(x + dropout(scale * y @ kernel + bias)); what dropout scales by, and `scale`, go into the weights, where they cost least."""
    if not noise:
        return _norm(norm, _product(y, [projection]) + x)
    after = scale_of(rate)
    y = dense(y, projection.kernel * (scale * after), projection.bias * after)
    return _norm(norm, noise.drop(y, rate) + x)


def _norm(layer, x):
    return layer_norm(x, layer.gamma, layer.beta, layer.epsilon)
