"""What every export must pass before anybody can see it: the same ids, the same numbers, the form that TF Serving wants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.pipeline import batches
from tfbert.serving.hard_texts import HARD_TEXTS
from tfbert.sources import Examples, from_iterable

BATCH = 16
# A row whose two best scores are equal may be decided either way; more than one in fifty is no accident.
TIES = 0.02


def as_rows(task, texts: Iterable) -> list[dict[str, str]]:
    """The built-in texts for every input of the task, then the user's rows, as dicts by input name."""
    inputs, count = task.inputs, len(HARD_TEXTS)
    # Pairs combine different texts: the second field is the list moved on by seven.
    made = [{name: HARD_TEXTS[(i + 7 * k) % count] for k, name in enumerate(inputs)} for i in range(count)]
    if isinstance(texts, str | Mapping):
        raise InputError(f"texts is one {type(texts).__name__}; pass a list of rows")
    own = []
    for i, row in enumerate(texts, 1):
        values = (row,) if isinstance(row, str) else row
        if isinstance(values, Mapping):
            values = [values.get(name) for name in inputs]
        if len(values) != len(inputs) or not all(isinstance(value, str) for value in values):
            raise InputError(f"row {i} of texts is {row!r}; expected text for {', '.join(inputs)}")
        own.append(dict(zip(inputs, values, strict=True)))
    return list(from_iterable(own, "texts")) + made


def hard_cases(task, tokenizer, texts: list[dict[str, str]]) -> list[tuple[list[dict[str, str]], dict]]:
    """Returns the texts in batches, each with its features {name: int32 [B, T]} as training makes them."""
    features = task.features(tokenizer, Examples(texts, source="texts"), targets=False)
    # In order of length, as the padding costs more than the answers.
    order = np.argsort(features.lengths, kind="stable")
    made = []
    for i, inputs in enumerate(batches(features, batch_size=BATCH, order=order)):
        made.append(([texts[k] for k in order[i * BATCH : (i + 1) * BATCH]], inputs))
    return made


def check_ids(task, tokenize, cases) -> None:
    """Compares the ids of the graph's tokenizer with those of the training's tokenizer, row by row.

    Raises:
        RuntimeError: names the first text with other ids.
    """
    run = tf.function(lambda columns: tokenize(*columns, max_length=task.max_length))
    run = run.get_concrete_function([tf.TensorSpec([None], tf.string)] * len(task.inputs))
    for chosen, features in cases:
        got = run([tf.constant([row[name] for row in chosen], tf.string) for name in task.inputs])
        expected, got = ({name: tensor.numpy() for name, tensor in ids.items()} for ids in (features, got))
        for i, row in enumerate(chosen):
            for name in expected:
                theirs = expected[name][i][expected["attention_mask"][i] > 0].tolist()
                ours = got[name][i][got["attention_mask"][i] > 0].tolist()
                if ours != theirs:
                    raise RuntimeError(
                        f"the tokenizer in the graph gives other {name} for {row}: {ours}; in training: {theirs}"
                    )


def check_export(task, model, module, loaded, cases) -> None:
    """Compares every signature of a loaded export with the Python model, and the form of its outputs with TF Serving's rules.

    Args:
        task: the task.
        model: the Keras model.
        module: the module that was saved.
        loaded: what `tf.saved_model.load` made of it.
        cases: what `hard_cases` returned.

    Raises:
        RuntimeError: names the signature, the output and the texts that differ.
    """
    _check_variables(module, loaded)
    limit = tolerance(model)
    signatures, ties, count = loaded.signatures, 0, 0
    for chosen, features in cases:
        outputs = dict(model(features, training=False))
        inferred = task.infer(outputs)
        columns = {name: np.array([row[name] for row in chosen], object) for name in task.inputs}
        feeds = {name: tf.constant(column.tolist(), tf.string) for name, column in columns.items()}
        got = signatures["tokens"](**{tensor.name: features[tensor.name] for tensor in model.inputs})
        _compare("tokens", outputs, got, chosen, limit)
        ties += _compare(
            "serving_default", task.answer(inferred), signatures["serving_default"](**feeds), chosen, limit
        )
        examples = tf.constant(serialized(columns), tf.string)
        for name, expected in task.example_signatures(inferred).items():
            got = signatures[name](inputs=examples)
            _check_example_form(name, got, len(chosen))
            _compare(name, expected, got, chosen, limit)
        count += len(chosen)
    if ties > TIES * count:
        raise RuntimeError(
            f"the export decides {ties} of {count} texts otherwise than the model, though the scores are equal"
        )
    _check_rough_requests(task, signatures)


