"""A C program that knows TensorFlow and tensorflow-text, and neither Python nor tfbert, answers as the Predictor does."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tfbert import tokenization
from tfbert._compat import tf, tf_text
from tfbert.serving import Predictor, export, wire
from tfbert.serving.hard_texts import HARD_TEXTS
from tfbert.tasks import SequenceClassification

SOURCE = Path(__file__).with_name("serve.c")
LABELS = ("no", "perhaps", "café")


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
def place(tiny, tmp_path_factory) -> Path:
    task = SequenceClassification(labels=LABELS, pair=False, max_length=32)
    model = task.build(tiny, seed=4)
    rng = np.random.default_rng(8)
    for variable in model.trainable_weights[-2:]:  # the head: large enough that answers differ
        variable.assign(rng.normal(size=variable.shape).astype(np.float32))
    return export(task, model, tokenization.load_tokenizer(tiny), tmp_path_factory.mktemp("export"))


def tensor_names(place: Path) -> list[str]:
    """The input and the outputs of serving_default, as the SignatureDef in saved_model.pb names them."""
    content = (place / "saved_model.pb").read_bytes()
    (meta,) = (value for number, value in wire.fields(content) if number == 2)
    signature = tf.compat.v1.MetaGraphDef.FromString(meta).signature_def["serving_default"]
    return [signature.inputs["text"].name, signature.outputs["label"].name, signature.outputs["score"].name]


def test_c_and_python_give_the_same_answers(program, place):
    rng = np.random.default_rng(2)
    words = "good bad film plot the a of not very 2024 naïve ΟΔΟΣ 東京 😀 [SEP] x-ray don't".split()
    texts = [" ".join(rng.choice(words, size=int(rng.integers(0, 50)))) for _ in range(60)]
    # The program reads lines of C strings, so the texts with line ends and NUL are not for it.
    texts += [text for text in HARD_TEXTS if not {"\n", "\0"} & set(text)]
    libraries = sorted(map(str, Path(tf_text.__file__).parent.rglob("_*.so")))
    done = subprocess.run(
        [program, str(place), *tensor_names(place), *libraries],
        input="".join(text + "\n" for text in texts).encode(),
        capture_output=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    answers = [line.split("\t") for line in done.stdout.decode().splitlines()]
    expected = Predictor(place)(texts, batch_size=len(texts))
    assert len(texts) > 100
    assert [label for label, _ in answers] == [answer["label"] for answer in expected]
    np.testing.assert_allclose(
        [float(score) for _, score in answers], [answer["score"] for answer in expected], rtol=0, atol=1e-6
    )
    assert len({label for label, _ in answers}) > 1
