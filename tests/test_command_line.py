"""The command line, as its users and scripts see it: JSON on stdout, one clear line on stderr, exit codes."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import tfbert
from tfbert import _compat, devices
from tfbert.__main__ import COMMANDS, main
from tfbert.command_line import doctor, fine_tuning, predicting, reading
from tfbert.command_line.arguments import Parser, add_fields, add_settings, given, names
from tfbert.errors import InputError
from tfbert.sources import Examples, Stream
from tfbert.tasks import TASKS

HEAVY = ("tensorflow", "tf_keras", "keras", "transformers", "tensorflow_text", "numpy", "pyarrow", "tokenizers")
TRAIN = [
    ("a lovely bright film", "good"),
    ("the plot is dull", "bad"),
    ("great actor", "good"),
    ("awful scene", "bad"),
] * 8


@pytest.fixture
def run(capsys):
    """Runs a command in this process; returns its exit code, the objects on stdout and the text on stderr."""

    def call(*argv) -> tuple[int, list, str]:
        code = main([str(word) for word in argv])
        said = capsys.readouterr()
        return code, [json.loads(line) for line in said.out.splitlines()], said.err

    return call


def in_a_fresh_process(code: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(Path(tfbert.__file__).resolve().parents[1])}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=environment, check=False
    )


# what is imported


def test_help_goes_to_stdout_and_imports_nothing_heavy():
    done = in_a_fresh_process(
        f"""
        import sys
        from tfbert.__main__ import COMMANDS, main
        for argv in [], ["--version"], ["--help"]:
            main(argv)
        print([name for name in {HEAVY} if name in sys.modules])
        for command in COMMANDS:
            print(main([command, "--help"]))
        print([name for name in {HEAVY[:5]} if name in sys.modules])
        """
    )
    assert done.stderr.count("\n") == 1  # of [], the only mistake
    assert done.stdout.startswith(f"tfbert {tfbert.__version__}\nusage: tfbert COMMAND")
    assert done.stdout.splitlines().count("[]") == 2
    assert done.stdout.splitlines().count("0") == len(COMMANDS)
    for command, (_, what) in COMMANDS.items():
        assert f"usage: tfbert {command}" in done.stdout
        assert what in " ".join(done.stdout.split())


def test_help_of_a_task_has_an_option_for_each_setting_and_field():
    done = in_a_fresh_process(
        "from tfbert.__main__ import main; main(['fine-tune', 'sequence-classification', '--help'])"
    )
    for option in ("train validation test output checkpoint text text-pair label epochs batch-size learning-rate "
                   "max-length schedule precision strategy seed overwrite no-export labels kind class-weights").split():  # fmt: skip
        assert f"--{option} " in done.stdout.replace("\n", " ").replace(",", " "), option


# mistakes


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no command is given; the commands are fine-tune, prepare, evaluate, predict, export, inspect, create, doctor; "
             "`tfbert --help` explains them"),
        (["finetune"], "no command 'finetune'; the commands are fine-tune, prepare, evaluate, predict, export, inspect, create, doctor. "
                       "Did you mean 'fine-tune'?"),
        (["--verson"], "no option '--verson'. Did you mean '--version'? `tfbert --help` lists them"),
        (["fine-tune"], "the task comes first: tfbert fine-tune TASK --train FILE ...; the tasks are " + ", ".join(TASKS) + "; "
                        "`tfbert fine-tune --help` explains the arguments"),
        (["fine-tune", "sequence-clasification"], "no task 'sequence-clasification'; the tasks are " + ", ".join(TASKS) + ". "
                                                  "Did you mean 'sequence-classification'?"),
        (["fine-tune", "sequence-classification", "--train", "x.csv", "--output", "y", "--epoch", "3"],
         "no option '--epoch'. Did you mean '--epochs'? `tfbert fine-tune sequence-classification --help` lists them"),
        (["fine-tune", "sequence-classification", "--trian", "x.csv"],
         "no option '--trian'. Did you mean '--train'? `tfbert fine-tune sequence-classification --help` lists them"),
        (["fine-tune", "sequence-classification", "--output", "y"],
         "the following arguments are required: --train; `tfbert fine-tune sequence-classification --help` explains the arguments"),
        (["fine-tune", "sequence-classification", "--train", "x.csv", "--output", "y", "--epochs", "three"],
         "argument --epochs: expected a whole number, got 'three'; "
         "`tfbert fine-tune sequence-classification --help` explains the arguments"),
        (["fine-tune", "sequence-classification", "--train", "x.csv", "--output", "y", "--label-smoothing", "2"],
         "label_smoothing is 2.0; it must be at least 0 and below 1"),
        (["predict", "somewhere"], 'there is no text to answer; tfbert predict saved_models/NAME "a text", or --input FILE, or --input -'),
        (["predict", "somewhere", "a text", "--input", "-"],
         "texts on the command line and --input are both given; use one of them"),
        (["inspect", "all-MiniLM-L6-v2", "a", "b", "c"],
         "'c' is one argument too many; quote a text that has spaces, and put `--` before one that begins with -"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_code_2(run, argv, message):
    code, results, stderr = run(*argv)
    assert (code, results) == (2, [])
    assert stderr == f"tfbert: error: {message}\n"


def test_a_missing_file_names_the_nearest(run, tmp_path):
    (tmp_path / "train.csv").write_text("text,label\na,b\n")
    code, _, stderr = run(
        "fine-tune", "sequence-classification", "--train", tmp_path / "trian.csv", "--output", tmp_path / "out"
    )
    assert code == 2
    assert stderr == f"tfbert: error: {tmp_path}/trian.csv: there is no such file. Did you mean 'train.csv'?\n"


def test_a_folder_that_is_no_run_is_told(run, tmp_path):
    (tmp_path / "data.csv").write_text("text,label\na,b\n")
    code, _, stderr = run("evaluate", tmp_path, "--data", tmp_path / "data.csv")
    assert code == 2
    assert stderr.startswith(f"tfbert: error: {tmp_path} is not a folder that fine-tune wrote")


@pytest.mark.parametrize(("error", "code"), [(ZeroDivisionError("x"), 1), (KeyboardInterrupt(), 130)])
def test_what_nobody_foresaw(run, monkeypatch, error, code):
    def fails(arguments, emit):
        raise error

    monkeypatch.setattr(doctor, "run", fails)
    found, results, stderr = run("doctor")
    assert (found, results) == (code, [])
    if code == 1:
        assert "ZeroDivisionError: x" in stderr
        assert "tfbert: this is a fault of tfbert; please report it" in stderr.splitlines()[-1]
    else:
        assert stderr == "tfbert: interrupted\n"


def test_only_results_reach_stdout(run, monkeypatch):
    def chatters(arguments, emit):
        print("Epoch 1/3")
        emit(
            {
                "score": np.float32(0.5),
                "path": Path("a") / "b",
                "bad": float("nan"),
                "list": (1, np.arange(2)),
                "text": "né\ud800",
            }
        )

    monkeypatch.setattr(doctor, "run", chatters)
    code, results, stderr = run("doctor")
    assert code == 0
    assert results == [{"score": 0.5, "path": "a/b", "bad": None, "list": [1, [0, 1]], "text": "né?"}]
    assert stderr == "Epoch 1/3\n"


def test_what_is_printed_past_python_does_not_reach_stdout():
    done = in_a_fresh_process(
        """
        import os, sys
        from tfbert.__main__ import main
        from tfbert.command_line import doctor
        print("before")
        doctor.run = lambda arguments, emit: [os.write(1, b"from Rust\\n"), print("Epoch"), emit({"n": 1})]
        main(["doctor"])
        print("after")
        """
    )
    assert (done.stdout, done.stderr) == ('before\n{"n": 1}\nafter\n', "from Rust\nEpoch\n")


def test_a_reader_that_goes_away_is_no_fault():
    done = in_a_fresh_process(
        "import os, sys; from tfbert.__main__ import main; from tfbert.command_line import doctor\n"
        "read, write = os.pipe(); os.close(read); os.dup2(write, 1)\n"
        "doctor.run = lambda arguments, emit: [emit({'n': n}) for n in range(9)]\n"
        "sys.exit(main(['doctor']))"
    )
    assert (done.returncode, done.stderr) == (141, "")


# options


def test_options_come_from_the_functions_own_arguments():
    def train(
        data,
        *,
        directory,
        epochs: int = 3,
        rate: float | None = None,
        names: tuple[str, ...] = (),
        model: object = None,
    ):
        """Trains.

        Args:
            epochs: passes over the data
                (default 3).
            rate: 100% of it.
        """

    parser = Parser(prog="x")
    assert add_settings(parser, train) == ["epochs", "rate", "names"]
    assert "passes over the data (default 3)" in " ".join(parser.format_help().split())
    assert "100% of it" in parser.format_help()
    values = parser.parse(["--rate", "5e-5", "--names", "a, b"])
    assert given(values, ["epochs", "rate", "names"]) == {"rate": 5e-5, "names": ("a", "b")}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_field_of_every_task_is_an_option_with_help(task):
    parser = Parser(prog="x")
    added = add_fields(parser, task)
    assert added == [field.name for field in dataclasses.fields(task)]
    assert all(action.help for action in parser._actions)


def test_a_list_can_come_from_a_file(tmp_path):
    (tmp_path / "labels.txt").write_text("Paris, Texas\n\nname\n", encoding="utf-8")
    assert names(f"@{tmp_path / 'labels.txt'}") == ("Paris, Texas", "name")
    parser = Parser(prog="x")
    parser.add_argument("--labels", type=names)
    with pytest.raises(tfbert.InputError, match="cannot read the list nowhere: No such file or directory"):
        parser.parse(["--labels", "@nowhere"])


def test_negative_numbers_and_texts_with_dashes_are_values():
    parser = Parser(prog="x")
    parser.add_argument("texts", nargs="*")
    parser.add_argument("--rate", type=float)
    assert parser.parse(["--rate", "-1", "--not an option", "--", "--flag"]).texts == ["--not an option", "--flag"]


# doctor


def test_doctor_finds_this_installation_sound(run):
    code, [result], stderr = run("doctor")
    assert code == 0
    checks = {check["name"]: check for check in result["checks"]}
    assert all(set(check) == {"name", "ok", "found", "advice"} for check in result["checks"])
    assert [name for name in checks if name.endswith(" loads") and not checks[name]["ok"]] == []
    assert checks["one minor version of tensorflow, tf-keras and tensorflow-text"]["ok"]
    assert result["ok"] == all(check["ok"] for check in result["checks"])
    assert all(check["ok"] == (check["advice"] is None) for check in result["checks"])


def test_doctor_says_what_to_do(monkeypatch):
    versions = {"tensorflow": "2.21.0", "tf-keras": "2.20.1", "tensorflow-text": None, "transformers": "5.1.0"}
    monkeypatch.setattr(doctor, "_version", lambda name: versions.get(name, "1.0"))
    monkeypatch.setattr(
        doctor.importlib.metadata, "requires", lambda name: ["transformers<5,>=4.46", "ruff; extra == 'test'"]
    )
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "0")
    checks = {check["name"]: check for check in doctor.examine()}
    assert checks["transformers"] == {
        "name": "transformers", "ok": False, "found": "5.1.0", "advice": "pip install 'transformers<5,>=4.46'",
    }  # fmt: skip
    assert "ruff" not in checks
    minors = checks["one minor version of tensorflow, tf-keras and tensorflow-text"]
    assert (minors["ok"], minors["advice"]) == (
        False,
        "pip install 'tensorflow==2.21.*' 'tf-keras==2.21.*' 'tensorflow-text==2.21.*'",
    )
    keras = checks["Keras 2 behind tf.keras"]
    assert (keras["found"], keras["advice"]) == ("TF_USE_LEGACY_KERAS=0", "unset TF_USE_LEGACY_KERAS, or set it to 1")


@pytest.mark.parametrize(
    ("value", "users", "enabled", "shown", "state"),
    [
        ("1", False, True, "1, set by tfbert", "on"),
        ("1", True, True, "1, set by you", "on"),
        ("0", True, False, "0, set by you", "off"),
        (None, False, False, "not set", "TensorFlow's choice"),
    ],
)
def test_doctor_says_how_this_machine_computes(monkeypatch, value, users, enabled, shown, state):
    monkeypatch.setattr(_compat, "ONEDNN_IS_THE_USERS", users)
    monkeypatch.setattr(doctor.importlib, "import_module", lambda name: SimpleNamespace(IsMklEnabled=lambda: enabled))
    monkeypatch.setattr(doctor.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(devices.tf.config, "list_physical_devices", lambda kind: [])
    for flags, precision in (("avx2 fma", "float32"), ("avx512f amx_bf16", "bfloat16")):
        monkeypatch.setattr(devices.Path, "read_text", lambda path, flags=flags: flags)
        if value is None:
            monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
        else:
            monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", value)
        check = doctor._computing()
        assert (check["found"]["TF_ENABLE_ONEDNN_OPTS"], check["found"]["oneDNN"]) == (shown, state)
        assert check["found"]["auto precision"] == precision == devices.choose_precision("auto")
        assert "amx_bf16" in check["found"]["because"]
        assert check["ok"] == (state != "off") == (check["advice"] is None)
        monkeypatch.setenv(_compat.FROZEN_WEIGHTS, "1")
        assert f"{_compat.FROZEN_WEIGHTS}=1 makes" in doctor._computing()["advice"]
        monkeypatch.delenv(_compat.FROZEN_WEIGHTS)


def test_who_switched_onednn_on_is_known():
    for own, users in ((None, "False"), ("1", "True")):
        environment = {name: text for name, text in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
        environment |= {"PYTHONPATH": str(Path(tfbert.__file__).resolve().parents[1])}
        environment |= {} if own is None else {"TF_ENABLE_ONEDNN_OPTS": own}
        code = "from tfbert import _compat; print(_compat.ONEDNN_IS_THE_USERS)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        assert done.stdout.strip() == users


def test_doctor_survives_a_broken_package(monkeypatch):
    def breaks(name):
        raise OSError(f"lib{name}.so: undefined symbol\nmore")

    monkeypatch.setattr(doctor.importlib, "import_module", breaks)
    monkeypatch.setattr(_compat, "load_tensorflow", lambda: None)
    check = doctor._loads("tensorflow", "mend it")
    assert check == {
        "name": "tensorflow loads", "ok": False, "found": "OSError: libtensorflow.so: undefined symbol", "advice": "mend it",
    }  # fmt: skip


# the whole way


@pytest.fixture(scope="module")
def tuned(shallow, tmp_path_factory) -> Path:
    """A folder that `tfbert fine-tune` wrote, from files with foreign column names; with what it printed beside it."""
    folder = tmp_path_factory.mktemp("command_line")
    for name in ("train", "test"):
        with open(folder / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter=";").writerows([("review", "mood"), *TRAIN])
    options = (
        f"--train {folder}/train.csv --test {folder}/test.csv --validation {folder}/test.csv --output {folder}/model"
    )
    options += f" --checkpoint {shallow} --text review --label mood --delimiter ; --epochs 2 --learning-rate 1e-2 --max-length 16"
    words = ["fine-tune", "sequence-classification", *options.split(), "--strategy", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(Path(tfbert.__file__).resolve().parents[1])}
    done = subprocess.run(
        [sys.executable, "-m", "tfbert", *words], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout, encoding="utf-8")
    (folder / "stderr").write_text(done.stderr, encoding="utf-8")
    return folder / "model"


def test_fine_tune_prints_its_result_and_no_librarys_noise(tuned):
    result = json.loads((tuned.parent / "stdout").read_text())
    stored = json.loads((tuned / "metrics.json").read_text())
    assert result["output"] == str(tuned)
    assert result["export"] == str(tuned / "1")
    assert result["metrics"] == stored["metrics"]
    assert 0 <= result["metrics"]["accuracy"] <= 1
    assert json.loads((tuned / "task.json").read_text())["max_length"] == 16
    stderr = (tuned.parent / "stderr").read_text()
    for noise in ("Warning", "WARNING", "cuda", "oneDNN", "I0000", "E0000", "absl"):
        assert noise not in stderr


def test_evaluate_gives_the_scores_of_the_run(run, tuned):
    data = tuned.parent / "test.csv"
    code, [result], _ = run(
        "evaluate", tuned, "--data", data, "--text", "review", "--label", "mood", "--delimiter", ";"
    )
    assert code == 0
    stored = json.loads((tuned / "metrics.json").read_text())
    assert result["metrics"] == pytest.approx(stored["metrics"], abs=1e-6)
    assert result["by_label"] == stored["by_label"]


def test_evaluate_names_the_place_of_an_unknown_label(run, tuned, tmp_path):
    (tmp_path / "other.csv").write_text("text,label\na film,good\nthe plot,goood\n")
    code, results, stderr = run("evaluate", tuned, "--data", tmp_path / "other.csv")
    assert (code, results) == (2, [])
    assert (
        stderr
        == f"tfbert: error: {tmp_path}/other.csv:3: label 'goood' is not one of: bad, good. Did you mean 'good'?\n"
    )


def test_predict_answers_in_order_from_all_kinds_of_input(run, tuned, tmp_path, monkeypatch):
    texts = ["a lovely bright film", "", "the plot is dull, né 😀", "great"]
    code, expected, _ = run("predict", tuned, *texts)
    assert code == 0
    assert len(expected) == 4
    assert set(expected[0]) == {"label", "score", "labels", "scores"}
    assert expected[0]["labels"] == ["bad", "good"]
    assert expected[0]["score"] == max(expected[0]["scores"])

    (tmp_path / "lines.txt").write_text("".join(text + "\r\n" for text in texts), encoding="utf-8", newline="")
    assert run("predict", tuned, "--input", tmp_path / "lines.txt")[1] == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(texts).encode())))
    assert run("predict", tuned, "--input", "-")[1] == expected
    with open(tmp_path / "rows.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"id": n, "body": text}) + "\n" for n, text in enumerate(texts))
    assert run("predict", tuned, "--input", tmp_path / "rows.jsonl", "--text", "body")[1] == expected

    code, results, stderr = run("predict", tuned, "--input", tmp_path / "rows.jsonl")
    assert (code, results) == (2, [])
    assert stderr == (
        f"tfbert: error: {tmp_path}/rows.jsonl:1: no field 'text'; the row has 'id', 'body'. (--text names the column)\n"
    )


def test_the_texts_of_a_file_are_those_that_the_task_takes_of_it(tmp_path):
    """As in training: a start before each choice, choices in columns, words of a .conll file; whatever its labels are."""
    choices, words = tfbert.MultipleChoice(choices=2), tfbert.TokenClassification()
    (tmp_path / "a.json").write_text(json.dumps([{"text": "q", "start": "She", "choices": ["a", "b"], "label": None}]))
    (tmp_path / "b.csv").write_text("body,choice0,choice1,label\nq,a,b,\n")
    (tmp_path / "c.conll").write_text("Ada B-PER\nwrote O\n\n")
    question = {"question": "Who?", "id": "1"}
    (tmp_path / "d.json").write_text(
        json.dumps({"data": [{"paragraphs": [{"context": "By Ada.", "qas": [question]}]}]})
    )
    for task, file, options, expected in (
        (choices, "a.json", [], {"text": "q", "choices": ["She a", "She b"]}),
        (choices, "b.csv", ["--text", "body"], {"text": "q", "choices": ["a", "b"]}),
        (words, "c.conll", [], {"text": "Ada wrote"}),
        (tfbert.QuestionAnswering(), "d.json", [], {"question": "Who?", "context": "By Ada."}),
    ):
        arguments = predicting.arguments(["model", "--input", str(tmp_path / file), *options])
        assert list(reading.stream_texts(arguments.input, arguments, task.inputs, task.input)) == [expected]


def test_texts_without_labels_are_read_beside_training_data_with_columns_of_other_names(tmp_path):
    words = "fine-tune sequence-classification --train r.csv --text review --label mood --output out".split()[1:]
    arguments = fine_tuning.arguments(words)
    (tmp_path / "lines.txt").write_text("good\n")
    (tmp_path / "rows.csv").write_text("review,mood\ngood,\n")
    (tmp_path / "rows.json").write_text('[{"review": "good", "label": null}]')
    for file in ("lines.txt", "rows.csv", "rows.json"):
        found = reading.read_file(str(tmp_path / file), arguments, reading.TEXTS, labelled=False)
        assert [row["text"] for row in found] == ["good"]
    with pytest.raises(InputError, match="rows.csv:2: the label is empty"):
        reading.read_file(str(tmp_path / "rows.csv"), arguments)


def test_predict_tells_the_line_that_is_not_text_after_the_answers_before_it(run, tuned, tmp_path, monkeypatch):
    _, expected, _ = run("predict", tuned, "fine")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"fine\ncaf\xe9\n")))
    code, results, stderr = run("predict", tuned, "--input", "-")
    assert (code, results) == (2, expected)
    assert stderr.startswith("tfbert: error: standard input:2 (character 4): 0xe9 is not valid utf-8")
    (tmp_path / "rows.csv").write_text("text,id\nfine,1\ndull,2,3\ngood,4\n")
    code, results, stderr = run("predict", tuned, "--input", tmp_path / "rows.csv")
    assert (code, results) == (2, expected)
    assert stderr.startswith(f"tfbert: error: {tmp_path}/rows.csv:3: 3 columns, but 2 expected ('text', 'id')")


def test_predict_answers_a_pipe_while_it_is_open_and_ends_quietly_with_its_reader(tuned):
    with subprocess.Popen(
        [sys.executable, "-m", "tfbert", "predict", tuned, "--input", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
        env={**os.environ, "PYTHONPATH": str(Path(tfbert.__file__).resolve().parents[1])},
    ) as process:
        for text in ("a lovely bright film", "the plot is dull"):
            process.stdin.write(text + "\n")
            assert json.loads(process.stdout.readline())["label"] in ("good", "bad")
        process.stdout.close()
        process.stdin.write("great\n")
        assert process.wait(60) == 141
        # On a busy machine there is progress to tell; no traceback, and nothing of a broken pipe.
        assert all(
            re.fullmatch(r"tfbert: \d rows?, [\d.]+ rows/s", line) for line in process.stderr.read().splitlines()
        )
        process.stdin.close()


def test_predict_tells_how_far_it_is():
    times = iter([0.0, 1.0, 6.0, 6.0, 8.0, 8.0])
    rows = Stream((Examples([{"text": str(i)}]) for i in range(12)), share=lambda: 0.25)
    progress = predicting.Progress(rows, clock=lambda: next(times))
    for _ in range(12):
        next(rows)
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        progress.answered()  # after a second: nothing to say yet
        progress.answered()  # 2 rows in 6 seconds; 12 rows are a quarter, so 46 are left
        progress.end()
    assert said.getvalue() == "tfbert: 2 rows, 0.3 rows/s, 0:02:18 left\ntfbert: 2 rows, 0.2 rows/s, 0:03:04 left\n"
    quiet = predicting.Progress(rows, clock=lambda: 0.0)
    with contextlib.redirect_stderr(said := io.StringIO()):
        quiet.answered()
        quiet.end()
    assert said.getvalue() == ""


def test_predict_through_the_checkpoint_equals_predict_through_the_export(run, tuned, tmp_path):
    for name in ("checkpoint", "task.json", "metrics.json", "history.csv"):
        (tmp_path / name).symlink_to(tuned / name)
    texts = ["a lovely bright film", "the plot is dull"]
    code, by_checkpoint, stderr = run("predict", tmp_path, *texts)
    assert code == 0, stderr
    _, by_export, _ = run("predict", tuned, *texts)
    assert [answer["label"] for answer in by_checkpoint] == [answer["label"] for answer in by_export]
    for ours, theirs in zip(by_checkpoint, by_export, strict=True):
        np.testing.assert_allclose(ours["scores"], theirs["scores"], atol=1e-5)
    (tmp_path / "history.csv").unlink()
    code, _, stderr = run("predict", tmp_path, *texts)
    assert (code, stderr) == (
        2,
        f"tfbert: error: cannot read {tmp_path}/history.csv: No such file or directory; check the path\n",
    )
    (tmp_path / "history.csv").write_text("epoch,loss\n1,0.5\n2,0.x\n")
    code, _, stderr = run("predict", tmp_path, *texts)
    assert code == 2 and f"{tmp_path}/history.csv:3: could not convert string to float: '0.x'" in stderr


def test_export_writes_the_next_version(run, tuned):
    code, [result], _ = run("export", tuned, "--version", 7)
    assert code == 0
    assert result == {"export": str(tuned / "7")}
    assert (tuned / "7" / "saved_model.pb").is_file()
    code, _, stderr = run("export", tuned, "--version", 7)
    assert code == 2
    assert f"{tuned / '7'} exists already" in stderr


def test_export_in_a_lower_precision_tells_both_scores(run, tuned):
    columns = ("--text", "review", "--label", "mood", "--delimiter", ";")
    code, [result], _ = run(
        "export", tuned, "--version", 8, "--precision", "int8", "--data", tuned.parent / "test.csv", *columns
    )
    assert code == 0
    assert result["export"] == str(tuned / "8")
    stored = json.loads((tuned / "metrics.json").read_text())["metrics"]
    assert result["scores"]["model"] == pytest.approx(stored, abs=1e-6)
    assert abs(result["scores"]["export"]["accuracy"] - stored["accuracy"]) <= 0.01
    code, results, stderr = run("export", tuned, "--precision", "int8")
    assert (code, results) == (2, [])
    assert "there is no data to measure what that costs; give data (--data FILE)" in stderr


def test_a_finished_run_is_not_overwritten(run, tuned, tiny):
    data = tuned.parent / "train.csv"
    words = [
        "fine-tune",
        "sequence-classification",
        "--train",
        data,
        "--text",
        "review",
        "--label",
        "mood",
        "--delimiter",
        ";",
    ]
    code, results, stderr = run(*words, "--output", tuned, "--checkpoint", tiny)
    assert (code, results) == (2, [])
    assert stderr.startswith(f"tfbert: error: {tuned} holds a finished run")


def test_inspect_describes_a_checkpoint_and_its_tokens(run, tiny):
    code, [about], _ = run("inspect", tiny)
    assert code == 0
    assert (about["model_type"], about["layers"], about["hidden_size"]) == ("bert", 2, 32)
    code, [result], _ = run("inspect", tiny, "Good film!", "dull")
    assert code == 0
    tokens = result.pop("tokens")
    assert result == about
    assert [token["token"] for token in tokens] == ["[CLS]", "good", "film", "!", "[SEP]", "dull", "[SEP]"]
    assert [token["type_id"] for token in tokens] == [0, 0, 0, 0, 0, 1, 1]
    assert [(token["start"], token["end"]) for token in tokens] == [
        (None, None), (0, 4), (5, 9), (9, 10), (None, None), (0, 4), (None, None),
    ]  # fmt: skip
    assert tokens[0] == {"token": "[CLS]", "id": 2, "type_id": 0, "mask": 1, "start": None, "end": None}


def test_inspect_counts_what_would_learn(run, tiny):
    code, [about], _ = run("inspect", tiny, "--freeze", "embeddings,layers[0]")
    whole, learning = about["parameters"], about["trainable_parameters"]
    assert code == 0
    assert learning["layers"] == [0, whole["layers"][1]] and learning["embeddings"] == 0
    assert learning["total"] == whole["layers"][1] + whole["pooler"]
    assert run("inspect", tiny, "--freeze", "layer")[0] == 2
