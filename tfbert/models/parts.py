"""What the parts of an encoder are called in each family of TF Transformers: the lean encoder's table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from tfbert._compat import tf, transformers
from tfbert.models.kernels import gelu


@dataclasses.dataclass(frozen=True)
class Layer:
    """The parts of one layer by what they do: Keras layers, numbers and a function."""

    query: Any
    key: Any
    value: Any
    output: Any
    attention_norm: Any
    up: Any
    down: Any
    output_norm: Any
    activation: Callable
    heads: int
    attention_dropout: float
    attention_output_dropout: float
    output_dropout: float


@dataclasses.dataclass(frozen=True)
class Parts:
    """The parts of an encoder.

    Args:
        embeddings: the layer with the tables `weight` and `position_embeddings`, `LayerNorm` and `dropout`.
        types: the table of token types, or None.
        project: the layer from the embeddings' width to the hidden width, or None.
        first_position: None where the position of a token is its place; else positions count tokens that are not padding from here.
        layers: from the lowest.
        pooler: first token's state [B, D] -> [B, D], or None.
    """

    embeddings: Any
    types: Any
    project: Any
    first_position: int | None
    layers: Sequence[Layer]
    pooler: Callable | None


def _activation(function) -> Callable:
    """The exact GELU has a faster form here; any other activation is the model's own."""
    return gelu if function is transformers.activations_tf.get_tf_activation("gelu") else function


def _bert_layer(layer, config) -> Layer:
    inside, after = layer.attention.self_attention, layer.attention.dense_output
    return Layer(
        inside.query,
        inside.key,
        inside.value,
        after.dense,
        after.LayerNorm,
        layer.intermediate.dense,
        layer.bert_output.dense,
        layer.bert_output.LayerNorm,
        _activation(layer.intermediate.intermediate_act_fn),
        config.num_attention_heads,
        inside.dropout.rate,
        after.dropout.rate,
        layer.bert_output.dropout.rate,
    )


def _bert(main) -> Parts:
    pooler = getattr(main, "pooler", None)
    return Parts(
        main.embeddings,
        main.embeddings.token_type_embeddings,
        getattr(main, "embeddings_project", None),
        None,
        [_bert_layer(layer, main.config) for layer in main.encoder.layer],
        pooler and (lambda first: pooler(hidden_states=first[:, tf.newaxis])),
    )


def _roberta(main) -> Parts:
    return dataclasses.replace(_bert(main), first_position=main.embeddings.padding_idx + 1)


def _albert(main) -> Parts:
    config, groups, layers = main.config, main.encoder.albert_layer_groups, []
    for i in range(config.num_hidden_layers):
        for layer in groups[i * len(groups) // config.num_hidden_layers].albert_layers:
            inside = layer.attention
            layers.append(
                Layer(
                    inside.query,
                    inside.key,
                    inside.value,
                    inside.dense,
                    inside.LayerNorm,
                    layer.ffn,
                    layer.ffn_output,
                    layer.full_layer_layer_norm,
                    _activation(layer.activation),
                    config.num_attention_heads,
                    inside.attention_dropout.rate,
                    inside.output_dropout.rate,
                    layer.dropout.rate,
                )
            )
    tables = main.embeddings
    return Parts(
        tables, tables.token_type_embeddings, main.encoder.embedding_hidden_mapping_in, None, layers, main.pooler
    )


def _distilbert_layer(layer) -> Layer:
    inside, feed_forward = layer.attention, layer.ffn
    return Layer(
        inside.q_lin,
        inside.k_lin,
        inside.v_lin,
        inside.out_lin,
        layer.sa_layer_norm,
        feed_forward.lin1,
        feed_forward.lin2,
        layer.output_layer_norm,
        _activation(feed_forward.activation),
        inside.n_heads,
        inside.dropout.rate,
        0.0,
        feed_forward.dropout.rate,
    )


def _distilbert(main) -> Parts:
    return Parts(
        main.embeddings, None, None, None, [_distilbert_layer(layer) for layer in main.transformer.layer], None
    )


PARTS: dict[str, Callable[[Any], Parts]] = {
    "bert": _bert,
    "electra": _bert,
    "roberta": _roberta,
    "xlm-roberta": _roberta,
    "camembert": _roberta,
    "albert": _albert,
    "distilbert": _distilbert,
}


def size(layer: Layer) -> int:
    """The width of one head."""
    return layer.query.kernel.shape[1] // layer.heads


def joins(layer: Layer, first_token: bool = False) -> list[tuple[list, list]]:
    """What is computed together from one input: projections, and the factor of each.

    sqrt(1 / d), by which scores are scaled, goes into the query's weights, where it costs least.
    """
    share = size(layer) ** -0.5
    if first_token:
        return [([layer.query], [share]), ([layer.key, layer.value], [1, 1])]
    return [([layer.query, layer.key, layer.value], [share, 1, 1])]


def scaled(projections, factors):
    """The kernels of projections, each times its factor, and then the biases."""
    for values in ([each.kernel for each in projections], [each.bias for each in projections]):
        yield [value if factor == 1 else value * factor for value, factor in zip(values, factors)]
