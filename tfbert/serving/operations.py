"""Which TensorFlow operations a stock TF Serving binary has, and whether a SavedModel keeps to them.

The lists in operations/*.json were made by benchmarks/dump_operations.py from the published packages: the operations with a CPU kernel
in tensorflow-cpu of the server's version, and those that tensorflow-text adds in the version that the server embeds (2.12.1 in TF
Serving 2.12 to 2.19, 2.20.0 in 2.20), each with its attributes. The stock server links all of TensorFlow's kernels and
tensorflow-text's `ops_lib`; left out are the operations that call Python (py_function and its kin) and, for 2.12.1, those of
tensorflow-text that `ops_lib` did not hold then (RoundRobinTrim, Utf8Binarize; see tensorflow/serving#2267).
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

from tfbert._compat import tf
from tfbert.errors import InputError, suggest
from tfbert.serving import wire

_FOLDER = Path(__file__).parent / "operations"


@functools.cache
def operations(target: str) -> dict[str, tuple[str, ...]]:
    """Returns the operations of a stock TF Serving release with the names of their attributes.

    Args:
        target: the release, "2.19" or "2.20".

    Raises:
        InputError: there is no list for that release.

    Example:
        >>> operations("2.20")["MatMul"]
        ('transpose_a', 'transpose_b', 'T', 'grad_a', 'grad_b')
        >>> "PyFunc" in operations("2.20")
        False
    """
    known = sorted(file.stem for file in _FOLDER.glob("*.json"))
    if target not in known:
        raise InputError(
            f"target is {target!r}; the TF Serving releases known here are {', '.join(known)}{suggest(target, known)}"
        )
    content = json.loads((_FOLDER / f"{target}.json").read_text(encoding="utf-8"))
    return {name: tuple(attributes) for name, attributes in content["operations"].items()}


def unservable(folder: str | Path, target: str) -> list[str]:
    """Returns what a stock server of the target release could not run in a SavedModel; an empty list means it can run all.

    Looks at every node of the graph and of its functions: operations the server does not have, attributes its version of an operation
    does not know (TensorFlow leaves out attributes with their default value when it saves), and functions to be compiled with XLA,
    which the server switches off.

    Args:
        folder: the SavedModel's folder.
        target: the TF Serving release, "2.19" or "2.20".

    Returns:
        One sentence for each fault, sorted.
    """
    known, faults = operations(target), set()
    for graph in _graphs(folder):
        functions = {function.signature.name for function in graph.library.function}
        for function in graph.library.function:
            if function.attr["_XlaMustCompile"].b:
                faults.add(
                    f"function {function.signature.name} asks for XLA (jit_compile), which the server switches off"
                )
        for node in _nodes(graph):
            if node.attr["_XlaMustCompile"].b:
                faults.add(
                    f"operation {node.op} ({node.name}) asks for XLA (jit_compile), which the server switches off"
                )
            if node.op in functions:
                continue
            if node.op not in known:
                faults.add(f"operation {node.op} is not in TF Serving {target}")
                continue
            for name in node.attr:
                if not name.startswith("_") and name not in known[node.op]:
                    faults.add(f"operation {node.op} has the attribute {name}, which TF Serving {target} does not know")
    return sorted(faults)


def check_operations(folder: str | Path, target: str) -> None:
    """Raises InputError where `unservable` finds anything.

    Args:
        folder: the SavedModel's folder.
        target: the TF Serving release, "2.19" or "2.20".
    """
    faults = unservable(folder, target)
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise InputError(
            f"a stock TF Serving {target} cannot run this model: {'; '.join(faults[:5])}{more}; use a model or tokenizer without them, or "
            "name another target"
        )


def _nodes(graph):
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def _graphs(folder: str | Path):
    """The graphs of saved_model.pb: message SavedModel {repeated MetaGraphDef meta_graphs = 2}."""
    content = (Path(folder) / "saved_model.pb").read_bytes()
    return [
        tf.compat.v1.MetaGraphDef.FromString(value).graph_def for number, value in wire.fields(content) if number == 2
    ]
