"""Checkpoints of models that write text, made here: two layers, random weights, the words of the tiny BERT as tokens."""

from __future__ import annotations

from pathlib import Path

import tokenizers

from tfbert import models
from tfbert._compat import keras, transformers
from tfbert.models.loading import quiet


def of_words(tiny: Path, template: str, **special):
    """A tokenizer with the words of `tiny`, whose [SEP] ends a text."""
    backend = tokenizers.Tokenizer.from_file(str(tiny / "tokenizer.json"))
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single=template, pair=f"{template} $B", special_tokens=[("[SEP]", 3), ("[CLS]", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", eos_token="[SEP]", pad_token="[PAD]", **special
    )


def gpt2(tiny: Path, folder: Path) -> Path:
    """Its [SEP] also begins texts, as GPT-2's one special token does."""
    return _saved(
        transformers.TFGPT2LMHeadModel,
        transformers.GPT2Config,
        of_words(tiny, "$A", bos_token="[SEP]"),
        folder,
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_inner=48,
        n_positions=64,
        bos_token_id=3,
        initializer_range=0.3,
    )


def t5(tiny: Path, folder: Path) -> Path:
    """Its decoder begins with the padding, and it has eight sentinels."""
    return _saved(
        transformers.TFT5ForConditionalGeneration,
        transformers.T5Config,
        of_words(tiny, "$A [SEP]", additional_special_tokens=[f"<extra_id_{i}>" for i in range(8)]),
        folder,
        d_model=32,
        d_kv=12,
        d_ff=48,
        num_layers=2,
        num_heads=2,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=20,
        decoder_start_token_id=0,
        pad_token_id=0,
    )


def bart(tiny: Path, folder: Path) -> Path:
    """Its texts are [CLS] text [SEP], and its decoder begins with [SEP]."""
    return _saved(
        transformers.TFBartForConditionalGeneration,
        transformers.BartConfig,
        of_words(tiny, "[CLS] $A [SEP]", bos_token="[CLS]"),
        folder,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=4,
        encoder_ffn_dim=40,
        decoder_ffn_dim=48,
        max_position_embeddings=24,
        pad_token_id=0,
        bos_token_id=2,
        decoder_start_token_id=3,
        forced_eos_token_id=None,
        init_std=0.3,
    )


def _saved(tf_class, config_class, tokenizer, folder: Path, **settings) -> Path:
    keras.utils.set_random_seed(8)
    with quiet():
        model = tf_class(config_class(vocab_size=len(tokenizer), eos_token_id=3, **settings))
        model.build_in_name_scope()
    models.save(model, folder, tokenizer)
    return folder
