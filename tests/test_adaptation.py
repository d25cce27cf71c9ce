"""Task-adaptive pretraining: a masked LM on the user's text, then fine-tuning from its encoder, in one call that can be resumed."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest

import tfbert
from tfbert import adaptation, checkpoints, sources, tasks, training
from tfbert.__main__ import main
from tfbert.errors import InputError

WORDS = {"good": "good great lovely bright fine".split(), "bad": "bad awful dull boring not".split()}
OPTIONS = {"epochs": 1, "batch_size": 8, "adapt_epochs": 2, "export": False, "report": False}
TASK = tasks.SequenceClassification(max_length=24)


def rows(count: int, seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    labels = ["good", "bad"] * (count // 2)
    return [{"text": " ".join(rng.choice(WORDS[label], rng.integers(2, 9))), "label": label} for label in labels]


TEXTS = [{"text": f"the film is {word} . it is {word}"} for words in WORDS.values() for word in words] * 3


@pytest.fixture(scope="module")
def adapted(shallow, tmp_path_factory) -> tuple[tfbert.FineTuned, str]:
    """A whole run, and what it said."""
    place, said = tmp_path_factory.mktemp("adapted") / "run", io.StringIO()
    with contextlib.redirect_stderr(said):
        return tfbert.fine_tune(TASK, shallow, rows(40), adapt=TEXTS, directory=place, **OPTIONS), said.getvalue()


@pytest.mark.slow
def test_the_encoder_is_that_of_the_masked_lm_and_the_folder_says_so(adapted, shallow, tmp_path):
    """The same two runs by hand give the same weights."""
    tuned, said = adapted
    told = "tfbert: warning: adapt has 30 texts of 906 characters in all, read 2 times; the least with which Gururangan"
    assert told in said
    assert [path.name for path in tuned.directory.parent.iterdir()] == ["run"]
    about = json.loads((tuned.directory / "metrics.json").read_text())
    assert about == json.loads(json.dumps(tuned.metrics)) and about["settings"]["checkpoint"] == str(shallow)
    assert about["adapted"]["rows"] == {"train": 27, "validation": 3} and about["adapted"]["epochs"] == 2
    assert about["adapted"]["validation"]["perplexity"] > 1
    options = {**OPTIONS, "directory": tmp_path / "masked", "epochs": 2, "learning_rate": adaptation.RATE}
    tfbert.fine_tune(tasks.MaskedLM(max_length=24), shallow, TEXTS, **options)
    by_hand = tfbert.fine_tune(
        TASK, tmp_path / "masked" / "checkpoint", rows(40), directory=tmp_path / "hand", **OPTIONS
    )
    for one, other in zip(by_hand.model.get_weights(), tuned.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    plain = tfbert.fine_tune(TASK, shallow, rows(40), directory=tmp_path / "plain", **OPTIONS)
    assert plain.metrics["validation"]["log_loss"] != tuned.metrics["validation"]["log_loss"]


class Stop(Exception):
    """Ends a run like a crash: what is on the disk stays."""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["while it adapts", "while it is fine-tuned"])
def test_an_interrupted_run_goes_on_and_other_text_is_refused(adapted, shallow, tmp_path, monkeypatch, when):
    def run(directory, adapt=TEXTS, **more):
        return tfbert.fine_tune(TASK, shallow, rows(40), adapt=adapt, directory=directory, **{**OPTIONS, **more})

    reached = checkpoints.SaveState._reached

    def then(self, epoch, batch):
        reached(self, epoch, batch)
        if (epoch, batch) == (0, 2) and ("adapted" in str(self.states.directory)) == (when == "while it adapts"):
            self._writer.join()
            raise Stop

    monkeypatch.setattr(checkpoints.SaveState, "_reached", then)
    with pytest.raises(Stop):
        run(tmp_path / "run", save_every=0)
    monkeypatch.undo()
    assert (tmp_path / ".run.adapted").is_dir()
    with pytest.raises(InputError, match=r"pass resume \(--resume\) to go on"):
        run(tmp_path / "run")
    with pytest.raises(InputError, match=r"begun otherwise: adapt: \w{12} -> \w{12}"):
        run(tmp_path / "run", TEXTS[1:], save_every=0, resume=True)
    with pytest.raises(InputError, match="begun otherwise: adapt_epochs: 2 -> 3"):
        run(tmp_path / "run", save_every=0, resume=True, adapt_epochs=3)
    with pytest.raises(InputError, match="begun otherwise: weight_decay: 0.01 -> 0.1"):
        run(tmp_path / "run", save_every=0, resume=True, weight_decay=0.1)
    tuned = run(tmp_path / "run", save_every=0, resume=True)
    for one, other in zip(adapted[0].model.get_weights(), tuned.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
def test_several_seeds_share_one_adaptation(tiny, tmp_path, monkeypatch):
    ran = []
    calls = training.fine_tune

    def counted(*arguments, **named):
        ran.append(named["task"].name if "task" in named else arguments[0].name)
        return calls(*arguments, **named)

    monkeypatch.setattr(training, "fine_tune", counted)
    tuned = calls(TASK, tiny, rows(40), adapt="train", seeds=2, directory=tmp_path / "run", **OPTIONS)
    assert ran == ["masked-lm", *["sequence-classification"] * 3]  # one call that tries two seeds
    assert len(tuned.metrics["seeds"]["scores"]["accuracy"]["by_seed"]) == 2 and tuned.metrics["adapted"]["epochs"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_texts_of_every_task_are_taken_each_once():
    def texts(task, *examples):
        return [row["text"] for row in adaptation.text("train", task, sources.from_iterable(list(examples)))]

    pair = {"text": "a", "text_pair": "b", "label": "x"}
    assert texts(tasks.SequenceClassification(pair=True), pair, {**pair, "text": "c"}, {**pair, "text": " "}) == [
        "a",
        "b",
        "c",
    ]
    assert texts(tasks.TokenClassification(), {"words": ["Ada", "Lovelace"], "tags": ["O", "O"]}) == ["Ada Lovelace"]
    asked = {"question": "who", "context": "Ada", "answers": []}
    assert texts(tasks.QuestionAnswering(), asked, {**asked, "question": "what"}) == ["who", "Ada", "what"]
    assert texts(tasks.MultipleChoice(choices=2), {"text": "a", "choices": ["b", "c"], "label": 0}) == ["a", "b", "c"]


def test_much_text_is_not_warned_of(capsys):
    adaptation.warn_if_small(sources.from_iterable([{"text": "good"}] * 500), 1)
    adaptation.warn_if_small(sources.from_iterable([{"text": "good " * 100_000}]), 1)
    assert capsys.readouterr().err == ""
    adaptation.warn_if_small(sources.from_iterable([{"text": "good"}] * 499), 1)
    assert "adapt has 499 texts of 1,996 characters" in capsys.readouterr().err


def test_what_cannot_be_adapted_to_is_told_before_the_work(tiny, tmp_path):
    def refused(told: str, **changes):
        options = {**OPTIONS, "adapt": TEXTS, "directory": tmp_path / "out", **changes}
        with pytest.raises(InputError, match=told):
            tfbert.fine_tune(TASK, tiny, options.pop("train", rows(40)), **options)
        assert not list(tmp_path.iterdir())

    refused("adapt is 'texts.txt'; give 'train' .* or examples: tfbert.read_documents", adapt="texts.txt")
    refused("adapt_epochs is 0; it must be at least 1", adapt_epochs=0)
    refused("row 2 of adapt: no field 'text'", adapt=[TEXTS[0], {"body": "a"}])
    refused("adapt: there is no text in adapt", adapt=[{"text": " "}])
    refused("adapt: 2 rows are too few to hold out 0.1 of them", adapt=TEXTS[:2])
    refused("row 3 of train: no field 'label'", train=[*rows(2), {"text": "a"}, *rows(40)], validation=rows(10))


@pytest.mark.slow
def test_on_the_command_line_a_file_of_text_or_the_training_texts(tiny, tmp_path, capsys):
    (tmp_path / "train.csv").write_text(
        "review,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows(40))
    )
    (tmp_path / "more.txt").write_text("\n\n".join(row["text"] for row in TEXTS))
    for adapt, count in (("more.txt", 30), ("train", 36)):
        folder = tmp_path / adapt.replace(".", "-")
        argv = ["fine-tune", "sequence-classification", "--train", tmp_path / "train.csv", "--text", "review"]
        argv += ["--adapt", tmp_path / adapt if "." in adapt else adapt, "--adapt-epochs", "1", "--epochs", "1"]
        argv += ["--output", folder, "--checkpoint", tiny, "--max-length", "24", "--no-export", "--no-report"]
        assert main(list(map(str, argv))) == 0
        result = json.loads(capsys.readouterr().out)
        found = len({row["text"] for row in rows(40)}) if adapt == "train" else count
        assert found - 5 <= sum(result["adapted"]["rows"].values()) <= count
