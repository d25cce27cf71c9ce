"""report.html: one self-contained page on a training: its scores, where the model is wrong, and what the data are."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from tfbert import plots
from tfbert._compat import lazy

schedules = lazy("tfbert.schedules")  # its classes are Keras'

LONGEST_TEXT = 400  # characters of a text in the table of the worst examples
MOST_BARS = 40
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1080px; margin: 2em auto; padding: 0 1em }
h1, h2 { font-weight: 600 } h2 { margin-top: 2em; border-bottom: 1px solid #ccc }
table { border-collapse: collapse; margin: 1em 0; font-size: 13px } th, td { padding: .3em .8em; border-bottom: 1px solid #ddd }
th { text-align: left; background: #f4f4f4 } td { vertical-align: top; overflow-wrap: break-word; min-width: 3em; max-width: 34em }
td.n { text-align: right; white-space: nowrap }
.worst td:first-child { overflow-wrap: anywhere; max-width: 10em } .worst td:nth-child(2) { min-width: 30em }
img { max-width: 100%; height: auto; margin: .5em 1em .5em 0 } p.note { color: #666; font-size: 13px }
"""


def html(task, results: Mapping[str, Any], history: Sequence[Mapping[str, float]], details: Mapping[str, Any]) -> str:
    """Writes the page.

    Args:
        task: the trained task.
        results: what metrics.json holds, with its data sheet under "data".
        history: a dict per epoch.
        details: what `evaluate(..., details=True)` gave for the data that were scored last.

    Returns:
        The text of an HTML page that needs no other file and runs no script. Whatever comes from the data is escaped.
    """
    part = "test" if "test" in results else "validation"
    monitor = results["settings"].get("monitor") or task.monitor
    body = [
        f"<h1>{escape(task.name)}</h1>",
        f"<p>{results['rows'][part]:,} {part} examples, {results['rows']['train']:,} training examples from "
        f"{escape(results['sources']['train'])}; checkpoint {escape(results['settings']['checkpoint'])}.</p>",
        "<h2>Scores</h2>",
        _scores(results),
        _picture(plots.curves(history, monitor), "Training loss and validation score by epoch"),
        _picture(
            plots.learning_rates(_rates(results, history[-1]["epoch"])), "Learning rate by step and group of layers"
        ),
        *_where_it_is_wrong(details, monitor),
        f"<h2>The {len(details['top_losses'])} highest losses</h2>",
        _worst(details),
        "<h2>The data</h2>",
        *_data(task, results["data"]),
        "<h2>Settings</h2>",
        _table(["", ""], [*_flat({"task": task.to_json(), **results["settings"], "versions": results["versions"]})]),
    ]
    title = escape(f"tfbert: {task.name}")
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def _scores(results: Mapping[str, Any]) -> str:
    parts = [part for part in ("validation", "test") if part in results]
    names = list(results[parts[-1]])
    rows = [[name, *(_number(results[part].get(name)) for part in parts)] for name in names]
    cost = (
        f"Best epoch {results['best_epoch']}; {results['train_seconds']:,.0f} s of training at "
        f"{results['tokens_per_second']:,.0f} tokens/s, {100 * results['padding_share']:.1f} % padding, "
        f"{results['peak_memory_bytes'] / 2**30:.1f} GiB at the peak."
    )
    return _table(["score", *parts], rows) + f"<p>{cost}</p>"


def _rates(results: Mapping[str, Any], epochs: float) -> dict[str, Sequence[float]]:
    """The rate of each step of a run; where groups of layers have rates of their own, of each group that learned."""
    settings = results["settings"]
    rate = schedules.by_name(
        settings["schedule"],
        settings["learning_rate"],
        total_steps=results["steps"] * settings["epochs"],
        warmup_fraction=settings["warmup_fraction"],
    )(range(round(results["steps"] * epochs))).numpy()
    shares = {name: group["rate"] for name, group in results["layer_groups"].items() if group["trainable"]}
    steps_before = {
        name: results["steps"] * (results["layer_groups"][name].get("from_epoch", 1) - 1) for name in shares
    }
    if len(set(shares.values())) == 1 and not any(steps_before.values()):
        return {"all": rate * shares.popitem()[1]}
    return {
        name: np.where(np.arange(len(rate)) < steps_before[name], 0, rate * share) for name, share in shares.items()
    }


