"""The one place that picks Keras 2 (tf_keras), checks versions, and loads the heavy packages on first use.

Every other module imports `tf`, `keras`, `transformers` and `tf_text` from here. They are proxies: the package behind each is
imported at the first attribute that is asked of it, so `import tfbert` and `tfbert --help` stay fast.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
import tempfile
import types

from tfbert.errors import InputError

# TensorFlow reads this once, when it is imported; after that, tf.keras is Keras 3 for good.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# TensorFlow's start-up lines (CPU features, oneDNN) bury a user's own messages; errors still come through.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# oneDNN's matrix products: TensorFlow takes them by itself only where a processor has AVX512-VNNI or newer; with AVX2 a training step
# of MiniLM took up to 1.3 times as long without them (benchmarks/training_step.py).
ONEDNN_IS_THE_USERS = "TF_ENABLE_ONEDNN_OPTS" in os.environ
if platform.machine() in ("x86_64", "AMD64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
# transformers' own check for an update of the hub's files: a run must not depend on the network.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


# oneDNN's kernels then keep a product's weights as they were at its first use: right for a server, a training that learns from wrong
# numbers. Of MiniLM the loss of eight rows fell in five steps from 2.08 to 2.01 with it, to 0.51 without.
FROZEN_WEIGHTS = "TF_ONEDNN_ASSUME_FROZEN_WEIGHTS"


def check_weights_may_change() -> None:
    """Refuses to train where the environment says that weights never change.

    Raises:
        InputError: TF_ONEDNN_ASSUME_FROZEN_WEIGHTS is on.
    """
    value = os.environ.get(FROZEN_WEIGHTS, "")
    if value.lower() in ("1", "true"):
        raise InputError(
            f"{FROZEN_WEIGHTS}={value} makes TensorFlow's products read weights as they were before the training; it is for servers. "
            f"Unset it and begin a new process"
        )


class lazy(types.ModuleType):  # noqa: N801 - it reads as a function
    """Stands for a module until the first attribute is asked of it."""

    def __init__(self, name: str, check=None):
        super().__init__(name)
        self.__dict__["_check"] = check

    def __getattr__(self, attribute: str):
        if attribute.startswith("__") and attribute not in ("__version__", "__file__"):
            raise AttributeError(attribute)  # doctest, inspect and copy ask for these; they need no import
        if self.__name__ in _ON_TENSORFLOW or attribute.startswith("TF"):  # transformers' TensorFlow classes
            load_tensorflow()
        module = importlib.import_module(self.__name__)
        if self._check is not None:
            self.__dict__["_check"](module)
            self.__dict__["_check"] = None
        value = getattr(module, attribute)
        self.__dict__[attribute] = value
        return value


class uncalled(types.ModuleType):  # noqa: N801
    """Stands for a module that others import for functions that nobody calls; it is loaded if somebody does."""

    def __init__(self, name: str, folder: str):
        super().__init__(name)
        self.__path__ = [folder]  # modules within it are found

    def __getattr__(self, attribute: str):
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        if importlib.util.find_spec(f"{self.__name__}.{attribute}"):  # a module within it
            return importlib.import_module(f"{self.__name__}.{attribute}")

        def function(*arguments, **named):
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
            return getattr(importlib.import_module(self.__name__), attribute)(*arguments, **named)

        return function


_ON_TENSORFLOW = ("tensorflow", "tf_keras", "tensorflow_text")


def load_tensorflow() -> None:
    """Loads TensorFlow without its start-up lines, some of which no setting silences ("Could not find cuda drivers ...").

    They are written by C++ to file descriptor 2. If loading fails they are evidence, so then they are shown.
    """
    if "tensorflow" in sys.modules or os.environ["TF_CPP_MIN_LOG_LEVEL"] < "2":
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # at 2 a machine without a GPU still gets "failed call to cuInit"
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            importlib.import_module("tensorflow").config.list_physical_devices()
        except BaseException:
            said.seek(0)
            os.write(stderr, said.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _check_tensorflow(module) -> None:
    if os.environ.get("TF_USE_LEGACY_KERAS", "").lower() not in ("1", "true"):
        raise InputError(
            f"TF_USE_LEGACY_KERAS is {os.environ['TF_USE_LEGACY_KERAS']!r}: tfbert needs Keras 2 (tf_keras); unset it or set it to 1"
        )
    if keras_3_is_loaded():
        raise InputError(
            "Keras 3 is already behind tf.keras: TensorFlow was used before tfbert was imported; put `import tfbert` first, or set "
            "TF_USE_LEGACY_KERAS=1 in the environment before Python starts"
        )
    found = {
        name: version for name, version in versions().items() if name in ("tensorflow", "tf-keras", "tensorflow-text")
    }
    if len({version.rsplit(".", 1)[0] for version in found.values() if version[0].isdigit()}) > 1:
        minor = ".".join(module.__version__.split(".")[:2])
        raise InputError(
            f"{', '.join(f'{name} {version}' for name, version in found.items())} do not fit each other; they must be of one minor "
            f"version: pip install 'tf-keras=={minor}.*' 'tensorflow-text=={minor}.*'"
        )


def keras_3_is_loaded() -> bool:
    """Whether this process has already bound tf.keras to Keras 3, which cannot be undone."""
    tensorflow = sys.modules.get("tensorflow")
    loader = getattr(tensorflow, "__dict__", {}).get("keras")
    if loader is None:
        return False
    name = loader.__dict__.get("_tfll_mode") or loader.__dict__.get("_tfll_keras_version")
    return name == "keras_3" or str(getattr(loader, "__name__", "")).startswith("keras.")


def _check_transformers(module) -> None:
    major = int(module.__version__.split(".")[0])
    if major >= 5:
        raise InputError(
            f"transformers {module.__version__} has no TensorFlow classes; install the last version that has: pip install 'transformers<5'"
        )
    # Its TensorFlow classes import its metrics for GLUE, and those scikit-learn and SciPy: 1.3 of the 6.8 seconds of a program's start.
    name = "transformers.data.metrics"
    sys.modules.setdefault(name, uncalled(name, os.path.join(module.__path__[0], "data", "metrics")))


tf = lazy("tensorflow", _check_tensorflow)
keras = lazy("tf_keras")
transformers = lazy("transformers", _check_transformers)
tf_text = lazy("tensorflow_text")


def plain(function):
    """The function, never rewritten by AutoGraph, nor what it calls.

    AutoGraph turns Python's `if` and `for` over tensors into operations. tfbert's code and that of TF Transformers have none, and the
    rewriting took most of the time of a first training step or an export.
    """
    return tf.autograph.experimental.do_not_convert(function)


def traced(function=None, **options):
    """`tf.function` of a `plain` function; a decorator with or without options.

    Example:
        >>> @traced
        ... def double(x):
        ...     return 2 * x
        >>> double(tf.constant(2)).numpy()
        np.int32(4)
    """
    if function is None:
        return lambda function: traced(function, **options)
    return tf.function(plain(function), **options)


def versions() -> dict[str, str]:
    """The versions of tfbert and of what it stands on, read from the installed packages without importing them."""
    names = (
        "tfbert",
        "tensorflow",
        "tf-keras",
        "tensorflow-text",
        "transformers",
        "tokenizers",
        "safetensors",
        "numpy",
    )
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
