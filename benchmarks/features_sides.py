"""The sides of features.py, texts to sentence vectors: tfbert's run in its own environment, the peers' in .venv-peers.

    python features_sides.py prepare JOB.json      writes tfbert's export, once
    python features_sides.py SIDE JOB.json         predict, export, sentence-transformers, pipeline or pipeline-batches

Like peers_serving.py: the vector of the first text is told at once, then one JSON line for each line "BATCH ANSWERS FILE" of stdin;
where ANSWERS is 1, FILE.SIDE.npy gets the vectors.
"""

# ruff: noqa: PLC0415
# Imports stand where a side needs them: a side's start and memory are those of its own packages.

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from peers_serving import peak_memory_bytes, read


class Predict:
    """`tfbert.predict` with the Keras model, tokenized as in training."""

    def __init__(self, job: dict):
        import tfbert
        from tfbert import _compat

        _compat.tf.config.threading.set_intra_op_parallelism_threads(job["threads"])
        self.tfbert, self.tokenizer = tfbert, tfbert.load_tokenizer(job["checkpoint"])
        self.task = tfbert.SentenceEmbedding(objective="ranking", max_length=job["max_length"])
        self.model = self.task.build(job["checkpoint"])
        self.about = {"versions": _compat.versions()}

    def __call__(self, texts: list[str], batch: int) -> list:
        rows = self.tfbert.predict(self.task, self.model, self.tokenizer, texts, batch_size=batch)
        return [row["embedding"] for row in rows]


class Export:
    """The SavedModel, strings in and vectors out, called from Python."""

    def __init__(self, job: dict):
        from tfbert import _compat, serving

        _compat.tf.config.threading.set_intra_op_parallelism_threads(job["threads"])
        self.predictor = serving.Predictor(job["export"])
        self.about = {
            "versions": {"tensorflow": _compat.tf.__version__, "tensorflow-text": _compat.tf_text.__version__}
        }

    def __call__(self, texts: list[str], batch: int) -> list:
        return [row["embedding"] for row in self.predictor(texts, batch_size=batch)]


class SentenceTransformers:
    """`SentenceTransformer.encode`, which sorts the texts by length itself."""

    def __init__(self, job: dict):
        import sentence_transformers
        import torch

        torch.set_num_threads(job["threads"])
        self.model = sentence_transformers.SentenceTransformer(job["checkpoint"], device="cpu")
        self.model.max_seq_length = job["max_length"]
        self.about = {
            "versions": {"torch": torch.__version__, "sentence-transformers": sentence_transformers.__version__}
        }

    def __call__(self, texts: list[str], batch: int):
        return self.model.encode(texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False)


class Pipeline:
    """transformers' feature-extraction pipeline, a text at a time as its documentation advises on a processor; the mean is taken here."""

    def __init__(self, job: dict):
        import torch
        import transformers

        torch.set_num_threads(job["threads"])
        transformers.logging.set_verbosity_error()
        self.options = {"truncation": True, "max_length": job["max_length"]}
        self.pipe = transformers.pipeline(
            "feature-extraction", model=job["checkpoint"], device="cpu", dtype=torch.float32
        )
        self.about = {"versions": {"torch": torch.__version__, "transformers": transformers.__version__}}

    def __call__(self, texts: list[str], batch: int) -> list:
        found = self.pipe(texts, batch_size=1, return_tensors=True, tokenize_kwargs=self.options)
        return [self.vector(tokens[0]) for tokens in found]

    @staticmethod
    def vector(tokens):
        mean = tokens.mean(0)
        return (mean / mean.norm()).numpy()


class PipelineBatches(Pipeline):
    """The same in batches in the order of the texts; the pipeline leaves padding in, so the tokens are counted once more."""

    def __call__(self, texts: list[str], batch: int) -> list:
        found = self.pipe(texts, batch_size=batch, return_tensors=True, tokenize_kwargs=self.options)
        ids = self.pipe.tokenizer(texts, **self.options)["input_ids"]
        return [self.vector(tokens[0, : len(row)]) for tokens, row in zip(found, ids, strict=True)]


SIDES = {
    "predict": Predict,
    "export": Export,
    "sentence-transformers": SentenceTransformers,
    "pipeline": Pipeline,
    "pipeline-batches": PipelineBatches,
}


def prepare(job: dict) -> None:
    import tfbert

    side = Predict(job)
    tfbert.export(side.task, side.model, side.tokenizer, job["export"], version=1)


def measure(side, texts: list[str], batch: int) -> tuple[dict, np.ndarray]:
    """All texts once, and their vectors, float32 [N, D]."""
    cpu, begin = time.process_time(), time.perf_counter()
    vectors = side(texts, batch)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    memory = peak_memory_bytes()
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_memory_bytes": memory}, np.asarray(vectors, np.float32)


def main() -> None:
    name, job = sys.argv[1], json.loads(Path(sys.argv[2]).read_text("utf-8"))
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to stderr
    if name == "prepare":
        prepare(job)
        return
    side = SIDES[name](job)
    first, _ = measure(side, read(job["first"]), 1)
    print(json.dumps({**first, "about": side.about}), file=channel, flush=True)
    for line in sys.stdin:
        batch, answers, path = line.rstrip("\n").split(" ", 2)
        found, vectors = measure(side, read(path), int(batch))
        if answers == "1":
            np.save(f"{path}.{name}.npy", vectors)
        print(json.dumps(found), file=channel, flush=True)


if __name__ == "__main__":
    main()
