"""The benchmarks' own arithmetic, and that their scripts start: what they measure is no test's business."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tfbert.errors import InputError

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def training():
    spec = importlib.util.spec_from_file_location("benchmarks_training", BENCHMARKS / "training.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rounds(*seconds, tokens, peak):
    return [
        {
            "seconds": s,
            "cpu_seconds": 2 * s,
            "tokens": tokens,
            "padding_share": 0.1 * (i + 1),
            "loss": 1 / (i + 1),
            "peak_memory_bytes": peak + i,
        }
        for i, s in enumerate(seconds)
    ]


def test_spread_is_median_smallest_and_largest(training):
    assert training.spread([5.0, 1.0, 2.00004]) == {"median": 2.0, "min": 1.0, "max": 5.0}
    assert training.spread([4.0, 1.0]) == {"median": 2.5, "min": 1.0, "max": 4.0}


def test_ratio_compares_each_round_with_its_neighbour_not_the_medians(training):
    ours, theirs = rounds(2, 8, 5, tokens=100, peak=1), rounds(4, 2, 10, tokens=100, peak=1)
    # tokens a second: ours 50, 12.5, 20; theirs 25, 50, 10
    found = training.ratios(ours, theirs)
    assert found["tokens_per_second"] == {"median": 2.0, "min": 0.25, "max": 2.0}


def test_peaks_are_compared_so_that_less_memory_is_above_1(training):
    ours, theirs = rounds(2, 8, tokens=100, peak=99), rounds(4, 2, tokens=100, peak=399)
    assert training.ratios(ours, theirs)["peak_memory"] == {"median": 4.0, "min": 4.0, "max": 4.0}  # 400 / 100


def test_summary_counts_real_tokens_and_the_highest_peak(training):
    assert training.summary(rounds(2, 4, 1, tokens=120, peak=1000)) == {
        "tokens_per_second": {"median": 60.0, "min": 30.0, "max": 120.0},
        "seconds": {"median": 2, "min": 1, "max": 4},
        "cpu_seconds": {"median": 4, "min": 2, "max": 8},
        "tokens": 120,
        "padding_share": {"median": 0.2, "min": 0.1, "max": 0.3},
        "peak_memory_bytes": 1002,
        "losses": [1.0, 0.5, 0.3333],
    }


def test_machine_names_the_processor_and_the_instructions_that_matter(training):
    found = training.machine("processor : 0\nmodel name\t: Some CPU\nflags\t: fpu avx2 fma avx512fp16 avx512_bf16\n")
    assert found["processor"] == "Some CPU" and found["flags"] == ["avx2", "fma", "avx512_bf16"]


# A worker that learns nothing: one epoch of 60 tokens a line, `seconds` long.
WORKER = """
import json, sys
job = json.load(open(sys.argv[1]))
about = dict(precision="float32" if job["precision"] == "auto" else job["precision"], optimizer="o", attention="a",
             dropout=[0.1, 0.2], parameters=7, versions={"python": "3"})
for n in range(job["epochs"]):
    print(json.dumps(dict(seconds=SECONDS * (n + 1), cpu_seconds=1, tokens=60, padding_share=0.25, loss=3 - n,
                          peak_memory_bytes=2**20, **about)), flush=True)
    about = {}
    sys.stdin.readline()
