"""Where a model computes, in which precision, and how much memory that took."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import resource
import socket
import sys
import time
from pathlib import Path

from tfbert._compat import tf
from tfbert.errors import InputError, suggest

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
STRATEGIES = ("auto", "cpu", "gpu", "mirrored", "multi-worker", "tpu")
# Where a TPU is named: by Cloud TPU's users, and by Colab.
TPU_NAMES = ("TPU_NAME", "COLAB_TPU_ADDR")
XLA = ("auto", "on", "off")
_PLACE = re.compile(r".+:([1-5]?\d{1,4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5])")  # host:port


def choose_precision(name: str) -> str:
    """Resolves "auto": bfloat16 where the hardware multiplies it faster than float32, else float32.

    Example:
        >>> choose_precision("float32")
        'float32'
    """
    return auto_precision()[0] if name == "auto" else name


def auto_precision() -> tuple[str, str]:
    """What "auto" takes on this machine, and why.

    Example:
        >>> precision, reason = auto_precision()
        >>> precision in PRECISIONS, bool(reason)
        (True, True)
    """
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        version = ".".join(map(str, capability))
        if capability >= (8, 0):
            return "bfloat16", f"the GPU's compute capability is {version}, 8.0 or more: it multiplies bfloat16 faster"
        return "float32", f"the GPU's compute capability is {version}, below 8.0: it has no bfloat16"
    try:
        flags = set(re.findall(r"\w+", Path("/proc/cpuinfo").read_text()))
    except OSError:
        return "float32", "what this processor has cannot be read here"
    if found := sorted(flags & {"avx512_bf16", "amx_bf16"}):
        return "bfloat16", f"no GPU, and the processor multiplies bfloat16 faster ({', '.join(found)})"
    return "float32", "no GPU, and the processor has no instructions for bfloat16 (avx512_bf16, amx_bf16)"


def get_strategy(name: str = "auto"):
    """Returns the tf.distribute strategy to build and fit under.

    Under several replicas each computes an equal part of a batch: `batch_size` is that of all of them together. GPUs take memory as
    they need it, where nothing has run on them yet.

    Args:
        name: "cpu"; "gpu" (the first one); "mirrored", all GPUs of this machine, or all logical CPUs where it has none;
            "multi-worker", the workers that the environment variable TF_CONFIG lists; "tpu", the one of TPU_NAME, of Colab, or of this
            machine. "auto" (default) takes several workers where TF_CONFIG lists them, then a TPU, several GPUs, one GPU, the CPU.

    Raises:
        InputError: an unknown name, a device that is not there, a TF_CONFIG that is none, or a worker that has not answered for as many
            seconds as the environment variable TFBERT_WAIT_FOR_WORKERS says (default 300).

    Example:
        >>> get_strategy("cpu").num_replicas_in_sync
        1
    """
    name = _resolved(name)
    if name == "multi-worker":
        return _multi_worker(os.environ.get("TF_CONFIG", ""))
    if name == "tpu":
        return _tpu(next((os.environ[variable] for variable in TPU_NAMES if os.environ.get(variable)), ""))
    _grow_memory()
    if name == "mirrored":
        kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
        return _mirrored(tuple(f"{kind}:{i}" for i, _ in enumerate(tf.config.list_logical_devices(kind))))
    return tf.distribute.OneDeviceStrategy(device(name))


def replicated(name: str):
    """Returns the strategy of `get_strategy` that `fine_tune` trains under; None where there is one device, and nothing to distribute.

    Raises:
        InputError: as `get_strategy`.
    """
    name = _resolved(name)
    if name not in ("mirrored", "multi-worker", "tpu"):
        _grow_memory()
        return None
    return get_strategy(name)


def device(strategy: str) -> str:
    """Returns the device of one replica of `get_strategy`'s strategy, such as "/CPU:0"."""
    name = _resolved(strategy)
    if name == "tpu":
        return "/TPU:0"
    gpus = tf.config.list_physical_devices("GPU")
    if name == "gpu" and not gpus:
        raise InputError(
            f"strategy is {name!r}, but TensorFlow sees no GPU; run `tfbert doctor`, or use strategy 'cpu'"
        )
    return "/GPU:0" if gpus and name != "cpu" else "/CPU:0"


