"""Held-out rows, chosen by a seed and class by class; and the fingerprint of a data set."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from tfbert.errors import InputError
from tfbert.sources.examples import Examples, from_iterable

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=lambda value: type(value).__name__)


def split(
    examples, fraction: float = 0.1, *, seed: int = 0, stratify: str | None = "label", group: str | None = None
) -> tuple[Examples, Examples]:
    """Holds out a fraction of the rows, the same rows for the same seed, each class in its share.

    Exactly round(rows * fraction) rows are held out. Each class gives the whole part of its share, and the rows still
    missing come from the classes with the largest remainders, ties decided by the seed. Both parts keep the order of
    the whole.

    Args:
        examples: Examples, or anything that `from_iterable` takes.
        fraction: the share to hold out, above 0 and below 1 (default 0.1).
        seed: not negative (default 0).
        stratify: the field whose values are the classes (default "label"); a list of labels is one class for each set
            of labels. With None, with floats, or where a row has no such field, the rows are drawn from the whole.
        group: a field whose equal values stay together, such as "context" for questions about the same text; groups are drawn in random
            order until the share is held out, as near as whole groups allow, and `stratify` is not looked at. None: rows by themselves.

    Returns:
        (the rest, the held-out rows).

    Raises:
        InputError: the fraction is out of range, or leaves one of the parts empty.

    Example:
        >>> rows = [{"text": str(i), "label": "rare" if i % 5 == 0 else "often"} for i in range(50)]
        >>> rest, held_out = split(rows, 0.2, seed=1)
        >>> len(rest), len(held_out), sum(row["label"] == "rare" for row in held_out)
        (40, 10, 2)
    """
    examples = from_iterable(examples)
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 < fraction < 1:
        raise InputError(f"fraction={fraction!r}: expected a share above 0 and below 1, such as 0.1")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise InputError(f"seed={seed!r}: expected a whole number that is not negative")
    total = round(len(examples) * fraction)
    if not 0 < total < len(examples):
        raise InputError(
            f"{examples.source}: {len(examples):,} rows are too few to hold out {fraction:g} of them ({total:,} rows); "
            "give more rows or another fraction"
        )
    generator = np.random.Generator(np.random.PCG64(seed))
    if group is not None:
        return _by_group(examples, total, group, generator)
    held_out = set()
    groups = _groups(examples, stratify)
    for group, number in zip(groups, _shares([len(group) for group in groups], total, generator)):
        held_out.update(group[index] for index in generator.permutation(len(group))[:number])
    rest = [index for index in range(len(examples)) if index not in held_out]
    return examples.select(rest), examples.select(sorted(held_out))


def _by_group(examples: Examples, total: int, field: str, generator) -> tuple[Examples, Examples]:
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(examples):
        if row.get(field) is None:
            raise InputError(
                f"{examples.where(index)}: no field {field!r}, by which rows are grouped; the row has {', '.join(map(repr, row))}"
            )
        groups.setdefault(repr(row[field]), []).append(index)
    held_out: list[int] = []
    members = list(groups.values())
    for number in generator.permutation(len(members)):
        grown = len(held_out) + len(members[number])
        if abs(grown - total) < abs(len(held_out) - total):
            held_out += members[number]
    if not 0 < len(held_out) < len(examples):
        raise InputError(
            f"{examples.source}: {len(members)} groups by {field!r} are too few to hold some of them out; give more rows"
        )
    kept = set(held_out)
    return examples.select(i for i in range(len(examples)) if i not in kept), examples.select(sorted(held_out))


def _groups(examples: Examples, stratify: str | None) -> list[list[int]]:
    """The indices of each class's rows, the classes sorted; one group of all rows where there are no classes."""
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(examples):
        label = row.get(stratify)
        if label is None or isinstance(label, float):
            return [list(range(len(examples)))]
        key = repr(sorted(map(repr, label))) if isinstance(label, (list, tuple)) else repr(label)
        groups.setdefault(key, []).append(index)
    return [groups[key] for key in sorted(groups)]


def _shares(sizes: list[int], total: int, generator: np.random.Generator) -> list[int]:
    """How many rows each class gives: its whole share, and one more for the largest remainders up to the total.

    Sizes 5, 5, 10 and a total of 3 have the shares 0.75, 0.75, 1.5: whole parts 0, 0, 1, and the two rows missing come
    from the first two classes.
    """
    rows = sum(sizes)
    shares = [size * total // rows for size in sizes]
    order = sorted(generator.permutation(len(sizes)).tolist(), key=lambda index: -(sizes[index] * total % rows))
    for index in order[: total - sum(shares)]:
        shares[index] += 1
    return shares


def fingerprint(examples) -> str:
    """The SHA-256 of the rows as canonical JSON, a row a line in their order; places and notes do not count.

    A value that JSON has no word for, such as a date, counts by its type alone.

    Args:
        examples: Examples, or anything that `from_iterable` takes.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> fingerprint([{"text": "good", "label": 1}]) == fingerprint([{"label": 1, "text": "good"}])
        True
        >>> fingerprint([{"text": "good", "label": 1}])[:16]
        '762f2736cdd0e6f4'
    """
    digest = hashlib.sha256()
    for row in from_iterable(examples):
        digest.update(canonical(row))
    return digest.hexdigest()


def canonical(row) -> bytes:
    """A row as one line of canonical JSON, of which `fingerprint` is the hash.

    Example:
        >>> canonical({"text": "good", "label": 1})
        b'{"label":1,"text":"good"}\\n'
    """
    return _ENCODER.encode(row).encode("ascii") + b"\n"