"""


def test_measure_leaves_the_warm_up_out_and_gives_the_peer_our_precision(training, tmp_path, monkeypatch, capfd):
    (tmp_path / "tfbert_training.py").write_text(WORKER.replace("SECONDS", "1"))
    (tmp_path / "peers_training.py").write_text(
        WORKER.replace("SECONDS", "3") + "assert job['precision'] == 'float32'\n"
    )
    monkeypatch.setattr(training, "HERE", tmp_path)
    result = training.measure({"precision": "auto", "epochs": 4}, 2, sys.executable)
    assert result["precision"] == "float32"
    assert result["tfbert"]["seconds"] == {"median": 2.5, "min": 2, "max": 3}  # the warm-up took 1
    assert result["trainer"]["tokens_per_second"] == {"median": 8.3, "min": 6.7, "max": 10.0}
    assert result["tfbert"]["losses"] == [2, 1]
    assert result["ratios"]["trainer"]["tokens_per_second"] == {"median": 3.0, "min": 3.0, "max": 3.0}
    assert result["ratios"]["trainer"]["peak_memory"]["median"] == 1.0
    assert json.loads(json.dumps(result)) == result
    assert "tfbert / trainer: 3.00 times the tokens a second (3.00 to 3.00)" in training.table(result)
    assert capfd.readouterr().out == ""  # stdout is for the result


def test_a_worker_that_fails_is_an_error(training, tmp_path, monkeypatch):
    (tmp_path / "tfbert_training.py").write_text("raise SystemExit(3)")
    monkeypatch.setattr(training, "HERE", tmp_path)
    with pytest.raises(RuntimeError, match=r"tfbert_training\.py ended with exit code 3; its error is above"):
        training.measure({"precision": "auto"}, 1, sys.executable)


def test_help_and_options_need_no_tensorflow():
    code = (
        "import runpy, sys\n"
        "try: runpy.run_path(sys.argv[1], run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print([m for m in ('tensorflow', 'tf_keras', 'transformers', 'torch') if m in sys.modules], file=sys.stderr)\n"
    )
    script = str(BENCHMARKS / "training.py")
    done = subprocess.run([sys.executable, "-c", code.replace("sys.argv[1]", "sys.argv.pop(1)"), script, "--help"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert "--peer-python" in done.stdout and done.stderr == "[]\n"


def test_options_have_the_defaults_of_the_comparison(training):
    options = training.parse(["--rows", "64", "--precision", "float32"])
    assert (options.rows, options.batch_size, options.max_length, options.rounds) == (64, 32, 128, 5)
    assert Path(options.data).is_file()


def test_a_setting_changes_defaults_and_no_option_given(training):
    options = training.parse(["--setting", "base", "--rows", "32"])
    assert (options.rows, options.batch_size, options.max_length, options.rounds) == (32, 16, 128, 3)
    assert options.checkpoint == training.BASE
    assert training.parse(["--setting", "long"]).max_length == 256


def test_prepared_data_that_are_not_there_are_told(training, monkeypatch, tmp_path):
    monkeypatch.setattr(training, "REVIEWS", str(tmp_path / "train.csv"))
    options = training.parse(["--data", training.REVIEWS])
    with pytest.raises(InputError, match=r"there is no .*train\.csv; prepare_data\.py makes it"):
        training.job_of(options)


def test_no_peers_is_one_line(training, capsys, monkeypatch, tmp_path, minilm):
    monkeypatch.setattr(sys, "argv", ["training.py", "--peer-python", str(tmp_path / "no-python")])
    assert training.main() == 2
    assert "no-python; `make bench` makes it, or name one with --peer-python" in capsys.readouterr().err


def test_encoders_are_compared_by_median_and_by_the_seeds_spread(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    compare = importlib.import_module("encoders").compare
    runs = [
        {"test": {"accuracy": score}, "train_seconds": seconds} for score, seconds in ((0.8, 3), (0.82, 1), (0.81, 2))
    ]
    near = [{"test": {"accuracy": score}, "train_seconds": 5} for score in (0.83, 0.83, 0.825)]
    found = compare("reviews", {"lean": runs, "transformers": near})
    assert found["lean"] == {"accuracy": [0.8, 0.82, 0.81], "median": 0.81, "spread": 0.02, "train_seconds": 2}
    assert (found["transformers"]["median"], found["apart"], found["within_spread"]) == (0.83, 0.02, True)
    farther = [{"test": {"accuracy": 0.87}, "train_seconds": 5}]
    assert compare("reviews", {"lean": runs, "transformers": farther})["within_spread"] is False


def test_frozen_layers_are_timed_with_and_without_their_states(tiny, tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("benchmarks_frozen_layers", BENCHMARKS / "frozen_layers.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for name, count in (("train", 24), ("validation", 8), ("test", 8)):
        lines = [f"{'good great' if i % 2 else 'dull bad'} film {i},{i % 2}\n" for i in range(count)]
        (tmp_path / f"{name}.csv").write_text("text,label\n" + "".join(lines))
    arguments = [str(tmp_path), "--checkpoint", str(tiny), "--epochs", "2", "--learning-rate", "1e-2"]
    monkeypatch.setattr(sys, "argv", ["frozen_layers.py", *arguments])
    script.main()
    found = json.loads(capsys.readouterr().out)
    once, each = found["once"], found["in_each_epoch"]
    assert once["gib"] >= 0 and once["first_epoch_seconds"] > once["epoch_seconds"][0]
    assert each["first_epoch_seconds"] == each["epoch_seconds"][0]
    assert once["second_of_first"] == pytest.approx(once["epoch_seconds"][1] / once["first_epoch_seconds"], abs=0.05)
    assert once["losses"] == pytest.approx(each["losses"], rel=1e-4) and once["test"] == each["test"]


def test_a_student_is_compared_with_its_teacher_by_neighbouring_rounds(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    compared = importlib.import_module("distillation").compared
    teacher = {"test": {"accuracy": 0.8}, "parameters": 10, "train_seconds": 9}
    own = {"test": {"accuracy": 0.78}, "parameters": 5, "train_seconds": 3}
    found = compared(teacher, own, slow=[6.0, 2.0, 4.0], fast=[2.0, 2.0, 1.0], texts=8)
    assert (found["score_ratio"], found["speed_ratio"], found["speed_ratio_range"]) == (0.975, 3.0, [1.0, 4.0])
    assert (found["texts_per_cpu_second"], found["teacher_texts_per_cpu_second"]) == (4.0, 2.0)
    assert (found["parameters"], found["teacher_parameters"], found["train_seconds"]) == (5, 10, 3)


def test_synthetic_rows_are_streamed_and_restarts_are_compared(tmp_path, minilm, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    streaming, synthetic_rows = (importlib.import_module(name) for name in ("streaming", "synthetic_rows"))
    monkeypatch.setattr(synthetic_rows, "PART", 100)
    synthetic_rows.write(tmp_path / "rows", 400, 200, 1)
    found = streaming.read(str(tmp_path / "rows"), 32, [3, 9], 4)
    assert (found["rows"], found["batches_compared"], found["restarts_that_are_equal"]) == (400, 8, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]
    for name in ("streaming", "synthetic_rows"):
        del sys.modules[name]
