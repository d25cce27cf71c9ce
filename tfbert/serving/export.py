"""Task + model + tokenizer -> a SavedModel that takes strings and gives answers, in any TF Serving."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tfbert import tokenization
from tfbert._compat import lazy, tf, traced, versions
from tfbert.errors import InputError
from tfbert.files import new_directory, sha256, write_json
from tfbert.serving import accuracy, warmup
from tfbert.serving.inputs import feeds, spread
from tfbert.serving.layout import INFORMATION, WARMUP, new_version
from tfbert.serving.lengths import by_length, can_be_grouped
from tfbert.serving.operations import check_operations, operations
from tfbert.serving.rows import rows
from tfbert.serving.self_test import as_rows, check_export, check_ids, hard_cases, serialized, tolerance

# Whoever only calls an export does not need the models.
models = lazy("tfbert.models")

FORMAT_VERSION = 1
GOLDEN = 20  # texts stored with their answers


def export(
    task,
    model,
    tokenizer,
    directory: str | Path,
    *,
    version: int | None = None,
    target: str = "2.20",
    texts: Iterable = (),
    precision: str = "float32",
    data: Iterable | None = None,
    max_drop: float = 0.01,
) -> Path:
    """Writes a model, with its tokenizer and its answers, as one TensorFlow graph for TF Serving.

    The graph is written beside its place under a name that servers do not look at, loaded again, compared with the Python model on
    texts on which tokenizers differ, checked against what a stock server can run, warmed up, and only then renamed. Whatever goes
    wrong, nothing is left behind.

    Signatures: `serving_default` (the task's text fields, string [B], in; answers out), `tokens` (int32 ids [B, T] in; the model's
    outputs out), and `classify` or `regress` over tf.Example where the task has them. `assets.extra` holds warmup requests for the
    server and tfbert.json: the task, the versions, and texts with their answers, which `Predictor(..., verify=True)` runs.

    Args:
        task: the model's task, its fields complete.
        model: what `task.build` returned, trained.
        tokenizer: what `load_tokenizer` returned.
        directory: the base folder; TF Serving's base path.
        version: the number of the version's folder (default: one more than the highest there is).
        target: the TF Serving release that must be able to run it, "2.19" or "2.20" (default "2.20", the newest).
        texts: more rows to compare, as `Predictor` takes them: the user's own data, say. The first of them are stored with their
            answers.
        precision: of the encoder: "float32" (default: as the model computes), "bfloat16" (half the size, computed in bfloat16, for
            processors that have its instructions) or "int8" (a quarter of the size, computed in float32).
        data: labelled examples that the model was not trained on; a precision lower than float32 needs them. The model and the export
            are scored on them, and both scores stored in tfbert.json.
        max_drop: how far the task's monitored score may fall below the model's, from 0 to 1 (default 0.01); of a score of which less
            is better, by which share it may rise.

    Returns:
        The folder of the new version.

    Raises:
        InputError: the version is taken, the tokenizer has no graph, the weights are not finite, the target cannot run an operation
            of the model, the model has no lower precision, or the score falls by more than `max_drop`.
        RuntimeError: the export does not answer as the model does. That is a fault of tfbert.

    Example:
        >>> export(task, model, tokenizer, "saved_models/reviews")              # doctest: +SKIP
        PosixPath('saved_models/reviews/1')
    """
    operations(target)  # an unknown target is told before the work
    models.check_precision(precision)
    examples = accuracy.checked(task, precision, data, max_drop)
    place = new_version(directory, version)
    texts = as_rows(task, texts)
    models.check_task(task, model, tokenizer)
    check_weights(model)
    served = models.for_answers(model, precision)
    tokenize = tokenization.graph_tokenizer(tokenizer)
    cases = hard_cases(task, tokenizer, texts)
    check_ids(task, tokenize, cases)
    with new_directory(place) as folder:
        module, signatures = serving_module(task, model, tokenize, served)
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(module, str(folder), signatures=signatures, options=options)
        check_operations(folder, target)
        loaded = tf.saved_model.load(str(folder))
        # In a lower precision the numbers are those of the graph before it was saved; how far they are from float32, the scores say.
        compute = signatures["tokens"] if served.lower else model
        check_export(task, compute, module, loaded, cases, tolerance(model, precision))
        scores = None
        if examples is not None:
            scores = accuracy.scores(task, model, tokenizer, loaded, examples)
            accuracy.check_scores(task, precision, scores, max_drop)
        requests = list(warmup_requests(task, tokenize, loaded))
        warmup.write(folder / WARMUP, requests, name=task.name)
        warmup.replay(folder / WARMUP, loaded)
        outputs = list(signatures["serving_default"].structured_outputs)
        about = {"target": target, "precision": precision, "scores": scores}
        write_json(folder / INFORMATION, information(task, tokenizer, loaded, outputs, about, texts, requests))
    return place


def check_weights(model) -> None:
    """Raises InputError for weights that are NaN or infinite: a training that diverged must not reach a server."""
    for variable in model.weights:
        if variable.dtype.is_floating and not bool(tf.reduce_all(tf.math.is_finite(variable))):
            raise InputError(
                f"the weight {variable.name} is not finite; the training diverged, lower the learning rate and train again"
            )


def serving_module(task, model, tokenize, served) -> tuple[Any, dict[str, Any]]:
    """Returns a tf.Module with the variables that inference reads, and the signatures by name."""
    ids = {tensor.name: tf.TensorSpec(tensor.shape, tf.int32, tensor.name) for tensor in model.inputs}
    strings = {name: tf.TensorSpec(shape, tf.string, name) for name, shape in task.input_shapes.items()}

    @traced
    def tokens(**features):
        row = tf.range(tf.shape(next(iter(features.values())))[0])
        return dict(task.outputs(model, tokenization.Rows(features, row, tf.size(row))))

    @traced
    def infer(**texts):
        rows = task.rows(tokenize, _same_length(texts))
        # A batch without rows may have no columns either, and models take the first one.
        features = {name: _one_column(rows.ids[name]) for name in ids}
        outputs = tokens.structured_outputs
        if can_be_grouped(ids, outputs):
            return task.infer(by_length(tokens, features, outputs), rows)
        return task.infer(tokens(**features), rows)

    # Both traced once and called by the signatures, so the graph holds the model and the tokenizer once.
    with served.in_use():
        tokens = tokens.get_concrete_function(**ids)
    infer = infer.get_concrete_function(**strings)

    @traced
    def serving_default(**texts):
        return task.answer(infer(**texts), texts, tokenize)

    def over_examples(name):
        @traced
        def signature(inputs):
            texts = tf.io.parse_example(inputs, {field: tf.io.FixedLenFeature([], tf.string) for field in task.inputs})
            return task.example_signatures(infer(**texts))[name]

        return signature.get_concrete_function(tf.TensorSpec([None], tf.string, "inputs"))

    signatures = {"serving_default": serving_default.get_concrete_function(**strings), "tokens": tokens}
    for name in _example_signatures(task, infer):
        signatures[name] = over_examples(name)
    module = tf.Module()
    module.weights = list(tokens.variables)
    module.tokenizer = tokenize  # holds whatever resources the tokenizer has
    return module, signatures


def _example_signatures(task, infer) -> list[str]:
    """The names of the task's signatures over tf.Example, found by tracing it over the form of the inferred numbers."""
    specs = tf.nest.map_structure(lambda spec: tf.TensorSpec(spec.shape, spec.dtype), infer.structured_outputs)
    return list(traced(task.example_signatures).get_concrete_function(specs).structured_outputs)