def _where_it_is_wrong(details: Mapping[str, Any], monitor: str) -> list[str]:
    body = ["<h2>Where it is wrong</h2>"]
    groups = [group for group in details["by_length"] if monitor in group["metrics"]]
    if len(groups) > 1:
        names = ["{}–{}".format(*group["tokens"]) for group in groups]
        values = [group["metrics"][monitor] for group in groups]
        counts = [group["examples"] for group in groups]
        body.append(_picture(plots.bars(names, values, counts, monitor, "tokens"), f"{monitor} by length"))
    if details["by_label"]:
        labels = sorted(details["by_label"].items(), key=lambda item: item[1]["f1"])
        shown = labels[:MOST_BARS]
        picture = plots.bars(
            [name for name, _ in shown], [row["f1"] for _, row in shown], [row["support"] for _, row in shown], "F1"
        )
        body.append(_picture(picture, "F1 by label, the lowest first"))
        body += [f'<p class="note">The {MOST_BARS} lowest of {len(labels)} labels.</p>'] if shown != labels else []
    matrix = details["confusion"]
    if matrix:
        if len(matrix["labels"]) <= plots.MOST_LABELS:
            body.append(_picture(plots.confusion(matrix["counts"], matrix["labels"]), "Confusion matrix"))
        rows = [[row["expected"], row["answered"], f"{row['count']:,}"] for row in matrix["top"]]
        body.append(_table(["expected", "answered", "times"], rows) if rows else "<p>Nothing was confused.</p>")
    if details["calibration"]:
        body.append(_picture(plots.reliability(details["calibration"]), "Accuracy over confidence"))
    return body


def _worst(details: Mapping[str, Any]) -> str:
    rows = []
    for i in details["top_losses"]:
        example = details["examples"][i]
        answer = {
            name: value for name, value in example["answer"].items() if name not in ("labels", "scores", "embedding")
        }
        windows = len(example["windows"])
        size = f"{example['tokens']:,}" + (f" in {windows} rows" if windows > 1 else "")
        rows.append(
            [
                example["where"].rsplit("/", 1)[-1],
                *map(_brief, (example["input"], example["expected"], answer, example["loss"])),
                size,
            ]
        )
    return f'<div class="worst">{_table(["place", "input", "expected", "answer", "loss", "tokens"], rows)}</div>'


def _data(task, sheet: Mapping[str, Any]) -> list[str]:
    parts = list(sheet)
    rows = [["rows", *(f"{sheet[part]['rows']:,}" for part in parts)]]
    for name in ("median", "95 %", "most"):
        rows.append([f"tokens of a row, uncut: {name}", *(f"{sheet[part]['tokens'][name]:,}" for part in parts)])
    named = {
        "longer": f"rows over max_length {task.max_length}: cut, or read in windows",
        "duplicates": "rows whose text stood before",
        "contradictions": "... with another label",
        "in_train": "rows whose text is in the training data",
    }
    for key, text in named.items():
        counts = [sheet[part].get(key) for part in parts]
        cells = [
            "" if count is None else f"{count:,} ({100 * count / max(1, sheet[part]['rows']):.1f} %)"
            for count, part in zip(counts, parts, strict=True)
        ]
        rows.append([text, *cells])
    body = [_table(["", *parts], rows)]
    first = parts[0]  # "train", where it is no stream
    labels = list(sheet[first]["labels"])
    if labels:
        shown = [[name, *(f"{sheet[part]['labels'].get(name, 0):,}" for part in parts)] for name in labels]
        body.append(_table(["label", *parts], shown))
    title = f"Lengths of the {'training' if first == 'train' else first} rows"
    body.append(_picture(plots.lengths(sheet[first]["histogram"], task.max_length), title))
    return body


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[list[str]]:
    """The leaves of nested dicts, each with its path."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield [f"{prefix}{name}", _brief(value)]


def _brief(value: Any) -> str:
    """A value as a person would write it, cut where it is long."""
    if isinstance(value, Mapping):
        text = "\n".join(f"{name}: {_brief(item)}" for name, item in value.items())
    elif isinstance(value, list | tuple):
        text = ", ".join(map(_brief, value))
    else:
        text = _number(value) if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} …"


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>\n" for row in rows)
    return f"<table><tr>{top}</tr>\n{lines}</table>"


def _cell(text: str) -> str:
    numeric = text.replace(",", "").replace(".", "").replace("-", "").isdecimal()
    kind = ' class="n"' if numeric else ""
    return f"<td{kind}>{escape(text).replace(chr(10), '<br>')}</td>"


def _picture(png: bytes, text: str) -> str:
    return f'<img alt="{escape(text)}" title="{escape(text)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
