"""Where a model computes, in which precision, and how much memory that took."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

from tfbert._compat import tf
from tfbert.errors import InputError, suggest

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
STRATEGIES = ("auto", "cpu", "gpu")


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

    Args:
        name: "cpu", "gpu" (the first one), or "auto": the GPU where there is one.

    Raises:
        InputError: an unknown name, or a GPU that is not there.

    Example:
        >>> get_strategy("cpu").num_replicas_in_sync
        1
    """
    return tf.distribute.OneDeviceStrategy(device(name))


def device(strategy: str) -> str:
    """Returns the device of `get_strategy`'s strategy, such as "/CPU:0"."""
    if strategy not in STRATEGIES:
        raise InputError(
            f"strategy is {strategy!r}; it must be one of {', '.join(STRATEGIES)}.{suggest(strategy, STRATEGIES)}"
        )
    gpus = tf.config.list_physical_devices("GPU")
    if strategy == "gpu" and not gpus:
        raise InputError("strategy is 'gpu', but TensorFlow sees no GPU; run `tfbert doctor`, or use strategy 'cpu'")
    return "/GPU:0" if gpus and strategy != "cpu" else "/CPU:0"


def peak_memory_bytes() -> int:
    """The largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
