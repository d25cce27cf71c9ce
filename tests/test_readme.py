"""Every command and snippet of the README runs, in its order, in one folder, with a tiny checkpoint in place of the packaged one."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

import tfbert
from tfbert.__main__ import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(*languages: str) -> list[tuple[str, str]]:
    return [found for found in re.findall(r"^```(\w+)\n(.*?)^```$", README, re.M | re.S) if found[0] in languages]


def shortened(text: str, checkpoints: dict[str, Path]) -> str:
    """One epoch, a vocabulary for fewer texts, and tiny checkpoints."""
    for name, folder in checkpoints.items():
        text = text.replace(name, str(folder))
    return re.sub(r"(--epochs |epochs=)5", r"\g<1>1", text).replace("vocab_size=1500", "vocab_size=500")


@pytest.fixture(scope="module")
def played(tiny, shallow, tiny_gpt2, tiny_t5, fewer, tmp_path_factory) -> dict[str, list]:
    """Runs the README from top to bottom; what each command printed, by its first words."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "examples").symlink_to(fewer)
    pairs = [
        {"text": f"it was {i}", "text_pair": "it is", "label": label}
        for i in range(10)
        for label in ("entailment", "neutral", "contradiction")
    ]
    tfbert.fine_tune(
        tfbert.SequenceClassification(max_length=32),
        shallow,
        pairs,
        epochs=1,
        directory=folder / "saved_models" / "nli",
        export=False,
        report=False,
    )
    # The first model is the teacher of one with half of its layers.
    checkpoints = {"all-MiniLM-L6-v2": shallow, "bert-base-uncased": shallow}
    checkpoints |= {"openai-community/gpt2": tiny_gpt2, "google-t5/t5-small": tiny_t5}
    return {
        "folder": folder,
        "checkpoints": checkpoints,
        "first": checkpoints | {"all-MiniLM-L6-v2": tiny},
        "printed": [],
    }


@pytest.mark.slow
def test_commands_and_snippets_run_in_their_order(played, monkeypatch, capsys):
    monkeypatch.chdir(played["folder"])
    for number, (language, text) in enumerate(blocks("bash", "python")):
        text = shortened(text, played["checkpoints" if number else "first"])
        if number:
            monkeypatch.setattr("tfbert.plots.available", lambda: False)  # one report, that of the first run
        if language == "python":
            exec(compile(text, "README.md", "exec"), {"__name__": "readme"})
            assert capsys.readouterr().out.strip()
            continue
        for line in text.replace("\\\n", " ").strip().split("\n"):
            program, *arguments = shlex.split(line)
            assert program == "tfbert"
            assert main(arguments) in (0, None), line
            printed = [json.loads(row) for row in capsys.readouterr().out.strip().split("\n")]
            played["printed"].append((arguments[0], printed))
    names = [name for name, _ in played["printed"]]
    assert names == ["fine-tune", "predict", "evaluate", "predict", "export", "export", "inspect", "doctor"]
    texts = played["printed"].pop(1)[1]
    found = dict(played["printed"])
    exports = [printed[0] for name, printed in played["printed"] if name == "export"]
    assert found["fine-tune"][0]["export"] == "saved_models/delivery/1"
    assert [made["export"] for made in exports] == ["saved_models/delivery/2", "saved_models/delivery/3"]
    assert exports[1]["scores"]["model"] == pytest.approx(found["fine-tune"][0]["metrics"], abs=1e-6)
    assert len(texts) == 2
    assert len(found["predict"]) == len(tfbert.read("examples/data/delivery_test.csv"))
    assert found["evaluate"][0]["metrics"] == pytest.approx(found["fine-tune"][0]["metrics"], abs=1e-6)


@pytest.mark.slow
def test_the_reply_shown_has_the_signature_of_the_export(played):
    reply = next(json.loads(text) for language, text in blocks("json") if "predictions" in text)
    answer = tfbert.Predictor(played["folder"] / "saved_models" / "delivery")(["Where is my parcel?"])[0]
    shown = reply["predictions"][0]
    assert shown.keys() == answer.keys()
    assert set(shown["labels"]) <= set(answer["labels"]) and shown["label"] in answer["labels"]
    for name, value in shown.items():
        assert isinstance(value, type(answer[name])), name


def test_files_and_modules_named_in_the_readme_are_there():
    for link in re.findall(r"\]\(([\w./]+)\)", README):
        assert (ROOT / link).exists(), link
    for name in re.findall(r"`tfbert\.(\w+)`", README):
        there = (ROOT / "tfbert" / name).exists() or (ROOT / "tfbert" / f"{name}.py").exists()
        assert there or name in tfbert.__all__, name
    (table,) = re.findall(r"(?<=\n)\| `tfbert\.sources`.*?(?=\n\n)", README, re.DOTALL)
    named = set(re.findall(r"`(?:tfbert)?\.(\w+)`", table))
    modules = {
        path.stem for path in (ROOT / "tfbert").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert {name for name in modules if not name.startswith("_")} <= named


ANSWERING = {
    "token-classification": tfbert.TokenClassification(labels=("O", "B-PER", "I-PER", "B-LOC", "I-LOC"), max_length=32),
    "question-answering": tfbert.QuestionAnswering(no_answer=False, max_length=64),
    "multiple-choice": tfbert.MultipleChoice(choices=2, max_length=32),
    "sentence-embedding": tfbert.SentenceEmbedding(max_length=32),
    "masked-lm": tfbert.MaskedLM(top_k=2, max_length=32),
    "causal-lm": tfbert.CausalLM(max_length=32, max_new_tokens=2),
    "seq2seq": tfbert.Seq2Seq(max_length=32, max_new_tokens=2),
    "span-corruption": tfbert.SpanCorruption(max_length=32, max_new_tokens=2),
    "bert-pretraining": tfbert.BertPretraining(max_length=32),
    "replaced-token-detection": tfbert.ReplacedTokenDetection(max_length=32),
}


def kinds(answer: dict) -> dict:
    return {name: type((value or [None])[0] if isinstance(value, list) else value) for name, value in answer.items()}


def test_the_instances_and_predictions_of_the_other_tasks_have_the_form_of_theirs(
    tiny, tiny_gpt2, tiny_t5, tiny_electra
):
    text = (ROOT / "saved_models" / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| ([\w-]+) \| `(.+?)` \| `(.+?)` \|$", text, re.M)
    assert [name for name, _, _ in rows] == list(ANSWERING)
    for name, instance, prediction in rows:
        task, instance, shown = ANSWERING[name], json.loads(instance), json.loads(prediction)
        assert task.name == name
        written = {"causal-lm": tiny_gpt2, "seq2seq": tiny_t5, "replaced-token-detection": tiny_electra}
        written["span-corruption"] = tiny_t5
        checkpoint = written.get(name, tiny)
        tokenizer = tfbert.load_tokenizer(checkpoint)
        (answer,) = tfbert.predict(task, task.build(checkpoint), tokenizer, [instance])
        assert answer.keys() == shown.keys()
        assert kinds({key: value for key, value in answer.items() if value != []}).items() <= kinds(shown).items()
        if "context" in instance:
            assert instance["context"][shown["start"] : shown["end"]] == shown["answer"]
        if "entity" in shown:
            places = zip(shown["start"], shown["end"], strict=True)
            assert [instance[start:end] for start, end in places] == shown["entity"] and shown["count"] == 2
