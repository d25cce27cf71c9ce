"""Makes the lists in tfbert/serving/operations: which operations a stock TF Serving release can run.

Each list is made from two environments, because TF Serving links its own TensorFlow with another version of tensorflow-text:

    pip install tensorflow-cpu==2.19.*                                        # environment A: the server's TensorFlow
    pip install tensorflow-cpu==2.12.* tensorflow-text==2.12.1 (--no-deps)    # environment B: the tensorflow-text it embeds
    A/bin/python benchmarks/dump_operations.py dump > a.json
    B/bin/python benchmarks/dump_operations.py dump > b.json
    python benchmarks/dump_operations.py combine a.json b.json tfbert/serving/operations/2.19.json

For 2.20, one environment with tensorflow-cpu 2.20 and tensorflow-text 2.20.0 gives both files.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

# Operations that call back into Python: the wheels have kernels for them, the server has not.
PYTHON_ONLY = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}

# What tensorflow-text's wheel has but its `ops_lib`, which TF Serving links, had not (tensorflow_text/BUILD at that tag).
NOT_IN_OPS_LIB = {"2.12.1": ("RoundRobinTrim", "RoundRobinGenerateMasks", "Utf8Binarize")}


class Buffer(ctypes.Structure):
    """TF_Buffer of TensorFlow's C API."""

    _fields_ = [("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("deallocator", ctypes.c_void_p)]


def registered(tensorflow) -> dict[str, list[str]]:
    """The operations that this process knows and can run on a CPU, with their attributes' names."""
    from tensorflow.core.framework import kernel_def_pb2, op_def_pb2

    library = ctypes.CDLL(str(Path(tensorflow.__file__).parent / "libtensorflow_cc.so.2"))
    library.TF_GetAllOpList.restype = ctypes.POINTER(Buffer)
    library.TF_GetAllRegisteredKernels.restype = ctypes.POINTER(Buffer)
    library.TF_GetAllRegisteredKernels.argtypes = [ctypes.c_void_p]
    library.TF_NewStatus.restype = ctypes.c_void_p
    operations, kernels = op_def_pb2.OpList(), kernel_def_pb2.KernelList()
    buffer = library.TF_GetAllOpList().contents
    operations.ParseFromString(ctypes.string_at(buffer.data, buffer.length))
    buffer = library.TF_GetAllRegisteredKernels(library.TF_NewStatus()).contents
    kernels.ParseFromString(ctypes.string_at(buffer.data, buffer.length))
    on_cpu = {kernel.op for kernel in kernels.kernel if kernel.device_type in ("CPU", "DEFAULT")} - PYTHON_ONLY
    return {
        operation.name: [attribute.name for attribute in operation.attr]
        for operation in operations.op
        if operation.name in on_cpu
    }


def dump() -> dict:
    """What this environment has: TensorFlow's operations, and those that tensorflow-text adds, if it is installed."""
    import tensorflow

    core = registered(tensorflow)
    try:
        import tensorflow_text
    except ImportError:
        return {"tensorflow": tensorflow.__version__, "core": core}
    added = {name: attributes for name, attributes in registered(tensorflow).items() if name not in core}
    return {
        "tensorflow": tensorflow.__version__,
        "core": core,
        "tensorflow_text": tensorflow_text.__version__,
        "text": added,
    }


def combine(core_file: str, text_file: str, out: str) -> None:
    """Writes one list: the core operations of the first file and the text operations of the second, one to a line."""
    core, text = (json.loads(Path(file).read_text(encoding="utf-8")) for file in (core_file, text_file))
    missing = NOT_IN_OPS_LIB.get(text["tensorflow_text"], ())
    added = {name: attributes for name, attributes in text["text"].items() if name.rpartition(">")[2] not in missing}
    operations = {**core["core"], **added}
    lines = [f"{json.dumps(name)}:{json.dumps(operations[name], separators=(',', ':'))}" for name in sorted(operations)]
    head = f'"tensorflow":{json.dumps(core["tensorflow"])},"tensorflow_text":{json.dumps(text["tensorflow_text"])}'
    Path(out).write_text("{" + head + ',"operations":{\n' + ",\n".join(lines) + "\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["dump"]:
        json.dump(dump(), sys.stdout)
    elif len(sys.argv) == 5 and sys.argv[1] == "combine":
        combine(*sys.argv[2:])
    else:
        sys.exit(__doc__)
