"""An export under load: does its memory grow, does a request fail or get another answer, and what if versions change meanwhile?

    python benchmarks/prepare_data.py ../shared/data build/data
    python benchmarks/load.py saved_models/NAME build/data --minutes 10 --plot build/load.png
    python benchmarks/load.py saved_models/NAME saved_models/OTHER build/data --sides predictor --threads 16

Each side's threads ask for 1 to --most texts at a time, drawn anew, of all lengths, as fast as they are answered: `predictor`, a
`tfbert.Predictor` in a Python process of its own, and `program`, load.c, which holds the SavedModel through TensorFlow's C API as TF
Serving does. Every answer is compared with what the same text got alone, before. Then versions change --swaps times under the same load.
Neither side has TF Serving's manager of versions, so what it does is done here: the next export is loaded beside the one that answers,
new requests go to it, and the old one is dropped when its last request is answered. The Predictor's side reads a base folder in which the
new version has just appeared; the program is told the folder. With several exports an answer must be that of the very one asked.

One JSON object for each side on stdout, a table on stderr. The exit code is 1 where a request failed or an answer differs: in a label, or
in a number by more than 1e-5.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import tfbert_serving
from batch_scoring import texts
from load_sides import Program
from serving import percentile, write_texts
from training import HERE, place

from tfbert import plots
from tfbert.errors import InputError
from tfbert.serving.layout import saved_model

WORK = HERE.parent / "build" / "load"
EVERY = 1.0  # seconds between two looks at a process's memory


class Memory(threading.Thread):
    """Looks at a process's resident memory, until it is stopped: `samples` are pairs of seconds and MiB."""

    def __init__(self, process: int):
        super().__init__(daemon=True)
        self._file, self._begin, self._ended = Path(f"/proc/{process}/statm"), time.monotonic(), threading.Event()
        self.samples: list[tuple[float, float]] = []

    def now(self) -> float:
        return int(self._file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def seconds(self) -> float:
        return time.monotonic() - self._begin

    def run(self) -> None:
        while not self._ended.is_set():
            self.samples.append((round(self.seconds(), 1), round(self.now(), 1)))
            self._ended.wait(EVERY)

    def stop(self) -> None:
        self._ended.set()
        self.join()


def growth(samples: list[tuple[float, float]], first: float, last: float) -> float:
    """The slope of the memory between two times, in MiB a minute, by least squares; 0 of fewer than three samples."""
    chosen = [(seconds / 60, size) for seconds, size in samples if first <= seconds <= last]
    return round(float(np.polyfit(*zip(*chosen, strict=True), 1)[0]), 3) if len(chosen) > 2 else 0.0


def figures(report: dict, seconds: float) -> dict:
    """What a side told of some time, in figures."""
    latencies = [1000 * value for value in report["latencies"]]
    found = {name: report[name] for name in ("requests", "rows", "failures", "different", "largest_difference")}
    found |= {"seconds": round(seconds, 1), "rows_per_second": round(report["rows"] / seconds, 1)}
    if latencies:
        found |= {f"latency_ms_p{share}": round(percentile(latencies, share / 100), 1) for share in (50, 95, 99)}
    return found


def measure(side: Program, options) -> dict:
    """A side's figures: under load alone, then with versions that change."""
    memory = Memory(side.process.pid)
    memory.start()
    begin, steady = time.monotonic(), 60 * options.minutes
    side.report()
    time.sleep(steady / 2)
    heap = [side.heap()]
    time.sleep(steady / 2)
    heap.append(side.heap())
    found = {"steady": figures(side.report(), time.monotonic() - begin)}
    end, begin, swaps = memory.seconds(), time.monotonic(), []
    for number in range(1, options.swaps + 1):
        time.sleep(options.pause)
        side.swap(number % len(options.exports))
        swaps.append({"seconds": round(memory.seconds(), 1), "memory_mib": round(memory.now(), 1)})
    if options.swaps:
        time.sleep(options.pause)
        found |= {"swapped": figures(side.report(), time.monotonic() - begin), "swaps": swaps}
    memory.stop()
    warm = min(60.0, steady / 4)  # the first requests fill pools of memory
    sizes = {name: next(size for at, size in memory.samples if at >= second) for name, second in
             (("start_mib", 0.0), ("after_a_minute_mib", warm))}  # fmt: skip
    sizes["end_mib"] = [size for at, size in memory.samples if at <= end][-1]
    sizes["growth_mib_a_minute"] = growth(memory.samples, warm, end)
    sizes["last_half_growth_mib_a_minute"] = growth(memory.samples, end / 2, end)
    sizes |= {f"{name}_half_and_end": [part[name] for part in heap] for name in heap[0]}
    every = max(1, len(memory.samples) // 200)
    return found | {"memory": sizes | {"after_swaps_mib": memory.samples[-1][1]}, "samples": memory.samples[::every]}


def commands(options, exports: list[Path], asked: list[str]) -> dict[str, list[str]]:
    """The command line of each side."""
    file = write_texts(WORK / "texts.txt", asked)
    names = {tfbert_serving.tensor_names(export, "serving_default") for export in exports}
    if len(names) > 1:
        raise InputError(f"the exports have other tensors: {sorted(names)}; load.py asks exports of one kind")
    numbers = list(map(str, (options.threads, options.most, options.intra, options.inter)))
    folders = list(map(str, exports))
    found = {"predictor": [sys.executable, str(HERE / "load_sides.py"), *numbers, str(file), str(WORK), *folders]}
    if "program" in options.sides:
        program = tfbert_serving.compile_program(WORK / "program", HERE / "load.c")
        libraries = tfbert_serving.libraries()
        found["program"] = [str(program), *numbers, *names.pop(), str(file), str(len(folders)), *folders, *libraries]
    return {side: found[side] for side in options.sides}


def table(results: list[dict]) -> str:
    """The results as lines to read."""
    lines = [f"{'':22}{'requests':>9}{'rows/s':>8}{'failed':>8}{'differ':>8}{'p50 ms':>8}{'p95':>8}{'p99':>8}"]
    for result in results:
        for part in ("steady", "swapped"):
            if row := result.get(part):
                times = "".join(f"{row.get(f'latency_ms_p{share}', 0):8.1f}" for share in (50, 95, 99))
                counts = f"{row['requests']:9}{row['rows_per_second']:8.1f}{row['failures']:8}{row['different']:8}"
                lines.append(f"{result['side'] + ', ' + part:22}{counts}{times}")
        sizes = result["memory"]
        lines.append(
            f"{result['side']}: {sizes['start_mib']:.0f} MiB, after a minute {sizes['after_a_minute_mib']:.0f}, in the end "
            f"{sizes['end_mib']:.0f} ({sizes['growth_mib_a_minute']:+.3f} MiB a minute), after the swaps {sizes['after_swaps_mib']:.0f}"
        )
        if "allocated_mib_half_and_end" in sizes:
            half, end = sizes["allocated_mib_half_and_end"]
            lines.append(
                f"{result['side']}: allocated and not freed {half:.1f} MiB at half of the time, {end:.1f} in the end"
            )
    return "\n".join(lines)


def picture(results: list[dict]):
    """A figure: each side's memory over time; a thin line where a version changed."""
    made, axes = plots.figure(7, 3.4)
    for result, color in zip(results, (plots.BLUE, plots.ORANGE)):
        axes.plot(*zip(*((at / 60, size) for at, size in result["samples"])), color=color, label=result["side"])
        for swap in result.get("swaps", ()):
            axes.axvline(swap["seconds"] / 60, color=color, linewidth=0.5)
    axes.set(xlabel="minutes", ylabel="resident memory, MiB", ylim=(0, None))
    axes.legend(frameon=False, loc="lower right")
    return made


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "exports", nargs="+", help="folders that fine-tune or export wrote; versions change between them"
    )
    parser.add_argument("data", type=Path, help="a folder with .csv files that have a column text")
    parser.add_argument("--sides", nargs="+", choices=["predictor", "program"], default=["predictor", "program"])
    parser.add_argument("--minutes", type=float, default=10, help="of load without changes (default 10)")
    parser.add_argument("--threads", type=int, default=8, help="that ask (default 8)")
    parser.add_argument("--texts", type=int, default=1000, help="from which is drawn (default 1,000)")
    parser.add_argument("--most", type=int, default=8, help="texts of a request (default 8)")
    parser.add_argument("--swaps", type=int, default=6, help="of versions, afterwards (default 6)")
    parser.add_argument("--pause", type=float, default=15, help="seconds before each of them (default 15)")
    parser.add_argument("--intra", type=int, default=1, help="threads of an operation (default 1)")
    parser.add_argument("--inter", type=int, default=0, help="threads between operations (default 0, all cores)")
    parser.add_argument("--plot", type=Path, help="a .png of the memory over time")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    results = []
    try:
        exports = [saved_model(export) for export in options.exports]
        every = texts(options.data)
        asked = every[:: max(1, len(every) // options.texts)][: options.texts]  # of all files
        WORK.mkdir(parents=True, exist_ok=True)
        for name, command in commands(options, exports, asked).items():
            before = os.getloadavg()[0]
            with Program(command, WORK / f"{name}.log") as side:
                found = {"benchmark": "load", "side": name, **measure(side, options)}
            settings = ("threads", "texts", "most", "minutes", "swaps", "pause", "intra", "inter")
            found["settings"] = {key: getattr(options, key) for key in settings} | {"exports": len(exports)}
            results.append(found | {"machine": place(before)})
            print(json.dumps(results[-1]), flush=True)
    except (InputError, subprocess.CalledProcessError) as error:
        print(f"load.py: {error}", file=sys.stderr)
        return 2
    print(table(results), file=sys.stderr)
    if options.plot:
        options.plot.write_bytes(plots.png(picture(results)))
    parts = [result[part] for result in results for part in ("steady", "swapped") if part in result]
    return int(any(part["failures"] or part["different"] or not part["requests"] for part in parts))


if __name__ == "__main__":
    sys.exit(main())
