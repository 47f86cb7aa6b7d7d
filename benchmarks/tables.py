"""Markdown tables of rates, and where they go in a document."""

from __future__ import annotations

from pathlib import Path

from wherefrom.statistics import binomial_interval


def rate(successes: int, trials: int) -> str:
    if not trials:
        return "–"
    low, high = binomial_interval(successes, trials)
    return f"{100 * successes / trials:.1f} % ({100 * low:.1f}–{100 * high:.1f})"


def markdown(titles: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (titles, ["---"] * len(titles), *rows)]


def put(document: Path, marks: tuple[str, str], text: str) -> None:
    """Between the two marks of the document."""
    before, rest = document.read_text(encoding="utf-8").split(marks[0])
    after = rest.split(marks[1])[1]
    document.write_text(f"{before}{marks[0]}\n{text}\n{marks[1]}{after}", encoding="utf-8")
