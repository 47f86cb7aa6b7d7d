"""Head counts against each other."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wherefrom.catalogue import MEASURES
from wherefrom.figures.style import BLUE, FAINT, note, panels, styled
from wherefrom.figures.tables import first_and_last, over_runs, select

SWEEP_MEASURES = {
    "accuracy": "test accuracy",
    "head_divergence_attn": "divergence of attention",
    "head_divergence_pressure": "divergence of gradients",
}


@styled
def head_sweep(table: pd.DataFrame, figure: Figure | None = None) -> np.ndarray:
    """Accuracy and divergence of heads at the last step against head count; thin lines join runs of one seed.

    Args:
        table: measurements of runs that differ in `num_heads` and `seed` alone; layers are averaged.
        figure: an empty figure to draw in; None makes one.

    Returns:
        Axes, one for each measure of `SWEEP_MEASURES`.

    Raises:
        ValueError: if the table has no test accuracy or does not say the head counts.
    """
    if "num_heads" not in table.columns:
        raise ValueError("expected the table of a study, with a column num_heads; found the table of one run")
    select(table, "accuracy", split="test")
    axes = panels(1, len(SWEEP_MEASURES), 3.0, figure)[0]
    for ax, (measure, title) in zip(axes, SWEEP_MEASURES.items(), strict=True):
        rows = table[(table["measure"] == measure) & table["value"].notna()]
        rows = rows[rows["split"] == "test"] if measure == "accuracy" else rows
        _sweep_panel(ax, first_and_last(rows)[1], measure)
        ax.set_title(title)
    return axes


def _sweep_panel(ax: Axes, last: pd.DataFrame, measure: str) -> None:
    if last.empty:
        note(ax, "one head has no other\nto differ from")
        return
    for _, seed in last.groupby("seed"):
        line = seed.groupby("num_heads")["value"].mean()
        ax.plot(line.index, line, color=FAINT, linewidth=0.8, marker="o", markersize=3, alpha=0.7)
    summary = over_runs(last, ["num_heads"])
    reach = (summary["high"] - summary["mean"]).fillna(0)
    ax.errorbar(summary.index, summary["mean"], reach, color=BLUE, marker="o", markersize=6, capsize=3, linewidth=1.8)
    ax.set_xscale("log", base=2)
    ax.set_xticks(summary.index, [str(heads) for heads in summary.index])
    ax.set_xticks([], minor=True)
    ax.set_xlim(summary.index.min() / 1.4, summary.index.max() * 1.4)
    ax.set(xlabel="heads in a layer", ylabel=MEASURES[measure].unit)
