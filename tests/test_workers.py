"""Several workers: they learn what one learns, go on to the bit after one has died, and refuse together what is wrong on one."""

from __future__ import annotations

import json
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import interrupting
import numpy as np
import pytest
import together

import tfbert
from tfbert import checkpoints
from tfbert.workers import Workers

ROOT = Path(__file__).resolve().parents[1]
STILL = {"dropout": 0.0, "epochs": 2}  # dropout draws other numbers in each replica


@pytest.fixture(scope="module")
def two(shallow, tmp_path_factory) -> list[dict]:
    """What two workers have in the end."""
    return together.undisturbed(shallow, tmp_path_factory.mktemp("two") / "undisturbed", STILL, 2)


def test_two_workers_learn_what_one_process_learns(shallow, two, tmp_path):
    assert two[0] == two[1]
    alone = interrupting.digest(interrupting.fine_tune(shallow, tmp_path / "alone", **STILL))
    losses = together.losses(alone)
    assert losses[1] < losses[0] / 2 and np.allclose(together.losses(two[0]), losses, rtol=1e-5), (two[0], losses)
    for name, value in alone["metrics"]["validation"].items():
        assert two[0]["metrics"]["validation"][name] == pytest.approx(value, abs=1e-5), name


def test_a_worker_that_is_killed_is_told_and_all_go_on_to_the_bit(shallow, two, tmp_path):
    place = tmp_path / "killed"
    started = together.begin(shallow, place, [STILL] * 2)
    began = time.monotonic()
    codes = together.strike(started, place, 1, signal.SIGKILL, 0.0, saved=True)
    assert codes == [75, -signal.SIGKILL] and time.monotonic() - began < 300, together.logs(place)
    assert "start all workers again with resume (--resume), and they go on where they" in (place / "log-0").read_text()
    assert sorted(path.name for path in place.glob(".run*run")) == [".run.run", ".run.worker-1.run"]
    assert together.end(together.begin(shallow, place, [{**STILL, "resume": True}] * 2)) == [0, 0], together.logs(place)
    assert together.digests(place, 2) == two
    assert sorted(path.name for path in place.iterdir() if path.name.startswith(".")) == []


@pytest.mark.parametrize("workers", [2, 4])
def test_a_signal_to_one_worker_saves_on_all(shallow, two, tmp_path, workers):
    place, plan = tmp_path / "signalled", [signal.SIGTERM, signal.SIGKILL, signal.SIGTERM]
    found, happened = together.disturbed(shallow, place, STILL, workers, plan, random.Random(workers))
    assert happened and "interrupted by SIGTERM; saved at epoch" in together.logs(place)
    whole = two if workers == 2 else together.undisturbed(shallow, tmp_path / "four", STILL, 4)
    assert found == whole


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"learning_rate": 1e-3},
            "worker 1, {}: this worker differs from the chief, learning_rate: 0.001 instead of 0.005",
        ),
        ({"batch_size": 9}, "worker 1, {}: batch_size is 9, of which 2 replicas cannot have equal parts; take 10"),
    ],
)
def test_what_is_wrong_on_one_worker_ends_all(shallow, tmp_path, changed, message):
    place = tmp_path / "wrong"
    started = together.begin(shallow, place, [STILL, {**STILL, **changed}])
    assert together.end(started, together.LIMIT) == [2, 2], together.logs(place)
    chief, other = (path.read_text() for path in sorted(place.glob("log-*")))
    address = chief.partition("worker 1, ")[2].partition(": ")[0]
    assert message.format(address) in chief and message.partition("{}: ")[2] in other
    assert not (place / "run").exists()


def test_workers_read_shards_of_their_own_and_every_row_counts_once(shallow, tmp_path):
    task = tfbert.SequenceClassification(max_length=32, dropout=0.0)
    data = tfbert.prepare(task, shallow, interrupting.rows(128, 0), tmp_path / "prepared", shards=4)
    tokenizer = tfbert.load_tokenizer(shallow)
    assert data.features(data.task, tokenizer).alike
    weighted = [{**row, "weight": 1 + i % 2} for i, row in enumerate(interrupting.rows(8, 0))]
    other = tfbert.prepare(task, shallow, weighted, tmp_path / "weighted")
    assert not other.features(other.task, tokenizer).alike
    still = {
        **STILL,
        "epochs": 1,
        "learning_rate": 1e-12,
    }  # so that the mean of the losses does not depend on the order
    options = {**still, "prepared": str(tmp_path / "prepared")}
    one, other = together.undisturbed(shallow, tmp_path / "two", options, 2)
    alone = interrupting.digest(interrupting.fine_tune(shallow, tmp_path / "alone", **still))
    assert one == other and together.losses(one) == pytest.approx(together.losses(alone), rel=1e-5)


