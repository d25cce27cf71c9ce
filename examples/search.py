"""Which settings are best? Searches rate, epochs, layer decay and batch size with KerasTuner; each trial is a `tfbert.fine_tune`.

    python examples/search.py --trials 10
    python examples/search.py --data reviews.csv --checkpoint bert-base-uncased --trials 20
    python examples/search.py --trials 30                                           # goes on: what is done is not done again

Needs `pip install ".[search]"` in the folder of this project. The Bayesian search begins with random trials and then asks where it
expects most. Several processes share one search by KerasTuner's own means: the same command in each with KERASTUNER_ORACLE_IP and
KERASTUNER_ORACLE_PORT, and KERASTUNER_TUNER_ID "chief" in one, which hands out the trials, and "tuner0", "tuner1", ... in the others;
--output is a folder of all.

A JSON object for each trial on stdout, a table on stderr, a picture where matplotlib is; the best is exported to --output and tested, once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path

import keras_tuner

# isort: off - tfbert first, for it asks TensorFlow for tf_keras
import tfbert
from tfbert import metrics, plots

# isort: on

HERE = Path(__file__).resolve().parent
DATA = [str(HERE / "data" / f"delivery_{part}.csv") for part in ("train", "test")]
TASK = tfbert.SequenceClassification(max_length=128)
COLORS = (plots.BLUE, plots.ORANGE, "#338844", "#aa3377", plots.GREY)
SEARCHED = ("learning_rate", "epochs", "layer_decay", "batch_size")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--data", nargs="+", default=DATA, metavar="FILE", help="one to learn from and one to test on, or one for both"
    )
    parser.add_argument("--checkpoint", default="all-MiniLM-L6-v2", help="a folder or a hub name")
    parser.add_argument("--trials", type=int, default=10, help="all in all (default 10)")
    parser.add_argument("--most-epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0, help="of the search, and of each trial")
    parser.add_argument("--output", type=Path, default=HERE.parent / "saved_models" / "search")
    options = parser.parse_args(argv)
    if len(options.data) > 2:
        parser.error(f"--data takes one file or two, got {len(options.data)}")
    return options


def space(most_epochs: int) -> keras_tuner.HyperParameters:
    """What is searched."""
    found = keras_tuner.HyperParameters()
    found.Float("learning_rate", 2e-5, 1e-3, sampling="log")
    found.Int("epochs", 1, most_epochs)
    found.Choice("layer_decay", [1.0, 0.95, 0.9, 0.8, 0.65])  # of each layer's rate, from the head down
    found.Choice("batch_size", [8, 16, 32])
    return found


class Search(keras_tuner.BayesianOptimization):
    """KerasTuner's Bayesian search, whose trials are runs of `tfbert.fine_tune`."""

    def run_trial(self, trial, options: argparse.Namespace, data: dict[str, tfbert.Examples]) -> float:
        """Fine-tunes with the trial's settings; one that was interrupted goes on. Returns the score of the best epoch."""
        settings = {name: trial.hyperparameters.get(name) for name in SEARCHED}
        place = place_of(options, trial)
        try:
            if (place / "metrics.json").is_file():  # done, but not yet told when it was interrupted
                tuned = tfbert.load(place)
            else:
                own = {"directory": place, "seed": options.seed, "export": False, "report": False, "resume": True}
                tuned = tfbert.fine_tune(TASK, options.checkpoint, data["train"], data["validation"], **own, **settings)
        except tfbert.errors.Diverged as error:  # with these settings
            raise keras_tuner.errors.FailedTrialError(str(error)) from error
        except tfbert.InputError as error:  # another trial would end alike
            raise keras_tuner.errors.FatalValueError(str(error)) from error
        row = {"trial": trial.trial_id, **settings, "train_seconds": tuned.metrics["train_seconds"]}
        row[tuned.task.monitor] = tuned.metrics["validation"][tuned.task.monitor]
        print(json.dumps(row), file=options.result, flush=True)
        return tuned.metrics["validation"][tuned.task.monitor]


def place_of(options: argparse.Namespace, trial) -> Path:
    return options.output / "trials" / f"run_{trial.trial_id}"


def parts(files: list[str]) -> dict[str, tfbert.Examples]:
    """The rows to learn from, to compare trials by, and to test the best on: where there is but one file, a fifth of it."""
    train, *test = map(tfbert.read, files)
    train, test = (train, test[0]) if test else tfbert.split(train, 0.2)
    train, validation = tfbert.split(train)
    return {"train": train, "validation": validation, "test": test}


def table(trials: list) -> str:
    lines = [("trial", *SEARCHED, "score")]
    for trial in trials:
        values = trial.hyperparameters.values
        lines.append((trial.trial_id, *(f"{values[name]:.4g}" for name in SEARCHED), f"{trial.score:.4f}"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.rjust, line, widths)) for line in lines)


def picture(trials: list, monitor: str):
    """A figure: the score of each trial over its rate; the larger the point the more epochs."""
    made, axes = plots.figure(7.5, 4.2)
    colors = dict(zip(sorted({trial.hyperparameters.get("layer_decay") for trial in trials}), COLORS))
    for trial in trials:
        values = trial.hyperparameters.values
        axes.scatter(
            values["learning_rate"],
            trial.score,
            s=25 * values["epochs"],
            color=colors[values["layer_decay"]],
            alpha=0.8,
        )
    for decay, color in colors.items():
        axes.scatter([], [], color=color, label=f"layer decay {decay:g}")
    axes.set(xlabel="learning rate", ylabel=f"validation {monitor}", xscale="log")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.02), ncols=3, frameon=False, fontsize=8)
    return made


def searched(options: argparse.Namespace, data: dict[str, tfbert.Examples], monitor: str) -> list:
    """The trials, the best first; of several processes the first alone has them."""
    search = Search(
        hyperparameters=space(options.most_epochs),
        objective=keras_tuner.Objective("score", metrics.direction(monitor)),
        max_trials=options.trials,
        seed=options.seed,
        directory=options.output,
        project_name="trials",
    )
    search.search(options, data)
    first = os.environ.get("KERASTUNER_TUNER_ID", "tuner0") == "tuner0"
    return search.oracle.get_best_trials(options.trials) if first else []


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    data = parts(options.data)
    monitor = TASK.from_data(data["train"]).monitor
    options.result = sys.stdout  # JSON alone: what KerasTuner tells goes to stderr
    with contextlib.redirect_stdout(sys.stderr):
        trials = searched(options, data, monitor)
    if not trials:
        return
    best = trials[0]
    tuned = tfbert.load(place_of(options, best))
    export = tfbert.export(tuned.task, tuned.model, tuned.tokenizer, options.output)
    test = tfbert.evaluate(tuned.task, tuned.model, tuned.tokenizer, data["test"])[monitor]
    print(json.dumps({"best": best.trial_id, **best.hyperparameters.values, "test": test, "export": str(export)}))
    print(f"\n{table(trials)}\n\nof trial {best.trial_id}: test {monitor} {test:.4f}, {export}", file=sys.stderr)
    if plots.available():
        (options.output / "search.png").write_bytes(plots.png(picture(trials, monitor)))
        print(options.output / "search.png", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except (tfbert.InputError, keras_tuner.errors.FatalError) as error:
        sys.exit(f"search.py: {error}")
