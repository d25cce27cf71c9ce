"""The lean encoder: what the TF Transformers layers compute, on their own variables, in fewer and larger operations.

`put` replaces the encoder inside a TF Transformers model; heads, weights, names, saving and loading stay as they are. The families whose
layers normalize after adding (attention, add, norm, feed-forward, add, norm) differ only in what their parts are called (see `parts`).
Between the attentions only real tokens are computed, the query, key and value of a layer are one matrix product, dropout draws a byte an
element, and where the head reads nothing but the first token, the last layer computes nothing but that token.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfbert._compat import lazy, plain, tf, transformers
from tfbert.errors import InputError, suggest
from tfbert.models import few_tokens
from tfbert.models.frozen import LOWEST, keep, lean_encoder, states_given
from tfbert.models.gradients import custom_gradient
from tfbert.models.kernels import MASKED, Noise, Places, dense, layer_norm, scale_of, turn
from tfbert.models.parts import PARTS, Layer, Parts, joins, scaled, size
from tfbert.models.served import Served

# There is no public way to ask whether XLA compiles what is being traced.
control_flow_util = lazy("tensorflow.python.ops.control_flow_util")
# tf.raw_ops has no XlaOptimizationBarrier.
xla_ops = lazy("tensorflow.compiler.tf2xla.ops.gen_xla_ops")

ENCODERS = ("lean", "transformers")


def put(model, *, first_token: bool = False, gradient_checkpointing: bool = False) -> None:
    """Puts the lean encoder in the place of a TF Transformers model's own, where its family has one (see PARTS).

    Asked for anything else than hidden states (attentions, a head mask, embeddings as input, a past), the model's own encoder answers.

    Args:
        model: a built TF Transformers model, such as a TFBertForSequenceClassification.
        first_token: the head reads the first token only; `last_hidden_state` is then [B, 1, D].
        gradient_checkpointing: keep only the input of each layer in training, and compute the layer again in the backward pass, with the
            same dropout: equal gradients from less memory, for about a third more computing (Chen et al. 2016, "Training Deep Nets with
            Sublinear Memory Cost").

    Raises:
        InputError: gradient_checkpointing for a family that has no lean encoder.

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
    parts = PARTS.get(model.config.model_type)
    if parts is None or getattr(model.config, "is_decoder", False):
        if gradient_checkpointing:
            raise InputError(
                f"gradient_checkpointing is the lean encoder's, which {model.config.model_type} does not have; it has {', '.join(PARTS)}. "
                "Leave it out, and lower batch_size or max_length to save memory"
            )
        return
    main = getattr(model, model.base_model_prefix)
    encoder = LeanEncoder(main, parts, first_token, gradient_checkpointing)
    object.__setattr__(main, "lean", encoder)  # past Keras' tracking
    main.call = plain(encoder)


def check_encoder(name: str, gradient_checkpointing: bool = False) -> None:
    """Refuses a name that is no encoder's, and gradient checkpointing where the encoder has none."""
    if name not in ENCODERS:
        raise InputError(f"encoder is {name!r}; it must be one of {', '.join(ENCODERS)}.{suggest(name, ENCODERS)}")
    if gradient_checkpointing and name != "lean":
        raise InputError(
            f"gradient_checkpointing is the lean encoder's, but encoder is {name!r}; leave one of the two out"
        )


def for_answers(model, precision: str = "float32") -> Served:
    """The encoder's weights as an export holds them: what belongs together is put together now, not in every request.

    All kernels of the layers are made anew, [E, D] as products of few tokens read them, and in a lower precision the table of words; the
    other tables, the norms, the pooler and the head stay as they are, float32.

    Args:
        model: what `as_keras` returned, or the TF Transformers model itself.
        precision: "float32"; "bfloat16": the encoder computes in bfloat16, its norms in float32; or "int8": the weights are kept
            as int8, with a scale for each output and each word, and the encoder computes in float32.

    Returns:
        The weights; what is traced `with for_answers(model).in_use()` reads them.

    Raises:
        InputError: no such precision, or a lower one for a model without the lean encoder.
    """
    encoder, served = lean_encoder(model), Served(precision)
    if encoder is None:
        if served.lower:
            raise InputError(
                f"precision is {precision!r}, which needs the lean encoder, and this model has none (it was built with "
                f'encoder="transformers", or its family is none of {", ".join(PARTS)}); take float32'
            )
        return served
    parts, layers = encoder.parts(encoder.main), encoder.parts(encoder.main).layers
    for i, layer in enumerate(layers):
        products = joins(layer, encoder.first_token and i == len(layers) - 1)
        products += [([each], [1]) for each in (layer.output, layer.up, layer.down)]
        for projections, factors in products:
            kernel, bias = (
                np.concatenate([np.asarray(v) for v in values], -1) for values in scaled(projections, factors)
            )
            served.put(projections, kernel, bias)
    if served.lower:
        served.put([parts.embeddings], parts.embeddings.weight, None)
        if parts.project is not None:
            served.put([parts.project], parts.project.kernel, parts.project.bias)
    return served


class LeanEncoder:
    """What `put` puts in the place of the main layer's `call`."""

    def __init__(self, main, parts: Callable[[Any], Parts], first_token: bool, gradient_checkpointing: bool):
        self.main, self.parts, self.first_token, self.own = main, parts, first_token, main.call
        self.gradient_checkpointing = gradient_checkpointing
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
        self,
        input_ids=None,
        attention_mask=None,
        token_type_ids=None,
        *unnamed,
        return_dict=True,
        training=False,
        **others,
    ):
        if isinstance(input_ids, Mapping):
            return self(**input_ids, return_dict=return_dict, training=training, **others)
        others.pop("use_cache", None)  # an encoder has none
        asked = any(value is not None and value is not False for value in (*unnamed, *others.values()))
        # Keras builds a functional model with a placeholder for `training`, to see shapes.
        if input_ids is None or asked or not isinstance(training, bool | int | None):
            ids = [input_ids, attention_mask, token_type_ids][: 2 + (token_type_ids is not None or bool(unnamed))]
            return self.own(*ids, *unnamed, return_dict=return_dict, training=training, **others)
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
        # The rung up to which it computes as in serving, and that up to which it was computed before.
        frozen = self.frozen_rung() if noise else 0
        before = self._rung_given()
        x = self._given(places) if before else _embed(parts, ids, types, places, None if frozen else noise)
        served = Served.now()

        def many():
            return self._layers(x, mask, places, noise, before, frozen)

        def few():
            return few_tokens.compute(parts.layers, x, places, self.first_token, served)

        # Not the weights of another encoder beside it, as ELECTRA's generator is.
        ours = served and served.get([parts.layers[0].output])
        if ours and x.dtype == tf.float32 and not places.dense:
            x = tf.cond(places.count <= few_tokens.FEW, few, many)
        else:
            x = many()
        keep(len(parts.layers) + 1, x, tf.identity if self.first_token else places.real)
        x = tf.stop_gradient(x) if frozen > len(parts.layers) else x
        hidden = x[:, tf.newaxis] if self.first_token else places.zero_padded(x)
        if served:  # the head's precision is its own
            hidden = tf.cast(hidden, tf.float32)
        return hidden, parts.pooler(hidden[:, 0]) if parts.pooler else None

    def _layers(self, x, mask, places: Places, noise: Noise | None, before: int, frozen: int):
        """The layers of which the result is not given: [N, D] -> [N, D], or [B, D] with `first_token`."""
        layers = self.parts(self.main).layers
        bias = tf.cast(1 - tf.cast(mask > 0, tf.int32), x.dtype) * tf.constant(MASKED, x.dtype)
        bias = bias[:, tf.newaxis, tf.newaxis]  # [B, 1, 1, T]
        for i, layer in enumerate(layers):
            if i + 1 < before:
                continue
            keep(i + 1, x, places.real)
            x = tf.stop_gradient(x) if i < frozen else x
            drawn = None if i + 1 < frozen else noise
            if self.first_token and i == len(layers) - 1:
                first = places.first(x)
                x = _finish(layer, first, _attend_first(layer, first, x, places, bias, drawn), drawn)
            else:
                # The backward pass begins with the last layer: what it keeps is there at the fullest moment either way.
                again = self.gradient_checkpointing and drawn and i < len(layers) - 1
                x = (_compute_again if again else _compute)(layer, x, places, bias, drawn)
        return x

    def frozen_rung(self) -> int:
        """How many parts, the embeddings first, lie below the lowest one that learns."""
        parts = self.parts(self.main)
        rungs = [(parts.embeddings, parts.project), *(vars(layer).values() for layer in parts.layers)]
        for i, rung in enumerate(rungs):
            if any(getattr(part, "trainable_weights", None) for part in rung):
                return i
        return len(rungs)

    def _rung_given(self) -> int:
        rung = self.frozen_rung() if states_given() is not None else 0
        return rung if rung >= LOWEST else 0

    def _given(self, places: Places):
        """The states that were computed before, [B, T, D] -> [N, D]; [B, D] where the first token is all that is left."""
        states = tf.cast(states_given(), self.main.compute_dtype)
        if self.first_token and self.frozen_rung() > len(self.parts(self.main).layers):
            return states[:, 0]
        return places.rows(tf.reshape(states, [-1, states.shape[-1]]))

    def _noise(self) -> Noise:
        replica = tf.distribute.get_replica_context()
        number = replica.replica_id_in_sync_group if replica else 0
        seed = tf.cast(number, tf.int64) * (1 << 31) + self.seed
        return Noise(seed, self.step.assign_add(1))


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


