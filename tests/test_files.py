"""Files and folders are there, whole, or not there: after errors, kills and two runs at once."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tfbert import files
from tfbert.errors import InputError


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(ZeroDivisionError), files.new_directory(tmp_path / "model") as folder:
        (folder / "half.txt").write_text("half")
        assert not (tmp_path / "model").exists() and folder.name.startswith(".model.tmp-")
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    with files.new_directory(tmp_path / "model") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "whole.txt").write_text("whole")
    assert (tmp_path / "model" / "deep" / "whole.txt").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_is_replaced_only_when_told_and_only_by_a_whole_one(tmp_path):
    with files.new_directory(tmp_path / "model") as folder:
        (folder / "old").write_text("old")
    with pytest.raises(InputError, match="model exists already"), files.new_directory(tmp_path / "model"):
        pass
    with pytest.raises(ZeroDivisionError), files.new_directory(tmp_path / "model", overwrite=True):
        raise ZeroDivisionError
    assert (tmp_path / "model" / "old").read_text() == "old"
    with files.new_directory(tmp_path / "model", overwrite=True) as folder:
        (folder / "new").write_text("new")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_has_appeared_meanwhile_is_not_replaced(tmp_path):
    with pytest.raises(InputError, match="model exists already"), files.new_directory(tmp_path / "model") as folder:
        (folder / "second").write_text("second")
        with files.new_directory(tmp_path / "model") as other:
            (other / "first").write_text("first")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["first"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_cannot_be_renamed_is_refused_and_a_link_is_followed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, told in (("", " is the current folder"), (".", r"\. is the current folder.*such as \./model")):
        with pytest.raises(InputError, match=told), files.new_directory(name, overwrite=True):
            pass
    mount = tmp_path / "mount"
    mount.mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: path == os.path.realpath(mount))
    with pytest.raises(InputError, match=f"{mount} is a mount point.*such as {mount}/model"):
        files.check_replaceable(mount)
    (tmp_path / "link").symlink_to("elsewhere")
    for text in ("old", "new"):
        with files.new_directory("link", overwrite=True) as folder:
            (folder / "a").write_text(text)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "elsewhere" / "a").read_text() == "new"
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere", "link", "mount"}


def test_what_a_killed_writer_left_is_swept_by_the_next_and_a_living_ones_folder_is_not(tmp_path):
    code = (
        "import os, signal, sys; from tfbert import files\n"
        "with files.new_directory(sys.argv[1]) as folder:\n"
        "    (folder / 'half').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[1])}
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "model")], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name.startswith(".model.tmp-") for path in tmp_path.iterdir()] == [True]
    with files.new_directory(tmp_path / "model") as living, files.new_directory(tmp_path / "model", overwrite=True):
        assert living.exists()
        assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_names_the_place_and_what_is_free(tmp_path, code):
    with (
        pytest.raises(InputError, match=r"cannot write .*model: the disk is full \([\d,]+ MiB free\)"),
        files.new_directory(tmp_path / "model"),
    ):
        raise OSError(code, os.strerror(code))
    assert not list(tmp_path.iterdir())


def test_one_run_at_a_time_and_a_killed_one_blocks_nobody(tmp_path):
    with files.locked(tmp_path / "run"):
        with pytest.raises(InputError, match="run is in use by another run"), files.locked(tmp_path / "run"):
            pass
        with files.locked(tmp_path / "other"):
            pass
    assert not list(tmp_path.iterdir())
    (tmp_path / ".run.lock").touch()  # what a killed process leaves
    with files.locked(tmp_path / "run"):
        pass
    assert not list(tmp_path.iterdir())


def test_json_is_written_in_one_piece_and_read_with_its_name_in_errors(tmp_path):
    files.write_json(tmp_path / "a.json", {"naïve": [1, 2.5, None]})
    assert files.read_json(tmp_path / "a.json") == {"naïve": [1, 2.5, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"score": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"naïve": [1, 2.5, None]}
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(InputError, match=r"b\.json is not valid JSON"):
        files.read_json(tmp_path / "b.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json"]


def test_a_run_that_fails_leaves_no_folder_behind(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(ZeroDivisionError), files.locked(tmp_path / "mine" / "a" / "b" / "run"):
        assert (tmp_path / "mine" / "a" / "b").is_dir()
        raise ZeroDivisionError
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]
    with files.locked(tmp_path / "c" / "run"):
        (tmp_path / "c" / "run").mkdir()
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "c", tmp_path / "c" / "run", tmp_path / "mine"]
