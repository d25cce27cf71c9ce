"""The families whose models write text: GPT-2, a decoder alone, and T5 and BART, which write from what an encoder has read."""

from __future__ import annotations

import numpy as np

from tfbert._compat import transformers
from tfbert.models.families.base import (
    FLAG,
    RATE,
    STATES,
    WIDTH,
    Beginning,
    Family,
    Head,
    number,
    one_of,
    rewrite,
    whole,
)


def _row(values: np.ndarray, to_tf: bool) -> np.ndarray:
    """The biases of GPT-2's Conv1D have one row in TensorFlow, [1, outputs], and one dimension in PyTorch."""
    return values[np.newaxis] if to_tf else values[0]


def _gpt2_deviation(name: str, config) -> float | None:
    """As in the authors' code: what is added to the states is drawn the smaller the more layers there are (Radford et al. 2019)."""
    if ".ln_" in f".{name}" and name.endswith("weight"):
        return None
    return config.initializer_range * ((2 * config.n_layer) ** -0.5 if name.endswith("c_proj.weight") else 1.0)


def _t5_deviation(name: str, config) -> float | None:
    """As in the authors' code, whose attention divides by nothing: the queries are drawn so much smaller."""
    if "layer_norm" in name:
        return None
    width = {
        ".q.": config.d_model * config.d_kv,
        ".o.": config.num_heads * config.d_kv,
        ".wo.": config.d_ff,
        "shared.": 1,
    }
    return config.initializer_factor * next((n for part, n in width.items() if part in name), config.d_model) ** -0.5


GPT2 = Family(
    model_type="gpt2",
    config_class="GPT2Config",
    encoder="transformer.",
    heads={
        None: Head("TFGPT2Model", "GPT2Model", (), STATES),
        "causal-lm": Head(
            "TFGPT2LMHeadModel", "GPT2LMHeadModel", ("lm_head.",), ("logits",), tied={"lm_head.weight": "wte.weight"}
        ),
    },
    pretraining=("lm_head.",),
    inputs=("input_ids", "attention_mask"),
    word_embeddings="wte.weight",
    position_embeddings="wpe.weight",
    embeddings=("wte.", "wpe."),
    layers="h.",
    pooler=(),
    feed_forward="mlp.c_proj.weight",  # the second matrix, for Conv1D's lie the other way round
    # The causal mask, in files of old; 200 is the most layers that `configuration` takes.
    buffers=tuple(f"h.{i}.attn.{name}" for i in range(200) for name in ("bias", "masked_bias")),
    special=(),
    names={
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "max_position_embeddings": "n_positions",
        "intermediate_size": "n_inner",
        "hidden_act": "activation_function",
        "hidden_dropout_prob": "resid_pdrop",
        "attention_probs_dropout_prob": "attn_pdrop",
        "layer_norm_eps": "layer_norm_epsilon",
    },
    absent=("type_vocab_size", "classifier_dropout"),
    settings={
        "embd_pdrop": RATE,
        # What TF Transformers has of these.
        "scale_attn_weights": one_of(True),
        "scale_attn_by_inverse_layer_idx": one_of(False),
        "reorder_and_upcast_attn": one_of(False),
        "tie_word_embeddings": one_of(True),
    },
    times=4,
    turns={"c_attn.bias": _row, "c_proj.bias": _row, "c_fc.bias": _row},
    beginning=Beginning(
        style="gpt2",
        tokenizer="bpe",
        head="causal-lm",
        settings=lambda sizes: {"bos_token_id": 0, "eos_token_id": 0},
        deviation=_gpt2_deviation,
    ),
)

_SHARED = dict.fromkeys(
    ("lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"), "shared.weight"
)

T5 = Family(
    model_type="t5",
    config_class="T5Config",
    encoder="",
    heads={
        "seq2seq": Head(
            "TFT5ForConditionalGeneration", "T5ForConditionalGeneration", ("lm_head.",), ("logits",), tied=_SHARED
        )
    },
    inputs=("input_ids", "attention_mask"),
    word_embeddings="shared.weight",
    position_embeddings=None,
    embeddings=("shared.",),
    layers="encoder.block.",
    pooler=(),
    feed_forward=None,
    # Of no use, in the first checkpoints.
    buffers=("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",),
    names={
        "hidden_size": "d_model",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "intermediate_size": "d_ff",
        "hidden_dropout_prob": "dropout_rate",
        "layer_norm_eps": "layer_norm_epsilon",
    },
    absent=(
        "type_vocab_size",
        "max_position_embeddings",
        "hidden_act",
        "attention_probs_dropout_prob",
        "initializer_range",
    ),
    settings={
        "d_kv": WIDTH,
        "num_decoder_layers": whole(1, 200),
        "relative_attention_num_buckets": whole(1, 1_024),
        "relative_attention_max_distance": whole(1, 1_048_576),
        "feed_forward_proj": one_of("relu", "gated-gelu", "gated-silu"),
        "initializer_factor": number(0, 1_000),
        "tie_word_embeddings": FLAG,
        "is_encoder_decoder": one_of(True),
        "decoder_start_token_id": whole(0, 2_000_000),
    },
    required=("d_kv",),
    beginning=Beginning(
        style="t5",
        tokenizer="unigram",
        head="seq2seq",
        settings=lambda sizes: {
            "d_kv": sizes["hidden_size"] // max(1, sizes["num_attention_heads"]),
            "pad_token_id": 0,
            "eos_token_id": 1,
            "decoder_start_token_id": 0,
        },
        deviation=_t5_deviation,
    ),
    float16=False,
)

BART = Family(
    model_type="bart",
    config_class="BartConfig",
    encoder="model.",
    heads={
        "seq2seq": Head(
            "TFBartForConditionalGeneration",
            "BartForConditionalGeneration",
            ("final_logits_bias",),
            ("logits",),
            tied=_SHARED,
        )
    },
    inputs=("input_ids", "attention_mask"),
    word_embeddings="shared.weight",
    position_embeddings=None,  # the tables have two rows more than positions
    embeddings=("shared.", "encoder.embed_positions.", "encoder.layernorm_embedding."),
    layers="encoder.layers.",
    pooler=(),
    feed_forward="fc1.weight",
    names={
        "hidden_size": "d_model",
        "num_hidden_layers": "encoder_layers",
        "num_attention_heads": "encoder_attention_heads",
        "intermediate_size": "encoder_ffn_dim",
        "hidden_act": "activation_function",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "initializer_range": "init_std",
    },
    absent=("type_vocab_size", "layer_norm_eps"),
    settings={
        "decoder_layers": whole(1, 200),
        "decoder_attention_heads": whole(1, 1_024),
        "decoder_ffn_dim": whole(1, 131_072),
        "activation_dropout": RATE,
        "encoder_layerdrop": RATE,
        "decoder_layerdrop": RATE,
        "scale_embedding": FLAG,
        "tie_word_embeddings": one_of(True),
        "is_encoder_decoder": one_of(True),
        "decoder_start_token_id": whole(0, 2_000_000),
    },
    required=("decoder_layers", "decoder_attention_heads", "decoder_ffn_dim"),
    prepare=lambda model, head: rewrite(model, transformers.models.bart.modeling_tf_bart.TFBartDecoder),
)
