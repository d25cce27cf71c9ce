"""The pictures of a report, as PNG, by matplotlib (the extra `report`)."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfbert._compat import lazy
from tfbert.errors import InputError

# matplotlib is optional: it is imported when the first figure is drawn.
figures, canvases = lazy("matplotlib.figure"), lazy("matplotlib.backends.backend_agg")

BLUE, ORANGE, GREY = "#2266aa", "#dd7722", "#999999"
MOST_LABELS = 30  # of a confusion matrix that can be read


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def needed() -> bool:
    """Raises InputError where matplotlib is not installed; returns True."""
    if not available():
        raise InputError("a report needs matplotlib, which is not installed: pip install matplotlib")
    return True


def figure(width: float, height: float):
    """A figure and its axes, outside pyplot's global state: nothing is shown, and nothing has to be closed."""
    needed()
    made = figures.Figure(figsize=(width, height), dpi=110, layout="constrained")
    canvases.FigureCanvasAgg(made)
    axes = made.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return made, axes


def png(made) -> bytes:
    """The bytes of a figure's PNG; equal figures have equal bytes."""
    target = io.BytesIO()
    made.savefig(target, format="png", metadata={"Software": None})
    return target.getvalue()


def curves(history: Sequence[Mapping[str, float]], monitor: str) -> bytes:
    """Training loss and validation score after each epoch."""
    made, axes = figure(6, 3.2)
    epochs = [row["epoch"] for row in history]
    axes.plot(epochs, [row["loss"] for row in history], color=BLUE, marker="o", label="training loss")
    axes.set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
    axes.xaxis.get_major_locator().set_params(integer=True)
    lines = list(axes.get_lines())
    name = f"val_{monitor}"
    if name in history[0]:
        other = axes.twinx()
        lines += other.plot(
            epochs, [row[name] for row in history], color=ORANGE, marker="s", label=f"validation {monitor}"
        )
        other.set_ylabel(f"validation {monitor}")
        other.spines["top"].set_visible(False)
    axes.legend(handles=lines, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    return png(made)


def confusion(counts, labels: Sequence[str]) -> bytes:
    """A confusion matrix: the shares of each expected label's answers, with their counts."""
    counts = np.asarray(counts)
    size = 2.2 + 0.42 * len(labels)
    made, axes = figure(size + 1, size)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="answered", ylabel="expected", xticks=range(len(labels)), yticks=range(len(labels)))
    axes.set_xticklabels(map(shortened, labels), rotation=90)
    axes.set_yticklabels(map(shortened, labels))
    for a, b in np.argwhere(counts > 0):
        axes.text(
            b, a, counts[a, b], ha="center", va="center", fontsize=7, color="white" if shares[a, b] > 0.5 else "black"
        )
    return png(made)


def bars(names: Sequence[str], values: Sequence[float], counts: Sequence[int], ylabel: str, xlabel: str = "") -> bytes:
    """A score for each name, over how many examples it is."""
    made, axes = figure(max(4.0, 1.5 + 0.45 * len(names)), 3.4)
    axes.bar(range(len(names)), values, color=BLUE, width=0.7)
    for i, (value, count) in enumerate(zip(values, counts, strict=True)):
        axes.annotate(f"{count:,}", (i, max(value, 0)), ha="center", va="bottom", fontsize=7, color=GREY)
    axes.set(xticks=range(len(names)), ylabel=ylabel, xlabel=xlabel, ylim=(min(0, *values), 1.08 * max(1e-9, *values)))
    axes.set_xticklabels(map(shortened, names), rotation=0 if len(names) <= 6 and max(map(len, names)) < 10 else 90)
    return png(made)


def reliability(calibration: Mapping[str, Any]) -> bytes:
    """Accuracy over confidence, before and after the temperature; on the diagonal a score means what it says."""
    made, axes = figure(4.4, 4)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    for name, color, marker in (("before", ORANGE, "s"), ("after", BLUE, "o")):
        parts = calibration[name]
        most = max(part["count"] for part in parts)
        error = calibration["expected_calibration_error"][name]
        axes.plot(
            [part["confidence"] for part in parts], [part["accuracy"] for part in parts], color=color, linewidth=1.2,
            label=f"{name} the temperature: error {error:.3f}",
        )  # fmt: skip
        axes.scatter(
            [part["confidence"] for part in parts], [part["accuracy"] for part in parts], color=color, marker=marker,
            s=[12 + 70 * part["count"] / most for part in parts],
        )  # fmt: skip
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.legend(loc="lower right", frameon=False, fontsize=8)
    return png(made)


def lengths(histogram: Sequence[Sequence[float]], max_length: int) -> bytes:
    """How many rows have how many tokens, and where max_length cuts."""
    counts, edges = histogram
    made, axes = figure(6, 2.8)
    axes.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=BLUE)
    if max_length <= edges[-1]:
        axes.axvline(max_length, color=ORANGE, linestyle="--")
        axes.annotate(f" max_length {max_length}", (max_length, max(counts)), color=ORANGE, va="top")
    axes.set(xlabel="tokens of a row, uncut", ylabel="training rows")
    return png(made)


def found_rate(rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], suggestion: float) -> bytes:
    """The loss of each step over its rate, and the rate that was chosen."""
    made, axes = figure(6, 3.2)
    axes.plot(rates, losses, color=GREY, linewidth=0.8, label="loss of a step")
    axes.plot(rates, smoothed, color=BLUE, label="smoothed")
    axes.axvline(suggestion, color=ORANGE, linestyle="--", label=f"suggested: {suggestion:.1e}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(0, 1.5 * max(smoothed[: len(smoothed) // 2])))
    axes.legend(frameon=False, fontsize=8)
    return png(made)


def learning_rates(rates: Mapping[str, Sequence[float]]) -> bytes:
    """The rate of each step, by group of layers; a group that never learns has none."""
    made, axes = figure(6, 3.2)
    for i, (name, values) in enumerate(rates.items()):
        share = i / max(1, len(rates) - 1)
        color = tuple(share * np.array([0.13, 0.4, 0.67]) + (1 - share) * np.array([0.87, 0.47, 0.13]))
        axes.plot(range(len(values)), values, color=color, label=shortened(name), linewidth=1.2)
    axes.set(xlabel="step", ylabel="learning rate", ylim=(0, None))
    if len(rates) > 1:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=7, reverse=True)
    return png(made)


def shortened(name: str, most: int = 24) -> str:
    """A label that fits beside an axis. A dollar would begin a formula."""
    name = str(name) if len(str(name)) <= most else f"{str(name)[: most - 1]}…"
    return name.replace("$", r"\$")
