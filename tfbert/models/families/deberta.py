"""DeBERTa and DeBERTa-v2 (and v3, which is v2 pretrained otherwise): attention by content and by distance apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfbert._compat import keras, transformers
from tfbert.models.families.base import FLAG, RATE, STATES, Family, Head, heads, one_of, rewrite, same, whole

KINDS = ("c2p", "p2c")
TIED = {
    "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}


def _kinds(value: Any, config: Mapping[str, Any]) -> str | None:
    given = value.lower().split("|") if isinstance(value, str) else value
    fits = isinstance(given, list) and all(isinstance(kind, str) and kind.strip() in KINDS for kind in given)
    return None if fits else 'c2p, p2c or both, as "c2p|p2c" or a list'


def _prepare(model, head: Head) -> None:
    """Keras' dropout in place of TF Transformers' own, which computes the same from random numbers whose state nobody can save."""
    first, second = (
        transformers.models.deberta.modeling_tf_deberta,
        transformers.models.deberta_v2.modeling_tf_deberta_v2,
    )
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, first.TFDebertaStableDropout | second.TFDebertaV2StableDropout):
            layer.plain = keras.layers.Dropout(layer.drop_prob, name="plain")
            layer.call = layer.plain.call
    rewrite(model, first.TFDebertaDisentangledSelfAttention, second.TFDebertaV2DisentangledSelfAttention)


SETTINGS = {
    "type_vocab_size": whole(0, 1_024),
    "relative_attention": FLAG,
    "max_relative_positions": whole(-1, 1_048_576),
    "position_biased_input": FLAG,
    "pos_att_type": _kinds,
    "pooler_hidden_size": same("hidden_size"),
    "pooler_hidden_act": one_of("gelu", "gelu_new", "relu", "silu", "swish", "tanh"),
    "pooler_dropout": RATE,
    "cls_dropout": RATE,
}


def _deberta(model_type: str, name: str, **more: Any) -> Family:
    has_choice = model_type == "deberta-v2"  # Transformers has no such class for the first DeBERTa
    return Family(
        model_type=model_type,
        config_class=f"{name}Config",
        encoder="deberta.",
        heads=heads(
            name,
            none=STATES,
            sequence=("pooler.", "classifier."),
            choice=("pooler.", "classifier.") if has_choice else None,
            masked=("cls.predictions.",),
            tied=TIED,
        ),
        pretraining=("cls.", "lm_predictions.", "mask_predictions."),
        position_embeddings=None,
        absent=("type_vocab_size", "classifier_dropout"),
        required=("type_vocab_size",),
        classifier_rates=("pooler_dropout", "cls_dropout"),
        prepare=_prepare,
        **more,
    )


DEBERTA = _deberta(
    "deberta",
    "Deberta",
    embeddings=("embeddings.", "encoder.rel_embeddings."),
    settings={**SETTINGS, "talking_head": one_of(False)},
)

DEBERTA_V2 = _deberta(
    "deberta-v2",
    "DebertaV2",
    embeddings=("embeddings.", "encoder.rel_embeddings.", "encoder.LayerNorm.", "encoder.conv."),
    settings={
        **SETTINGS,
        "position_buckets": whole(-1, 1_048_576),
        "norm_rel_ebd": one_of("none", "layer_norm"),
        "share_att_key": FLAG,
        "attention_head_size": whole(1, 16_384),
        "conv_kernel_size": whole(0, 255),
        "conv_groups": one_of(1),
        "conv_act": one_of("gelu", "gelu_new", "relu", "silu", "swish", "tanh"),
    },
    renamed={".pos_proj.": ".pos_key_proj.", ".pos_q_proj.": ".pos_query_proj."},
)
