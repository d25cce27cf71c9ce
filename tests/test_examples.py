"""Every example script runs, trains and asks, with a tiny checkpoint in place of the packaged one, and is short."""

from __future__ import annotations

import re
import types
from pathlib import Path

import numpy as np
import pytest

from tfbert import models, tokenization
from tfbert._compat import keras, transformers
from tfbert.models.loading import quiet

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
# The words that must be on the screen in the end: a score of the test data, and one of the questions with its answer.
SHOWN = {
    "custom_loop": (r"accuracy [01]\.\d{3}", r"[01]\.\d\d  \w+: He threw"),
    "multiple_choice": (r"accuracy +[01]\.\d{3}", r"Who mended the clock\? +[01]\.\d\d  \w+"),
    "question_answering": (r"exact_match +[01]\.\d{3}", r"Where does the bus stop now\? +[01]\.\d\d .* \[\d+, \d+\)"),
    "sentence_embedding": (r"recall_at_1 +[01]\.\d{3} .*[01]\.\d{3}", r"Can I drink beer .*\n +-?[01]\.\d\d  \w+"),
    "sequence_classification": (r"accuracy +[01]\.\d{3}", r"[01]\.\d\d"),
    "token_classification": (r"f1 +[01]\.\d{3}", r"Zoë Brandt of Kestrel Freight"),
}


@pytest.fixture(scope="module")
def roomy(tiny, tmp_path_factory) -> Path:
    """The tiny checkpoint with positions for a whole passage, whose words are letters to it."""
    config = transformers.BertConfig.from_pretrained(tiny)
    config.max_position_embeddings = 512
    keras.utils.set_random_seed(7)
    with quiet():
        model = transformers.TFBertModel(config)
        model.build_in_name_scope()
    place = tmp_path_factory.mktemp("roomy") / "bert"
    models.save(model, place, tokenization.load_tokenizer(tiny))
    return place


def test_every_example_is_short_and_tested():
    scripts = {path.stem: path.read_text("utf-8") for path in EXAMPLES.glob("*.py")}
    assert scripts.keys() == SHOWN.keys()
    for name, text in scripts.items():
        assert len(text.splitlines()) <= 80, name


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWN)
def test_an_example_trains_and_asks_its_export(name, roomy, tmp_path, capsys):
    text = (EXAMPLES / f"{name}.py").read_text("utf-8").replace("all-MiniLM-L6-v2", str(roomy))
    text = re.sub(r'(epochs"?[=:] ?)\d+', r"\g<1>1", text)
    script = types.ModuleType(name)
    script.__file__ = str(EXAMPLES / f"{name}.py")
    exec(compile(text, script.__file__, "exec"), vars(script))
    script.OUTPUT = tmp_path / "out"
    script.train()
    script.ask()
    printed = capsys.readouterr().out
    for pattern in SHOWN[name]:
        assert re.search(pattern, printed), printed


@pytest.mark.slow
def test_the_loop_of_ones_own_gives_the_weights_of_fit(roomy, tmp_path):
    name = "custom_loop"
    text = (EXAMPLES / f"{name}.py").read_text("utf-8").replace("all-MiniLM-L6-v2", str(roomy))
    script = types.ModuleType(name)
    script.__file__ = str(EXAMPLES / f"{name}.py")
    exec(compile(text, script.__file__, "exec"), vars(script))
    script.OUTPUT = tmp_path / "out"
    mine = script.train(epochs=2)
    strategy, _, batches, model, optimizer = script.pieces(epochs=2)
    begun = [weight.copy() for weight in model.get_weights()]
    with strategy.scope():
        model.compile(optimizer, loss=script.TASK.loss())
    model.fit(batches, epochs=2, verbose=0)
    for ours, theirs in zip(mine.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert max(np.abs(theirs - first).max() for theirs, first in zip(model.get_weights(), begun, strict=True)) > 1e-4
