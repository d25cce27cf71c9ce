"""The benchmarks of sentence vectors, input pipelines, starts and training steps: their arithmetic, and that tfbert's sides work."""

from __future__ import annotations

import functools
import importlib
import json
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from safetensors.numpy import load_file

from tfbert import load_tokenizer, models
from tfbert._compat import keras, tf, transformers

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
MACHINE = {"processor": "P", "cores": 2, "flags": ["avx2"], "load_average": [0.1, 1.0]}


@pytest.fixture(scope="module")
def scripts():
    """The scripts as modules, by the short names by which they import each other."""
    names = (
        "training",
        "serving",
        "compare",
        "report",
        "peers_serving",
        "features",
        "features_sides",
        "input_pipeline",
        "shapes",
        "shapes_sides",
    )
    names += ("start", "training_step", "profile_serving", "profile_training", "bert_base")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield type("Scripts", (), {name: importlib.import_module(name) for name in names})
    for name in names:
        del sys.modules[name]


def reported(scripts, folder: Path, result: dict) -> str:
    """What report.py writes of a result, after compare.py has found its ratios no worse than themselves."""
    new, stored, shown = folder / "new.json", folder / "results.json", folder / "RESULTS.md"
    new.write_text(json.dumps(result))
    scripts.report.main([str(new)], stored, shown)
    assert scripts.compare.read_results(stored) == [result]
    assert scripts.compare.main([str(new), "--stored", str(stored)]) == 0
    return shown.read_text("utf-8")


# A side that gives every text the vector (VALUE, 1), in as many seconds as it is told.
SIDE = """
import json, sys
import numpy as np
def say():
    print(json.dumps({"seconds": SECONDS, "cpu_seconds": 2 * SECONDS, "peak_memory_bytes": 2**20 * SECONDS,
                      "about": {"versions": {"side": "SECONDS"}}}), flush=True)
say()
for line in sys.stdin:
    batch, answers, path = line.rstrip().split(" ", 2)
    if answers == "1":
        np.save(path + ".NAME.npy", np.array([[VALUE, 1.0]] * len(open(path).read().split()), np.float32))
    say()
"""


def test_sentence_vectors_are_timed_in_turn_compared_and_told(scripts, tmp_path, monkeypatch, capsys):
    features = scripts.features
    given = {"predict": (4, 0.5), "export": (2, 0.5), "sentence-transformers": (6, 0.50001), "pipeline": (8, 0.5)}
    given["pipeline-batches"] = (12, 0.75)
    sides = {}
    for name, (seconds, value) in given.items():
        code = SIDE.replace("SECONDS", str(seconds)).replace("NAME", name).replace("VALUE", str(value))
        sides[name] = ([sys.executable, "-c", code], {}, tmp_path / f"{name}.log")
    monkeypatch.setattr(features, "WORK", tmp_path)
    monkeypatch.setattr(scripts.serving, "PAUSE", 0)
    monkeypatch.setattr(features, "commands", lambda options: sides)
    options = ["--rows", "12", "--rounds", "2", "--starts", "1", "--peer-python", sys.executable]
    assert features.main(options) == 1  # a side's vectors are 0.25 apart
    out, err = capsys.readouterr()
    result = json.loads(out) | {"machine": MACHINE}
    assert result["sides"]["export"]["measures"]["texts_per_second"] == {"median": 6, "min": 6, "max": 6}
    assert result["sides"]["predict"]["measures"]["cpu_ms_a_text"]["median"] == pytest.approx(8000 / 12, abs=1e-3)
    found = result["ratios"]["export to pipeline"]
    assert (found["texts_per_second"]["median"], found["peak_memory_mib"]["median"]) == (4, 4)
    assert result["ratios"]["predict to sentence-transformers"]["cpu_ms_a_text"]["median"] == 1.5
    apart = result["largest_difference"]
    assert apart == pytest.approx(
        {"predict": 1e-5, "export": 1e-5, "pipeline": 1e-5, "pipeline-batches": 0.25}, rel=0.1
    )
    assert "export to sentence-transformers: 3.00 times the texts a second" in err
    shown = reported(scripts, tmp_path, result)
    assert "| export to pipeline-batches | 6.00 | 6.00 |" in shown and "side 4 and 2 and 6 and 8 and 12." in shown


