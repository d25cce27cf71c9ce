"""The families that are smaller copies of BERT: DistilBERT, with half of the layers, and ALBERT, whose layers share their weights."""

from __future__ import annotations

from tfbert.models.families.base import RATE, STATES, WIDTH, Family, Head, at_most, heads, whole

WORDS = "embeddings.word_embeddings.weight"
TIED = {"predictions.decoder.weight": WORDS, "predictions.decoder.bias": "predictions.bias"}


def _distilled_guess(model, states):
    return model.vocab_projector(model.vocab_layer_norm(model.act(model.vocab_transform(states))))


def _one_bias(model, head: Head) -> None:
    """TF Transformers' masked LM has two biases, of which it adds the one that PyTorch's file has not."""
    if head.tied:
        del model.predictions.decoder_bias
        object.__setattr__(model.predictions, "decoder_bias", model.predictions.bias)  # past Keras' tracking


DISTILBERT = Family(
    model_type="distilbert",
    config_class="DistilBertConfig",
    encoder="distilbert.",
    heads=heads(
        "DistilBert",
        none=STATES,
        sequence=("pre_classifier.", "classifier."),
        choice=("pre_classifier.", "classifier."),
        masked=("vocab_transform.", "vocab_layer_norm.", "vocab_projector."),
        tied={"vocab_projector.weight": WORDS},
        guess=_distilled_guess,
    ),
    pretraining=("vocab_transform.", "vocab_layer_norm.", "vocab_projector."),
    inputs=("input_ids", "attention_mask"),
    layers="transformer.layer.",
    pooler=(),
    feed_forward="ffn.lin1.weight",
    names={
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    },
    absent=("type_vocab_size", "classifier_dropout", "layer_norm_eps"),
    settings={"seq_classif_dropout": RATE, "qa_dropout": RATE},
    classifier_rates=("seq_classif_dropout", "qa_dropout"),
)

ALBERT = Family(
    model_type="albert",
    config_class="AlbertConfig",
    encoder="albert.",
    heads={
        **heads("Albert", masked=("predictions.",), tied=TIED),
        "pretraining": Head(
            "TFAlbertForPreTraining",
            "AlbertForPreTraining",
            ("predictions.", "sop_classifier."),
            ("prediction_logits", "sop_logits"),
            tied=TIED,
            order=lambda model, first: model.sop_classifier(first),
            apart=True,
        ),
    },
    pretraining=("predictions.", "sop_classifier."),
    width="embedding_size",
    embeddings=("embeddings.", "encoder.embedding_hidden_mapping_in."),
    layers="encoder.albert_layer_groups.",
    shared="num_hidden_groups",
    feed_forward="albert_layers.0.ffn.weight",
    names={"classifier_dropout": "classifier_dropout_prob"},
    settings={
        "embedding_size": WIDTH,
        "num_hidden_groups": at_most("num_hidden_layers"),
        "inner_group_num": whole(1, 200),
    },
    required=("embedding_size", "num_hidden_groups"),
    prepare=_one_bias,
)
