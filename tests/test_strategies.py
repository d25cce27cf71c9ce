"""Strategies: several replicas learn what one device learns, and what is not there, or is written wrongly, is told."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import together

import tfbert
from tfbert import batch_parts, devices
from tfbert._compat import tf
from tfbert.errors import InputError

# Logical devices can be made only before TensorFlow has begun: in a process of its own.
REPLICAS = """
import json, sys
from pathlib import Path
import numpy as np
from tfbert._compat import keras, tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 3)
import interrupting, pytest, test_checkpoints
from tfbert import MaskedLM, SequenceClassification, fine_tune, predict
from tfbert.models.training_model import TrainingModel

tiny, place, asked_for = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
config = json.loads((tiny / "config.json").read_text())
config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
rows = [{**row, "weight": 1 + i % 3} for i, row in enumerate(interrupting.rows(48, 0)[:47])]  # the last of six batches has two
long = [{**row, "text": " ".join([row["text"]] * (1 + i % 3))} for i, row in enumerate(rows)]

def train(name, task, examples, strategy="mirrored", **options):
    return fine_tune(task, tiny, examples, examples[:9], directory=place / name, batch_size=9, epochs=2, learning_rate=5e-3,
        precision="float32", strategy=strategy, export=False, report=False, keep_layers="0", **options)

def told(**values):
    print(json.dumps(values), flush=True)

def stopped_and_resumed(*arguments, **options):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(test_checkpoints.Stop):
        test_checkpoints.interrupt(patch, (1, 2), test_checkpoints.crash)
        train(*arguments, save_every=0, **options)
    return train(*arguments, save_every=0, resume=True, **options)

def resumed():
    dropping = SequenceClassification(max_length=12)
    whole = interrupting.digest(train("whole", dropping, rows, save_every=0))
    again = interrupting.digest(stopped_and_resumed("stopped", dropping, rows))
    told(different=[name for name in whole if again[name] != whole[name]])

def compared(name):
    (tiny / "config.json").write_text(json.dumps(config))
    short, windows = SequenceClassification(max_length=12), SequenceClassification(max_length=12, long_text="windows", stride=2)
    task, examples, options = {
        "in parts": (short, rows, {"accumulate": 2, "r_drop": 0.5, "ema": 0.9}),
        "windows": (windows, long, {"unfreeze": "gradual"}),
        "masked": (MaskedLM(max_length=12), [{"text": row["text"]} for row in long], {"lora": 2}),
    }[name]
    several = stopped_and_resumed if name == "in parts" else train
    both = [train("one", task, examples, "cpu", **options), several("three", task, examples, **options)]
    asked = [{"text": "good [MASK] film"}, {"text": "not dull"}] if name == "masked" else long[:20]
    told(losses=[[row["loss"] for row in tuned.history] for tuned in both],
        scores=[[answer["score"] for answer in predict(tuned.task, tuned.model, tuned.tokenizer, asked)] for tuned in both])

def refused():
    for settings in ({"batch_size": 8}, {"fgm": 1.0}):
        try:
            fine_tune(SequenceClassification(max_length=12), tiny, rows, directory=place / "no", strategy="mirrored",
                **{"batch_size": 9, **settings})
        except tf.errors.OpError:
            raise
        except Exception as error:
            told(refused=str(error))

class Alternating(keras.layers.Layer):  # passes are traced one after the other: they are multiplied by 2, 1, 2, 1, ...
    passes = 0

    def call(self, x):
        self.passes += 1
        return x * (1.0 + self.passes % 2)

def apart():
    kernels = []
    for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy()):
        with strategy.scope():
            inputs = keras.Input([4])
            start = keras.initializers.Constant(np.arange(12).reshape(4, 3) % 5 / 5)
            plain = keras.Model(inputs, keras.layers.Dense(3, use_bias=False, kernel_initializer=start)(Alternating()(inputs)))
            task = SequenceClassification(labels=("a", "b", "c"))
            model = TrainingModel(plain, r_drop=2.0, divergence=task.divergence())
            model.compile(keras.optimizers.SGD(0.5), task.loss())
        x = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
        model.fit(tf.data.Dataset.from_tensors((x, np.arange(9) % 3)).unbatch().batch(9), verbose=0)
        kernels.append(plain.layers[-1].kernel.numpy().tolist())
    told(kernels=kernels)

if asked_for == "resumed":
    resumed()
elif asked_for == "apart":
    apart()
else:
    compared(asked_for)
    refused()
