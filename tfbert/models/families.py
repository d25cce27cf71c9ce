"""The one table of what differs between model families: a new family is a new row here, and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from tfbert.errors import InputError, suggest
from tfbert.models.longformer import replace_attention


@dataclasses.dataclass(frozen=True)
class Head:
    """What sits on the encoder for one kind of task.

    Args:
        tf_class: the TF Transformers class.
        pytorch_class: the PyTorch class of the same weights, for config.json's `architectures`.
        weights: how the names of the head's own weights begin, in PyTorch names; "" for no head.
        outputs: the fields of the class's output that the Keras model gives.
        rank: dimensions of the ids: 2 for [B, T], 3 for [B, C, T].
        labels: how many outputs the head has, where that is no choice; None where the labels say it.
        tied: names of weights that are copies of others in PyTorch's file -> the names of those others.
        first_token: whether it reads the first token's state only.
        parts: how the names of its parts' weights begin, where they can begin anew one by one (default: `weights`).
        output: how the name of the matrix with a row for each label begins, where the head has others too (default: `weights`).
        global_attention: which tokens see all others and are seen by all, in a model where not all are so (see `longformer`).
    """

    tf_class: str
    pytorch_class: str
    weights: str
    outputs: tuple[str, ...]
    rank: int = 2
    labels: int | None = None
    first_token: bool = False
    tied: Mapping[str, str] = dataclasses.field(default_factory=dict)
    output: str | None = None
    parts: tuple[str, ...] = ()
    global_attention: str | None = None


@dataclasses.dataclass(frozen=True)
class Family:
    """What is particular to the architectures of one `model_type` of config.json.

    Weight names are PyTorch's, without the `encoder` prefix that a model with a head has and a bare one has not.

    Args:
        model_type: as config.json has it.
        config_class: the Transformers configuration class.
        encoder: the prefix of the encoder's weights in a model with a head.
        word_embeddings: the name of the word embeddings, [vocab_size, hidden_size].
        position_embeddings: the name of the position embeddings, [max_position_embeddings, hidden_size].
        embeddings: how the names of the embeddings' weights begin.
        layers: how the names of layer i's weights begin, before "i.".
        pooler: how the names of the pooler's weights begin.
        feed_forward: the name within a layer of the first feed-forward matrix, [intermediate_size, hidden_size].
        buffers: names that checkpoints hold though they are no weights.
        pretraining: how the names of pre-training heads begin, which a fine-tuned model drops.
        inputs: the ids that the model takes, in order.
        position_offset: rows of the position embeddings that no token uses; None where they are pad_token_id + 1, as RoBERTa's (2).
        heads: the heads by the name that tasks use; None is the bare encoder.
        special: the special tokens whose ids the model itself looks for, by those in its config.json.
        windows: settings that are an even whole number, or a list of one for each layer.
        prepare: what is done to the built model of TF Transformers, with `global_attention` of its head, before it is used.
    """

    model_type: str
    config_class: str
    encoder: str
    word_embeddings: str
    position_embeddings: str
    embeddings: str
    layers: str
    pooler: str
    feed_forward: str
    buffers: tuple[str, ...]
    pretraining: tuple[str, ...]
    inputs: tuple[str, ...]
    position_offset: int | None
    heads: Mapping[str | None, Head]
    special: tuple[str, ...] = ("pad",)
    windows: tuple[str, ...] = ()
    prepare: Callable[[Any, str | None], None] | None = None

    @property
    def has_types(self) -> bool:
        """Whether the model tells the first text of a pair from the second by token_type_ids."""
        return "token_type_ids" in self.inputs

    def positions(self, rows: int, pad_token_id: int | None) -> int:
        """Returns how many tokens have a position of their own: `rows` is max_position_embeddings."""
        if self.position_offset is not None:
            return rows - self.position_offset
        return rows - (1 if pad_token_id is None else pad_token_id) - 1

    def head(self, name: str | None) -> Head:
        """Returns the head of a name such as "sequence-classification"; None is the bare encoder."""
        if name not in self.heads:
            known = [head for head in self.heads if head]
            raise InputError(
                f"no head {name!r} for model type {self.model_type}; it has {', '.join(known)}.{suggest(name, known)}"
            )
        return self.heads[name]


BERT = Family(
    model_type="bert",
    config_class="BertConfig",
    encoder="bert.",
    word_embeddings="embeddings.word_embeddings.weight",
    position_embeddings="embeddings.position_embeddings.weight",
    embeddings="embeddings.",
    layers="encoder.layer.",
    pooler="pooler.",
    feed_forward="intermediate.dense.weight",
    buffers=("embeddings.position_ids", "embeddings.token_type_ids"),
    pretraining=("cls.",),
    inputs=("input_ids", "attention_mask", "token_type_ids"),
    position_offset=0,
    heads={
        None: Head("TFBertModel", "BertModel", "", ("last_hidden_state", "pooler_output")),
        "sequence-classification": Head(
            "TFBertForSequenceClassification",
            "BertForSequenceClassification",
            "classifier.",
            ("logits",),
            first_token=True,
        ),
        "token-classification": Head(
            "TFBertForTokenClassification", "BertForTokenClassification", "classifier.", ("logits",)
        ),
        "question-answering": Head(
            "TFBertForQuestionAnswering",
            "BertForQuestionAnswering",
            "qa_outputs.",
            ("start_logits", "end_logits"),
            labels=2,
        ),
        "multiple-choice": Head(
            "TFBertForMultipleChoice",
            "BertForMultipleChoice",
            "classifier.",
            ("logits",),
            rank=3,
            labels=1,
            first_token=True,
        ),
        "masked-lm": Head(
            "TFBertForMaskedLM",
            "BertForMaskedLM",
            "cls.predictions.",
            ("logits",),
            tied={
                "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
                "cls.predictions.decoder.bias": "cls.predictions.bias",
            },
        ),
        "pretraining": Head(
            "TFBertForPreTraining",
            "BertForPreTraining",
            "cls.",
            ("prediction_logits", "seq_relationship_logits"),
            tied={
                "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
                "cls.predictions.decoder.bias": "cls.predictions.bias",
            },
            parts=("cls.predictions.", "cls.seq_relationship."),
        ),
    },
)

LONGFORMER = Family(
    model_type="longformer",
    config_class="LongformerConfig",
    encoder="longformer.",
    word_embeddings="embeddings.word_embeddings.weight",
    position_embeddings="embeddings.position_embeddings.weight",
    embeddings="embeddings.",
    layers="encoder.layer.",
    pooler="pooler.",
    feed_forward="intermediate.dense.weight",
    buffers=("embeddings.position_ids",),
    pretraining=("lm_head.",),
    inputs=("input_ids", "attention_mask"),
    position_offset=None,
    heads={
        None: Head(
            "TFLongformerModel",
            "LongformerModel",
            "",
            ("last_hidden_state", "pooler_output"),
            global_attention="first",
        ),
        "sequence-classification": Head(
            "TFLongformerForSequenceClassification",
            "LongformerForSequenceClassification",
            "classifier.",
            ("logits",),
            output="classifier.out_proj.",
            global_attention="first",
        ),
        "token-classification": Head(
            "TFLongformerForTokenClassification", "LongformerForTokenClassification", "classifier.", ("logits",)
        ),
        "question-answering": Head(
            "TFLongformerForQuestionAnswering",
            "LongformerForQuestionAnswering",
            "qa_outputs.",
            ("start_logits", "end_logits"),
            labels=2,
            global_attention="before separator",
        ),
        "multiple-choice": Head(
            "TFLongformerForMultipleChoice",
            "LongformerForMultipleChoice",
            "classifier.",
            ("logits",),
            rank=3,
            labels=1,
            global_attention="after separator",
        ),
        "masked-lm": Head(
            "TFLongformerForMaskedLM",
            "LongformerForMaskedLM",
            "lm_head.",
            ("logits",),
            tied={
                "lm_head.decoder.weight": "embeddings.word_embeddings.weight",
                "lm_head.decoder.bias": "lm_head.bias",
            },
        ),
    },
    special=("pad", "sep"),
    windows=("attention_window",),
    prepare=replace_attention,
)

FAMILIES: dict[str, Family] = {family.model_type: family for family in (BERT, LONGFORMER)}


def family_of(model_type, where: str = "config.json") -> Family:
    """Returns the table's row for a `model_type`; an unknown one is an InputError that names `where`.

    Example:
        >>> family_of("bert").encoder
        'bert.'
        >>> family_of("brt")
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: config.json: model_type is 'brt'; tfbert knows bert, longformer. Did you mean 'bert'?
    """
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise InputError(
            f"{where}: model_type is {model_type!r}; tfbert knows {', '.join(FAMILIES)}.{suggest(model_type, FAMILIES)}"
        )
    return FAMILIES[model_type]
