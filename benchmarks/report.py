"""Keeps benchmarks/results.json and writes benchmarks/RESULTS.md, tables of it.

python benchmarks/report.py                    # writes RESULTS.md anew
python benchmarks/report.py new.json ...       # takes new results in first; of the same kind and data, the new one stays
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from compare import STORED, key, read_results

PLACE = Path(__file__).with_name("RESULTS.md")
TRIED = Path(__file__).with_name("tried.md")  # written by hand: where the time goes, and what did not help
HEAD = """# Results of the benchmarks

Written by `python benchmarks/report.py` from `results.json` and `tried.md`; not by hand. What is measured and how: [README.md](README.md).
Medians of rounds in which the sides took turns, smallest and largest in brackets. A ratio says how many times as good tfbert is, of
neighbouring rounds: above 1, tfbert is the better one.
"""
COLUMNS = {
    "texts_per_second_sorted": ("texts/s, sorted", 0),
    "texts_per_second_unsorted": ("texts/s, unsorted", 0),
    "cpu_ms_a_text_sorted": ("CPU ms a text", 2),
    "latency_ms_p50": ("p50 ms", 2),
    "latency_ms_p95": ("p95 ms", 2),
    "latency_ms_p99": ("p99 ms", 2),
    "cold_start_seconds": ("start s", 2),
    "peak_memory_mib": ("peak MiB", 0),
}


def markdown(rows: list[list[str]]) -> str:
    """A table, its first row the head."""
    head, *others = rows
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *others]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: dict[str, float], digits: int = 2) -> str:
    """A median with its spread, where there is any."""
    shown = {name: f"{value[name]:,.{digits}f}" for name in ("median", "min", "max")}
    return shown["median"] + (f" ({shown['min']} to {shown['max']})" if shown["min"] != shown["max"] else "")


def machine(result: dict) -> str:
    """One paragraph on where it ran."""
    place, flags = result["machine"], result["machine"]["flags"]
    absent = [
        name for name, any_of in (("VNNI", "vnni"), ("bfloat16", "bf16")) if not any(any_of in flag for flag in flags)
    ]
    without = f", without {' and '.join(absent)} instructions" if absent else ""
    before, after = place["load_average"]
    cores = place["cores"]
    busy = "; the machine was shared and busy with other work" if before > 0.5 else ""
    return f"{place['processor']}, {cores} cores, {' '.join(flags)}{without}. Load average {before} before, {after} after{busy}."


def where(result: dict, sides: dict[str, dict]) -> str:
    """The machine and the versions of all sides."""
    versions: dict[str, dict[str, None]] = {}  # the inner one as an ordered set: sides may differ in their Transformers
    for side in sides.values():
        for name, version in side.get("versions", {}).items():
            versions.setdefault(name, {})[version] = None
    return f"{machine(result)} " + ", ".join(f"{name} {' and '.join(of)}" for name, of in versions.items()) + "."


def serving(result: dict) -> str:
    settings, about = result["settings"], result["about"]
    given = "".join(f" {name}={value} for all." for name, value in settings["environment"].items())
    words = "{} to {}, median {:g}".format(settings["words"][0], settings["words"][2], settings["words"][1])
    versions = dict(about["versions"])
    for side in result["sides"].values():
        versions |= side.get("versions", {})
    sides = [["", *(title for title, _ in COLUMNS.values())]]
    sides += [
        [name, *(number(of["measures"][key], digits) for key, (_, digits) in COLUMNS.items())]
        for name, of in result["sides"].items()
    ]
    compared = [[f"{next(iter(result['sides']))} to", *(title for title, _ in COLUMNS.values())]]
    compared += [[name, *(number(found[key]) for key in COLUMNS)] for name, found in result["ratios"].items()]
    answers = [["", "texts", "equal labels", "scores apart by more than 1e-4", "largest difference"]]
    for name, found in result["answers"].items():
        shown = (
            f"{found['texts']}",
            f"{found['equal_labels']:.1%}",
            f"{found['different_scores']}",
            f"{found['largest_score_difference']:g}",
        )
        answers.append([name, *shown])
    return "\n\n".join(
        [
            f"## Serving: {settings['data']}" + (f", {result['precision']}" if "precision" in result else ""),
            f"{settings['texts']} texts of {words} words; batches of {settings['batch']}; latency of one sentence of ten words; "
            f"{settings['threads']} threads a side; {settings['rounds']} rounds, {settings['requests']} requests a round, "
            f"{settings['starts']} cold starts.{given} {machine(result)} "
            + ", ".join(f"{name} {it}" for name, it in versions.items())
            + ".",
            *(markdown(rows) for rows in (sides, compared, answers) if len(rows) > 1),
        ]
    )


def training(result: dict) -> str:
    settings = result["settings"]
    rows = [["", "tokens/s", "CPU s an epoch", "padding", "peak MiB"]]
    for name in ("tfbert", "trainer"):
        side = result[name]
        padding, memory = f"{side['padding_share']['median']:.1%}", f"{side['peak_memory_bytes'] / 2**20:,.0f}"
        rows.append([name, number(side["tokens_per_second"], 0), number(side["cpu_seconds"]), padding, memory])
    ratios = result["ratios"]["trainer"]
    rows.append(["ratio", number(ratios["tokens_per_second"]), "", "", number(ratios["peak_memory"])])
    return "\n\n".join(
        [
            f"## Training, setting {settings['setting']}: {settings['data']}, {result['precision']}",
            f"{settings['checkpoint']}, {result['tfbert']['parameters'] / 1e6:.1f} M parameters, {settings['rows']} rows, "
            f"at most {settings['max_length']} tokens, batch {settings['batch_size']}, {settings['threads']} threads, "
            f"{settings['rounds']} epochs a side. {where(result, {name: result[name] for name in ('tfbert', 'trainer')})}",
            markdown(rows),
        ]
    )


def tokenization(result: dict) -> str:
    rows = [["", "sentences/s"], *([name, f"{value:,}"] for name, value in result["sentences_per_second"].items())]
    return (
        f"## Tokenization: {result['data']}\n\n{result['cores']} cores, {result['rounds']} rounds.\n\n{markdown(rows)}"
    )


def features(result: dict) -> str:
    settings, columns = result["settings"], {"texts_per_second": ("texts/s", 0), "cpu_ms_a_text": ("CPU ms a text", 2)}
    columns |= {name: COLUMNS[name] for name in ("cold_start_seconds", "peak_memory_mib")}
    titles, apart = [title for title, _ in columns.values()], result["largest_difference"]
    sides, compared = [["", *titles, "vectors apart by"]], [["", *titles]]
    for name, side in result["sides"].items():
        figures = [number(side["measures"][key], digits) for key, (_, digits) in columns.items()]
        sides.append([name, *figures, f"{apart[name]:g}" if name in apart else ""])
    compared += [[name, *(number(found[key]) for key in columns)] for name, found in result["ratios"].items()]
    words = "{} to {}, median {:g}".format(result["words"][0], result["words"][2], result["words"][1])
    about = (
        f"{settings['checkpoint']}, {result['texts']} texts of {words} words, batches of {settings['batch']}, vectors of "
        f"{result['dimensions']}; {settings['threads']} threads a side; {settings['rounds']} rounds, {settings['starts']} cold starts."
    )
    title = f"## Sentence vectors: {settings['data']}"
    return "\n\n".join([title, f"{about} {where(result, result['sides'])}", markdown(sides), markdown(compared)])


def shapes(result: dict) -> str:
    titles = {
        "training_tokens_per_second": ("training step, tokens/s", 0),
        "batch_tokens_per_second": ("inference, tokens/s", 0),
        "sentence_ms": ("one sentence, ms", 2),
    }
    settings, of, apart = result["settings"], result["settings"]["shapes"], result["largest_difference"]
    sides, compared = (
        [["", *(title for title, _ in titles.values()), "logits apart by"]],
        [["tfbert to", *(title for title, _ in titles.values())]],
    )
    for name, side in result["sides"].items():
        figures = [
            number(side["measures"][key], digits) if key in side["measures"] else ""
            for key, (_, digits) in titles.items()
        ]
        sides.append([name, *figures, f"{apart[name]:g}" if name in apart else ""])
    compared += [
        [name, *(number(found[key]) if key in found else "" for key in titles)]
        for name, found in result["ratios"].items()
    ]
    rows = {work: f"{shape[0]} x {shape[1]}" for work, shape in of.items()}
    about = (
        f"{settings['checkpoint']} with a head of eight labels, ids in and logits out, no padding. Training steps of {rows['training']} "
        f"tokens, inference of {rows['batch']}, one sentence of {rows['sentence']}; {settings['threads']} threads a side; "
        f"{settings['rounds']} rounds, medians of a round's calls. onnx-int8 computes in int8. {where(result, result['sides'])}"
    )
    return "\n\n".join([f"## Fixed shapes: {result['precision']}", about, markdown(sides), markdown(compared)])


def input_pipeline(result: dict) -> str:
    settings, ratios = result["settings"], result["ratios"]["trainer"]
    rows, sides = [["", "rows/s", "CPU us a row", "padding"]], {name: result[name] for name in ("tfbert", "trainer")}
    for name, side in sides.items():
        padding = f"{side['padding_share']['median']:.1%}"
        rows.append([name, number(side["rows_per_second"], 0), number(side["cpu_us_a_row"], 1), padding])
    rows.append(["ratio", number(ratios["rows_per_second"]), number(ratios["cpu_us_a_row"]), ""])
    about = (
        f"{settings['rows']:,} rows, at most {settings['max_length']} tokens, batch {settings['batch_size']}, "
        f"{settings['threads']} threads, {settings['rounds']} epochs a side."
    )
    return f"## Input pipeline: {settings['data']}\n\n{about} {where(result, sides)}\n\n{markdown(rows)}"


def start(result: dict) -> str:
    rows, limits = [["", "seconds", "CPU s", "limit", "ratio"]], result["limits"]
    ratios = {peer: value for peer, found in result["ratios"].items() for value in found.values()}
    for name, side in result["sides"].items():
        limit = f"{limits[name]['seconds']:g}{'' if limits[name]['kept'] else ', not kept'}" if name in limits else ""
        ratio = number(ratios[name]) if name in ratios else ""
        rows.append([name, number(side["seconds"]), number(side["cpu_seconds"]), limit, ratio])
    about = f"{result['settings']['rounds']} processes of each, in turn. {machine(result)}"
    return f"## Start\n\n{about}\n\n{markdown(rows)}"


SECTIONS = {
    "features": features,
    "input_pipeline": input_pipeline,
    "serving": serving,
    "shapes": shapes,
    "start": start,
    "training": training,
    "tokenization": tokenization,
}


def main(paths: list[str], stored: Path = STORED, place: Path = PLACE) -> int:
    found = {
        key(result): result for path in [stored, *map(Path, paths)] if path.is_file() for result in read_results(path)
    }
    ordered = [found[name] for name in sorted(found)]
    stored.write_text("".join(json.dumps(result) + "\n" for result in ordered), "utf-8")
    sections = [SECTIONS[result.get("benchmark", "tokenization")](result) for result in ordered]
    place.write_text("\n\n".join([HEAD.strip(), *sections, TRIED.read_text("utf-8").strip()]) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