def _same_length(texts):
    """Two inputs of different lengths would otherwise fail deep in the graph, with a message about ragged tensors."""
    first, *others = texts
    for name in others:
        message = "all inputs must have as many rows as the first one"
        check = tf.debugging.assert_equal(tf.shape(texts[name])[0], tf.shape(texts[first])[0], message=message)
        with tf.control_dependencies([check]):
            texts = {key: tf.identity(column) for key, column in texts.items()}
    return texts


def _one_column(ids):
    return tf.pad(ids, [[0, 0], [0, tf.maximum(0, 1 - tf.shape(ids)[1])]]) if ids.shape.rank == 2 else ids


def warmup_requests(task, tokenize, loaded):
    """Yields requests for every signature: one short row, one of full length, and a batch of both."""
    short, long = b"warm up", b" ".join([b"word"] * task.max_length)
    for column in ([short], [long], [short, long] * 4):
        texts = feeds(spread(column, task.input_shapes), task.input_shapes)
        ids = task.rows(tokenize, texts).ids
        texts = {name: tensor.numpy() for name, tensor in texts.items()}
        for name, function in loaded.signatures.items():
            inputs = function.structured_input_signature[1]
            if name == "tokens":
                yield warmup.Request(name, "predict", {key: ids[key].numpy() for key in inputs})
            elif set(inputs) == set(task.inputs):
                yield warmup.Request(name, "predict", texts)
            else:
                yield warmup.Request(name, name, {"inputs": np.array(serialized(texts), object)})


def information(task, tokenizer, loaded, outputs, about: dict, texts, requests) -> dict[str, Any]:
    """What assets.extra/tfbert.json holds."""
    warm = [request.inputs for request in requests if request.signature == "serving_default"]
    inputs = [{name: text[name] for name in task.inputs} for text in texts[: GOLDEN - 2]]
    inputs += [{name: _text(feed[name][0]) for name in task.inputs} for feed in warm[:2]]
    tensors = loaded.signatures["serving_default"](**feeds(inputs, task.input_shapes))
    answers = rows({name: tensors[name].numpy() for name in outputs})
    return {
        "format_version": FORMAT_VERSION,
        "task": task.to_json(),
        "inputs": list(task.inputs),
        "outputs": list(outputs),
        "labels": list(task.to_json().get("labels", ())),
        **{name: value for name, value in about.items() if value is not None},
        "versions": versions(),
        "tokenizer_sha256": tokenizer_sha256(tokenizer),
        "golden": [{"inputs": row, "answer": answer} for row, answer in zip(inputs, answers, strict=True)],
    }


def _text(value):
    return [_text(item) for item in value] if isinstance(value, np.ndarray) else value.decode("utf-8")


def tokenizer_sha256(tokenizer) -> str:
    """The SHA-256 over the files that the tokenizer writes, by name: equal tokenizers have equal hashes."""
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for file in sorted(Path(folder).iterdir()):
            digest.update(f"{file.name} {sha256(file)}\n".encode())
    return digest.hexdigest()
