"""Warmup requests: what TF Serving runs before it opens a version, so that the first user does not wait for it.

The file is a TFRecord of PredictionLog messages, encoded by hand (see `wire`). A request that fails makes the whole version fail to
load, so `replay` decodes what was written and runs it.

    PredictionLog {classify_log = 2, regress_log = 3, predict_log = 6};  each of the logs {request = 1}
    PredictRequest {model_spec = 1, map<string, TensorProto> inputs = 2}
    ClassificationRequest, RegressionRequest {model_spec = 1, Input input = 2};  Input {example_list = 1};  ExampleList {examples = 1}
    ModelSpec {name = 1, signature_name = 3}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from tfbert._compat import tf
from tfbert.serving import wire

# tensorflow_serving/servables/tensorflow/saved_model_warmup_util.h: kMaxNumRecords
MAX_REQUESTS = 1000
_LOG_FIELDS = {"predict": 6, "classify": 2, "regress": 3}


@dataclasses.dataclass(frozen=True)
class Request:
    """One request: the signature's name, the API that asks ("predict", "classify" or "regress"), and an array per input."""

    signature: str
    api: str
    inputs: Mapping[str, np.ndarray]


def write(path: str | Path, requests: Iterable[Request], *, name: str) -> None:
    """Writes requests as TF Serving reads them.

    Args:
        path: `assets.extra/tf_serving_warmup_requests` in the version's folder.
        requests: at most 1000, TF Serving's limit.
        name: the model's name; servers do not compare it with their own.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    requests = list(requests)
    if len(requests) > MAX_REQUESTS:
        raise ValueError(f"{len(requests)} warmup requests; TF Serving takes {MAX_REQUESTS}")
    with tf.io.TFRecordWriter(str(path)) as file:
        for request in requests:
            file.write(encode(request, name))


def encode(request: Request, name: str) -> bytes:
    """Returns the PredictionLog message of a request."""
    model = wire.message((1, name), (3, request.signature))
    if request.api == "predict":
        tensors = {key: tf.make_tensor_proto(value).SerializeToString() for key, value in request.inputs.items()}
        body = wire.message((1, model), *((2, wire.message((1, key), (2, tensor))) for key, tensor in tensors.items()))
    else:
        examples = wire.message(*((1, example) for example in request.inputs["inputs"].tolist()))
        body = wire.message((1, model), (2, wire.message((1, examples))))
    return wire.message((_LOG_FIELDS[request.api], wire.message((1, body))))


def read(path: str | Path) -> list[Request]:
    """Decodes a file of warmup requests.

    Raises:
        ValueError: a record that is not a request TF Serving can replay, with its number.
    """
    requests = []
    for number, record in enumerate(tf.data.TFRecordDataset(str(path)).as_numpy_iterator(), 1):
        try:
            requests.append(decode(record))
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path}: record {number} is not a warmup request: {error}") from error
    return requests


def decode(record: bytes) -> Request:
    """Reads one PredictionLog message; the opposite of `encode`, written from the message definitions alone."""
    apis = {number: api for api, number in _LOG_FIELDS.items()}
    ((kind, log),) = wire.fields(record)
    if kind not in apis:
        raise ValueError(f"a log of kind {kind}, not one of {sorted(apis)}")
    api, body, signature, inputs, examples = apis[kind], dict(wire.fields(log))[1], "serving_default", {}, []
    for number, value in wire.fields(body):
        if number == 1:
            signature = dict(wire.fields(value)).get(3, b"serving_default").decode("utf-8")
        elif number == 2 and api == "predict":
            entry = dict(wire.fields(value))
            proto = tf.compat.v1.make_tensor_proto(0)
            proto.ParseFromString(entry[2])
            inputs[entry[1].decode("utf-8")] = tf.make_ndarray(proto)
        elif number == 2:
            examples = [example for _, example in wire.fields(dict(wire.fields(value))[1])]
    if api != "predict":
        inputs = {"inputs": np.array(examples, object)}
    return Request(signature, api, inputs)


def replay(path: str | Path, loaded) -> int:
    """Runs every request of a file against a loaded SavedModel, as TF Serving does.

    Args:
        path: the file.
        loaded: what `tf.saved_model.load` returned.

    Returns:
        How many requests were run.

    Raises:
        RuntimeError: a request that would make TF Serving refuse the version.
    """
    requests = read(path)
    for number, request in enumerate(requests, 1):
        try:
            function = loaded.signatures[request.signature]
            specs = function.structured_input_signature[1]
            if set(specs) != set(request.inputs):
                raise ValueError(f"it has the inputs {sorted(request.inputs)}, the signature {sorted(specs)}")
            feeds = {name: tf.constant(value) for name, value in request.inputs.items()}
            for name, feed in feeds.items():
                # TensorFlow's Python lets a wrong shape pass here, the server's C++ does not.
                if feed.dtype != specs[name].dtype or not specs[name].shape.is_compatible_with(feed.shape):
                    raise ValueError(
                        f"{name} is {feed.dtype.name} {feed.shape}, the signature's {specs[name].dtype.name} {specs[name].shape}"
                    )
            function(**feeds)
        except (ValueError, KeyError, TypeError, tf.errors.OpError) as error:
            raise RuntimeError(
                f"warmup request {number} ({request.api}, {request.signature}) fails: {error}"
            ) from error
    return len(requests)
