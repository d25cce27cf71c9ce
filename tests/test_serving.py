"""Serving: what is exported answers as the model does, in another process, through every signature, and nothing half-made is seen."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, unknown_fields

from tfbert import evaluation, tokenization
from tfbert._compat import keras, tf
from tfbert.errors import InputError
from tfbert.serving import Predictor, check_operations, export, rows, warmup
from tfbert.serving import operations as operations_module
from tfbert.serving.hard_texts import HARD_TEXTS
from tfbert.serving.layout import INFORMATION, WARMUP
from tfbert.serving.self_test import tolerance
from tfbert.tasks import SequenceClassification

ROOT = Path(__file__).resolve().parents[1]
LABELS = ("bad", "fine", "good")
TEXTS = [
    "a good film",
    "the plot is very dull",
    "",
    "Boring, BORING scene!",
    "x" * 3000,
    "naïve café 中文 😀",
    "[SEP] [MASK]",
    "actor " * 90,
]


def exported_from(tiny: Path, folder: Path, **fields) -> SimpleNamespace:
    """An export of a model with random weights; the checkpoint it was made from is deleted."""
    shutil.copytree(tiny, folder / "source")
    task = SequenceClassification(max_length=24, **fields)
    model, tokenizer = task.build(folder / "source", seed=3), tokenization.load_tokenizer(folder / "source")
    rng = np.random.default_rng(5)
    for variable in model.trainable_weights[-2:]:  # the head: large enough that answers differ
        variable.assign(rng.normal(size=variable.shape).astype(np.float32))
    place = export(task, model, tokenizer, folder / "out", texts=[tuple(TEXTS[:1] * len(task.inputs))], target="2.19")
    shutil.rmtree(folder / "source")
    return SimpleNamespace(task=task, model=model, tokenizer=tokenizer, base=folder / "out", place=place)


@pytest.fixture(scope="module")
def single(tiny, tmp_path_factory):
    made = exported_from(tiny, tmp_path_factory.mktemp("single"), labels=LABELS, pair=False)
    made.predictor = Predictor(made.base, verify=True)
    made.signatures = made.predictor._loaded.signatures
    return made


@pytest.fixture(scope="module")
def regression(tiny, tmp_path_factory):
    made = exported_from(tiny, tmp_path_factory.mktemp("regression"), kind="regression", pair=True)
    made.predictor = Predictor(made.place, verify=True)
    made.signatures = made.predictor._loaded.signatures
    return made


def near(ours: list[dict], theirs: list[dict], limit: float) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs):
        assert one.keys() == other.keys()
        for name, value in one.items():
            if isinstance(value, str) or value and isinstance(value, list) and isinstance(value[0], str):
                assert value == other[name]
            else:
                np.testing.assert_allclose(value, other[name], rtol=0, atol=limit)


def serialized(**texts: str) -> bytes:
    feature = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()])) for name, text in texts.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


# parity


def test_a_fresh_process_answers_as_the_model_does(single, regression, tmp_path):
    texts = TEXTS + list(HARD_TEXTS)
    data = {"single": texts, "regression": list(zip(texts, texts[::-1]))}
    for name, made in (("single", single), ("regression", regression)):
        shutil.copytree(made.place, tmp_path / name / "7")
    program = (
        "import json, sys\n"
        "from tfbert.serving import Predictor\n"
        "data = json.load(sys.stdin)\n"
        "print(json.dumps({name: Predictor(name, verify=True)(texts) for name, texts in data.items()}))\n"
        "assert not {'transformers', 'tfbert.tasks', 'tfbert.models'} & set(sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(data),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    for name, made in (("single", single), ("regression", regression)):
        near(answers[name], evaluation.predict(made.task, made.model, made.tokenizer, data[name]), 1e-5)


def test_batch_mates_and_padding_change_nothing(single):
    texts = TEXTS + list(HARD_TEXTS[:40])
    together = single.predictor(texts, batch_size=len(texts))
    near(together, [single.predictor(text) for text in texts], 1e-6)
    near(together, single.predictor(texts, batch_size=3), 1e-6)
    assert len({answer["label"] for answer in together}) > 1


# signatures


def test_signatures_have_the_names_and_types_of_the_contract(single, regression):
    assert set(single.signatures) == {"serving_default", "tokens", "classify"}
    assert set(regression.signatures) == {"serving_default", "tokens", "regress"}
    inputs = regression.signatures["serving_default"].structured_input_signature[1]
    assert {name: (spec.dtype, spec.shape.as_list()) for name, spec in inputs.items()} == {
        "text": (tf.string, [None]),
        "text_pair": (tf.string, [None]),
    }
    outputs = single.signatures["serving_default"].structured_outputs
    assert {name: spec.dtype for name, spec in outputs.items()} == {
        "label": tf.string,
        "score": tf.float32,
        "labels": tf.string,
        "scores": tf.float32,
    }
    ids = single.signatures["tokens"].structured_input_signature[1]
    assert {name: (spec.dtype, spec.shape.as_list()) for name, spec in ids.items()} == {
        name: (tf.int32, [None, None]) for name in ("input_ids", "attention_mask", "token_type_ids")
    }


def test_tokens_gives_the_models_outputs(single):
    ids = np.array([[2, 60, 70, 3, 0], [2, 61, 3, 0, 0], [2, 62, 63, 64, 3]], np.int32)
    features = {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int32), "token_type_ids": np.zeros_like(ids)}
    got = single.signatures["tokens"](**{name: tf.constant(value) for name, value in features.items()})
    np.testing.assert_allclose(got["logits"], single.model(features, training=False)["logits"], rtol=0, atol=1e-5)


def test_classify_takes_examples(single):
    got = single.signatures["classify"](inputs=tf.constant([serialized(text=text) for text in TEXTS]))
    assert {name: tensor.shape.as_list() for name, tensor in got.items()} == {"classes": [8, 3], "scores": [8, 3]}
    for answer, classes, scores in zip(single.predictor(TEXTS), got["classes"].numpy(), got["scores"].numpy()):
        assert [name.decode() for name in classes] == list(LABELS) == answer["labels"]
        np.testing.assert_allclose(scores, answer["scores"], rtol=0, atol=1e-6)
    with pytest.raises(tf.errors.InvalidArgumentError, match="text"):
        single.signatures["classify"](inputs=tf.constant([serialized(txet="a misspelt field")]))
    with pytest.raises(tf.errors.InvalidArgumentError):
        single.signatures["classify"](inputs=tf.constant([b"not an example"]))


def test_regress_takes_examples(regression):
    pairs = list(zip(TEXTS, TEXTS[::-1]))
    got = regression.signatures["regress"](inputs=tf.constant([serialized(text=a, text_pair=b) for a, b in pairs]))
    expected = [answer["score"] for answer in regression.predictor(pairs)]
    np.testing.assert_allclose(got["outputs"].numpy(), expected, rtol=1e-6, atol=1e-6)
    assert np.std(expected) > 1e-3


def test_no_bytes_crash_the_graph(single):
    draw = random.Random(11)
    column = [draw.randbytes(draw.choice([0, 1, 2, 3, 10, 60, 300])) for _ in range(500)] + [
        b"\0",
        b"a" * 2**20,
        b"\xff" * 2**16,
    ]
    got = single.signatures["serving_default"](text=tf.constant(column))
    scores = got["scores"].numpy()
    assert scores.shape == (503, 3) and np.isfinite(scores).all()
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
    assert {name.decode() for name in got["label"].numpy()} <= set(LABELS)


def test_a_batch_without_rows_has_answers_without_rows(single, regression):
    empty = tf.zeros([0], tf.string)
    assert {len(tensor) for tensor in single.signatures["serving_default"](text=empty).values()} == {0}
    assert regression.signatures["serving_default"](text=empty, text_pair=empty)["score"].shape == [0]
    assert single.predictor([]) == []


def test_inputs_of_different_lengths_are_refused(regression):
    with pytest.raises(tf.errors.InvalidArgumentError, match="all inputs must have as many rows as the first one"):
        regression.signatures["serving_default"](text=tf.constant(["a", "b"]), text_pair=tf.constant(["a", "b", "c"]))


# files


def test_an_export_holds_what_a_server_needs_and_nothing_else(single):
    files = {str(file.relative_to(single.place)) for file in single.place.rglob("*") if file.is_file()}
    assert files == {
        "saved_model.pb",
        "fingerprint.pb",
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
        str(WARMUP),
        str(INFORMATION),
    }
    information = json.loads((single.place / INFORMATION).read_text(encoding="utf-8"))
    assert information["task"] == json.loads(json.dumps(single.task.to_json()))
    assert (
        information["inputs"] == ["text"] and information["labels"] == list(LABELS) and information["target"] == "2.19"
    )
    assert re.fullmatch("[0-9a-f]{64}", information["tokenizer_sha256"])
    assert 3 <= len(information["golden"]) <= 20 and information["golden"][0]["inputs"] == {"text": TEXTS[0]}
    stored = tf.train.list_variables(str(single.place / "variables" / "variables"))
    numbers = sum(int(np.prod(shape)) for name, shape in stored if name != "_CHECKPOINTABLE_OBJECT_GRAPH")
    assert numbers == single.model.count_params()  # no optimizer, no second copy


class Stop(Exception):
    pass


def test_versions_count_up_and_a_failure_leaves_nothing(single, tmp_path, monkeypatch):
    base, seen = tmp_path / "base", []
    shutil.copytree(single.place, base / "4")

    def look(*args):
        seen.append(sorted(child.name for child in base.iterdir()))
        raise Stop

    arguments = (single.task, single.model, single.tokenizer, base)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(warmup, "replay", look)
        export(*arguments)
    (names,) = seen
    assert "4" in names and len(names) == 2  # what a server sees while an export is being made: no new number
    (hidden,) = set(names) - {"4"}
    assert hidden.startswith(".") and not hidden.isdigit()
    assert [child.name for child in base.iterdir()] == ["4"]
    with pytest.raises(InputError, match="4 exists already.*the next free one is 5"):
        export(*arguments, version=4)
    for wrong in (-1, "2", True, 1.5):
        with pytest.raises(
            InputError, match=f"version is {re.escape(repr(wrong))}; TF Serving takes whole numbers from 0 on"
        ):
            export(*arguments, version=wrong)
    place = export(*arguments)
    assert place == base / "5" and sorted(child.name for child in base.iterdir()) == ["4", "5"]
    near(Predictor(base)(TEXTS), single.predictor(TEXTS), 1e-6)


def test_a_tokenizer_that_differs_is_not_exported(single, tmp_path, monkeypatch):
    right = tokenization.graph_tokenizer(single.tokenizer)
    monkeypatch.setattr(
        tokenization, "graph_tokenizer", lambda _: lambda *texts, max_length: right(*texts, max_length=max_length - 1)
    )
    with pytest.raises(RuntimeError, match="the tokenizer in the graph gives other input_ids for"):
        export(single.task, single.model, single.tokenizer, tmp_path / "out")
    assert not list(tmp_path.rglob("*.pb"))


def test_weights_that_are_not_finite_are_not_exported(single, tmp_path):
    weight = single.model.trainable_weights[-1]
    before = weight.numpy()
    weight.assign([np.nan, 1, 2])
    try:
        with pytest.raises(InputError, match="is not finite; the training diverged"):
            export(single.task, single.model, single.tokenizer, tmp_path / "out")
    finally:
        weight.assign(before)
    assert not (tmp_path / "out").exists()


def test_labels_that_do_not_fit_the_model_are_told(single, tmp_path):
    task = SequenceClassification(labels=(*LABELS, "odd"), pair=False, max_length=24)
    with pytest.raises(InputError, match="the task has 4 labels, the model gives 3 scores"):
        export(task, single.model, single.tokenizer, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


# what a server can run


class WithPython(SequenceClassification):
    def answer(self, inferred, texts, pieces):
        scores = tf.numpy_function(lambda scores: scores, [inferred["scores"]], tf.float32)
        return super().answer({"scores": tf.ensure_shape(scores, [None, 3])}, texts, pieces)


def test_a_model_that_calls_python_is_refused(single, tmp_path):
    task = WithPython(labels=LABELS, pair=False, max_length=24)
    with pytest.raises(
        InputError,
        match=r"a stock TF Serving 2.20 cannot run this model: operation \w*PyFunc\w* is not in TF Serving 2.20",
    ):
        export(task, single.model, single.tokenizer, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def saved(function, folder: Path) -> Path:
    module = tf.Module()
    module.function = function
    tf.saved_model.save(module, str(folder), signatures={"serving_default": function})
    return folder


def test_xla_and_unknown_attributes_are_found(tmp_path, monkeypatch):
    square = [tf.TensorSpec([2, 2], tf.float32)]
    xla = tf.function(lambda x: {"y": tf.matmul(x, x)}, input_signature=square, jit_compile=True)
    with pytest.raises(InputError, match=r"asks for XLA \(jit_compile\), which the server switches off"):
        check_operations(saved(xla, tmp_path / "xla"), "2.20")
    plain = saved(
        tf.function(lambda x: {"y": tf.matmul(x, x, transpose_a=True)}, input_signature=square), tmp_path / "plain"
    )
    check_operations(plain, "2.19")
    older = {
        name: tuple(a for a in attributes if a != "transpose_a")
        for name, attributes in operations_module.operations("2.19").items()
    }
    monkeypatch.setattr(operations_module, "operations", lambda target: older)
    with pytest.raises(
        InputError, match="operation MatMul has the attribute transpose_a, which TF Serving 2.19 does not know"
    ):
        check_operations(plain, "2.19")


def test_an_unknown_target_names_the_known_ones(single, tmp_path):
    with pytest.raises(InputError, match="target is '2.21'; the TF Serving releases known here are 2.19, 2.20"):
        export(single.task, single.model, single.tokenizer, tmp_path, target="2.21")


def test_the_lists_hold_what_the_servers_have():
    older, newer = operations_module.operations("2.19"), operations_module.operations("2.20")
    for name in (
        "StatefulPartitionedCall",
        "StatelessIf",
        "Assert",
        "ParseExampleV2",
        "RestoreV2",
        "SentencepieceOp",
        "CaseFoldUTF8",
    ):
        assert name in older and name in newer
    assert set(newer) - set(older) == {
        "DecodeWebP",
        *(f"TFText>{name}" for name in ("RoundRobinTrim", "RoundRobinGenerateMasks", "Utf8Binarize")),
    }
    assert not {"PyFunc", "EagerPyFunc", "PyFuncStateless"} & {*older, *newer}


# warmup


def prediction_log():
    """The message types of tensorflow_serving.apis, built from their published definitions."""
    file = descriptor_pb2.FileDescriptorProto(name="log.proto", package="t", syntax="proto3")
    file.dependency.append("tensorflow/core/framework/tensor.proto")
    file.dependency.append("tensorflow/core/example/example.proto")

    def message(name, *fields):
        made = file.message_type.add(name=name)
        for field, number, kind in fields:
            repeated, kind = kind.startswith("*"), kind.lstrip("*")
            label = (
                descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
                if repeated
                else descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
            )
            if kind == "string":
                made.field.add(
                    name=field, number=number, label=label, type=descriptor_pb2.FieldDescriptorProto.TYPE_STRING
                )
            else:
                made.field.add(
                    name=field,
                    number=number,
                    label=label,
                    type=descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE,
                    type_name=kind,
                )
        return made

    message("ModelSpec", ("name", 1, "string"), ("signature_name", 3, "string"))
    message("Entry", ("key", 1, "string"), ("value", 2, ".tensorflow.TensorProto"))
    message("PredictRequest", ("model_spec", 1, ".t.ModelSpec"), ("inputs", 2, "*.t.Entry"))
    message("ExampleList", ("examples", 1, "*.tensorflow.Example"))
    message("Input", ("example_list", 1, ".t.ExampleList"))
    message("ExampleRequest", ("model_spec", 1, ".t.ModelSpec"), ("input", 2, ".t.Input"))
    message("PredictLog", ("request", 1, ".t.PredictRequest"))
    message("ExampleLog", ("request", 1, ".t.ExampleRequest"))
    logs = (
        ("classify_log", 2, ".t.ExampleLog"),
        ("regress_log", 3, ".t.ExampleLog"),
        ("predict_log", 6, ".t.PredictLog"),
    )
    message("PredictionLog", *logs)
    pool = descriptor_pool.Default()
    pool.Add(file) if not hasattr(pool, "AddSerializedFile") else pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.PredictionLog"))


def test_warmup_requests_are_what_tf_serving_defines(single, regression):
    log_type = prediction_log()
    for made, other in ((single, "classify"), (regression, "regress")):
        found = []
        for record in tf.data.TFRecordDataset(str(made.place / WARMUP)).as_numpy_iterator():
            log = log_type.FromString(record)
            ((kind, body),) = ((field.name, value) for field, value in log.ListFields())
            request = body.request
            for part in (log, body, request, request.model_spec):  # no field that the definitions do not have
                assert len(unknown_fields.UnknownFieldSet(part)) == 0
            if kind == "predict_log":
                arrays = {entry.key: tf.make_ndarray(entry.value) for entry in request.inputs}
                found.append((request.model_spec.signature_name, {name: array.shape for name, array in arrays.items()}))
                assert request.model_spec.signature_name in ("serving_default", "tokens")
            else:
                texts = [
                    example.features.feature["text"].bytes_list.value[0]
                    for example in request.input.example_list.examples
                ]
                assert texts[0] in (b"warm up", b" ".join([b"word"] * 24))
                found.append((request.model_spec.signature_name, len(texts)))
        assert {name for name, _ in found} == {"serving_default", "tokens", other}
        assert [size for name, size in found if name == other] == [1, 1, 8]
        assert [shapes["text"] for name, shapes in found if name == "serving_default"] == [(1,), (1,), (8,)]
        assert found[-1] and {shapes["input_ids"][1] for name, shapes in found if name == "tokens"} >= {24}
        assert warmup.replay(made.place / WARMUP, made.predictor._loaded) == len(found) == 9


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (warmup.Request("serving_defualt", "predict", {"text": np.array([b"a"], object)}), "serving_defualt"),
        (
            warmup.Request("serving_default", "predict", {"texts": np.array([b"a"], object)}),
            r"it has the inputs \['texts'\]",
        ),
        (
            warmup.Request("serving_default", "predict", {"text": np.array([1, 2])}),
            r"text is int64 \(2,\), the signature's string \(None,\)",
        ),
        (
            warmup.Request("serving_default", "predict", {"text": np.array([[b"a"]], object)}),
            r"text is string \(1, 1\)",
        ),
        (warmup.Request("classify", "classify", {"inputs": np.array([serialized(txet="a")], object)}), "text"),
    ],
)
def test_a_request_that_a_server_would_fail_on_is_found(single, tmp_path, request_, reason):
    warmup.write(tmp_path / "requests", [request_], name="m")
    with pytest.raises(RuntimeError, match=f"(?s)warmup request 1 .* fails: .*({reason})"):
        warmup.replay(tmp_path / "requests", single.predictor._loaded)


def test_a_file_that_holds_no_requests_is_told(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "requests")) as file:
        file.write(b"no message at all")
    with pytest.raises(ValueError, match="record 1 is not a warmup request"):
        warmup.read(tmp_path / "requests")


# the predictor


def test_the_predictor_takes_what_users_have(single, regression):
    predictor = single.predictor
    expected = predictor(TEXTS)
    assert list(expected[0]) == ["label", "score", "labels", "scores"]
    assert isinstance(expected[0]["score"], float) and isinstance(expected[0]["scores"], list)
    assert expected[0]["score"] == max(expected[0]["scores"])
    near(predictor([{"text": text, "id": 4} for text in TEXTS]), expected, 1e-6)
    near(predictor([(text,) for text in TEXTS]), expected, 1e-6)
    near(predictor(text.encode() for text in TEXTS), expected, 1e-6)
    near([predictor(TEXTS[1])], expected[1:2], 1e-6)
    near(
        predictor(["half \ud83d emoji", "whole \ud83d\ude00"]),
        predictor(["half \ufffd emoji", "whole \U0001f600"]),
        1e-6,
    )
    near(predictor([b"not \xff utf-8"]), predictor(["not \ufffd utf-8"]), 1e-6)
    assert predictor("a\0good film")["scores"] != predictor("b")["scores"]
    pairs = list(zip(TEXTS, TEXTS[::-1]))
    as_dicts = regression.predictor([{"text_pair": b, "text": a} for a, b in pairs])
    near(regression.predictor(pairs), as_dicts, 1e-6)


def test_the_predictor_says_what_is_wrong_with_a_row(single, regression):
    for texts, message in [
        (["a", 3], "row 2 is 3; expected text, a tuple of texts or a dict with text"),
        ([{"txet": "a"}], "row 1 has no 'text'; it has 'txet'. Did you mean 'txet'?"),
        ([("a", "b")], "row 1 has 2 texts; the model takes text"),
        ({"text": "a"}, "texts is one dict; pass a list of dicts with text"),
    ]:
        with pytest.raises(InputError, match=re.escape(message)):
            single.predictor(texts)
    with pytest.raises(InputError, match="row 1 has 1 texts; the model takes text, text_pair"):
        regression.predictor(["a"])
    with pytest.raises(InputError, match="batch_size is 0"):
        single.predictor(["a"], batch_size=0)


def test_the_predictor_refuses_what_is_no_whole_export(single, tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        Predictor(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no SavedModel and no numbered version"):
        Predictor(tmp_path)
    (tmp_path / "empty" / "3").mkdir(parents=True)
    with pytest.raises(InputError, match="3 has no saved_model.pb; the export is incomplete"):
        Predictor(tmp_path / "empty")
    for name, message in [
        ("variables/variables.index", "has no weights"),
        ("variables/variables.data-00000-of-00001", "has no weights"),
    ]:
        copy = shutil.copytree(single.place, tmp_path / Path(name).name)
        (copy / name).unlink()
        with pytest.raises(InputError, match=message):
            Predictor(copy)
    for name in ("saved_model.pb", "variables/variables.data-00000-of-00001"):
        copy = shutil.copytree(single.place, tmp_path / f"cut {Path(name).name}")
        (copy / name).write_bytes((copy / name).read_bytes()[:2000])
        with pytest.raises(InputError, match=f"cannot load {copy}"):
            Predictor(copy)


def test_verify_finds_an_export_that_answers_otherwise(single, tmp_path):
    copy = shutil.copytree(single.place, tmp_path / "1")
    information = json.loads((copy / INFORMATION).read_text(encoding="utf-8"))
    information["golden"][1]["answer"]["scores"][0] += 0.01
    (copy / INFORMATION).write_text(json.dumps(information), encoding="utf-8")
    Predictor(copy)
    with pytest.raises(InputError, match="the files have changed"):
        Predictor(copy, verify=True)


def test_rows_are_plain_python():
    outputs = {
        "flag": np.array([[True, False], [False, False]]),
        "count": np.array([3, 4], np.int64),
        "half": tf.constant([1.5, 2.5], tf.bfloat16).numpy(),
        "word": np.array([[b"a", b"\xff"], [b"\xc3\xa9", b""]], object),
    }
    assert rows(outputs) == [
        {"flag": [True, False], "count": 3, "half": 1.5, "word": ["a", "\ufffd"]},
        {"flag": [False, False], "count": 4, "half": 2.5, "word": ["é", ""]},
    ]
    assert json.loads(json.dumps(rows(outputs))) == rows(outputs)


# saved_models/README.md


def test_the_readmes_requests_and_replies_fit_the_signatures(single):
    text = (ROOT / "saved_models" / "README.md").read_text(encoding="utf-8")
    requests = [json.loads(found) for found in re.findall(r"-d '(.+?)'", text, re.DOTALL)]
    replies = [json.loads(found) for found in re.findall(r"```json\n(.+?)```", text, re.DOTALL)]
    assert len(requests) == len(replies) == 3
    (row, column, classify) = zip(requests, replies)
    outputs = set(single.signatures["serving_default"].structured_outputs)
    (instances, predictions) = row[0]["instances"], row[1]["predictions"]
    assert len(instances) == len(predictions) and all(set(prediction) == outputs for prediction in predictions)
    for answer, like in zip(predictions, single.predictor(instances)):
        assert {name: type(value) for name, value in answer.items()} == {
            name: type(value) for name, value in like.items()
        }
        assert len(answer["labels"]) == len(answer["scores"]) and answer["score"] == max(answer["scores"])
        assert answer["label"] == answer["labels"][answer["scores"].index(answer["score"])]
    assert set(column[0]["inputs"]) == {"text"} and set(column[1]["outputs"]) == outputs
    assert {len(values) for values in column[1]["outputs"].values()} == {len(column[0]["inputs"]["text"])}
    assert classify[0]["signature_name"] == "classify" and set(classify[0]["examples"][0]) == {"text"}
    assert [[name for name, _ in pairs] for pairs in classify[1]["results"]] == [
        row[1]["predictions"][0]["labels"]
    ] * len(classify[0]["examples"])


def test_mixed_precision_is_compared_with_its_own_rounding():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
        inputs = keras.Input([2])
        assert tolerance(keras.Model(inputs, keras.layers.Dense(1)(inputs))) == 1e-5
        assert tolerance(keras.Model(inputs, keras.layers.Dense(1, dtype="mixed_bfloat16")(inputs))) == 2e-2
