"""RoBERTa and the families with its heads: XLM-RoBERTa, CamemBERT, Longformer, MPNet."""

from __future__ import annotations

from tfbert.models.families.base import Beginning, Family, Head, heads, whole
from tfbert.models.longformer import replace_attention

IDS = ("input_ids", "attention_mask")
OUT = "classifier.out_proj."
TIED = {"lm_head.decoder.weight": "embeddings.word_embeddings.weight", "lm_head.decoder.bias": "lm_head.bias"}


def _count_from_padding(model, head: Head) -> None:
    """Positions count from the id of the padding, in PyTorch; in TF Transformers always from 1, RoBERTa's own."""
    main = getattr(model, model.base_model_prefix)
    main.embeddings.padding_idx = model.config.pad_token_id


def _without_pooler(model, head: Head) -> None:
    """PyTorch's MPNet has a pooler where it is read: bare and for multiple choice; TF Transformers' has one everywhere."""
    if head.weights and head.rank == 2:
        del model.mpnet.pooler
        object.__setattr__(model.mpnet, "pooler", lambda states: None)


def _like_roberta(model_type: str, name: str) -> Family:
    return Family(
        model_type=model_type,
        config_class=f"{name}Config",
        encoder="roberta.",
        heads=heads(name, output=OUT, tied=TIED),
        pretraining=("lm_head.",),
        inputs=IDS,
        position_offset=None,
        prepare=_count_from_padding,
    )


ROBERTA = _like_roberta("roberta", "Roberta")
XLM_ROBERTA = _like_roberta("xlm-roberta", "XLMRoberta")
CAMEMBERT = _like_roberta("camembert", "Camembert")

LONGFORMER = Family(
    model_type="longformer",
    config_class="LongformerConfig",
    encoder="longformer.",
    heads=heads(
        "Longformer",
        output=OUT,
        tied=TIED,
        global_attention={
            None: "first",
            "sequence-classification": "first",
            "question-answering": "before separator",
            "multiple-choice": "after separator",
        },
    ),
    pretraining=("lm_head.",),
    inputs=IDS,
    position_offset=None,
    special=("pad", "sep"),
    beginning=Beginning(settings=lambda sizes: {"pad_token_id": 0, "sep_token_id": 3}),
    windows=("attention_window",),
    prepare=lambda model, head: replace_attention(model, head.global_attention),
)

MPNET = Family(
    model_type="mpnet",
    config_class="MPNetConfig",
    encoder="mpnet.",
    heads=heads("MPNet", output=OUT, tied=TIED),
    pretraining=("lm_head.",),
    inputs=IDS,
    position_offset=2,
    embeddings=("embeddings.", "encoder.relative_attention_bias."),
    absent=("type_vocab_size", "classifier_dropout"),
    settings={"relative_attention_num_buckets": whole(2, 1_024)},
    prepare=_without_pooler,
)
