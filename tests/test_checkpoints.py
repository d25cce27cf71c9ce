"""Resume: a run that was killed, stopped or damaged ends with the bits of one that nobody disturbed, or says why it cannot go on."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import threading

import interrupting
import numpy as np
import pytest

import tfbert
from tfbert import checkpoints, checks, models, signals
from tfbert.__main__ import main
from tfbert._compat import keras, tf
from tfbert.errors import InputError

STATE = {
    "position": (1, 7),
    "stopped": False,
    "score": None,
    "history": {"loss": [0.1, float("nan")]},
    "empty": [],
    "weights": [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, np.int64), np.zeros([0, 4], np.float16)],
    "random": {"state": [np.array([2**62, -5, 0], np.int64)]},
}


def assert_same(one, other):
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same(one[name], other[name])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other):
            assert_same(a, b)
    else:
        assert repr(one) == repr(other)


def with_step(step: int) -> dict:
    return {**STATE, "weights": [STATE["weights"][0] + step, *STATE["weights"][1:]], "step": step}


@pytest.fixture
def states(tmp_path):
    found = checkpoints.States(tmp_path / "run")
    for step in (10, 20, 30):
        found.write(step, with_step(step))
    return found


def names(states) -> list[str]:
    return sorted(path.name for path in states.place.iterdir())


def test_a_state_is_read_as_it_was_written_and_two_are_kept(states):
    assert names(states) == ["step-00000020", "step-00000030"]
    assert_same(states.newest(), with_step(30))
    states.clear()
    assert not states and states.newest() is None and not states.place.exists()


def test_every_truncation_and_every_flipped_bit_is_found_and_the_state_before_is_taken(states, capsys):
    rng = np.random.default_rng(0)
    newest = states.place / "step-00000030"
    contents = {path: path.read_bytes() for path in sorted(newest.iterdir())}
    assert [path.name for path in contents] == ["SHA256SUMS", "arrays.safetensors", "values.json"]
    for i in range(300):
        path = list(contents)[i % 3]
        damaged = bytearray(contents[path])
        if i % 2:
            damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        else:
            del damaged[rng.integers(len(damaged)) :]
        path.write_bytes(damaged)
        assert_same(checkpoints.States(states.directory).newest(), with_step(20))
        assert f"{newest} is damaged" in capsys.readouterr().err
        path.write_bytes(contents[path])
    assert_same(checkpoints.States(states.directory).newest(), with_step(30))


def test_missing_files_are_found_and_states_of_which_none_is_whole_are_an_error(states, capsys):
    for name in ("SHA256SUMS", "arrays.safetensors", "values.json"):
        (states.place / "step-00000030" / name).rename(states.place / "aside")
        assert_same(states.newest(), with_step(20))
        assert "is damaged" in capsys.readouterr().err
        (states.place / "aside").rename(states.place / "step-00000030" / name)
    for folder in states.place.iterdir():
        (folder / "values.json").write_text("{}")
    with pytest.raises(InputError, match=r"none of the states in .*\.run is whole; pass overwrite \(--overwrite\)"):
        states.newest()


def test_a_damaged_state_does_not_count_among_the_two_that_are_kept(states):
    (states.place / "step-00000030" / "values.json").write_text("{}")
    again = checkpoints.States(states.directory)
    again.newest()
    again.write(25, with_step(25))
    assert names(states) == ["step-00000020", "step-00000025"]


def test_a_state_of_another_format_is_refused(tmp_path, monkeypatch):
    states = checkpoints.States(tmp_path / "run")
    monkeypatch.setattr(checkpoints, "FORMAT_VERSION", 2)
    states.write(1, STATE)
    monkeypatch.undo()
    with pytest.raises(InputError, match="has format_version 2, this tfbert reads 1"):
        states.newest()


@pytest.mark.parametrize("failing", range(1, 12))
def test_a_full_disk_at_each_write_leaves_the_states_before(states, monkeypatch, failing):
    """Every call that can meet a full disk fails once: opening, writing, flushing, renaming, making the folder."""
    done = 0

    def full_at(function):
        def changed(*arguments, **named):
            nonlocal done
            done += 1
            if done == failing:
                raise OSError(errno.ENOSPC, "No space left on device")
            return function(*arguments, **named)

        return changed

    for module, name in ((os, "fsync"), (os, "rename"), (os, "replace"), (os, "fdopen"), (checkpoints, "save_file")):
        monkeypatch.setattr(module, name, full_at(getattr(module, name)))
    with pytest.raises(InputError, match=r"cannot write .*: the disk is full \([\d,]+ MiB free\)"):
        states.write(40, with_step(40))
    monkeypatch.undo()
    found = checkpoints.States(states.directory).newest()
    # The last write of all flushes the folder's folder: the new state is there by then, and it is whole.
    assert found["step"] in (30, 40) and (found["step"] == 30 or failing == 11)
    assert_same(found, with_step(found["step"]))
    assert not [name for name in names(states) if name.startswith(".")]


def test_a_file_that_safetensors_cannot_write_is_told_like_any_other(states, monkeypatch):
    """Its errors are no OSErrors, and have the system's number in their message."""

    def full(*_):
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(InputError, match="the disk is full"):
        states.write(40, with_step(40))


