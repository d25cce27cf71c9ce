"""The few lengths that batches are padded to where a compiler wants static shapes, chosen from the data."""

from __future__ import annotations

import numpy as np

from tfbert.errors import InputError


def boundaries(lengths, *, batch_size: int = 1, count: int = 4, overhead: float = 0.0) -> tuple[int, ...]:
    """Returns the lengths to pad to with which the rows take the fewest positions, by dynamic programming: none other takes fewer.

    The rows are taken as in batches of like length, each as wide as the first boundary that its longest row fits in.

    Args:
        lengths: tokens of each row, integers [N], N >= 1.
        batch_size: rows in a batch (default 1).
        count: boundaries at most (default 4).
        overhead: positions that each boundary costs by itself, as its compilation does; one that saves less is left out (default 0).

    Returns:
        Ascending lengths; the last is the longest row's.

    Raises:
        InputError: no rows, or batch_size or count below 1.

    Example:
        >>> boundaries([3, 3, 4, 9, 10, 10, 30], count=3)
        (4, 10, 30)
        >>> boundaries([3, 3, 4, 9, 10, 10, 30], count=3, overhead=20)  # 4 would save 3 * 6 positions
        (10, 30)
    """
    if not len(lengths) or batch_size < 1 or count < 1:
        raise InputError(
            f"boundaries needs rows, batch_size and count of at least 1; got {len(lengths)}, {batch_size}, {count}"
        )
    lengths = np.sort(np.asarray(lengths, np.int64))
    longest = np.minimum(np.arange(0, len(lengths), batch_size) + batch_size, len(lengths)) - 1
    widths, batches = np.unique(lengths[longest], return_counts=True)
    rows = batch_size * np.cumsum(batches)  # in batches of each width and all narrower ones
    # least[j]: the fewest positions of the rows up to widths[j], with widths[j] a boundary and a given number of boundaries in all
    least, steps, never = rows * widths, [], np.iinfo(np.int64).max // 2
    totals = [least[-1]]
    for _ in range(min(count, len(widths)) - 1):
        through = (
            least[:, np.newaxis] + (rows - rows[:, np.newaxis]) * widths
        )  # [i, j]: the boundary before widths[j] is widths[i]
        through[np.tril_indices(len(widths))] = never
        steps.append(through.argmin(0))
        least = through.min(0)
        totals.append(least[-1])
    chosen = [len(widths) - 1]
    for step in reversed(steps[: np.argmin(np.array(totals) + overhead * np.arange(len(totals)))]):
        chosen.append(step[chosen[-1]])
    return tuple(int(widths[j]) for j in reversed(chosen))
