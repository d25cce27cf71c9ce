"""tfbert's side of serving.py: the C program serving.c, compiled against the installed TensorFlow, and how it is called for an export."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tfbert._compat import tf, tf_text
from tfbert.errors import InputError
from tfbert.serving import wire

SOURCE = Path(__file__).with_name("serving.c")
LIBRARIES = ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2")


def compile_program(place: Path, source: Path = SOURCE) -> Path:
    """Compiles serving.c, or load.c, to `place` with gcc and the headers and libraries of TensorFlow's wheel.

    Raises:
        InputError: there is no gcc, or the wheel lacks the libraries.
    """
    compiler, library = shutil.which("gcc"), Path(tf.sysconfig.get_lib())
    absent = [name for name in LIBRARIES if not (library / name).exists()]
    if compiler is None or absent:
        raise InputError(
            f"{source.name} cannot be compiled: {'there is no gcc' if absent == [] else f'TensorFlow lacks {absent}'}"
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    options = [
        f"-I{tf.sysconfig.get_include()}",
        f"-L{library}",
        f"-Wl,-rpath,{library}",
        *(f"-l:{name}" for name in LIBRARIES),
    ]
    subprocess.run(
        [compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", str(source), "-o", str(place), *options],
        check=True,
    )
    return place


def tensor_names(export: Path, signature: str) -> tuple[str, str, str]:
    """The tensors of a signature's text, label and score, as saved_model.pb names them.

    Raises:
        InputError: there is no such signature, or it is no classifier's over one text.
    """
    (meta,) = (value for number, value in wire.fields((export / "saved_model.pb").read_bytes()) if number == 2)
    found = tf.compat.v1.MetaGraphDef.FromString(meta).signature_def
    if signature not in found:
        raise InputError(f"{export} has no signature {signature}; it has {', '.join(sorted(found))}")
    inputs, outputs = found[signature].inputs, found[signature].outputs
    if len(inputs) != 1 or not {"label", "score"} <= set(outputs):
        raise InputError(
            f"{export}: {signature} takes {sorted(inputs)} and returns {sorted(outputs)}; text, label and score are needed"
        )
    return next(iter(inputs.values())).name, outputs["label"].name, outputs["score"].name


def command(
    program: Path, export: Path, first: Path, *, intra: int, inter: int, signature: str = "serving_default"
) -> list[str]:
    """The command line that starts the program for one export."""
    tensors = tensor_names(export, signature)
    return [str(program), str(export), str(intra), str(inter), *tensors, str(first), *libraries()]


def libraries() -> list[str]:
    """The files with the operations of tensorflow-text."""
    return sorted(map(str, Path(tf_text.__file__).parent.rglob("_*.so")))


def versions() -> dict[str, str]:
    return {"tensorflow": tf.__version__, "tensorflow-text": tf_text.__version__}
