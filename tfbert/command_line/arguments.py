"""Options: made from a function's keyword-only arguments or a dataclass's fields, checked, and explained where they are wrong."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tfbert.errors import InputError, suggest


class Parser(argparse.ArgumentParser):
    """argparse whose complaints are one-line InputErrors and which never guesses an abbreviated option.

    Example:
        >>> parser = Parser(prog="tfbert fine-tune")
        >>> _ = parser.add_argument("--epochs", type=whole)
        >>> parser.parse(["--epochs", "2"]).epochs
        2
        >>> parser.parse(["--epoch", "2"])
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: no option '--epoch'. Did you mean '--epochs'? `tfbert fine-tune --help` lists them
    """

    def __init__(self, **settings):
        super().__init__(allow_abbrev=False, **settings)

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parses all of `argv`; what is misspelt is told before what is missing."""
        self._check_names(argv)
        values, extra = self.parse_known_args(list(argv))
        if extra:
            raise InputError(
                f"{extra[0]!r} is one argument too many; quote a text that has spaces, and put `--` before one that begins with -"
            )
        return values

    def error(self, message: str):
        raise InputError(f"{message}; `{self.prog} --help` explains the arguments")

    def _check_names(self, argv: Sequence[str]) -> None:
        known = [option for action in self._actions for option in action.option_strings]
        for word in argv:
            if word == "--":
                return
            name = word.split("=")[0]
            if re.fullmatch(r"--\S+", name) and name not in known:
                raise InputError(f"no option {name!r}.{suggest(name, known)} `{self.prog} --help` lists them")


def whole(text: str) -> int:
    """Reads a whole number.

    Example:
        >>> whole("12")
        12
    """
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None


def number(text: str) -> float:
    """Reads a number.

    Example:
        >>> number("5e-5")
        5e-05
    """
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number such as 0.1 or 5e-5, got {text!r}") from None


def names(text: str) -> tuple[str, ...]:
    """Reads a comma-separated list, or with @FILE a list of one name a line (for names that hold commas, or many).

    Example:
        >>> names("ham, spam")
        ('ham', 'spam')
    """
    if not text.startswith("@"):
        return tuple(name.strip() for name in text.split(",") if name.strip())
    try:
        lines = Path(text[1:]).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(
            f"cannot read the list {text[1:]}: {getattr(error, 'strerror', error)}"
        ) from None
    return tuple(line.strip() for line in lines if line.strip())


def numbers(text: str) -> tuple[float, ...]:
    """Reads a comma-separated list of numbers, or @FILE with one a line.

    Example:
        >>> numbers("1,2.5")
        (1.0, 2.5)
    """
    return tuple(number(part) for part in names(text))


# an annotation as it is written -> (what reads it, how help shows it)
_READERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "int": (whole, "N"),
    "float": (number, "X"),
    "str": (str, "NAME"),
    "tuple[str, ...]": (names, "A,B,..|@FILE"),
    "tuple[int, ...]": (lambda text: tuple(whole(part) for part in names(text)), "N,N,..|@FILE"),
    "tuple[float, ...]": (numbers, "X,X,..|@FILE"),
}


def add_settings(group, function: Callable, skip: Iterable[str] = ()) -> list[str]:
    """Adds an option for each annotated keyword-only argument of a function, with its help from the docstring's Args.

    Args:
        group: a parser or a group of one.
        function: its arguments of type bool, int, float, str or tuples of them become options, `| None` or not.
        skip: names to leave out.

    Returns:
        The names that have an option now. One that is not given on the command line is not set, so the function's default holds.

    Example:
        >>> def train(*, epochs: int = 3, shuffle: bool = True):
        ...     '''Trains.
        ...
        ...     Args:
        ...         epochs: passes over the data (default 3).
        ...         shuffle: mix the rows.
        ...     '''
        >>> parser = Parser()
        >>> add_settings(parser, train)
        ['epochs', 'shuffle']
        >>> parser.parse(["--no-shuffle"])
        Namespace(shuffle=False)
    """
    said = _described(function)
    added = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and name not in skip:
            added += _add(group, name, parameter.annotation, said.get(name, ""))
    return added


def add_fields(group, cls: type) -> list[str]:
    """Adds an option for each field of a dataclass, with its help from `metadata["help"]`; returns their names (see `add_settings`).

    Example:
        >>> @dataclasses.dataclass
        ... class Task:
        ...     labels: tuple[str, ...] = dataclasses.field(default=(), metadata={"help": "names"})
        >>> parser = Parser()
        >>> add_fields(parser, Task)
        ['labels']
        >>> parser.parse(["--labels", "ham,spam"])
        Namespace(labels=('ham', 'spam'))
    """
    added = []
    for field in dataclasses.fields(cls):
        said = field.metadata.get("help", "")
        if "default" not in said and field.default not in (None, (), "", dataclasses.MISSING):
            said += f" (default {field.default})"
        added += _add(group, field.name, field.type, said)
    return added


def given(values: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """The values of those options that stand on the command line."""
    return {name: getattr(values, name) for name in names if hasattr(values, name)}


def _add(group, name: str, annotation, said: str) -> list[str]:
    kind = str(annotation).replace(" | None", "")
    option = "--" + name.replace("_", "-")
    said = said.replace("%", "%%")
    if kind == "bool":
        group.add_argument(option, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=said)
    elif kind in _READERS:
        read, shown = _READERS[kind]
        group.add_argument(option, type=read, metavar=shown, default=argparse.SUPPRESS, help=said)
    else:
        return []
    return [name]


def _described(function: Callable) -> dict[str, str]:
    """What the docstring's Args say of each argument, each on one line."""
    section = re.search(r"^Args:\n((?: +.*\n|\n)*)", (inspect.getdoc(function) or "") + "\n", re.MULTILINE)
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section[1] if section else "", re.MULTILINE)
    return {name: " ".join(text.split()).removesuffix(".") for name, text in entries}
