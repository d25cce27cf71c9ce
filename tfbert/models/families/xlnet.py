"""XLNet: attention by distance apart, and a row that ends with [CLS], which its heads read there."""

from __future__ import annotations

import dataclasses
import functools
import types

from tfbert._compat import tf
from tfbert.models.families.base import RATE, STATES, Family, Head, heads, last_state, one_of, whole

SUMMARY = ("sequence_summary.summary.", "logits_proj.")


def _in_precision(attention) -> None:
    """Casts what the attention is given beside the states to their type; TF Transformers adds up bfloat16 and float32, which fails."""
    own = type(attention).call

    @functools.wraps(own)
    def call(self, states, *others, **settings):
        cast = [tf.cast(x, states.dtype) if tf.is_tensor(x) and x.dtype.is_floating else x for x in others]
        return own(self, states, *cast, **settings)

    attention.call = types.MethodType(call, attention)


def _ends_with_cls(main) -> None:
    """Puts behind the states that of each row's last token, where the heads look for it: their rows are filled up on the left."""
    own = type(main).call

    @functools.wraps(own)
    def call(self, input_ids=None, attention_mask=None, *others, **settings):
        outputs = own(self, input_ids, attention_mask, *others, **settings)
        if attention_mask is not None:
            states = outputs[0]
            outputs["last_hidden_state"] = tf.concat([states, last_state(states, attention_mask)[:, tf.newaxis]], 1)
        return outputs

    main.call = types.MethodType(call, main)


def _prepare(model, head: Head) -> None:
    main = model.transformer
    for layer in main.layer:
        _in_precision(layer.rel_attn)
    if set(SUMMARY) <= set(head.weights):
        _ends_with_cls(main)
    # What earlier rows would leave for later ones is given in some modes and not in others: Keras takes one of them for the answer.
    main.use_mems_eval = main.use_mems_train = False
    # What stands for a token that is to be guessed has no gradient here, and Keras none to miss.
    main.mask_emb._trainable = False
    main._trainable_weights.clear()
    main._non_trainable_weights.append(main.mask_emb)


def _heads() -> dict[str | None, Head]:
    made = heads("XLNet", none=STATES, sequence=SUMMARY, choice=SUMMARY)
    simple = {"tf_class": "TFXLNetForQuestionAnsweringSimple", "pytorch_class": "XLNetForQuestionAnsweringSimple"}
    made["question-answering"] = dataclasses.replace(made["question-answering"], **simple)
    for head in ("sequence-classification", "multiple-choice"):
        made[head] = dataclasses.replace(made[head], first_token=False)
    del made["masked-lm"]
    return made


XLNET = Family(
    model_type="xlnet",
    config_class="XLNetConfig",
    encoder="transformer.",
    heads=_heads(),
    pretraining=("lm_loss.",),
    word_embeddings="word_embedding.weight",
    position_embeddings=None,
    embeddings=("word_embedding.",),
    layers="layer.",
    pooler=(),
    cls_last=True,
    idle=("mask_emb",),
    special=(),
    feed_forward="ff.layer_1.weight",
    buffers=(),
    names={
        "hidden_size": "d_model",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "intermediate_size": "d_inner",
        "hidden_act": "ff_activation",
        "hidden_dropout_prob": "dropout",
    },
    absent=("max_position_embeddings", "type_vocab_size", "attention_probs_dropout_prob", "classifier_dropout"),
    settings={
        "summary_type": one_of("last"),
        "summary_use_proj": one_of(True),
        "summary_activation": one_of("tanh"),
        "summary_last_dropout": RATE,
        "attn_type": one_of("bi"),
        "bi_data": one_of(False),
        "clamp_len": whole(-1, 1_048_576),
    },
    classifier_rates=("summary_last_dropout",),
    prepare=_prepare,
)
