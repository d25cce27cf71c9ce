"""Checkpoints of every family, tiny and random, made without PyTorch; and the cells of the table of families and tasks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import test_contract as contract

from tfbert import models
from tfbert._compat import keras, transformers
from tfbert.models.families import FAMILIES, family_of
from tfbert.models.loading import quiet

SIZES = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}
NARROW = {"embedding_size": 16}
APART = {
    "type_vocab_size": 0,
    "position_biased_input": False,
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "pooler_dropout": 0.1,
    "pooler_hidden_size": 32,
}
# What a family has beside SIZES, under the names of its config.json.
OWN = {
    "roberta": {"type_vocab_size": 1},
    "xlm-roberta": {"type_vocab_size": 1},
    "camembert": {"type_vocab_size": 1},
    "albert": {**NARROW, "num_hidden_groups": 1},
    "electra": NARROW,
    "mobilebert": {**NARROW, "intra_bottleneck_size": 24, "num_feedforward_networks": 2},
    "deberta": APART,
    "deberta-v2": {**APART, "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True},
    "convbert": {**NARROW, "conv_kernel_size": 3},
    "roformer": NARROW,
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 24},
    "longformer": {"type_vocab_size": 1, "attention_window": 8},
}
# A task of each head, and examples, by the names that tests/test_contract.py has for them.
TASKS = {
    None: "embedding, cosine",
    "sequence-classification": "single of pairs",
    "token-classification": "tokens",
    "question-answering": "questions",
    "multiple-choice": "choices",
    "masked-lm": "masked",
}
# Heads of pretraining, of the families that were published with them; they are no part of the table.
PRETRAINING = {"pretraining": "pretraining", "replaced-token-detection": "replaced tokens"}
# Those that write text have tests of their own (test_causal_lm.py, test_seq2seq.py).
ENCODERS = {name: family for name, family in FAMILIES.items() if "token-classification" in family.heads}
CELLS = [(name, head) for name, family in ENCODERS.items() for head in family.heads]
# The cells whose export is made, served and compared: a head of every family, every head in two of them or more.
EXPORTED = {
    "bert": tuple(TASKS),  # in tests/test_contract.py, with this tokenizer
    "roberta": ("sequence-classification",),
    "xlm-roberta": ("token-classification",),
    "camembert": ("question-answering",),
    "distilbert": ("masked-lm",),
    "albert": ("multiple-choice",),
    "electra": ("multiple-choice",),
    "mobilebert": ("masked-lm",),
    "mpnet": (None,),
    "deberta": ("question-answering",),
    "deberta-v2": ("sequence-classification",),
    "convbert": ("masked-lm",),
    "roformer": ("token-classification",),
    "rembert": ("sequence-classification",),
    "longformer": ("sequence-classification", "token-classification", "question-answering"),  # in test_longformer.py
    "xlnet": ("sequence-classification", "question-answering"),
}


def write(model_type: str, folder: Path, tokenizer=None, layers: int = 2, **changes) -> Path:
    """Saves an encoder with random numbers, none of them near 0 or 1 by design, and the tokenizer."""
    family, own = family_of(model_type), {}
    sizes = {**SIZES, "vocab_size": 60 if tokenizer is None else len(tokenizer), "pad_token_id": 0, "sep_token_id": 3}
    for name, value in {**sizes, "num_hidden_layers": layers}.items():
        if name not in family.absent:
            own[family.names.get(name, name)] = value
    keras.utils.set_random_seed(3)
    rng = np.random.default_rng(3)
    with quiet():
        config = getattr(transformers, family.config_class)(**{**own, **OWN.get(model_type, {}), **changes})
        model = getattr(transformers, family.heads[None].tf_class)(config)
        model.build_in_name_scope()
    shake(model, rng)
    models.save(model, folder, tokenizer)
    return folder


def shake(model, rng) -> None:
    """Moves every number a little, so that no bias is 0 and no scale 1."""
    for variable in model.weights:
        variable.assign_add((0.05 * rng.normal(size=variable.shape)).astype(np.float32))


def case(head: str | None):
    """A task of this head and its examples."""
    return contract.CASES[{**TASKS, **PRETRAINING}[head]]


def table() -> str:
    """README's table: a row for each family; a cell says what the tests do with it."""
    lines = [
        "| `model_type` | " + " | ".join(head or "sentence-embedding" for head in TASKS) + " |",
        "|---" * (1 + len(TASKS)) + "|",
    ]
    for name, family in ENCODERS.items():
        cells = ["served" if head in EXPORTED[name] else "yes" if head in family.heads else "-" for head in TASKS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