def _compute(layer: Layer, x, places: Places, bias, noise: Noise | None):
    """One layer, [N, D] -> [N, D]."""
    return _finish(layer, x, _attend(layer, x, places, bias, noise), noise)


def _compute_again(layer: Layer, x, places: Places, bias, noise: Noise):
    """One layer of which only the input is kept: [N, D] -> [N, D].

    Not tf.recompute_grad: in the backward pass Keras no longer casts variables to the precision of the layer, so they are read here.
    """
    dense_parts, norms = (
        {name: getattr(layer, name) for name in names}
        for names in (("query", "key", "value", "output", "up", "down"), ("attention_norm", "output_norm"))
    )
    read = [tf.convert_to_tensor(value) for part in dense_parts.values() for value in (part.kernel, part.bias)]
    read += [tf.convert_to_tensor(value) for part in norms.values() for value in (part.gamma, part.beta)]
    begin = noise.again(noise.step)

    def compute(own: Noise, x, *weights):
        pairs = iter(zip(weights[::2], weights[1::2]))
        parts = {
            name: types.SimpleNamespace(kernel=kernel, bias=offset)
            for name, (kernel, offset) in zip(dense_parts, pairs)
        }
        parts |= {
            name: types.SimpleNamespace(gamma=scale, beta=shift, epsilon=part.epsilon)
            for (name, part), (scale, shift) in zip(norms.items(), pairs)
        }
        return _compute(dataclasses.replace(layer, **parts), x, places, bias, own)

    @custom_gradient
    def forward(x, *weights):
        def gradient(upstream):
            step, *inputs = _held_back([noise.step, x, *weights], upstream)
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                result = compute(begin.again(step), *inputs)
            return tape.gradient(result, inputs, upstream)

        return compute(noise, x, *weights), gradient

    return forward(x, *read)


