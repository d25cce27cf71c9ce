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
from pathlib import Path

from tfbert._compat import tf
from tfbert.errors import InputError, suggest

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
STRATEGIES = ("auto", "cpu", "gpu", "mirrored", "multi-worker", "tpu")
# Where a TPU is named: by Cloud TPU's users, and by Colab.
TPU_NAMES = ("TPU_NAME", "COLAB_TPU_ADDR")
XLA = ("auto", "on", "off")


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
        InputError: an unknown name, a device that is not there, or a TF_CONFIG that is none.

    Example:
        >>> get_strategy("cpu").num_replicas_in_sync
        1
    """
    name = _resolved(name)
    if name == "multi-worker":
        _check_workers()
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "tpu":
        return _tpu()
    _grow_memory()
    if name == "mirrored":
        kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
        return _mirrored(tuple(f"{kind}:{i}" for i, _ in enumerate(tf.config.list_logical_devices(kind))))
    return tf.distribute.OneDeviceStrategy(device(name))


def replicated(name: str):
    """Returns the strategy of `get_strategy` that `fine_tune` trains under; None where there is one device, and nothing to distribute.

    Raises:
        InputError: as `get_strategy`; and for several workers, whose states `fine_tune` cannot save and restore together.
    """
    name = _resolved(name)
    if name == "multi-worker":
        raise InputError(
            "fine_tune trains on one machine; for several workers build, compile and fit under get_strategy('multi-worker'), or unset "
            "TF_CONFIG"
        )
    if name not in ("mirrored", "tpu"):
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
    if os.environ.get("TF_CONFIG") and len(_workers()) > 1:
        return "multi-worker"
    if any(os.environ.get(variable) for variable in TPU_NAMES) or tf.config.list_physical_devices("TPU"):
        return "tpu"
    gpus = len(tf.config.list_physical_devices("GPU"))
    return "mirrored" if gpus > 1 else "gpu" if gpus else "cpu"


def _workers() -> list[str]:
    """The workers' addresses that TF_CONFIG lists, its chief first."""
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        addresses = [address for kind in ("chief", "worker") for address in cluster.get(kind, [])]
        inside = 0 <= task["index"] < len(cluster[task["type"]])
    except (ValueError, TypeError, KeyError, AttributeError):
        addresses, inside = [], False
    if not inside or not all(isinstance(address, str) and re.fullmatch(r".+:\d+", address) for address in addresses):
        raise InputError(
            f"the environment variable TF_CONFIG is {text[:200]!r}; expected JSON such as "
            '{"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task": {"type": "worker", "index": 0}}, '
            "with this process' own index"
        )
    return addresses


def _check_workers() -> None:
    """Raises InputError for a TF_CONFIG that is none, or that names a host that this one does not know."""
    for address in _workers():
        host, port = address.rsplit(":", 1)
        try:
            socket.getaddrinfo(host.strip("[]"), int(port))
        except (OSError, OverflowError) as error:
            raise InputError(
                f"TF_CONFIG names the worker {address}, but its host is not known here ({error})"
            ) from error


@functools.cache
def _mirrored(names: tuple[str, ...]):
    """One for a process: TensorFlow takes the sums of a second one over the same devices for those of the first."""
    return tf.distribute.MirroredStrategy(names)


def _tpu():
    named = next((os.environ[variable] for variable in TPU_NAMES if os.environ.get(variable)), "")
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
