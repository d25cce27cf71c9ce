"""Models: checkpoint + head -> Keras model, and back to a folder that PyTorch reads too."""

from __future__ import annotations

from tfbert.models.adapters import Adapter, adapter_of, read_adapter
from tfbert.models.configuration import dropout
from tfbert.models.creating import create_checkpoint
from tfbert.models.frozen import STATES, frozen_rung, lean_encoder, wanted
from tfbert.models.generator import load_generator, replaced_tokens
from tfbert.models.groups import count_parameters, freeze, layer_groups, unfreeze, unfreeze_new, weights_in_order
from tfbert.models.inspection import check_task, check_tokenizer, describe
from tfbert.models.keras_model import (
    POOLINGS,
    as_keras,
    at_masked,
    by_choice,
    pooled,
    pretraining,
    sentence_encoder,
    transformer_of,
    without_padding,
    word_embeddings,
)
from tfbert.models.lean import for_answers
from tfbert.models.loading import LoadReport, begin_bias, load
from tfbert.models.lora import add_lora, lora_weights, merge_lora
from tfbert.models.randomness import random_state
from tfbert.models.reinitializing import drawn_anew, reinitialize
from tfbert.models.saving import save
from tfbert.models.served import check_precision
from tfbert.models.writing import CausalSteps, Seq2SeqSteps, can_write, next_tokens, text_to_text, write

__all__ = [
    "POOLINGS",
    "STATES",
    "Adapter",
    "CausalSteps",
    "LoadReport",
    "Seq2SeqSteps",
    "adapter_of",
    "add_lora",
    "as_keras",
    "at_masked",
    "begin_bias",
    "by_choice",
    "can_write",
    "check_precision",
    "check_task",
    "check_tokenizer",
    "count_parameters",
    "create_checkpoint",
    "describe",
    "drawn_anew",
    "dropout",
    "for_answers",
    "freeze",
    "frozen_rung",
    "layer_groups",
    "lean_encoder",
    "load",
    "load_generator",
    "lora_weights",
    "merge_lora",
    "next_tokens",
    "pooled",
    "pretraining",
    "random_state",
    "read_adapter",
    "reinitialize",
    "save",
    "replaced_tokens",
    "sentence_encoder",
    "text_to_text",
    "transformer_of",
    "unfreeze",
    "unfreeze_new",
    "wanted",
    "weights_in_order",
    "without_padding",
    "word_embeddings",
    "write",
]
