"""From a file's own column names to the fields of a task, and the checks that every file's rows go through."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tfbert.errors import InputError, suggest
from tfbert.sources.examples import Cleaning, Examples, counted

MAX_CHARACTERS = 1_000_000


def plan(names: Iterable[str], columns: Mapping[str, str] | None, place: str, hint: str = "") -> list[tuple[str, int]]:
    """Which column each field is read from, as pairs (field, index of the column), in the file's order.

    A mapped column is renamed; the others keep their names, unless a mapped one takes that name.

    Args:
        names: the file's columns.
        columns: from field to column, such as {"text": "sentence"}; None keeps every name.
        place: what an error begins with.
        hint: what an error ends with.

    Raises:
        InputError: names a column that is not there, those that are, and the nearest.

    Example:
        >>> plan(["id", "sentence", "text"], {"text": "sentence"}, "train.csv:1")
        [('id', 0), ('text', 1)]
        >>> plan(["text", "label"], {"label": "lable"}, "train.csv:1")
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: train.csv:1: no column 'lable'; the columns are 'text', 'label'. Did you mean 'label'?
    """
    names, columns = list(names), {} if columns is None else columns
    if not isinstance(columns, Mapping):
        raise InputError(f"columns={columns!r}: expected a dict from field to column, such as {{'text': 'sentence'}}")
    for column in columns.values():
        if column not in names:
            there = ", ".join(repr(name) for name in names)
            raise InputError(f"{place}: no column {column!r}; the columns are {there}.{suggest(column, names)}{hint}")
    pairs = []
    for index, name in enumerate(names):
        pairs += [(field, index) for field, column in columns.items() if column == name]
        if name not in columns and name not in columns.values():
            pairs.append((name, index))
    return pairs


def checked(
    rows: Iterable,
    source: str,
    lines: list[int] | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    max_characters: int | None = None,
    labelled: bool = True,
    notes: Iterable[str] = (),
) -> Examples:
    """Examples of a file's rows: cleaned, renamed, and checked for missing columns, empty labels and monstrous texts.

    Args:
        rows: mappings; anything else is an error that names its place.
        source: the file's path.
        lines: the line of each row; None where there are none.
        columns: from field to column; None keeps every name.
        max_characters: the longest text allowed; None for any.
        labelled: whether each row needs a label, where there are labels; False does not look at them.
        notes: what reading the file has already found.

    Example:
        >>> checked([{"sentence": "good", "label": " "}], "train.jsonl", [7], columns={"text": "sentence"})
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: train.jsonl:7: the label is empty; give every row a label or delete the row
    """
    rows = list(rows)
    examples = Examples(rows, source=source, lines=lines)
    if not rows:
        raise InputError(f"{source}: there are no rows in it")
    cleaning, plans = Cleaning(), {}
    for index, row in enumerate(rows):
        place = examples.where(index)
        row = cleaning.row(row, place)
        if columns:
            names = tuple(row)
            if names not in plans:
                plans[names] = plan(names, columns, place)
            row = {field: row[names[column]] for field, column in plans[names]}
        examples[index] = row
    examples.notes = [*notes, *cleaning.notes(source)]
    check_texts(examples, max_characters)
    if labelled:
        check_labels(examples)
    return examples


def check_texts(examples: Examples, max_characters: int | None) -> None:
    """Raises InputError at the first text longer than `max_characters` (None: any length will do)."""
    if max_characters is None:
        return
    for index, row in enumerate(examples):
        for value in row.values():
            if isinstance(value, str) and len(value) > max_characters:
                raise InputError(
                    f"{examples.where(index)}: a text of {len(value):,} characters; the limit is {max_characters:,}: "
                    "probably an unbalanced quote or a whole file in one cell; cut the text or raise max_characters"
                )


def check_labels(examples: Examples) -> None:
    """Raises InputError at the first row whose field "label" is empty; notes labels "nan", as pandas writes none."""
    doubtful = 0
    for index, row in enumerate(examples):
        label = row.get("label", 0)
        if isinstance(label, str):
            empty = not label.strip()
            doubtful += label.lower() == "nan"
        else:
            empty = label is None or label != label  # a float that is not itself is NaN
        if empty:
            raise InputError(f"{examples.where(index)}: the label is empty; give every row a label or delete the row")
    if doubtful:
        found = counted(doubtful, "label")
        examples.notes.append(f"{examples.source}: {found} 'nan', kept as text: a class, or a missing value?")
