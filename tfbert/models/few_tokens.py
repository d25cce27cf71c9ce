"""The lean encoder's layers for a request of few tokens, such as one sentence: hidden states as columns [D, N] instead of rows [N, D].

With few rows, oneDNN spends a product's time on rearranging its weights. Here they are the left factor, which is read as it lies in
memory: MiniLM's products of 12 tokens took 7.6 instead of 14.9 ms (float32, one thread of a Xeon). Heads then lie one after the other as
attention wants them, and nothing is transposed. All rows of a request attend in one product, each token to those of its own row: among
so few tokens that costs less than to pad them. In bfloat16 the products were no faster, so this is for exports that compute in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfbert._compat import tf
from tfbert.models.kernels import MASKED, Places, gelu
from tfbert.models.parts import Layer, joins, size
from tfbert.models.served import Served

FEW = 128  # tokens of a request: up to as many it was measured to take no longer than rows


def compute(layers: Sequence[Layer], x, places: Places, first_token: bool, served: Served) -> Any:
    """All layers: float32 [N, D] -> [N, D], or the first token of each row [B, D] with `first_token`."""
    bias = places.apart() * tf.constant(MASKED)  # [N, N]
    columns = _turned(x)
    for layer in layers[:-1]:
        columns = _layer(layer, columns, bias, served)
    return _turned(_layer(layers[-1], columns, bias, served, places.firsts() if first_token else None))


def _layer(layer: Layer, x, bias, served: Served, chosen=None):
    """One layer, [D, N] -> [D, N], or to the chosen tokens alone: int32 [B], [D, N] -> [D, B]."""
    if chosen is None:
        query, key, value = _heads(served.get(joins(layer)[0][0]).columns(x), 3, layer)
    else:
        (of_query, _), (of_others, _) = joins(layer, True)
        key, value = _heads(served.get(of_others).columns(x), 2, layer)
        x, bias = tf.gather(x, chosen, axis=1), tf.gather(bias, chosen)
        (query,) = _heads(served.get(of_query).columns(x), 1, layer)
    x = _norm(layer.attention_norm, x + served.get([layer.output]).columns(_attend(query, key, value, bias)))
    between = _activated(layer, served.get([layer.up]).columns(x))
    return _norm(layer.output_norm, x + served.get([layer.down]).columns(between))


def _heads(x, count: int, layer: Layer):
    """[count * H * d, N] -> `count` tensors [H, d, N]."""
    return tf.unstack(tf.reshape(x, [count, layer.heads, size(layer), tf.shape(x)[1]]))


def _attend(query, key, value, bias):
    """softmax(query' key + bias) value: [H, d, M], [H, d, N] twice, [M, N] -> [H * d, M]."""
    weights = tf.nn.softmax(tf.matmul(query, key, transpose_a=True) + bias)  # [H, M, N]: from each token, to each token
    heads, width, _ = query.shape
    return tf.reshape(tf.matmul(value, weights, transpose_b=True), [heads * width, tf.shape(query)[2]])


def _norm(layer, x):
    """Layer normalization of each column, [D, N]."""
    centred = x - tf.reduce_mean(x, 0, keepdims=True)
    inverse = tf.math.rsqrt(tf.reduce_mean(tf.square(centred), 0, keepdims=True) + layer.epsilon)
    return centred * inverse * tf.expand_dims(layer.gamma, 1) + tf.expand_dims(layer.beta, 1)


def _activated(layer: Layer, x):
    """The layer's activation; the exact GELU by `erf`: TensorFlow's own takes `erfc`, which is three times as slow."""
    if layer.activation is not gelu:
        return layer.activation(x)
    return x * (0.5 * tf.math.erf(x * np.float32(np.sqrt(0.5))) + 0.5)


def _turned(x):
    """A transposed float32 matrix; oneDNN, which takes floats over and is slow at it, leaves integers to TensorFlow."""
    return tf.bitcast(tf.transpose(tf.bitcast(x, tf.int32)), tf.float32)
