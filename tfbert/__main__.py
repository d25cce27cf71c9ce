"""The command line: results to stdout as JSON, one object a line; everything else to stderr; exit codes 0, 1, 2, 75 and 130.

0    the command did what was asked
1    a fault of tfbert: the traceback is on stderr
2    a mistake of the user: one line on stderr says what to mend
75   a training was ended by SIGTERM, or another of its workers is gone: its state is saved, and --resume goes on
130  interrupted (Ctrl-C);  141  the reader of stdout went away
"""

from __future__ import annotations

import importlib
import json
import math
import platform
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any

from tfbert import __version__, _compat
from tfbert.command_line import quiet
from tfbert.command_line.arguments import Parser
from tfbert.errors import InputError, Interrupted, WorkerLost, suggest

# command -> (its module, what it does); the module is imported when the command is asked for
COMMANDS = {
    "fine-tune": ("fine_tuning", "train on labelled files; writes checkpoint, scores and a SavedModel into one folder"),
    "prepare": ("preparing", "tokenize a file of any size once, into shards that training streams"),
    "evaluate": ("evaluating", "score a fine-tuned model on a labelled file"),
    "predict": ("predicting", "answer texts, through the exported model where there is one"),
    "export": ("exporting", "write a SavedModel that takes strings and returns answers"),
    "inspect": ("inspecting", "say what a checkpoint is, and how its tokenizer splits a text"),
    "create": (
        "creating",
        "learn a tokenizer from text and draw random weights: a checkpoint to pretrain from nothing",
    ),
    "doctor": ("doctor", "check this machine and this installation, with advice"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
        argv: the words after `tfbert`; None takes the process's own.

    Example:
        >>> main(["--version"])
        tfbert 0...
        0
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        with warnings.catch_warnings():
            quiet.libraries()
            command = _command(argv)
            arguments = command.arguments(argv[1:])
            if command.NEEDS_TENSORFLOW:
                _compat.load_tensorflow()
            with quiet.stdout_for_results() as stdout:
                command.run(arguments, _emitter(stdout))
        return 0
    except SystemExit as stop:  # argparse, after --help and --version
        return stop.code or 0
    except InputError as error:
        print(f"tfbert: error: {error}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        print(f"tfbert: {stop}", file=sys.stderr)
        return stop.code
    except WorkerLost as lost:
        print(f"tfbert: {lost}", file=sys.stderr)
        return lost.code
    except KeyboardInterrupt:
        print("tfbert: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # tfbert predict ... | head
        return 141
    except Exception:  # the border of the program: whatever comes here, nobody has foreseen
        traceback.print_exc()
        where = f"tfbert {__version__}, Python {platform.python_version()}, {platform.platform()}"
        print(
            f"tfbert: this is a fault of tfbert; please report it, with the lines above and the output of `tfbert doctor` ({where})",
            file=sys.stderr,
        )
        return 1


def _command(argv: list[str]):
    """The module of the command that `argv` begins with."""
    if argv and argv[0] in COMMANDS:
        return importlib.import_module(f"tfbert.command_line.{COMMANDS[argv[0]][0]}")
    if not argv:
        raise InputError(f"no command is given; the commands are {', '.join(COMMANDS)}; `tfbert --help` explains them")
    if not argv[0].startswith("-"):
        raise InputError(f"no command {argv[0]!r}; the commands are {', '.join(COMMANDS)}.{suggest(argv[0], COMMANDS)}")
    parser = Parser(
        prog="tfbert",
        usage="tfbert COMMAND ...",
        description="Fine-tune BERT-family models in TensorFlow, and export the finished job to TensorFlow Serving.",
        epilog="`tfbert COMMAND --help` explains a command. Results go to stdout as JSON, one object a line; all else to stderr.",
    )
    parser.add_argument("--version", action="version", version=f"tfbert {__version__}")
    commands = parser.add_argument_group("commands")
    for name, (_, what) in COMMANDS.items():
        commands.add_argument(name, nargs="?", help=what)
    parser.parse(argv)  # prints and leaves, for --help and --version
    raise InputError(f"the command comes first: tfbert COMMAND ...; the commands are {', '.join(COMMANDS)}")


def _emitter(stdout) -> Callable[[Any], None]:
    """Returns the function that writes a result to `stdout` as one line of JSON."""
    ascii_only = (getattr(stdout, "encoding", None) or "utf-8").lower().replace("-", "") != "utf8"

    def emit(result: Any) -> None:
        stdout.write(json.dumps(_plain(result), ensure_ascii=ascii_only, allow_nan=False) + "\n")
        stdout.flush()

    return emit


def _plain(value: Any) -> Any:
    """The value in what JSON has: paths as strings, NumPy's numbers as Python's, NaN and infinity as null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate cannot be written
    return (
        value if value is None or isinstance(value, bool | int | float) else str(value)
    )  # a date of a Parquet file, say


if __name__ == "__main__":
    sys.exit(main())