def test_what_a_killed_process_left_is_cleared_away(states):
    (states.place / ".step-00000040.tmp-host-1-x").mkdir()
    assert_same(states.newest(), with_step(30))
    assert names(states) == ["step-00000020", "step-00000030"]


def test_changes_are_listed_and_only_some_may_be_accepted(capsys):
    before = {"epochs": 3, "patience": None, "train": "a" * 64, "versions.tensorflow": "2.20.0", "gone": 1}
    checks.check_same(before, dict(before), "out", allow_changes=False)
    now = {**before, "patience": 2, "versions.tensorflow": "2.21.0"}
    listed = "patience: None -> 2; versions.tensorflow: '2.20.0' -> '2.21.0'"
    with pytest.raises(InputError, match=f"out was begun otherwise: {listed}; pass allow_changes"):
        checks.check_same(before, now, "out", allow_changes=False)
    checks.check_same(before, now, "out", allow_changes=True)
    assert listed in capsys.readouterr().err
    now |= {"epochs": 4, "train": "b" * 64}
    del now["gone"]
    with pytest.raises(
        InputError, match=r"epochs: 3 -> 4; .*train: aaaaaaaaaaaa -> bbbbbbbbbbbb; .*gone: 1 -> None; go on as"
    ):
        checks.check_same(before, now, "out", allow_changes=True)


def test_the_second_signal_does_what_it_did_before_and_handlers_are_put_back():
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has background jobs ignore it
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with signals.Signals() as taken:
        assert taken.received is None
        signal.raise_signal(signal.SIGINT)
        assert taken.received == signal.SIGINT
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with signals.Signals():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    signal.signal(signal.SIGINT, inherited)


