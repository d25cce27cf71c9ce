"""What every export must pass before anybody can see it: the same ids, the same numbers, the form that TF Serving wants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from tfbert._compat import tf, traced
from tfbert.errors import InputError
from tfbert.features import ALIGNED
from tfbert.pipeline import whole_examples
from tfbert.serving.hard_texts import HARD_TEXTS
from tfbert.serving.inputs import described, feeds, fits, spread
from tfbert.sources import Examples, from_iterable
from tfbert.tokenization import Rows

BATCH = 16
# A row whose two best scores are equal may be decided either way; more than one in fifty is no accident.
TIES = 0.02
# How many rows of a rough request are computed, or up to twice as many: a megabyte may have a hundred thousand, which would take hours.
ROUGH_ROWS = 64


def as_rows(task, texts: Iterable) -> list[dict[str, str]]:
    """The built-in texts for every input of the task, then the user's rows, as dicts by input name."""
    shapes = task.input_shapes
    made = spread(HARD_TEXTS, shapes)
    if isinstance(texts, str | Mapping):
        raise InputError(f"texts is one {type(texts).__name__}; pass a list of rows")
    own = []
    for i, row in enumerate(texts, 1):
        values = (row,) if isinstance(row, str) else row
        if isinstance(values, Mapping):
            values = [values.get(name) for name in shapes]
        if len(values) != len(shapes) or not all(map(fits, values, shapes.values())):
            raise InputError(f"row {i} of texts is {row!r}; expected text for {described(shapes)}")
        own.append(dict(zip(shapes, values, strict=True)))
    return list(from_iterable(own, "texts")) + made


def hard_cases(task, tokenizer, texts: list[dict[str, str]]) -> list[tuple[list[dict[str, str]], Rows]]:
    """Returns the texts in batches, each with its rows as evaluation makes them."""
    features = task.features(tokenizer, Examples(texts, source="texts"), targets=False)
    # In order of length, as the padding costs more than the answers.
    splits = features.example_splits
    order = np.argsort(np.add.reduceat(features.lengths, splits[:-1]), kind="stable")
    made, done = [], 0
    for rows in whole_examples(features, batch_size=BATCH, order=order):
        made.append(([texts[k] for k in order[done : done + int(rows.count)]], rows))
        done += int(rows.count)
    return made


def check_ids(task, tokenize, cases) -> None:
    """Compares the rows of the graph's tokenizer with those of the training's tokenizer, token by token.

    Raises:
        RuntimeError: names the first text with other ids.
    """
    run = traced(lambda texts: task.rows(tokenize, texts))
    specs = {name: tf.TensorSpec(shape, tf.string, name) for name, shape in task.input_shapes.items()}
    run = run.get_concrete_function(specs)
    for chosen, expected in cases:
        got = run(feeds(chosen, task.input_shapes))
        _same(chosen, "example", [expected.example.numpy().tolist()], [got.example.numpy().tolist()])
        masks = [rows.ids["attention_mask"].numpy() > 0 for rows in (expected, got)]
        theirs, ours = ({**rows.ids, **{name: getattr(rows, name) for name in ALIGNED}} for rows in (expected, got))
        for name in [name for name in theirs if theirs[name] is not None and theirs[name].shape.rank == 2]:
            tables = [
                [row[kept].tolist() for row, kept in zip(side[name].numpy(), mask, strict=True)]
                for side, mask in zip((theirs, ours), masks, strict=True)
            ]
            _same([chosen[i] for i in expected.example.numpy()], name, *tables)


def _same(texts, name: str, theirs: list, ours: list) -> None:
    for text, one, other in zip(texts, theirs, ours):
        if one != other:
            raise RuntimeError(f"the tokenizer in the graph gives other {name} for {text}: {other}; in training: {one}")
    if len(theirs) != len(ours):
        raise RuntimeError(f"the tokenizer in the graph gives {len(ours)} rows, the training's {len(theirs)}")


def check_export(task, compute, module, loaded, cases, limit: float) -> None:
    """Compares every signature of a loaded export with what is computed here, and the form of its outputs with TF Serving's rules.

    Args:
        task: the task.
        compute: from ids by name to outputs by name: the Keras model, or the graph that was saved.
        module: the module that was saved.
        loaded: what `tf.saved_model.load` made of it.
        cases: what `hard_cases` returned.
        limit: how far a number may be off (see `tolerance`).

    Raises:
        RuntimeError: names the signature, the output and the texts that differ.
    """
    _check_variables(module, loaded)
    signatures, ties, count = loaded.signatures, 0, 0
    names = signatures["tokens"].structured_input_signature[1]
    for chosen, rows in cases:
        ids = {name: rows.ids[name] for name in names}
        outputs = dict(
            compute(**ids)
            if isinstance(compute, tf.types.experimental.ConcreteFunction)
            else task.outputs(compute, rows._replace(ids=ids))
        )
        inferred = task.infer(outputs, rows)
        texts = feeds(chosen, task.input_shapes)
        got = signatures["tokens"](**ids)
        # A model that pools its rows gives one output an example, others one a row.
        texts_of = chosen if "example" in rows.ids else [chosen[i] for i in rows.example.numpy()]
        _compare("tokens", outputs, got, texts_of, limit)
        answers = task.answer(inferred, texts, module.tokenizer)
        ties += _compare("serving_default", answers, signatures["serving_default"](**texts), chosen, limit)
        for name, expected in task.example_signatures(inferred).items():
            got = signatures[name](inputs=tf.constant(serialized({k: v.numpy() for k, v in texts.items()}), tf.string))
            _check_example_form(name, got, len(chosen))
            _compare(name, expected, got, chosen, limit)
        count += len(chosen)
    if ties > TIES * count:
        raise RuntimeError(
            f"the export decides {ties} of {count} texts otherwise than the model, though the scores are equal"
        )
    _check_rough_requests(task, signatures, module.tokenizer)


def tolerance(model, precision: str = "float32") -> float:
    """How far an exported number may be from the model's: float32 rounding, or more where the hardware or the policy rounds more."""
    if precision == "bfloat16" or any(layer.compute_dtype in ("bfloat16", "float16") for layer in model.layers):
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


def _check_rough_requests(task, signatures, tokenizer) -> None:
    """What no training text is, but any client may send: no row at all, bytes that are not UTF-8, a megabyte of one letter."""
    # A tokenizer without a limit for words makes some hundred thousand pieces of it: all are cut into rows, but not all are computed.
    megabyte = feeds(spread([b"a" * 2**20], task.input_shapes), task.input_shapes)
    rows = tf.size(task.rows(tokenizer, megabyte).example).numpy()
    rough = [
        b"",
        b"\x00",
        b"\xff\xfe\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        "\U0001f600".encode()[:2],
        b"a" * (2**20 // max(1, rows // ROUGH_ROWS)),
    ]
    for column in ([], rough):
        texts = feeds(spread(column, task.input_shapes), task.input_shapes)
        for name, tensor in signatures["serving_default"](**texts).items():
            values = tensor.numpy()
            if values.ndim < 1 or len(values) != len(column):
                raise RuntimeError(
                    f"serving_default: output {name} has the shape {values.shape} for {len(column)} rows"
                )
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise RuntimeError(f"serving_default: output {name} is not finite for malformed texts")
