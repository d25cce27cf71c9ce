"""Where a training step spends its time: milliseconds by TensorFlow operation, forward, backward and in the update.

    python benchmarks/profile_training.py                     # 32 rows of 32 tokens, both encoders
    python benchmarks/profile_training.py --rows 16 --length 128 --encoder lean --precision bfloat16 --traces 5 --top 10

The step is training_step.py's: MiniLM, dropout; beside the lean encoder only the embeddings' rows in use are updated, beside
TF Transformers' layers the whole table. Each step is traced several times by TensorFlow's profiler; times are medians of an
operation's traces. Times of operations that run side by side add up to more than the wall clock. Prints a JSON object for each encoder
on stdout and tables on stderr.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

import training_step
from profile_serving import by_operation, nodes
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from tfbert._compat import keras, tf
from tfbert.devices import PRECISIONS

ENCODERS = ("transformers", "lean")


def trace(run) -> list[tuple[str, str, float, float]]:
    """One run's operations: name, kind, microseconds from the trace's begin, microseconds it took."""
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            run()
        (file,) = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(file.read_bytes())
    found = []
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                # An operation is "NAME:KIND"; the executor's own events are not, and are left out.
                name = re.fullmatch(r"([^\s:]+):(\w+)", plane.event_metadata[event.metadata_id].name)
                if name:
                    begin = line.timestamp_ns / 1e3 + event.offset_ps / 1e6
                    found.append((name[1], name[2], begin, event.duration_ps / 1e6))
    return found


def parts(found: list[dict]) -> dict[str, list[dict]]:
    """The operations by where their names say that they belong."""
    made = {"forward": [], "backward": [], "update": []}
    for node in found:
        backward = node["name"].startswith("gradient_tape/")
        made["backward" if backward else "update" if node["name"].startswith("AdamW/") else "forward"].append(node)
    return made


def profile(encoder: str, features, labels, traces: int, top: int) -> dict:
    step = training_step.step(
        features, labels, encoder, updates=True, in_use=encoder == "lean", dropout=True, xla=False
    )
    seconds = []
    for number in range(traces + 2):
        begin = time.perf_counter()
        step(features)
        if number >= 2:  # the first traces the function, the second copies what the first has scattered to
            seconds.append(time.perf_counter() - begin)
    found = parts(nodes([trace(lambda: step(features)) for _ in range(traces)]))
    rows, length = features["input_ids"].shape
    return {
        "benchmark": "profile_training",
        "encoder": encoder,
        "rows": rows,
        "length": length,
        "milliseconds_untraced": round(1e3 * statistics.median(seconds), 1),
        "parts": {
            name: {
                "nodes": len(of),
                "milliseconds": round(sum(node["took"] for node in of) / 1e3, 1),
                "by_operation": [(op, count, round(took / 1e3, 2)) for op, count, took in by_operation(of, top)],
            }
            for name, of in found.items()
        },
    }


def table(result: dict) -> str:
    head = f"{result['encoder']}, {result['rows']} rows of {result['length']} tokens: {result['milliseconds_untraced']} ms untraced"
    lines = [head]
    for name, part in result["parts"].items():
        lines.append(f"  {name}: {part['nodes']} nodes, {part['milliseconds']:,.1f} ms")
        lines += [f"    {op:36}{count:5}{took:10,.2f} ms" for op, count, took in part["by_operation"]]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", choices=ENCODERS, help="default: both")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--length", type=int, default=32, help="tokens of the longest row (default 32)")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--traces", type=int, default=5)
    parser.add_argument("--top", type=int, default=12, help="operations told of each part (default 12)")
    options = parser.parse_args(argv)
    keras.mixed_precision.set_global_policy(PRECISIONS[options.precision])
    features, labels = training_step.batch(options.rows, options.length)
    for encoder in [options.encoder] if options.encoder else ENCODERS:
        result = profile(encoder, features, labels, options.traces, options.top)
        print(table(result), file=sys.stderr)
        print(json.dumps({**result, "precision": options.precision}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