class Pair(Workers):
    """The chief of two, whose other one has what it is given."""

    def __init__(self, of_other: list[str]):
        super().__init__("cpu")
        self.of_other, self._addresses = of_other, {"worker:0": "a:1", "worker:1": "b:1"}

    def tell(self, value):
        return [value, self.of_other if isinstance(value, list) else None]


@pytest.mark.parametrize(
    ("of_other", "expected"),
    [
        (["step-00000030"], 30),
        (["step-00000020", "step-00000010"], 20),
        ([], "worker 1: none"),
        (["step-00000040"], "no state that all"),
    ],
)
def test_workers_go_on_from_the_newest_state_that_all_have(tmp_path, of_other, expected):
    alone = checkpoints.States(tmp_path / "run")
    for step in (20, 30):
        alone.write(step, {"step": step})
    states = checkpoints.States(tmp_path / "run", Pair(of_other))
    if isinstance(expected, str):
        with pytest.raises(checkpoints.InputError, match=expected):
            states.newest()
    else:
        assert states.newest()["step"] == expected


def test_a_first_state_that_not_all_have_written_begins_anew(tmp_path):
    checkpoints.States(tmp_path / "run").write(1, {"step": 1})
    states = checkpoints.States(tmp_path / "run", Pair([]))
    assert states.newest() is None and not states


def test_the_only_state_of_a_run_of_one_is_not_dropped_by_two(tmp_path):
    checkpoints.States(tmp_path / "run").write(1, {"identity": {"epochs": 3}})
    states = checkpoints.States(tmp_path / "run", Pair([]))
    with pytest.raises(checkpoints.InputError, match="run was begun by 1 replicas, not 2; go on with as many"):
        states.newest()
    assert states


def test_a_state_that_another_worker_could_not_write_is_not_among_those_kept(tmp_path):
    states = checkpoints.States(tmp_path / "run")
    for step in (10, 20):
        states.write(step, {"step": step})
    states.take_back()
    states.write(30, {"step": 30})
    assert sorted(path.name for path in states.place.iterdir()) == ["step-00000010", "step-00000030"]


def test_the_command_in_the_readme_trains_with_two_workers(shallow, fewer, tmp_path):
    (tmp_path / "examples").symlink_to(fewer)
    readme = (ROOT / "README.md").read_text("utf-8")
    (text,) = re.findall(r"^```console\n(python examples/local_workers.+?)^```$", readme, re.M | re.S)
    words = shlex.split(text.replace("\\\n", " ").replace("--epochs 2", "--epochs 1"))
    assert words[:4] == ["python", "examples/local_workers.py", "2", "tfbert"]
    own = [sys.executable, str(ROOT / "examples" / "local_workers.py"), "2", sys.executable, "-m", "tfbert", *words[4:]]
    done = subprocess.run(
        [*own, "--checkpoint", str(shallow), "--max-length", "32"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    chief, other = (json.loads(line[4:]) for line in sorted(done.stdout.splitlines()))
    assert chief["output"] == other["output"] == words[words.index("--output") + 1]
    assert chief["metrics"] == json.loads((tmp_path / chief["output"] / "metrics.json").read_text())["metrics"]
    assert "[0] epoch 1/1" in done.stderr and "[1] epoch" not in done.stderr
    assert [path.name for path in (tmp_path / "saved_models").iterdir()] == [Path(chief["output"]).name]


def test_the_launcher_gives_each_worker_its_config_and_the_highest_code():
    script = (
        "import json, os; config = json.loads(os.environ['TF_CONFIG']); own = config['task']['index']; "
        "print(own, len(config['cluster']['worker'])); exit(own)"
    )
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "local_workers.py"), "3", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert sorted(done.stdout.splitlines()) == ["[0] 0 3", "[1] 1 3", "[2] 2 3"] and done.returncode == 2


def test_the_launcher_passes_a_signal_on_to_all():
    script = (
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(75)); "
        "print('ready', flush=True); signal.pause()"
    )
    command = [sys.executable, str(ROOT / "examples" / "local_workers.py"), "2", sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        assert sorted(started.stdout.readline() for _ in range(2)) == ["[0] ready\n", "[1] ready\n"]
        started.send_signal(signal.SIGTERM)
        assert started.wait(60) == 75


def test_alone_nothing_is_sent():
    alone = Workers("cpu")
    with alone.joined(), alone.agreeing():
        assert alone.of_chief(lambda: 5) == 5 and alone.own == range(1)
    assert json.dumps(alone.tell(None)) == "[null]"
