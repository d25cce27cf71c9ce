"""Compares a new run's ratios to the peers with the stored ones: exit code 1 where one fell by more than a share.

    python benchmarks/serving.py > new.json && python benchmarks/compare.py new.json
    python benchmarks/compare.py new.json --allowed 0.1 --stored benchmarks/results.json

Ratios are compared, not seconds, because a slower or busier machine slows both sides; another kind of processor changes ratios too and
is told. What one of the two lacks is left out and told. Medians are compared; results.json is what report.py keeps.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

STORED = Path(__file__).with_name("results.json")


def read_results(path: Path) -> list[dict]:
    """The results in a file: one JSON object a line, as the scripts print them."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def key(result: dict) -> str:
    """What a result is about: a new one replaces a stored one of the same key, and is compared with it."""
    settings = result.get("settings", result)
    parts = (
        result.get("benchmark", "tokenization"),
        settings.get("setting"),
        settings.get("data"),
        settings.get("checkpoint"),
        result.get("precision"),
    )
    return " ".join(str(part) for part in parts if part)


def ratios(result: dict) -> dict[str, float]:
    """The median of every ratio to a peer, by peer and measure; above 1, tfbert is the better one."""
    found = {
        f"{peer} {name}": value for peer, values in result.get("ratios", {}).items() for name, value in values.items()
    }
    found |= {
        name.removeprefix("graph_over_"): value for name, value in result.items() if name.startswith("graph_over_")
    }
    return {name: value["median"] for name, value in found.items()}


def fallen(new: dict[str, float], stored: dict[str, float], allowed: float) -> dict[str, tuple[float, float]]:
    """The ratios that are less than 1 - `allowed` of the stored ones: stored and new by name."""
    return {
        name: (stored[name], new[name]) for name in stored if name in new and new[name] < (1 - allowed) * stored[name]
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("new", type=Path, help="what the scripts printed, a JSON object a line")
    parser.add_argument("--stored", type=Path, default=STORED, help="default: benchmarks/results.json")
    parser.add_argument(
        "--allowed", type=float, default=0.25, help="the share by which a ratio may fall (default 0.25)"
    )
    options = parser.parse_args(argv)
    stored, code = {key(result): result for result in read_results(options.stored)}, 0
    for result in read_results(options.new):
        name = key(result)
        if name not in stored:
            print(f"{name}: nothing is stored to compare with", file=sys.stderr)
            continue
        new, old = ratios(result), ratios(stored[name])
        places = [one.get("machine", {}).get("processor") for one in (stored[name], result)]
        if places[0] != places[1]:
            print(
                f"{name}: stored on {places[0]}, now on {places[1]}; ratios may differ for that alone", file=sys.stderr
            )
        if absent := sorted(set(old) ^ set(new)):
            print(f"{name}: only one of the two has {', '.join(absent)}", file=sys.stderr)
        found = fallen(new, old, options.allowed)
        for measure, (before, after) in found.items():
            print(f"{name}: {measure} fell from {before:.2f} to {after:.2f}, {1 - after / before:.0%}", file=sys.stderr)
        code |= bool(found)
        print(json.dumps({"benchmark": name, "compared": len(set(old) & set(new)), "fallen": found}))
    return code


if __name__ == "__main__":
    sys.exit(main())