def tolerance(model) -> float:
    """How far an exported number may be from the model's: float32 rounding, or more where the hardware or the policy rounds more."""
    if any(layer.compute_dtype not in (None, "float32") for layer in model.layers):
        return 2e-2  # bfloat16 has 8 bits
    if tf.config.list_physical_devices("GPU") and tf.config.experimental.tensor_float_32_execution_enabled():
        return 1e-3  # TensorFloat-32 has 11 bits
    return 1e-5


def serialized(columns: Mapping[str, np.ndarray]) -> list[bytes]:
    """The rows of columns of text as serialized tf.Example messages."""
    made = []
    for values in zip(*columns.values(), strict=True):
        features = {
            name: tf.train.Feature(
                bytes_list=tf.train.BytesList(value=[value.encode("utf-8") if isinstance(value, str) else value])
            )
            for name, value in zip(columns, values, strict=True)
        }
        made.append(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    return made


def _check_variables(module, loaded) -> None:
    if len(module.weights) != len(loaded.weights) or not module.weights:
        raise RuntimeError(f"the export holds {len(loaded.weights)} weights, the model {len(module.weights)}")
    for ours, theirs in zip(module.weights, loaded.weights, strict=True):
        if ours.dtype != theirs.dtype or ours.numpy().tobytes() != theirs.numpy().tobytes():
            raise RuntimeError(f"the weight {ours.name} is not the same in the export")


def _compare(signature: str, expected, got, chosen, limit: float) -> int:
    """Raises where numbers or forms differ; returns how many rows have other words though their numbers are equal."""
    if set(expected) != set(got):
        raise RuntimeError(f"{signature} gives {sorted(got)}, the task {sorted(expected)}")
    otherwise = np.zeros(len(chosen), bool)
    for name in expected:
        want, have = expected[name].numpy(), got[name].numpy()
        where = f"{signature}: output {name}"
        if have.ndim < 1 or have.shape[0] != len(chosen):
            raise RuntimeError(
                f"{where} has the shape {have.shape} for {len(chosen)} rows; TF Serving needs one entry per row"
            )
        if want.shape != have.shape or want.dtype != have.dtype:
            raise RuntimeError(f"{where} is {have.dtype} {have.shape}, the model's {want.dtype} {want.shape}")
        if want.dtype.kind == "f":
            scale = max(1.0, float(np.abs(want).max(initial=0)))
            off = np.abs(want - have)
            if not np.all(off <= limit * scale):
                worst = int(np.nanargmax(np.where(np.isfinite(off), off, np.inf).reshape(len(chosen), -1).max(1)))
                raise RuntimeError(
                    f"{where} differs by {np.max(off):g} (at most {limit:g} is rounding) for {chosen[worst]}"
                )
        else:
            otherwise |= (want != have).reshape(len(chosen), -1).any(1)
    return int(otherwise.sum())


def _check_example_form(name: str, outputs, count: int) -> None:
    """The rules of TF Serving's Classify and Regress (tensorflow_serving/servables/tensorflow/classifier.cc, regressor.cc)."""
    shapes = {key: tuple(tensor.shape) for key, tensor in outputs.items()}
    if name == "classify":
        if len(set(shapes.values())) > 1:
            raise InputError(
                f"the task has {shapes['classes'][1]} labels, the model gives {shapes['scores'][1]} scores; build it from the task"
            )
        good = set(shapes) <= {"classes", "scores"} and all(len(shape) == 2 for shape in shapes.values())
    else:
        good = set(shapes) == {"outputs"} and shapes["outputs"] in ((count,), (count, 1))
    if not good:
        raise RuntimeError(f"{name} gives {shapes} for {count} rows, which TF Serving refuses")


def _check_rough_requests(task, signatures) -> None:
    """What no training text is, but any client may send: no row at all, bytes that are not UTF-8, a megabyte of one letter."""
    rough = [
        b"",
        b"\x00",
        b"\xff\xfe\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        "\U0001f600".encode()[:2],
        b"a" * 2**20,
    ]
    for column in ([], rough):
        feeds = {name: tf.constant(column, tf.string, [len(column)]) for name in task.inputs}
        for name, tensor in signatures["serving_default"](**feeds).items():
            values = tensor.numpy()
            if values.ndim < 1 or len(values) != len(column):
                raise RuntimeError(
                    f"serving_default: output {name} has the shape {values.shape} for {len(column)} rows"
                )
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise RuntimeError(f"serving_default: output {name} is not finite for malformed texts")
