"""The rows of the table of families (see `families`) whose models write text."""

from __future__ import annotations

from tfbert.models.families import Family, Head

GPT2 = Family(
    model_type="gpt2",
    config_class="GPT2Config",
    encoder="transformer.",
    word_embeddings="wte.weight",
    position_embeddings="wpe.weight",
    embeddings=("wte.", "wpe."),
    layers="h.",
    pooler="pooler.",  # there is none
    feed_forward="mlp.c_fc.weight",
    # The causal mask, in files of old; 200 is the most layers that `configuration` takes.
    buffers=tuple(f"h.{i}.attn.{name}" for i in range(200) for name in ("bias", "masked_bias")),
    pretraining=("lm_head.",),
    inputs=("input_ids", "attention_mask"),
    position_offset=0,
    heads={
        None: Head("TFGPT2Model", "GPT2Model", "", ("last_hidden_state",)),
        "causal-lm": Head(
            "TFGPT2LMHeadModel", "GPT2LMHeadModel", "lm_head.", ("logits",), tied={"lm_head.weight": "wte.weight"}
        ),
    },
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
    rates=("embd_pdrop",),
    only={
        "scale_attn_weights": (True, None),
        "scale_attn_by_inverse_layer_idx": (False, None),
        "reorder_and_upcast_attn": (False, None),
        "tie_word_embeddings": (True, None),
    },
    inner=4,
    conv1d=True,
)