def test_outside_the_main_thread_signals_are_left_alone():
    found = []

    def elsewhere():
        with signals.Signals() as taken:
            found.append((taken.received, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [(None, signal.getsignal(signal.SIGTERM))]


class Stop(Exception):
    """Ends a run like a crash: what is on the disk stays."""


def interrupt(monkeypatch, position: tuple[int, int], what):
    """Calls `what` once a state of the position is on the disk."""
    reached = checkpoints.SaveState._reached

    def then(self, epoch, batch):
        reached(self, epoch, batch)
        if (epoch, batch) == position:
            self._writer.join()
            what()

    monkeypatch.setattr(checkpoints.SaveState, "_reached", then)


def crash():
    raise Stop


@pytest.fixture(scope="module")
def undisturbed(shallow, tmp_path_factory):
    """The digests of whole runs, by their options; each is made once."""
    made = {}

    def get(**options):
        key = str(options)
        if key not in made:
            place = tmp_path_factory.mktemp("undisturbed") / "run"
            made[key] = interrupting.digest(interrupting.fine_tune(shallow, place, **{**options, "save_every": 300}))
        return made[key]

    return get


TWO = {"epochs": 2}
TRANSFORMERS = {"epochs": 2, "encoder": "transformers", "patience": 1}
FLOAT16 = {"epochs": 2, "precision": "float16", "clip_norm": 0.5}
OFTEN = {"epochs": 2, "evaluate_every": 6}
UNFREEZING = {"epochs": 3, "unfreeze": "gradual", "ema": 0.9}
IN_PARTS = {"epochs": 2, "freeze": "embeddings", "accumulate": 2, "r_drop": 0.5, "precision": "float16"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, position",
    [
        ({}, (0, 5)),
        (TWO, (2, 0)),
        (TRANSFORMERS, (1, 15)),
        (FLOAT16, (1, 0)),
        (UNFREEZING, (1, 4)),
        (UNFREEZING, (2, 0)),
        (IN_PARTS, (1, 7)),
        (OFTEN, (2, 3)),
    ],
    ids=[
        "within an epoch",
        "before the last is scored",
        "the encoder of TF Transformers",
        "float16 with loss scaling",
        "gradual unfreezing, averages",
        "the same before a group joins",
        "frozen, in parts, two dropouts",
        "scored every few steps",
    ],
)
def test_a_run_that_goes_on_ends_with_the_same_bits(
    shallow, tmp_path, monkeypatch, capsys, undisturbed, options, position
):
    expected = undisturbed(**options)
    interrupt(monkeypatch, position, crash)
    with pytest.raises(Stop):
        interrupting.fine_tune(shallow, tmp_path / "run", **options)
    monkeypatch.undo()
    assert not (tmp_path / "run").exists() and 0 < len(list((tmp_path / ".run.run").glob("step-*"))) <= 2
    with pytest.raises(InputError, match=r"has a run that was interrupted; pass resume \(--resume\) to go on with it"):
        interrupting.fine_tune(shallow, tmp_path / "run", **options)
    capsys.readouterr()
    tuned = interrupting.fine_tune(shallow, tmp_path / "run", resume=True, **options)
    assert interrupting.digest(tuned) == expected
    assert f"goes on at epoch {position[0] + 1}" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    with pytest.raises(InputError, match="holds a finished run"):
        interrupting.fine_tune(shallow, tmp_path / "run", resume=True, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    "plan",
    [["inside", signal.SIGKILL], [signal.SIGKILL, "inside", signal.SIGKILL] * 3 + ["inside"]],
    ids=["two kills", "ten kills"],
)
def test_kills_in_one_run_and_the_same_bits(shallow, tmp_path, undisturbed, plan):
    """SIGKILL at random moments, some of them while something is being saved; each time a new process goes on."""
    long = {"epochs": 6}  # so that it is not over before the last of them
    found, happened = interrupting.disturbed(shallow, tmp_path / "killed", long, plan, random.Random(0))
    assert happened == plan
    assert found == undisturbed(**long)


def on_the_command_line(shallow, folder, *more) -> int:
    csv = folder / "train.csv"
    csv.write_text("text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in interrupting.rows(96, 0)))
    fixed = [
        "fine-tune",
        "sequence-classification",
        "--train",
        str(csv),
        "--output",
        str(folder / "run"),
        "--no-export",
    ]
    options = ["--checkpoint", str(shallow), "--epochs", "2", "--batch-size", "8", "--max-length", "32", "--no-report"]
    return main([*fixed, *options, *more])


@pytest.mark.slow
def test_sigterm_and_ctrl_c_save_exit_with_75_and_130_and_the_run_goes_on(shallow, tmp_path, monkeypatch, capsys):
    handler = signal.getsignal(signal.SIGTERM)
    reached = checkpoints.SaveState._reached
    for position, received, code, more in (
        ((0, 4), signal.SIGTERM, 75, []),
        ((0, 9), signal.SIGINT, 130, ["--resume"]),
    ):

        def then(self, epoch, batch, position=position, received=received):
            if (epoch, batch) == position:
                signal.raise_signal(received)
            reached(self, epoch, batch)

        monkeypatch.setattr(checkpoints.SaveState, "_reached", then)
        assert on_the_command_line(shallow, tmp_path, *more) == code
        lines = capsys.readouterr().err.strip().split("\n")
        saved = f"saved at epoch 1, step {position[1] + 1}; the same command with --resume goes on"
        assert lines[-1] == f"tfbert: interrupted by {received.name}; {saved}"
        assert signal.getsignal(signal.SIGTERM) == handler
    monkeypatch.undo()
    assert on_the_command_line(shallow, tmp_path, "--resume") == 0
    assert "goes on at epoch 1, step 10 of 11" in capsys.readouterr().err
    history = tfbert.load(tmp_path / "run").history
    assert [row["epoch"] for row in history] == [1, 2]


def test_what_a_run_was_begun_with_must_be_the_same(shallow, tmp_path, monkeypatch):
    interrupt(monkeypatch, (0, 1), crash)
    with pytest.raises(Stop):
        interrupting.fine_tune(shallow, tmp_path / "run")
    monkeypatch.undo()
    for changes, told in (
        ({"learning_rate": 1e-3, "epochs": 4}, r"epochs: 3 -> 4; learning_rate: 0.005 -> 0.001; go on as it was begun"),
        ({"patience": 1}, r"patience: None -> 1; pass allow_changes \(--allow-changes\) to go on all the same"),
    ):
        with pytest.raises(InputError, match=told):
            interrupting.fine_tune(shallow, tmp_path / "run", resume=True, **changes)
    rows = interrupting.rows
    monkeypatch.setattr(interrupting, "rows", lambda count, seed: rows(count, seed + (count == 128)))
    with pytest.raises(InputError, match=r"begun otherwise: train: \w{12} -> \w{12}; go on as it was begun"):
        interrupting.fine_tune(shallow, tmp_path / "run", resume=True)
    monkeypatch.undo()
    other = tmp_path / "other"
    shutil.copytree(shallow, other)
    config = (other / "config.json").read_text()
    (other / "config.json").write_text(config.replace('"hidden_dropout_prob": 0.1', '"hidden_dropout_prob": 0.2'))
    with pytest.raises(InputError, match=r"begun otherwise: checkpoint/config.json: \w{12} -> \w{12}; go on as it was"):
        interrupting.fine_tune(other, tmp_path / "run", resume=True)


def test_a_disk_that_is_full_while_it_trains_is_told_and_ends_nothing(
    shallow, tmp_path, monkeypatch, capsys, undisturbed
):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    tuned = interrupting.fine_tune(shallow, tmp_path / "run")
    assert interrupting.digest(tuned) == undisturbed()
    said = capsys.readouterr().err
    assert said.count("the state is not saved, training goes on: cannot write ") == 1 and "the disk is full" in said


def test_weights_that_are_not_finite_are_never_saved(shallow, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(checkpoints.States, "write", lambda self, step, state: written.append(state))
    with pytest.raises(InputError, match="lower the learning rate"):
        interrupting.fine_tune(shallow, tmp_path / "run", learning_rate=1e35)
    assert all(np.isfinite(array).all() for state in written for array in state["model"]["weights"])


@pytest.mark.parametrize(
    "task, head",
    [
        (tfbert.SequenceClassification(labels=("a", "b"), max_length=32), "lean"),
        (tfbert.QuestionAnswering(no_answer=False, max_length=32), "lean"),
        (tfbert.SequenceClassification(labels=("a", "b"), max_length=32), "transformers"),
        (tfbert.SentenceEmbedding(max_length=32), "transformers"),
    ],
    ids=str,
)
def test_dropout_depends_on_the_saved_state_alone(tiny, task, head):
    """The same state, the same masks: in a graph, after other draws, for every dropout layer there is."""
    keras.utils.set_random_seed(3)
    model = task.build(tiny, encoder=head)
    random_state = models.random_state(model)
    assert len(random_state) > (head == "transformers")
    ids = np.array([[2, 40, 41, 42, 3]], np.int32)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    step = tf.function(lambda: tf.concat([tf.reshape(x, [-1]) for x in model(inputs, training=True).values()], 0))
    step()
    before = [variable.numpy() for variable in random_state]
    first, second = step().numpy(), step().numpy()
    assert not np.array_equal(first, second)
    for variable, value in zip(random_state, before):
        variable.assign(value)
    np.testing.assert_array_equal(step().numpy(), first)
    np.testing.assert_array_equal(step().numpy(), second)
