"""Rows a second that reach a training step: `make_dataset(training=True)` beside the Hugging Face Trainer's own data loader.

    python benchmarks/input_pipeline.py                              # the bundled messages, again and again up to 10,000 rows
    python benchmarks/input_pipeline.py --data reviews.csv --rows 20000 --max-length 256

The rows are tokenized before the clock starts. An epoch is its order, grouped by length, and every padded batch, which nothing learns
from. The sides are those of training.py, with the same options, and run one epoch each in turn; the first of each is a warm-up. The
result is one JSON object on stdout; a table goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from training import arguments, job_of, place, spread, take_turns

from tfbert.errors import InputError

ROWS = 10_000


def summary(rounds: list[dict], rows: int) -> dict:
    """One side's epochs in one dict."""
    return {
        "rows_per_second": spread([rows / r["seconds"] for r in rounds], 0),
        "cpu_us_a_row": spread([1e6 * r["cpu_seconds"] / rows for r in rounds], 1),
        "padding_share": spread([r["padding_share"] for r in rounds]),
        "tokens": rounds[0]["tokens"],
    }


def ratios(ours: list[dict], theirs: list[dict]) -> dict[str, dict[str, float]]:
    """How many times as good we are as the peer, of each pair of neighbouring rounds: above 1, tfbert is the better one."""
    speeds = [b["seconds"] / a["seconds"] for a, b in zip(ours, theirs, strict=True)]
    processor = [b["cpu_seconds"] / a["cpu_seconds"] for a, b in zip(ours, theirs, strict=True)]
    return {"rows_per_second": spread(speeds), "cpu_us_a_row": spread(processor)}


def table(result: dict) -> str:
    """The result as lines to read."""
    lines = [f"{'':10}{'rows/s: median':>16}{'min':>10}{'max':>10}{'CPU us a row':>14}{'padding':>9}"]
    for side in ("tfbert", "trainer"):
        row = result[side]
        speed, processor = row["rows_per_second"], row["cpu_us_a_row"]["median"]
        lines.append(
            f"{side:10}{speed['median']:16,.0f}{speed['min']:10,.0f}{speed['max']:10,.0f}{processor:14.1f}"
            f"{row['padding_share']['median']:9.1%}"
        )
    of = result["ratios"]["trainer"]["rows_per_second"]
    lines.append(f"tfbert / trainer: {of['median']:.2f} times the rows a second ({of['min']:.2f} to {of['max']:.2f})")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.set_defaults(rows=ROWS, rounds=15)
    options = parser.parse_args(argv)
    try:
        job = job_of(options)
    except InputError as error:
        print(f"input_pipeline.py: {error}", file=sys.stderr)
        return 2
    again = -(-options.rows // len(job["texts"]))
    job |= {name: (job[name] * again)[: options.rows] for name in ("texts", "labels")}
    load = os.getloadavg()[0]
    found, epochs, _ = take_turns({**job, "only_input": True}, options.rounds, options.peer_python)
    result = {
        "benchmark": "input_pipeline",
        **{side: {**summary(of, options.rows), "versions": found[side]["versions"]} for side, of in epochs.items()},
        "ratios": {"trainer": ratios(epochs["tfbert"], epochs["trainer"])},
        "settings": {
            "data": Path(options.data).name,
            "rows": options.rows,
            "checkpoint": options.checkpoint,
            "rounds": options.rounds,
            **{name: job[name] for name in ("batch_size", "max_length", "threads")},
        },
        "machine": place(load),
    }
    result["same_tokens"] = result["tfbert"]["tokens"] == result["trainer"]["tokens"]
    print(table(result), file=sys.stderr)
    print(json.dumps(result))
    return 0 if result["same_tokens"] else 1


if __name__ == "__main__":
    sys.exit(main())
