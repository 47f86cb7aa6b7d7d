"""The numbers beside a figure: means over seeds with their intervals, computed from the table of measurements."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from wherefrom.report.words import MISSING, count, number, power_of_ten
from wherefrom.statistics import TTest, one_sample_t


@dataclass(frozen=True)
class Line:
    """One quantity in several arms (or head counts).

    Args:
        label: what it is.
        unit: of all its values; empty for none.
        groups: rows with `run` and `value` for each column of the table; all rows of a run are averaged first.
    """

    label: str
    unit: str
    groups: Mapping[str, pd.DataFrame]
    scale: str = ""
    """Lines of the same scale are written with the same power of ten, so that they can be compared."""


@dataclass(frozen=True)
class NumberTable:
    """Cells as text."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rows or self.notes)


def number_table(lines: Iterable[Line], *notes: str) -> NumberTable:
    """A row a line, a column a group; the head of a column says how many seeds it has."""
    rows = [(line, {name: over_seeds(own) for name, own in line.groups.items()}) for line in lines if line.groups]
    names = list(dict.fromkeys(name for _, groups in rows for name in groups))
    seeds = {name: max(groups[name].n for _, groups in rows if name in groups) for name in names}
    exponents = _exponents(rows)
    return NumberTable(
        columns=tuple(f"{name} ({count(seeds[name], 'seed')})" for name in names),
        rows=tuple(
            _row(line, [groups.get(name) for name in names], exponents[line.scale or line.label])
            for line, groups in rows
        ),
        notes=notes,
    )


def over_seeds(rows: pd.DataFrame) -> TTest:
    """Mean over runs with its 95 % t-interval."""
    return one_sample_t(rows.groupby("run")["value"].mean().dropna().to_numpy(dtype=float))


def _exponents(rows: list[tuple[Line, dict[str, TTest]]]) -> dict[str, int]:
    """The power of ten of each scale, from its largest mean."""
    means: dict[str, list[float]] = {}
    for line, groups in rows:
        means.setdefault(line.scale or line.label, []).extend(test.mean for test in groups.values() if test.n)
    return {scale: power_of_ten(values) for scale, values in means.items()}


def _row(line: Line, tests: list[TTest | None], exponent: int) -> tuple[str, tuple[str, ...]]:
    """The power of ten stands with the unit."""
    power = f"10{_superscript(exponent)}" if exponent else ""
    unit = " ".join(part for part in (power, line.unit) if part)
    return f"{line.label} ({unit})" if unit else line.label, tuple(_cell(test, 10.0**exponent) for test in tests)


def _cell(test: TTest | None, scale: float) -> str:
    if test is None or test.n == 0:
        return MISSING
    mean = number(test.mean / scale)
    return mean if test.n == 1 else f"{mean} [{number(test.low / scale)}, {number(test.high / scale)}]"


def _superscript(exponent: int) -> str:
    return str(exponent).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))
