"""The sides of shapes.py, token ids to logits, and one training step: tfbert's run in its own environment, the peers' in .venv-peers.

    python shapes_sides.py prepare JOB.json        writes the classifier that all sides load, once; before `peers_serving.py prepare`
    python shapes_sides.py SIDE JOB.json           tfbert, tfbert-frozen, transformers-tf, torch, onnx, onnx-int8 or openvino

The logits of the batch are told at once; then one JSON line with seconds for each line "WORK TIMES" of stdin, WORK being one of
`training`, `batch` and `sentence`.
"""

# ruff: noqa: PLC0415
# Imports stand where a side needs them: no environment has the packages of all.

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from peers_serving import OnnxRuntime, OnnxRuntimeInt8, OpenVino, OpenVinoBfloat16

LABELS, CLIP, RATE, DECAY = 8, 1.0, 1e-5, 0.01


def inputs(rows: int, length: int) -> dict[str, np.ndarray]:
    """int64 [B, T] each: random pieces, none of them padding, and all of the first text."""
    ids = np.random.default_rng(0).integers(1000, 20000, (rows, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def targets(rows: int) -> np.ndarray:
    """int64 [B]."""
    return np.random.default_rng(1).integers(0, LABELS, rows)


class TFBert:
    """Either encoder under TensorFlow: answers as an export computes them, steps as `fine_tune` makes them."""

    encoder, learns = "lean", True

    def __init__(self, job: dict):
        from tfbert import _compat, devices, models

        self.tf, tf, keras = _compat.tf, _compat.tf, _compat.keras
        tf.config.threading.set_intra_op_parallelism_threads(job["threads"])
        spec = {name: tf.TensorSpec([None, None], tf.int32) for name in inputs(1, 1)}
        policy = devices.PRECISIONS[job["precision"]]
        if self.encoder == "lean":
            model = self._load(job, models)
            served = models.for_answers(model, job["precision"])

            def answer(features):
                with served.in_use():
                    return model(features, training=False)["logits"]
        else:
            keras.mixed_precision.set_global_policy(policy)
            model = self._load(job, models)

            def answer(features):
                return model(features, training=False)["logits"]

        self.answer = tf.function(answer, input_signature=[spec])
        if self.learns:
            keras.mixed_precision.set_global_policy(policy)
            self.step = self._step(self._load(job, models), job["shapes"]["training"], spec)
        self.about = {"versions": _compat.versions()}

    def _step(self, learner, shape, spec):
        """The compiled step, which takes the features and returns the loss."""
        from tfbert import AdamW, losses, models

        tf, optimizer = self.tf, AdamW(RATE, weight_decay=DECAY, clip_norm=CLIP)
        if self.encoder == "lean":
            optimizer.learn_rows(models.word_embeddings(learner), np.unique(inputs(*shape)["input_ids"]))
        variables, labels = learner.trainable_variables, tf.constant(targets(shape[0]), tf.int32)
        optimizer.build(variables)

        def step(features):
            with tf.GradientTape() as tape:
                logits = tf.cast(learner(features, training=True)["logits"], tf.float32)
                loss = tf.reduce_mean(losses.sparse_categorical_crossentropy(labels, logits))
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
            return loss

        return tf.function(step, input_signature=[spec])

    def _load(self, job, models):
        return models.as_keras(
            models.load(job["original"], "sequence-classification", num_labels=LABELS, encoder=self.encoder)
        )

    def feed(self, arrays):
        return {name: self.tf.constant(array, self.tf.int32) for name, array in arrays.items()}

    def logits(self, feed):
        return self.answer(feed).numpy()

    def train(self, feed):
        return float(self.step(feed))


class TFBertFrozen(TFBert):
    """Answers alone, with what README advises for a server: oneDNN rearranges the weights once. No training may be done so."""

    learns = False


class TransformersTF(TFBert):
    """The same with TF Transformers' own layers, whose whole word embeddings are updated."""

    encoder = "transformers"


class Torch:
    """PyTorch with Transformers 5: attention by its fused operation, answers in inference mode, steps with autocast and fused AdamW."""

    learns = True

    def __init__(self, job: dict):
        import torch
        import transformers

        torch.set_num_threads(job["threads"])
        transformers.logging.set_verbosity_error()
        self.torch, self.low = torch, job["precision"] == "bfloat16"
        kind = torch.bfloat16 if self.low else torch.float32
        load = transformers.AutoModelForSequenceClassification.from_pretrained
        self.model = load(job["checkpoint"], dtype=kind).eval()
        self.learner = load(job["checkpoint"], dtype=torch.float32).train()
        self.labels = torch.tensor(targets(job["shapes"]["training"][0]))
        self.optimizer = torch.optim.AdamW(self.learner.parameters(), lr=RATE, weight_decay=DECAY, fused=True)
        self.about = {"versions": {"torch": torch.__version__, "transformers": transformers.__version__}}

    def feed(self, arrays):
        return {name: self.torch.tensor(array) for name, array in arrays.items()}

    def logits(self, feed):
        with self.torch.inference_mode():
            return self.model(**feed).logits.float().numpy()

    def train(self, feed):
        with self.torch.autocast("cpu", self.torch.bfloat16, enabled=self.low):
            loss = self.learner(**feed, labels=self.labels).loss
        loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.learner.parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())


SIDES = {
    "tfbert": lambda job: TFBert,
    "tfbert-frozen": lambda job: TFBertFrozen,
    "transformers-tf": lambda job: TransformersTF,
    "torch": lambda job: Torch,
    "onnx": lambda job: OnnxRuntime,
    "onnx-int8": lambda job: OnnxRuntimeInt8,
    "openvino": lambda job: OpenVinoBfloat16 if job["precision"] == "bfloat16" else OpenVino,
}


def prepare(job: dict) -> None:
    """The checkpoint with a new head and its tokenizer."""
    from tfbert import load_tokenizer, models
    from tfbert._compat import keras

    keras.utils.set_random_seed(0)
    models.save(
        models.load(job["from"], "sequence-classification", num_labels=LABELS),
        job["original"],
        load_tokenizer(job["from"]),
    )


def measure(run, times: int) -> dict:
    """Seconds of each of so many calls."""
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return {"seconds": seconds}


def main() -> None:
    name, job = sys.argv[1], json.loads(Path(sys.argv[2]).read_text("utf-8"))
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to stderr
    if name == "prepare":
        prepare(job)
        return
    side = SIDES[name](job)(job)
    feed = getattr(side, "feed", dict)
    given = {work: feed(inputs(*shape)) for work, shape in job["shapes"].items()}
    works = {work: lambda work=work: side.logits(given[work]) for work in ("batch", "sentence")}
    if getattr(side, "learns", False):
        works["training"] = lambda: side.train(given["training"])
    logits = np.asarray(side.logits(given["batch"]), float)
    told = {"about": side.about, "works": sorted(works), "logits": logits.tolist()}
    print(json.dumps(told), file=channel, flush=True)
    for line in sys.stdin:
        work, times = line.split()
        print(json.dumps(measure(works[work], int(times))), file=channel, flush=True)


if __name__ == "__main__":
    main()
