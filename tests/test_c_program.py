"""A C program that knows TensorFlow and tensorflow-text, and neither Python nor tfbert, answers as the Predictor and the Keras model do.

For each task: 500 real texts (more where the development data are), every line of the naughty strings, and the hard texts.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import tfbert
from tfbert import models, tasks, tokenization
from tfbert._compat import tf, tf_text
from tfbert.serving import Predictor, export, wire
from tfbert.serving.hard_texts import HARD_TEXTS
from tfbert.serving.inputs import feeds, spread
from tfbert.serving.rows import rows

SOURCE = Path(__file__).with_name("serve.c")
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
TASKS = {
    "single": tasks.SequenceClassification(labels=("no", "perhaps", "café"), pair=False, max_length=32),
    "windows": tasks.SequenceClassification(labels=("no", "yes"), pair=False, max_length=16, long_text="windows"),
    "multi": tasks.SequenceClassification(labels=("no", "yes"), kind="multi", pair=True, max_length=32),
    "regression": tasks.SequenceClassification(kind="regression", pair=True, symmetric=True, max_length=32),
    "tokens": tasks.TokenClassification(labels=TAGS, max_length=32, stride=8),
    "questions": tasks.QuestionAnswering(no_answer=True, max_length=48, stride=8, max_question_length=16),
    "choices": tasks.MultipleChoice(choices=3, max_length=32),
    "embedding": tasks.SentenceEmbedding(label_range=(0, 1), max_length=32),
    "masked": tasks.MaskedLM(max_length=32),
}


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not on this machine")
    library, include = Path(tf.sysconfig.get_lib()), Path(tf.sysconfig.get_include())
    names = ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2")
    if not all((library / name).exists() for name in names):
        pytest.skip("this TensorFlow wheel does not ship libtensorflow_cc.so.2")
    made = tmp_path_factory.mktemp("program") / "serve"
    options = [f"-I{include}", f"-L{library}", *(f"-l:{name}" for name in names), f"-Wl,-rpath,{library}"]
    subprocess.run([compiler, "-Wall", "-Wextra", "-Werror", str(SOURCE), "-o", str(made), *options], check=True)
    return made


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Real messages, the hard texts and, where the development data are, every line of the naughty strings."""
    examples = Path(__file__).resolve().parents[1] / "examples" / "data"
    found = [row["text"] for row in tfbert.read(examples / "delivery_train.csv")][:500]
    found += HARD_TEXTS
    naughty = Path(os.environ.get("TFBERT_DATA", examples.parents[2] / "shared" / "data")) / "unicode" / "blns.json"
    if naughty.is_file():
        found += json.loads(naughty.read_text("utf-8"))
    return found


def tensor_names(place: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The inputs and the outputs of serving_default, as the SignatureDef in saved_model.pb names them."""
    content = (place / "saved_model.pb").read_bytes()
    (meta,) = (value for number, value in wire.fields(content) if number == 2)
    signature = tf.compat.v1.MetaGraphDef.FromString(meta).signature_def["serving_default"]
    return tuple({name: info.name for name, info in side.items()} for side in (signature.inputs, signature.outputs))


def run(program: Path, predictor: Predictor, shapes, columns: dict[str, np.ndarray]) -> list[dict]:
    """The program's answers, in the form of the Predictor's."""
    place = predictor.directory
    inputs, outputs = tensor_names(place)
    named = ",".join(inputs[name] + (f"*{shape[1]}" if len(shape) > 1 else "") for name, shape in shapes.items())
    count = len(next(iter(columns.values())))
    libraries = sorted(map(str, Path(tf_text.__file__).parent.rglob("_*.so")))
    done = subprocess.run(
        [program, str(place), str(count), named, ",".join(outputs.values()), *libraries],
        input="".join(text.hex() + "\n" for name in shapes for text in columns[name].ravel()).encode(),
        capture_output=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    lines = iter(done.stdout.decode().splitlines())
    read = {"S": bytes.fromhex, "f": float, "i": int, "b": lambda text: bool(int(text))}
    kinds = {name: spec.as_numpy_dtype for name, spec in predictor._function.output_dtypes.items()}
    tensors = {}
    for name in outputs:
        shape = [int(size) for size in next(lines).removeprefix("shape").split()]
        kind = "S" if kinds[name] is object else np.dtype(kinds[name]).kind
        values = np.empty(int(np.prod(shape)), object if kind == "S" else kinds[name])
        for i in range(len(values)):
            values[i] = read[kind](next(lines))
        tensors[name] = values.reshape(shape)
    assert next(lines, None) is None
    return rows({name: tensors[name] for name in predictor.outputs})


def same(one: list[dict], other: list[dict], given: list) -> int:
    """Compares answers, numbers to 1e-5, all else exactly; returns how many values were compared."""
    count = 0
    for left, right, row in zip(one, other, given, strict=True):
        assert left.keys() == right.keys()
        for name, value in left.items():
            floats = isinstance(value, float) or (isinstance(value, list) and value and isinstance(value[0], float))
            if floats:
                np.testing.assert_allclose(value, right[name], rtol=1e-5, atol=1e-5)
            else:
                assert value == right[name], (name, row)
            count += len(value) if isinstance(value, list) else 1
    return count


@pytest.mark.slow
@pytest.mark.parametrize("case", TASKS)
def test_c_export_and_model_give_the_same_answers(case, program, tiny, texts, tmp_path):
    task = TASKS[case]
    model, tokenizer = task.build(tiny, seed=4), tokenization.load_tokenizer(tiny)
    rng = np.random.default_rng(8)
    for variable in models.transformer_of(model).layers[-1].trainable_weights[-2:]:  # large enough that answers differ
        variable.assign(rng.normal(size=variable.shape).astype(np.float32))
    place = export(task, model, tokenizer, tmp_path)
    given = spread([f"{text} [MASK]" for text in texts] if case == "masked" else texts, task.input_shapes)
    assert len(given) > 500
    ours = tfbert.predict(task, model, tokenizer, given)
    predictor = Predictor(place)
    compared = same(ours, predictor(given), given)
    assert compared == same(ours, _in_batches(program, predictor, task, given), given) >= len(given)
    assert len({json.dumps(answer) for answer in ours}) > len(given) / 4


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_c_lower_precisions_answer_as_in_python(precision, program, tiny, texts, tmp_path):
    task, tokenizer = TASKS["single"], tokenization.load_tokenizer(tiny)
    model, given = task.build(tiny, seed=4), spread(texts[:40], task.input_shapes)
    labelled = [{"text": text, "label": task.labels[i % 3]} for i, text in enumerate(texts[:9])]
    predictor = Predictor(export(task, model, tokenizer, tmp_path, precision=precision, data=labelled, max_drop=1.0))
    assert same(predictor(given), _in_batches(program, predictor, task, given), given) >= len(given)


def _in_batches(program, predictor, task, given: list[dict]) -> list[dict]:
    """By length, as padding to the longest of all texts would take long."""
    order = sorted(range(len(given)), key=lambda i: len(str(given[i])))
    answers: list[dict] = [{}] * len(given)
    for chosen in np.array_split(order, 3):
        columns = {name: x.numpy() for name, x in feeds([given[i] for i in chosen], task.input_shapes).items()}
        for i, answer in zip(chosen, run(program, predictor, task.input_shapes, columns), strict=True):
            answers[i] = answer
    return answers
