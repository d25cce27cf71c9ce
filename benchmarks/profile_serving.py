"""Where one request of an export spends its time: seconds by TensorFlow operation, for the encoder and for all around it.

    python benchmarks/profile_serving.py saved_models/NAME [--batch 32] [--threads CORES] [--traces 9] [--top 25]

One short sentence, and a batch of the example data's texts of middle length, each traced several times (RunOptions.FULL_TRACE); times
are medians of an operation's traces. An operation belongs to the encoder if the model's name stands in its own; what comes before the
encoder's first is tokenization, what comes after its last makes the answers. Times of operations that run side by side add up to more
than the wall clock. Prints a JSON object for each on stdout and tables on stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path

from serving import SHORT

from tfbert._compat import tf, tf_text
from tfbert.serving.layout import saved_model
from tfbert.sources import read

DATA = Path(__file__).resolve().parents[1] / "examples" / "data" / "delivery_test.csv"
IDLE = {"VarHandleOp", "ReadVariableOp", "Const", "Identity", "NoOp"}  # may run long before the data come


def nodes(traces: list[list[tuple[str, str, float, float]]]) -> list[dict]:
    """Medians over traces of (name, operation, microseconds from the trace's begin, microseconds it took)."""
    found = defaultdict(list)
    for trace in traces:
        for name, operation, begin, took in trace:
            found[name, operation].append((begin, took))
    return [
        {
            "name": name,
            "op": operation,
            "begin": statistics.median(b for b, _ in all),
            "took": statistics.median(t for _, t in all),
        }
        for (name, operation), all in found.items()
    ]


def parts(found: list[dict], model: str) -> dict[str, list[dict]]:
    """The nodes before, of and after the encoder."""
    encoder = [node for node in found if model in node["name"]]
    begin = min(node["begin"] for node in encoder if node["op"] not in IDLE)
    others = [node for node in found if model not in node["name"]]
    return {
        "tokenization": [node for node in others if node["begin"] <= begin],
        "encoder": encoder,
        "answers": [node for node in others if node["begin"] > begin],
    }


def by_operation(found: list[dict], top: int) -> list[tuple[str, int, float]]:
    """The operations that take longest together: kind, how many, microseconds."""
    sums = defaultdict(lambda: [0, 0.0])
    for node in found:
        sums[node["op"]][0] += 1
        sums[node["op"]][1] += node["took"]
    return [(op, count, round(took, 1)) for op, (count, took) in sorted(sums.items(), key=lambda item: -item[1][1])][
        :top
    ]


class Model:
    """An export in a session, as a server holds it."""

    def __init__(self, export: Path, threads: int):
        v1, self.text_operations = tf.compat.v1, tf_text.__version__
        config = v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
        self.session = v1.Session(graph=tf.Graph(), config=config)
        with self.session.graph.as_default():
            signature = v1.saved_model.load(self.session, ["serve"], str(export)).signature_def["serving_default"]
        self.feed = next(iter(signature.inputs.values())).name
        self.outputs = [output.name for output in signature.outputs.values()]
        variables = [
            operation.name for operation in self.session.graph.get_operations() if operation.type == "VarHandleOp"
        ]
        self.name = statistics.mode(name.split("/")[0] for name in variables)

    def __call__(self, texts: list[str], **options):
        return self.session.run(self.outputs, {self.feed: texts}, **options)

    def trace(self, texts: list[str]) -> list[tuple[str, str, float, float]]:
        v1, metadata = tf.compat.v1, tf.compat.v1.RunMetadata()
        self(texts, options=v1.RunOptions(trace_level=v1.RunOptions.FULL_TRACE), run_metadata=metadata)
        stats = [node for device in metadata.step_stats.dev_stats for node in device.node_stats]
        begin = min(node.all_start_micros for node in stats)
        # The label is "NAME = OPERATION(INPUTS)".
        return [
            (
                node.node_name,
                node.timeline_label.split(" = ")[-1].split("(")[0],
                node.all_start_micros - begin,
                (node.op_end_rel_nanos - node.op_start_rel_nanos) / 1000,
            )
            for node in stats
        ]


def profile(model: Model, texts: list[str], traces: int, top: int) -> dict:
    for _ in range(10):
        model(texts)
    seconds = []
    for _ in range(5 * traces):
        begin = time.perf_counter()
        model(texts)
        seconds.append(time.perf_counter() - begin)
    found = parts(nodes([model.trace(texts) for _ in range(traces)]), model.name)
    return {
        "benchmark": "profile_serving",
        "texts": len(texts),
        "milliseconds_untraced": round(1000 * statistics.median(seconds), 2),
        "parts": {
            name: {
                "nodes": len(of),
                "microseconds": round(sum(node["took"] for node in of), 1),
                "by_operation": by_operation(of, top),
                "longest": [
                    (n["op"], round(n["took"], 1), n["name"]) for n in sorted(of, key=lambda n: -n["took"])[:top]
                ],
            }
            for name, of in found.items()
        },
    }


def table(result: dict) -> str:
    lines = [f"{result['texts']} texts: {result['milliseconds_untraced']} ms untraced"]
    for name, part in result["parts"].items():
        lines.append(f"  {name}: {part['nodes']} nodes, {part['microseconds']:,.0f} us")
        lines += [f"    {op:36}{count:5}{took:12,.1f} us" for op, count, took in part["by_operation"]]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", help="a folder that `tfbert fine-tune` or `export` wrote")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--traces", type=int, default=9)
    parser.add_argument("--top", type=int, default=25)
    options = parser.parse_args(argv)
    texts = sorted((row["text"] for row in read(DATA, columns={"text": "text"})), key=len)
    begin = (len(texts) - options.batch) // 2
    model = Model(saved_model(options.export), options.threads)
    for batch in ([SHORT], texts[begin : begin + options.batch]):
        result = profile(model, batch, options.traces, options.top)
        print(table(result), file=sys.stderr)
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