def _resolved(name: str) -> str:
    """The strategy's name, with what there is here in the place of "auto"."""
    if name not in STRATEGIES:
        raise InputError(f"strategy is {name!r}; it must be one of {', '.join(STRATEGIES)}.{suggest(name, STRATEGIES)}")
    if name != "auto":
        return name
    if os.environ.get("TF_CONFIG") and len(workers()[0]) > 1:
        return "multi-worker"
    if any(os.environ.get(variable) for variable in TPU_NAMES) or tf.config.list_physical_devices("TPU"):
        return "tpu"
    gpus = len(tf.config.list_physical_devices("GPU"))
    return "mirrored" if gpus > 1 else "gpu" if gpus else "cpu"


def workers() -> tuple[dict[str, str], int]:
    """The workers that TF_CONFIG lists, such as {"chief:0": "host1:12345", "worker:0": "host2:12345"}, and which of them this process is.

    Raises:
        InputError: TF_CONFIG is not set, or is none.
    """
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        listed = {f"{kind}:{i}": place for kind in ("chief", "worker") for i, place in enumerate(cluster.get(kind, []))}
        own = list(listed).index(f"{task['type']}:{task['index']}")
    except (ValueError, TypeError, KeyError, AttributeError):
        listed, own = {}, None
    if own is None or not all(isinstance(place, str) and _PLACE.fullmatch(place) for place in listed.values()):
        raise InputError(
            f"the environment variable TF_CONFIG is {text[:200]!r}; expected JSON such as "
            '{"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task": {"type": "worker", "index": 0}}, '
            "with this process' own index"
        )
    return listed, own


@functools.cache
def _multi_worker(config: str):
    """One for a process: TensorFlow makes connections to the other workers once."""
    listed, own = workers()
    _grow_memory()
    _meet(list(listed.values()), own)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise InputError(
            f"TensorFlow was in use before the workers were connected ({str(error).splitlines()[0]}); call get_strategy('multi-worker'), "
            "or fine_tune, before anything else computes"
        ) from error


def _meet(addresses: list[str], own: int) -> None:
    """Waits until every worker answers at its address; TensorFlow would wait for ever, deaf to signals.

    Until all are there each listens itself at its own address, which TensorFlow's server takes afterwards.
    """
    limit = float(os.environ.get("TFBERT_WAIT_FOR_WORKERS", "300"))
    until = time.monotonic() + limit
    with contextlib.ExitStack() as open_sockets:
        try:
            port = int(addresses[own].rsplit(":", 1)[1])
            open_sockets.enter_context(socket.create_server(("", port), backlog=len(addresses)))
        except OSError as error:
            raise InputError(
                f"TF_CONFIG says that this worker is {addresses[own]}, but nobody can listen at that port ({error}); choose another"
            ) from error
        for i in (number for number in range(len(addresses)) if number != own):
            while (error := _refused(addresses[i])) is not None:
                # An unknown host may be one that is not up yet: a cluster's names come with its pods.
                if time.monotonic() > until:
                    raise InputError(
                        f"worker {i}, {addresses[i]} in TF_CONFIG, has not answered for {limit:g} seconds ({error}); start the same "
                        "command on it, or let TFBERT_WAIT_FOR_WORKERS be more seconds"
                    )
                time.sleep(0.1)


def _refused(address: str) -> OSError | None:
    """Why nobody answers at an address; None where somebody does."""
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        return error
    return None


@functools.cache
def _mirrored(names: tuple[str, ...]):
    """One for a process: TensorFlow takes the sums of a second one over the same devices for those of the first."""
    return tf.distribute.MirroredStrategy(names)


@functools.cache
def _tpu(named: str):
    """One for a process: a TPU that is made ready again forgets what it holds."""
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=named or "local")
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        where = f"{named!r}, which the environment names," if named else "of this machine"
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"strategy is 'tpu', but the TPU {where} does not answer ({reason}); use 'auto' or 'cpu'"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def _grow_memory() -> None:
    """Lets TensorFlow take a GPU's memory as it needs it; once something has run there, it is too late."""
    for gpu in tf.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(gpu, True)


def uses_xla(name: str, strategy: str) -> bool:
    """Resolves "auto", whether XLA compiles the training step: on a GPU or TPU, and not on a CPU, where the plain graph is faster.

    Args:
        name: "auto", "on" or "off".
        strategy: as `get_strategy` takes it.

    Raises:
        InputError: another name.

    Example:
        >>> uses_xla("auto", "cpu"), uses_xla("on", "cpu")
        (False, True)
    """
    if name not in XLA:
        raise InputError(f"xla is {name!r}; it must be one of {', '.join(XLA)}.{suggest(name, XLA)}")
    return name == "on" or (name == "auto" and not device(strategy).startswith("/CPU"))


def peak_memory_bytes() -> int:
    """The largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