"""


@pytest.fixture
def replicas(tiny, tmp_path):
    """Runs the script on three replicas, and returns the lines that it tells."""

    def run(what: str) -> list[dict]:
        script, folder = tmp_path / "replicas.py", tmp_path / "tiny"
        script.write_text(REPLICAS, encoding="utf-8")
        shutil.copytree(tiny, folder)
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        done = subprocess.run(
            [sys.executable, str(script), str(folder), str(tmp_path), what],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert done.returncode == 0, done.stdout + done.stderr[-4000:]
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


@pytest.mark.slow
def test_three_replicas_go_on_to_the_bit(replicas):
    assert replicas("resumed") == [{"different": []}]


@pytest.mark.slow
def test_three_replicas_weigh_r_drop_as_one_device(replicas):
    (found,) = replicas("apart")
    one, three = map(np.array, found["kernels"])
    assert np.abs(one - np.arange(12).reshape(4, 3) % 5 / 5).max() > 0.01
    np.testing.assert_allclose(three, one, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["in parts", "windows", "masked"])
def test_three_replicas_learn_what_one_device_learns(replicas, what):
    case, batch, fgm = replicas(what)
    one, three = case["losses"]
    assert one[1] < one[0] and np.allclose(one, three, rtol=0.02), case  # a row that fills up counts in this mean
    one, three = map(np.array, case["scores"])
    assert np.ptp(one) > 0.01 and np.allclose(one, three, atol=1e-4), case
    assert "3 replicas cannot have equal parts; take 9" in batch["refused"]
    assert "fgm moves the word embeddings of one replica, not of 3" in fgm["refused"]


def test_parts_of_a_batch_hold_all_its_examples_with_all_their_rows():
    inputs = {"input_ids": tf.range(10, 17)[:, tf.newaxis], "example": tf.constant([0, 1, 1, 2, 3, 3, 3])}
    batch = tf.data.Dataset.from_tensors((inputs, tf.constant([5, 6, 7, 8]), tf.constant([0.5, 1.5, 2.0, 0.0])))
    first, second = batch_parts.for_replicas(batch, 2).as_numpy_iterator()
    assert first[0]["input_ids"].ravel().tolist() == [10, 11, 12] and first[0]["example"].tolist() == [0, 1, 1]
    assert second[0]["input_ids"].ravel().tolist() == [13, 14, 15, 16] and second[0]["example"].tolist() == [0, 1, 1, 1]
    assert (first[1].tolist(), second[1].tolist()) == ([5, 6], [7, 8])
    assert (first[2].tolist(), second[2].tolist()) == ([0.5, 1.5], [2.0, 0.0])


def test_auto_takes_what_there_is(monkeypatch):
    for variable in ("TF_CONFIG", *devices.TPU_NAMES):
        monkeypatch.delenv(variable, raising=False)
    there = {"GPU": [], "TPU": []}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: there[kind])
    found = []
    for gpus in ([], ["GPU:0"], ["GPU:0", "GPU:1"]):
        there["GPU"] = gpus
        found.append(devices._resolved("auto"))
    monkeypatch.setenv("TPU_NAME", "node-1")
    found.append(devices._resolved("auto"))
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}')
    found.append(devices._resolved("auto"))
    assert found == ["cpu", "gpu", "mirrored", "tpu", "multi-worker"]


@pytest.mark.parametrize(
    "value",
    [
        "workers",
        "[]",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
        '{"cluster": {"worker": ["a", "b"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "b:65536"]}, "task": {"type": "worker", "index": 0}}',
    ],
)
def test_a_tf_config_that_is_none_is_refused(monkeypatch, value):
    monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(InputError, match=r"TF_CONFIG is .*; expected JSON such as .* with this process' own index"):
        tfbert.get_strategy("multi-worker")


@pytest.mark.parametrize("place", ["no-such-host.invalid:1", "127.0.0.1:1"])
def test_a_worker_that_does_not_answer_is_named(monkeypatch, place):
    (port,) = together.free_ports(1)
    config = {"cluster": {"worker": [f"localhost:{port}", place]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    monkeypatch.setenv("TFBERT_WAIT_FOR_WORKERS", "0.3")
    with pytest.raises(InputError, match=rf"worker 1, {place} in TF_CONFIG, has not answered for 0.3 seconds"):
        tfbert.get_strategy("multi-worker")


def test_a_worker_whose_port_is_taken_is_told(monkeypatch):
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("TF_CONFIG", together.config([port, port + 1], 0))
        with pytest.raises(InputError, match=rf"this worker is 127.0.0.1:{port}, but nobody can listen at that port"):
            tfbert.get_strategy("multi-worker")


def test_a_tpu_that_is_not_there_is_told(monkeypatch):
    for variable in devices.TPU_NAMES:
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(InputError, match="strategy is 'tpu', but the TPU of this machine does not answer"):
        tfbert.get_strategy("tpu")
