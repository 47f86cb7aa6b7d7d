"""Whether a model uses its positions: what it loses without them, and what its first scores are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wherefrom.content import CONTENTS, of_content
from wherefrom.figures.stacked import stacked_bars
from wherefrom.figures.steps import _lines
from wherefrom.figures.style import BLUE, INK, ORANGE, SKY, legend_above, note, one_panel, panels, styled
from wherefrom.figures.tables import Series, axis_label, by_series, first_and_last, over_runs, select

CONTENT_TITLES = {"natural": "natural images", "shuffled": "contents shuffled"}
"""How panels call the probe images of a content."""

LOGIT_TERMS = {
    "content_content": ("content–content", "#c4c4c4"),
    "content_position": ("content–position", SKY),
    "position_content": ("position–content", ORANGE),
    "position_position": ("position–position", BLUE),
    "covariance": ("their covariance", "#6b6b6b"),
}
"""Label and colour of each term of a score; the first word is the query's side, the second the key's."""

LOGIT_SHARES = tuple(f"logit_share_{term}" for term in LOGIT_TERMS)
COMPARED = ("natural", "scrambled")


@styled
def position_use_over_steps(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    names: Mapping[str, str] | None = None,
    title: str | None = None,
    legend: bool = True,
) -> Axes:
    """Position use of the probe images: a thin line a run, a thick one for the mean over the runs of an arm.

    Args:
        table: measurements of a study or of one run.
        ax: where to draw; None makes a figure.
        names: what to call an arm, where not as it is called.
        title: above the panel.
        legend: name the arms in the panel.

    Raises:
        ValueError: if the table has no such row.
    """
    rows = select(table, "position_use", split="probe")
    ax = one_panel(ax)
    for series, own in _named_series(rows, names):
        _lines(ax, own, series)
    ax.axhline(0, color=INK, linewidth=0.8, zorder=1)
    ax.set(xlabel="training step", ylabel=axis_label("position_use"), title=title or "")
    if legend:
        ax.legend()
    return ax


@styled
def accuracy_without_positions(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    names: Mapping[str, str] | None = None,
    title: str | None = None,
    legend: bool = True,
) -> Axes:
    """Test accuracy at the end, on images as they are and with shuffled patches: small dots are runs, large ones means.

    Args:
        table: measurements with `accuracy` and `position_use_accuracy` of split `test`.
        ax: where to draw; None makes a figure.
        names: what to call an arm, where not as it is called.
        title: above the panel.
        legend: name the arms in the panel.

    Raises:
        ValueError: if the table has no such row.
    """
    both = accuracies(table)
    ax = one_panel(ax)
    for series, own in _named_series(both, names):
        ends = own[["whole", "shuffled"]].to_numpy(dtype=float)
        if len(ends) > 1:
            ax.plot([0, 1], ends.T, "o-", color=series.colour, markersize=2.5, linewidth=0.7, alpha=0.45)
        ax.plot([0, 1], ends.mean(0), "o", color=series.colour, linestyle=series.dashes, label=series.label)
    ax.set(xticks=[0, 1], xlim=(-0.3, 1.3), ylim=(0, 1.02), ylabel="test accuracy (share)", title=title or "")
    ax.set_xticklabels(["images as they are", "patches shuffled"])
    ax.grid(False, axis="x")
    if legend:
        ax.legend()
    return ax


def accuracies(table: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy of each run at its last step, on images as they are (`whole`) and with `shuffled` patches."""
    keys = ["run", "arm", "seed"]
    whole = first_and_last(select(table, "accuracy", split="test"))[1][[*keys, "value"]]
    lost = first_and_last(select(table, "position_use_accuracy", split="test"))[1][["run", "value"]]
    both = whole.merge(lost, on="run", suffixes=("", "_lost")).rename(columns={"value": "whole"})
    return both.assign(shuffled=both["whole"] - both["value_lost"])


def _named_series(rows: pd.DataFrame, names: Mapping[str, str] | None) -> Iterator[tuple[Series, pd.DataFrame]]:
    for series, own in by_series(rows):
        yield replace(series, label=(names or {}).get(series.label, series.label)), own


@styled
def logit_shares(table: pd.DataFrame, figure: Figure | None = None) -> np.ndarray:
    """What the scores of layer 0 are made of: a panel a content, a stacked bar an arm and end of training.

    Args:
        table: measurements with `logit_share_*`; the mean over heads and runs is drawn. A share below 0 (the
            covariance may be) hangs below the line, and the others then add up to more than 1.
        figure: an empty figure to draw in; None makes one.

    Returns:
        The axes, one a content.

    Raises:
        ValueError: if the table has no such row.
    """
    contents = [one for one in CONTENTS if _has(of_content(table, one), LOGIT_SHARES)] or ["natural"]
    axes = panels(1, len(contents), 3.2, figure, width=9 if len(contents) > 1 else 5, share=("none", "row"),
                  legend=True)[0]  # fmt: skip
    for ax, content in zip(axes, contents, strict=True):
        _logit_panel(ax, pd.concat([select(table, name, content) for name in LOGIT_SHARES]))
        ax.set_title(CONTENT_TITLES[content])
    axes[0].set_ylabel("share of the scores’ variance")
    legend_above(axes[0].figure, axes)
    return axes


def _has(table: pd.DataFrame, measures: tuple[str, ...]) -> bool:
    return bool(table.loc[table["measure"].isin(measures), "value"].notna().any())


def _logit_panel(ax: Axes, rows: pd.DataFrame) -> None:
    """Two bars an arm: first and last step."""
    bars = [
        (f"{series.label},\n{when} step", over_runs(part, ["measure"])["mean"].reindex(LOGIT_SHARES))
        for series, own in by_series(rows[rows["arm"].isin(COMPARED)] if rows["arm"].isin(COMPARED).any() else rows)
        for when, part in zip(("first", "last"), first_and_last(own), strict=True)
    ]
    if not bars:
        note(ax, "the scores do not vary")
        return
    x = np.array([place + 0.4 * (place // 2) for place in range(len(bars))])
    shares = {term: np.array([bar[f"logit_share_{term}"] for _, bar in bars]) for term in LOGIT_TERMS}
    stacked_bars(ax, x, shares, LOGIT_TERMS)
    ax.set_xticks(x, [label for label, _ in bars])
    ax.tick_params(axis="x", length=0)
