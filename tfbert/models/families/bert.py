"""BERT and the families whose parts are called as BERT's: ELECTRA, ConvBERT, RoFormer, RemBERT, MobileBERT."""

from __future__ import annotations

import numpy as np

from tfbert.models.families.base import FLAG, RATE, STATES, WIDTH, Family, Head, divisor, heads, multiple, one_of, whole

WORDS = "embeddings.word_embeddings.weight"
TIED = {"cls.predictions.decoder.weight": WORDS, "cls.predictions.decoder.bias": "cls.predictions.bias"}
OUT = {"sequence": ("classifier.",), "output": "classifier.out_proj."}
# A multiple-choice head that begins with a summary of the states: of the first one, in every published checkpoint.
SUMMARY = {
    "summary_type": one_of("first"),
    "summary_use_proj": FLAG,
    "summary_activation": one_of("gelu", "gelu_new", "relu", "tanh"),
    "summary_first_dropout": RATE,
    "summary_last_dropout": RATE,
}


def _generator(model, states):
    return model.generator_lm_head(model.generator_predictions(states))


def _constant_positions(model, head: Head) -> None:
    """RoFormer's sinusoids are no weights; TF Transformers would train them."""
    model.roformer.encoder.embed_positions.trainable = False


def _tie_words(model, head: Head) -> None:
    """TF Transformers has no tie between MobileBERT's word embeddings and its masked LM's matrix; PyTorch's file has one of them."""
    if head.tied:
        predictions = model.predictions.predictions
        del predictions.decoder
        object.__setattr__(predictions, "decoder", model.mobilebert.embeddings.weight)  # past Keras' tracking


def _depthwise(values: np.ndarray, from_pytorch: bool) -> np.ndarray:
    """[C, 1, K] in PyTorch, [K, C, 1] in Keras."""
    return values.transpose(2, 0, 1) if from_pytorch else values.transpose(1, 2, 0)


def _column(values: np.ndarray, from_pytorch: bool) -> np.ndarray:
    """[C, 1] in PyTorch, [C] in Keras."""
    return values[:, 0] if from_pytorch else values[:, np.newaxis]


BERT = Family(
    model_type="bert",
    config_class="BertConfig",
    encoder="bert.",
    heads=heads("Bert", masked=("cls.predictions.",), tied=TIED),
    pretraining=("cls.",),
)

ELECTRA = Family(
    model_type="electra",
    config_class="ElectraConfig",
    encoder="electra.",
    heads=heads(
        "Electra",
        none=STATES,
        **OUT,
        choice=("sequence_summary.", "classifier."),
        masked=("generator_predictions.", "generator_lm_head."),
        tied={"generator_lm_head.weight": WORDS},
        guess=_generator,
    ),
    pretraining=("discriminator_predictions.", "generator_predictions.", "generator_lm_head."),
    width="embedding_size",
    embeddings=("embeddings.", "embeddings_project."),
    pooler=(),
    settings={"embedding_size": WIDTH, **SUMMARY},
    required=("embedding_size",),
    classifier_rates=("summary_last_dropout",),
)

CONVBERT = Family(
    model_type="convbert",
    config_class="ConvBertConfig",
    encoder="convbert.",
    heads=heads(
        "ConvBert",
        none=STATES,
        **OUT,
        choice=("sequence_summary.", "classifier."),
        masked=("generator_predictions.", "generator_lm_head."),
        tied={"generator_lm_head.weight": WORDS},
        guess=_generator,
    ),
    pretraining=("discriminator_predictions.", "generator_predictions.", "generator_lm_head."),
    width="embedding_size",
    embeddings=("embeddings.", "embeddings_project."),
    pooler=(),
    settings={
        "embedding_size": WIDTH,
        "head_ratio": divisor(64, "num_attention_heads"),
        "conv_kernel_size": whole(1, 255),
        "num_groups": one_of(1),
        **SUMMARY,
    },
    required=("embedding_size", "head_ratio", "conv_kernel_size"),
    classifier_rates=("summary_last_dropout",),
    turns={"key_conv_attn_layer.depthwise.weight": _depthwise, "key_conv_attn_layer.bias": _column},
)

ROFORMER = Family(
    model_type="roformer",
    config_class="RoFormerConfig",
    encoder="roformer.",
    heads=heads(
        "RoFormer",
        none=STATES,
        **OUT,
        choice=("sequence_summary.", "classifier."),
        masked=("cls.predictions.",),
        tied=TIED,
    ),
    pretraining=("cls.",),
    width="embedding_size",
    position_embeddings=None,
    embeddings=("embeddings.", "embeddings_project.", "encoder.embed_positions."),
    pooler=(),
    absent=("classifier_dropout",),
    settings={"embedding_size": WIDTH, "rotary_value": FLAG, **SUMMARY},
    required=("embedding_size",),
    classifier_rates=("summary_last_dropout",),
    prepare=_constant_positions,
)

REMBERT = Family(
    model_type="rembert",
    config_class="RemBertConfig",
    encoder="rembert.",
    heads=heads("RemBert", masked=("cls.predictions.",)),
    pretraining=("cls.",),
    width="input_embedding_size",
    embeddings=("embeddings.", "encoder.embedding_hidden_mapping_in."),
    names={"classifier_dropout": "classifier_dropout_prob"},
    settings={"input_embedding_size": WIDTH, "output_embedding_size": WIDTH},
    required=("input_embedding_size", "output_embedding_size"),
)

MOBILEBERT = Family(
    model_type="mobilebert",
    config_class="MobileBertConfig",
    encoder="mobilebert.",
    heads=heads("MobileBert", masked=("cls.predictions.",), tied=TIED),
    pretraining=("cls.",),
    width="embedding_size",
    position_width="hidden_size",
    inside="intra_bottleneck_size",
    settings={
        "embedding_size": WIDTH,
        "intra_bottleneck_size": multiple(16_384, "num_attention_heads"),
        "num_feedforward_networks": whole(1, 64),
        "normalization_type": one_of("no_norm"),
        "use_bottleneck": one_of(True),
        "use_bottleneck_attention": FLAG,
        "key_query_shared_bottleneck": FLAG,
        "trigram_input": FLAG,
        "classifier_activation": FLAG,
    },
    required=("embedding_size", "intra_bottleneck_size"),
    prepare=_tie_words,
    float16=False,  # nothing normalizes its states, which grow to millions (transformers' own float16 test of it tolerates that)
)