def _held_back(values, until):
    """The values, but not before `until` is there; else operations on them, the same as before, would be merged with those and kept."""
    if _in_xla():
        return xla_ops.xla_optimization_barrier(input=[*values, until])[:-1]
    with tf.control_dependencies([until]):
        return [tf.identity(value) for value in values]


def _attend(layer: Layer, x, places: Places, bias, noise: Noise | None):
    """What each token takes from the others, [N, D] -> [N, D]."""
    qkv = _product(x, *joins(layer)[0])
    query, key, value = _by_head(places.padded(qkv), 3, layer, places)
    context = _weigh(layer, query, key, value, bias, noise)  # [B, H, T, d]
    return places.rows(tf.reshape(turn(context, [0, 2, 1, 3]), [-1, context.shape[1] * context.shape[3]]))


def _attend_first(layer: Layer, first, x, places: Places, bias, noise: Noise | None):
    """The same for the first token of each row alone: [B, D] and all tokens [N, D] -> [B, D]."""
    of_query, of_others = joins(layer, True)
    query, others = _product(first, *of_query), _product(x, *of_others)
    key, value = _by_head(places.padded(others), 2, layer, places)
    query = tf.reshape(query, [-1, layer.heads, 1, size(layer)])
    return tf.reshape(_weigh(layer, query, key, value, bias, noise), [-1, layer.heads * size(layer)])


def _product(x, projections, factors=(1,), activated=False):
    """x times the kernels of projections of one input, each times its factor, side by side, plus their biases: [N, D] -> [N, sum of E].

    `activated`: an activation follows.
    """
    served = Served.now()
    matrix = served and served.get(projections)
    if matrix:
        return matrix.product(x, activated)
    return dense(x, *(tf.concat(v, -1) for v in scaled(projections, factors)), activated=activated)


def _by_head(x, count: int, layer: Layer, places: Places):
    """[B * T, count * D] -> `count` tensors [B, H, T, d]."""
    x = tf.reshape(x, [places.batch, places.length, count, layer.heads, size(layer)])
    return tf.unstack(turn(x, [2, 0, 3, 1, 4]))


def _weigh(layer: Layer, query, key, value, bias, noise: Noise | None):
    """softmax(query key' + bias) value: [B, H, T', d], [B, H, T, d] twice, [B, 1, 1, T] -> [B, H, T', d], not yet scaled for dropout."""
    weights = tf.nn.softmax(tf.matmul(query, key, transpose_b=True) + bias)
    return tf.matmul(noise.drop(weights, layer.attention_dropout) if noise else weights, value)


def _finish(layer: Layer, x, context, noise: Noise | None):
    """From the attention's context to the layer's output: [N, D], [N, D] -> [N, D]."""
    scale = scale_of(layer.attention_dropout) if noise else 1.0
    x = _add(layer.attention_norm, x, context, layer.output, scale, layer.attention_output_dropout, noise)
    between = layer.activation(_product(x, [layer.up], activated=True))
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