def test_tfberts_sides_give_the_mean_of_transformers_last_layer(scripts, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(tf.config.threading, "set_intra_op_parallelism_threads", lambda count: None)  # it runs already
    texts = ["A good film.", "bad", "the plot of the boring film is not very bright"]
    job = {"checkpoint": str(tiny), "export": str(tmp_path / "export"), "max_length": 12, "threads": 1}
    scripts.features_sides.prepare(job)
    model = models.load(tiny, None, encoder="transformers")
    tokens = load_tokenizer(tiny)(texts, padding=True, truncation=True, max_length=12, return_tensors="np")
    hidden = model({name: tf.constant(of) for name, of in tokens.items()}).last_hidden_state.numpy()
    mask = tokens["attention_mask"][:, :, np.newaxis]
    means = (hidden * mask).sum(1) / mask.sum(1)
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    for name in ("predict", "export"):
        measured, vectors = scripts.features_sides.measure(scripts.features_sides.SIDES[name](job), texts, 2)
        np.testing.assert_allclose(vectors, expected, atol=1e-6, err_msg=name)
        assert measured["seconds"] > 0 and measured["peak_memory_bytes"] > 2**20


# A side whose epochs take SECONDS.
WORKER = """
import json, sys
job = json.load(open(sys.argv[1]))
assert job["only_input"] and len(job["texts"]) == len(job["labels"]) == 700
for n in range(job["epochs"]):
    print(json.dumps(dict(seconds=SECONDS, cpu_seconds=SECONDS * 3, tokens=60, padding_share=0.25, peak_memory_bytes=1,
                          precision="float32", versions={"python": "3"})), flush=True)
    sys.stdin.readline()
"""


# Three sides whose calls take as long as they are told, one of which does not train.
CALLS = """
import json, sys
works = ["batch", "sentence"] + ["training"] * TRAINS
print(json.dumps({"about": {"versions": {"side": "S"}}, "works": works, "logits": [[LOGIT, 1.0]]}), flush=True)
for line in sys.stdin:
    work, times = line.split()
    seconds = {"training": 8, "batch": 4, "sentence": 0.5}[work] * FACTOR
    print(json.dumps({"seconds": [seconds, seconds, 99.0][: int(times)]}), flush=True)
"""


def test_fixed_shapes_are_timed_in_turn_and_told(scripts, tmp_path, monkeypatch, capsys):
    shapes, sides = scripts.shapes, {}
    for name, factor, logit, trains in (("tfbert", 1, 0.5, 1), ("torch", 2, 0.50001, 1), ("onnx-int8", 0.25, 0.75, 0)):
        code = CALLS.replace("FACTOR", str(factor)).replace("LOGIT", str(logit)).replace("TRAINS", str(trains))
        sides[name] = ([sys.executable, "-c", code], {}, tmp_path / f"{name}.log")
    monkeypatch.setattr(shapes, "PAUSE", 0)
    monkeypatch.setattr(shapes, "TIMES", dict.fromkeys(shapes.SHAPES, 3))
    monkeypatch.setattr(shapes, "commands", lambda options, flags: sides)
    options = ["--rounds", "2", "--precision", "float32", "--peer-python", sys.executable]
    assert shapes.main(options) == 0  # what computes in int8 may differ
    out, err = capsys.readouterr()
    result = json.loads(out) | {"machine": MACHINE}
    ours = result["sides"]["tfbert"]["measures"]
    assert (ours["training_tokens_per_second"]["median"], ours["sentence_ms"]["max"]) == (32 * 128 / 8, 500)
    assert {name: of["median"] for name, of in result["ratios"]["torch"].items()} == dict.fromkeys(ours, 2)
    assert {name: of["min"] for name, of in result["ratios"]["onnx-int8"].items()} == {
        "batch_tokens_per_second": 0.25,
        "sentence_ms": 0.25,
    }
    assert result["largest_difference"] == {"torch": 1e-5, "onnx-int8": 0.25} and "512.00" in err
    shown = reported(scripts, tmp_path, result)
    assert "| tfbert | 512 | 1,024 | 500.00 |  |" in shown and "| onnx-int8 |  | 4,096 | 125.00 | 0.25 |" in shown
    assert "| onnx-int8 |  | 0.25 | 0.25 |" in shown and "steps of 32 x 128 tokens" in shown
    sides["torch"] = ([*sides["torch"][0][:2], sides["torch"][0][2].replace("0.50001", "0.6")], *sides["torch"][1:])
    assert shapes.main(options) == 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_tfberts_sides_of_fixed_shapes_compute_and_learn_the_same(scripts, tiny, tmp_path, precision):
    job = {"from": str(tiny), "original": str(tmp_path / "classifier"), "precision": precision, "threads": 2}
    job["shapes"] = {"training": (4, 9)}
    made = scripts.shapes_sides
    given = {name: values % 30 for name, values in made.inputs(4, 9).items()}
    with mock.patch.object(
        made, "inputs", lambda rows, length: {name: values[:rows, :length] for name, values in given.items()}
    ):
        made.prepare(job)
        with mock.patch.object(tf.config.threading, "set_intra_op_parallelism_threads"):
            try:
                sides = [kind(job) for kind in (made.TFBert, made.TransformersTF)]
                logits = [side.logits(side.feed(given)) for side in sides]
                learnt = [[side.train(side.feed(given)) for _ in range(3)] for side in sides]
            finally:
                keras.mixed_precision.set_global_policy("float32")
    within = {"float32": 1e-5, "bfloat16": 0.05}[precision]
    assert logits[0].shape == (4, made.LABELS) and np.ptp(logits[0]) > 0.1
    np.testing.assert_allclose(logits[0], logits[1], atol=within)
    assert all(np.isfinite(learnt).ravel()) and abs(learnt[0][0] - np.log(made.LABELS)) < 1


def test_input_pipelines_are_compared_by_rows_a_second(scripts, tmp_path, minilm, monkeypatch, capsys):
    (tmp_path / "tfbert_training.py").write_text(WORKER.replace("SECONDS", "2.0"))
    (tmp_path / "peers_training.py").write_text(WORKER.replace("SECONDS", "7.0"))
    monkeypatch.setattr(scripts.training, "HERE", tmp_path)
    data = BENCHMARKS.parent / "examples" / "data" / "delivery_train.csv"  # has fewer rows
    options = ["--data", str(data), "--rows", "700", "--rounds", "2", "--peer-python", sys.executable]
    assert scripts.input_pipeline.main(options) == 0
    out, err = capsys.readouterr()
    result = json.loads(out) | {"machine": MACHINE}
    assert (
        result["tfbert"]["rows_per_second"]["median"] == 350 and result["trainer"]["rows_per_second"]["median"] == 100
    )
    assert result["ratios"]["trainer"]["cpu_us_a_row"]["median"] == 3.5
    assert "tfbert / trainer: 3.50 times the rows a second" in err
    assert "| ratio | 3.50 | 3.50 |" in reported(scripts, tmp_path, result)


def test_tfberts_input_alone_has_every_token_of_the_training(tiny, tmp_path):
    texts = ["a good film", "bad", "the plot is very very dull", "fine"] * 5
    job = {"checkpoint": str(tiny), "precision": "float32", "threads": 1, "batch_size": 8, "max_length": 6, "epochs": 3}
    job |= {"learning_rate": 1e-4, "warmup_fraction": 0.1, "weight_decay": 0.01, "clip_norm": 1.0, "seed": 0}
    job |= {"names": ["x", "y"], "texts": texts, "labels": [0, 1] * 10}
    tokens = sum(map(len, load_tokenizer(tiny)(texts, truncation=True, max_length=6)["input_ids"]))
    path, script = tmp_path / "job.json", str(BENCHMARKS / "tfbert_training.py")
    path.write_text(json.dumps({**job, "only_input": True}))
    done = subprocess.run(
        [sys.executable, script, str(path)], input="\n" * 3, capture_output=True, text=True, check=True
    )
    epochs = [json.loads(line) for line in done.stdout.splitlines()]
    assert [epoch["tokens"] for epoch in epochs] == [tokens] * 3 and "loss" not in epochs[0]
    assert 0 < epochs[0]["padding_share"] < 0.5


def test_starts_are_held_to_their_limits(scripts, tmp_path, monkeypatch, capsys):
    start = scripts.start
    seconds = iter(np.arange(1, 15) / 10)
    monkeypatch.setattr(start, "run", lambda command: {"seconds": float(next(seconds)), "cpu_seconds": 0.05})
    assert start.main(["--rounds", "1", "--peer-python", sys.executable]) == 1
    out, err = capsys.readouterr()
    result = json.loads(out) | {"machine": MACHINE}
    # The second seven are counted: 0.8 for python, 0.9 for import tfbert, 1.0 for --help, 1.1 for import transformers.
    assert result["limits"] == {
        "import tfbert": {"seconds": 1.0, "kept": True},
        "tfbert --help": {"seconds": 0.5, "kept": False},
    }
    assert result["ratios"]["import transformers"]["import"]["median"] == pytest.approx(1.1 / 0.9, abs=1e-4)
    assert "| tfbert --help | 1.00 | 0.05 | 0.5, not kept |  |" in reported(scripts, tmp_path, result)


def test_a_process_costs_processor_seconds(scripts):
    found = scripts.start.run([sys.executable, "-c", "sum(range(3_000_000))"])
    assert 0 < found["cpu_seconds"] < 60 and found["seconds"] > 0
    with pytest.raises(subprocess.CalledProcessError):
        scripts.start.run([sys.executable, "-c", "raise SystemExit(1)"])


def test_a_step_is_told_by_forward_backward_and_update(scripts):
    names = ("gradient_tape/m/MatMul", "AdamW/Mul", "m/MatMul", "loss/Mean")
    found = scripts.profile_training.parts([{"name": name} for name in names])
    assert {part: [node["name"] for node in of] for part, of in found.items()} == {
        "forward": ["m/MatMul", "loss/Mean"],
        "backward": ["gradient_tape/m/MatMul"],
        "update": ["AdamW/Mul"],
    }


def test_a_trace_has_the_operations_that_ran(scripts):
    values = tf.constant(np.random.default_rng(0).random((64, 64)), tf.float32)
    run = tf.function(lambda: tf.linalg.matmul(values, tf.sort(values), name="product"), autograph=False)
    run()
    found = scripts.profile_training.trace(run)
    (product,) = [row for row in found if row[0] == "product"]
    assert "MatMul" in product[1] and product[3] > 0
    assert not [kind for name, kind, _, _ in found if "Executor" in name]


def test_a_profile_of_a_step_has_its_parts(scripts, monkeypatch):
    features = {"input_ids": tf.constant(np.random.default_rng(0).random((6, 5)), tf.float32)}
    run = tf.function(
        lambda given: tf.linalg.matmul(given["input_ids"], given["input_ids"], transpose_b=True, name="p")
    )
    made = mock.create_autospec(
        scripts.training_step.step, return_value=run
    )  # takes the arguments that the real one takes
    monkeypatch.setattr(scripts.training_step, "step", made)
    result = scripts.profile_training.profile("lean", features, None, traces=2, top=3)
    assert made.call_args.kwargs["in_use"] and (result["rows"], result["length"]) == (6, 5)
    assert result["parts"]["forward"]["nodes"] >= 1 and result["parts"]["backward"]["nodes"] == 0
    assert any("MatMul" in op for op, _, _ in result["parts"]["forward"]["by_operation"])
    assert "  forward: " in scripts.profile_training.table(result)


def test_bert_base_is_seeded_and_has_pytorchs_names(scripts, tmp_path, minilm, monkeypatch):
    small = functools.partial(
        transformers.BertConfig, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48
    )
    monkeypatch.setattr(transformers, "BertConfig", small)
    for name in ("one", "two"):
        scripts.bert_base.main(str(tmp_path / name))
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert one["encoder.layer.0.intermediate.dense.weight"].shape == (48, 32)
    assert one["embeddings.word_embeddings.weight"].shape == (30522, 32)
    assert one["embeddings.word_embeddings.weight"].std() == pytest.approx(0.02, rel=0.15)
    for name, values in one.items():
        np.testing.assert_array_equal(values, two[name])
