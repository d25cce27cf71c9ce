"""What a row of the table of families says: `Family` and `Head`, and the checks of settings that one family alone has."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfbert._compat import tf
from tfbert.errors import InputError, suggest

# Says what is expected of a setting's value, given all settings; None where it is as it should be.
Check = Callable[[Any, Mapping[str, Any]], str | None]


@dataclasses.dataclass(frozen=True)
class Head:
    """What sits on the encoder for one kind of task.

    Args:
        tf_class: the TF Transformers class.
        pytorch_class: the PyTorch class of the same weights, for config.json's `architectures`.
        weights: how the names of the head's own weights begin, in PyTorch names; none for no head.
        outputs: the fields of the class's output that the Keras model gives.
        rank: dimensions of the ids: 2 for [B, T], 3 for [B, C, T].
        labels: how many outputs the head has, where that is no choice; None where the labels say it.
        tied: names of weights that are copies of others in PyTorch's file -> the names of those others.
        first_token: whether it reads the first token's state only.
        output: how the name of the matrix with a row for each label begins (default: the last of `weights`).
        global_attention: which tokens see all others and are seen by all, in a model where not all are so (see `longformer`).
        guess: a masked LM's head by itself: the model and states [R, P, D] -> logits [R, P, V] (default: its `get_lm_head()`).
        order: the head that judges pairs by itself: the model and first tokens' states [R, D] -> logits [R, 2]; None where it has none.
        apart: whether each of `weights` can begin anew by itself: a checkpoint was pretrained with one of them, say.
    """

    tf_class: str
    pytorch_class: str
    weights: tuple[str, ...]
    outputs: tuple[str, ...]
    rank: int = 2
    labels: int | None = None
    first_token: bool = False
    tied: Mapping[str, str] = dataclasses.field(default_factory=dict)
    output: str | None = None
    global_attention: str | None = None
    guess: Callable[[Any, Any], Any] = lambda model, states: model.get_lm_head()(states)
    order: Callable[[Any, Any], Any] | None = None
    apart: bool = False


def _padded(sizes: Mapping[str, int]) -> dict[str, int]:
    return {"pad_token_id": 0}


@dataclasses.dataclass(frozen=True)
class Beginning:
    """How a model without a checkpoint is made; the defaults are BERT's.

    Args:
        style: of the tokenizer's special tokens (see `tokenization.train_tokenizer`).
        tokenizer: the kind that the family was published with.
        head: what is drawn and saved; None: the bare encoder.
        settings: the sizes, by BERT's names -> what config.json has beside them.
        deviation: (a weight's name, the config) -> the standard deviation that it is drawn with, or None where it is 1 all over. None:
            initializer_range.
    """

    style: str = "bert"
    tokenizer: str = "wordpiece"
    head: str | None = None
    settings: Callable[[Mapping[str, int]], dict[str, int]] = _padded
    deviation: Callable[[str, Any], float | None] | None = None


@dataclasses.dataclass(frozen=True)
class Family:
    """What is particular to the architectures of one `model_type` of config.json.

    Weight names are PyTorch's, without the `encoder` prefix that a model with a head has and a bare one has not. Settings go by BERT's
    names (hidden_size, ...) everywhere but in config.json itself.

    Args:
        model_type: as config.json has it.
        config_class: the Transformers configuration class.
        encoder: the prefix of the encoder's weights in a model with a head.
        heads: the heads by the name that tasks use; None is the bare encoder.
        pretraining: how the names of pre-training heads begin, which a fine-tuned model drops.
        inputs: the ids that the model takes, in order.
        word_embeddings: the name of the word embeddings, [vocab_size, width].
        width: the setting that says how wide they are.
        position_embeddings: the name of the position embeddings, [max_position_embeddings, position_width]; None where there are none.
        position_width: the setting that says how wide those are (default: `width`).
        position_offset: rows of the position embeddings that no token uses; None where they are pad_token_id + 1, as RoBERTa's (2).
        embeddings: how the names of the embeddings' weights begin, and of all that is in no layer and still below the highest.
        layers: how the names of layer i's weights begin, before "i.".
        shared: the setting that says how many layers have weights of their own, where the others share them; None where all have.
        pooler: how the names of the pooler's weights begin.
        feed_forward: the name within a layer of the first feed-forward matrix, [intermediate_size, inside].
            None: it is not looked at.
        inside: the setting that says how wide the feed-forward's input is.
        times: how often hidden_size intermediate_size is, where config.json does not say it.
        buffers: names that checkpoints hold though they are no weights.
        cls_last: whether a row ends with [CLS], and does not begin with it.
        idle: names of weights that no head here computes with: they are saved as they came, and are not counted.
        special: the special tokens whose ids the model itself looks for, by those in its config.json.
        names: settings that config.json calls otherwise: our name -> its name.
        absent: BERT's settings that this family has not.
        settings: the settings that this family has alone, with their checks.
        required: those of them that config.json must have.
        classifier_rates: the dropout rates of its heads, where there are others than classifier_dropout.
        windows: settings that are an even whole number, or a list of one for each layer.
        turns: ends of weight names -> how the variable is turned between the frameworks, where Transformers does not know: the values
            and whether they come from PyTorch -> the values.
        renamed: parts of weight names that TF Transformers calls otherwise than PyTorch -> PyTorch's.
        prepare: what is done to the built model of TF Transformers, for one of the heads, before it is used.
        beginning: how a model begins from nothing; None: as BERT, where there is a masked LM.
        float16: whether the states stay within float16's range, 65504, in published checkpoints.
    """

    model_type: str
    config_class: str
    encoder: str
    heads: Mapping[str | None, Head]
    pretraining: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids")
    word_embeddings: str = "embeddings.word_embeddings.weight"
    width: str = "hidden_size"
    position_embeddings: str | None = "embeddings.position_embeddings.weight"
    position_width: str | None = None
    position_offset: int | None = 0
    embeddings: tuple[str, ...] = ("embeddings.",)
    layers: str = "encoder.layer."
    shared: str | None = None
    pooler: tuple[str, ...] = ("pooler.",)
    feed_forward: str | None = "intermediate.dense.weight"
    inside: str = "hidden_size"
    times: int | None = None
    buffers: tuple[str, ...] = ("embeddings.position_ids", "embeddings.token_type_ids")
    cls_last: bool = False
    idle: tuple[str, ...] = ()
    special: tuple[str, ...] = ("pad",)
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    absent: tuple[str, ...] = ()
    settings: Mapping[str, Check] = dataclasses.field(default_factory=dict)
    required: tuple[str, ...] = ()
    classifier_rates: tuple[str, ...] = ()
    windows: tuple[str, ...] = ()
    turns: Mapping[str, Callable[[np.ndarray, bool], np.ndarray]] = dataclasses.field(default_factory=dict)
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    prepare: Callable[[Any, Head], None] | None = None
    beginning: Beginning | None = None
    float16: bool = True

    @property
    def has_types(self) -> bool:
        """Whether the model tells the first text of a pair from the second by token_type_ids."""
        return "token_type_ids" in self.inputs

    def positions(self, rows: int | None, pad_token_id: int | None) -> int | None:
        """Returns how many tokens have a position of their own: `rows` is max_position_embeddings; None where positions are relative."""
        if "max_position_embeddings" in self.absent:
            return None
        if self.position_offset is not None:
            return rows - self.position_offset
        return rows - (1 if pad_token_id is None else pad_token_id) - 1

    def own_layers(self, config: Mapping[str, Any]) -> int:
        """Returns how many layers have weights of their own."""
        return config[self.shared or "num_hidden_layers"]

    def head(self, name: str | None) -> Head:
        """Returns the head of a name such as "sequence-classification"; None is the bare encoder."""
        if name not in self.heads:
            known = [head for head in self.heads if head]
            raise InputError(
                f"no head {name!r} for model type {self.model_type}; it has {', '.join(known)}.{suggest(name, known)}"
            )
        return self.heads[name]

    def head_of(self, model) -> Head:
        """Returns the head that a TF Transformers model has."""
        return next(head for head in self.heads.values() if head.tf_class == type(model).__name__)

    def deviation(self, config) -> float:
        """The standard deviation with which a model of this configuration begins a new weight; BERT's where it does not say (T5)."""
        return getattr(config, self.names.get("initializer_range", "initializer_range"), 0.02)


POOLED = ("last_hidden_state", "pooler_output")
STATES = ("last_hidden_state",)


def heads(
    name: str,
    *,
    none: tuple[str, ...] = POOLED,
    sequence: tuple[str, ...] = ("classifier.",),
    output: str | None = None,
    choice: tuple[str, ...] | None = ("classifier.",),
    masked: tuple[str, ...] = ("lm_head.",),
    tied: Mapping[str, str] | None = None,
    guess: Callable[[Any, Any], Any] | None = None,
    global_attention: Mapping[str | None, str] | None = None,
) -> dict[str | None, Head]:
    """The six heads of a family, whose classes are called alike.

    Args:
        name: how the names of PyTorch's classes begin.
        none: the outputs of the bare encoder.
        sequence: `Head.weights` of sequence classification.
        output: `Head.output` of sequence classification.
        choice: `Head.weights` of multiple choice; None where there is no such class.
        masked: `Head.weights` of the masked LM.
        tied: `Head.tied` of the masked LM.
        guess: `Head.guess` of the masked LM (default: that of `Head`).
        global_attention: `Head.global_attention` by the head's name.
    """

    def make(kind: str | None, suffix: str, weights: tuple[str, ...], outputs: tuple[str, ...], **more: Any) -> Head:
        tokens = (global_attention or {}).get(kind)
        return Head(f"TF{name}{suffix}", f"{name}{suffix}", weights, outputs, global_attention=tokens, **more)

    one, logits = "ForSequenceClassification", ("logits",)
    made = {
        None: make(None, "Model", (), none),
        "sequence-classification": make(
            "sequence-classification", one, sequence, logits, first_token=True, output=output
        ),
        "token-classification": make("token-classification", "ForTokenClassification", ("classifier.",), logits),
        "question-answering": make(
            "question-answering", "ForQuestionAnswering", ("qa_outputs.",), ("start_logits", "end_logits"), labels=2
        ),
        "multiple-choice": make(
            "multiple-choice", "ForMultipleChoice", choice or (), logits, rank=3, labels=1, first_token=True
        ),
        "masked-lm": make(
            "masked-lm", "ForMaskedLM", masked, logits, tied=tied or {}, **({"guess": guess} if guess else {})
        ),
    }
    return made if choice else {kind: head for kind, head in made.items() if kind != "multiple-choice"}


def whole(least: int, largest: int) -> Check:
    """A whole number within bounds."""
    said = f"a whole number from {least} to {largest}"
    return lambda value, config: None if type(value) is int and least <= value <= largest else said


def at_most(of: str) -> Check:
    """A whole number from 1 to another setting."""

    def check(value: Any, config: Mapping[str, Any]) -> str | None:
        said = f"a whole number from 1 to {of}, {config[of]}"
        return None if type(value) is int and 1 <= value <= config[of] else said

    return check


def same(of: str) -> Check:
    """The value of another setting."""
    return lambda value, config: None if value == config[of] else f"{config[of]}, as {of}"


def divisor(largest: int, of: str) -> Check:
    """A whole number from 1 that another setting is a multiple of."""

    def check(value: Any, config: Mapping[str, Any]) -> str | None:
        said = f"a whole number from 1 to {largest} that {of}, {config[of]}, is a multiple of"
        return None if type(value) is int and 1 <= value <= largest and config[of] % value == 0 else said

    return check


def multiple(largest: int, of: str) -> Check:
    """A whole number that is a multiple of another setting."""

    def check(value: Any, config: Mapping[str, Any]) -> str | None:
        said = f"a whole number up to {largest} that is a multiple of {of}, {config[of]}"
        return None if type(value) is int and 1 <= value <= largest and value % config[of] == 0 else said

    return check


def number(least: float, largest: float) -> Check:
    """A number within bounds."""
    said = f"a number from {least} to {largest}"
    return lambda value, config: None if type(value) in (int, float) and least <= value <= largest else said


def one_of(*options: Any) -> Check:
    """One of some values."""
    said = " or ".join(repr(option) for option in options)
    return lambda value, config: None if any(type(value) is type(o) and value == o for o in options) else said


RATE = number(0, 1)
FLAG = one_of(True, False)
WIDTH = whole(1, 16_384)


def last_state(states, mask):
    """Each row's state at its last token, [B, T, D] -> [B, D]; `mask`, int [B, T], is 0 in padding."""
    last = tf.shape(mask)[1] - 1 - tf.argmax(mask[:, ::-1], 1, tf.int32)
    return tf.gather(states, last, batch_dims=1)


def rewrite(model, *classes) -> None:
    """Has AutoGraph rewrite the layers of some classes, whose `if`s are over tensors: nothing else of TF Transformers' has such (see
    `_compat.plain`)."""
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, classes):
            layer.call = types.MethodType(tf.autograph.to_graph(type(layer).call), layer)
