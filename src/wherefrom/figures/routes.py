"""Which route of the gradient built the map: the ledger, the force of each route, and what remains where one is cut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wherefrom.catalogue import MEASURES
from wherefrom.config import CUT
from wherefrom.figures.steps import falloff_over_steps
from wherefrom.figures.style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    legend_above,
    one_panel,
    panels,
    styled,
)
from wherefrom.figures.tables import by_series, first_and_last, over_runs, select

ROUTES = {
    "q": ("queries (q)", BLUE),
    "k": ("keys (k)", SKY),
    "v": ("values (v)", ORANGE),
    "mlp": ("MLP", GREEN),
    "residual": ("skips alone", PURPLE),
    "weight_decay": ("weight decay", FAINT),
    "carried": ("from before", "#c8c8c8"),
}
"""Name and colour of each kind of route, in the order in which they are stacked."""

MOST_BARS = 48


@styled
def ledger_over_steps(
    table: pd.DataFrame,
    structure: str = "similarity_falloff",
    ax: Axes | None = None,
    *,
    arm: str = "natural",
    title: str | None = None,
    legend: bool = True,
) -> Axes:
    """What each kind of route has added to a structure so far, stacked; what it took away hangs below 0.

    Layers and heads are summed, runs averaged. The black line is the whole change; thin ones are single runs.

    Args:
        table: rows `ledger_<structure>` and `ledger_<structure>_change` of a study or of one run.
        structure: `similarity_falloff`, `near_minus_far` or `coordinate_r2`.
        ax: where to draw; None makes a figure.
        arm: which arm, where the table has several.
        title: above the panel.
        legend: name the routes in the panel.

    Raises:
        ValueError: if the table has no ledger of this structure in this arm.
    """
    parts = _by_kind(rows_of_arm(table, f"ledger_{structure}", arm), "step")
    change = rows_of_arm(table, f"ledger_{structure}_change", arm)
    mean = over_runs(change, ["step"])["mean"]
    ax = one_panel(ax)
    stack_areas(
        ax, parts.reindex(mean.index.union(parts.index), fill_value=0.0)
    )  # nothing is entered before the first step
    for _, run in change.groupby("run"):
        ax.plot(run["step"], run["value"], color=INK, linewidth=0.7, alpha=0.45)
    ax.plot(mean.index, mean, color=INK, label="whole change")
    finish(ax, f"added to {_name(structure)}", title, legend)
    ax.set(xlabel="training step", xlim=(mean.index.min(), mean.index.max()))
    return ax


@styled
def force_over_steps(
    table: pd.DataFrame,
    structure: str = "similarity_falloff",
    ax: Axes | None = None,
    *,
    arm: str = "natural",
    title: str | None = None,
    legend: bool = True,
) -> Axes:
    """How fast each kind of route's gradient alone would raise a structure, stacked, batch by batch.

    Layers and heads are summed, runs averaged; where there are many batches, neighbouring ones are averaged too.
    Arguments and errors are those of `ledger_over_steps`, for rows `force_<structure>`.
    """
    measure = f"force_{structure}"
    parts = _binned(_by_kind(rows_of_arm(table, measure, arm), "step"))
    ax = one_panel(ax, 9.0, 3.0)
    width = 0.85 * np.diff(parts.index).min() if len(parts) > 1 else 1.0
    _bars(ax, parts, np.asarray(parts.index, dtype=float), width)
    ax.plot(parts.index, parts.sum(axis=1), color=INK, marker="o", markersize=3, linewidth=0.8, label="all together")
    finish(ax, f"force\n({MEASURES[measure].unit})", title, legend, columns=4)
    low, high = ax.dataLim.intervaly
    room = high - low
    ax.set(xlabel="training step", ylim=(low - 0.05 * room, high + (0.35 if legend else 0.05) * room))
    return ax


@styled
def ledger_by_layer(
    table: pd.DataFrame,
    structure: str = "similarity_falloff",
    ax: Axes | None = None,
    *,
    arm: str = "natural",
    title: str | None = None,
    legend: bool = True,
) -> Axes:
    """What each layer's routes have added to a structure by the last step; whiskers are 95 % intervals over runs.

    Heads are summed. Arguments and errors are those of `ledger_over_steps`.
    """
    _, last = first_and_last(rows_of_arm(table, f"ledger_{structure}", arm))
    sums = last.groupby(["run", "route", "layer"], dropna=False)["value"].sum().reset_index()
    summary = over_runs(sums.assign(layer=sums["layer"].astype("Int64").fillna(-1)), ["layer", "route"])
    found = dict(zip(summary.index.tolist(), summary.to_dict("records"), strict=True))
    layers = sorted({int(layer) for layer, _ in found if layer >= 0})
    ax = one_panel(ax)
    for place, (name, kinds) in enumerate(_groups(layers, {kind for _, kind in found})):
        group_bars(ax, place, [(kind, found[name, kind]) for kind in kinds if (name, kind) in found])
    names = [*map(str, layers), *(["outside"] if any(layer == -1 for layer, _ in found) else [])]
    ax.set_xticks(range(len(names)), names)
    ax.grid(axis="x", visible=False)
    finish(ax, f"added to {_name(structure)}", title, legend)
    ax.set_xlabel("layer")
    return ax


@styled
def cut_arms(table: pd.DataFrame, figure: Figure | None = None, *, arms: Iterable[str] | None = None) -> np.ndarray:
    """Falloff over steps (left) and at the end (right: a dot a run, the mean with its 95 % interval), arm by arm.

    Args:
        table: measurements of a study with rows of similarity_falloff.
        figure: an empty figure to draw in; None makes one.
        arms: which to draw; None: natural, every cut arm, and scrambled.

    Returns:
        Both axes.

    Raises:
        ValueError: if the table has no similarity falloff of these arms.
    """
    wanted = {"natural", "scrambled"} if arms is None else set(arms)
    own = select(table, "similarity_falloff")["arm"].unique()
    shown = [arm for arm in own if arm in wanted or (arms is None and str(arm).startswith(CUT))]
    if not shown:
        raise ValueError(f"expected rows of arms {', '.join(sorted(wanted))}; found {', '.join(map(str, own))}")
    rows = table[table["arm"].isin(shown)]
    left, right = axes = panels(1, 2, 3.2, figure, legend=True)[0]
    falloff_over_steps(rows, left, title="similarity falloff over training", legend=False)
    _, last = first_and_last(select(rows, "similarity_falloff"))
    _finals(right, last)
    right.set(title="at the end of training", xlabel="similarity falloff")
    legend_above(left.figure, left)
    return axes


def _finals(ax: Axes, last: pd.DataFrame) -> None:
    names = []
    for place, (series, rows) in enumerate(by_series(last)):
        summary = over_runs(rows.assign(all=0), ["all"]).iloc[0]
        runs = rows.groupby("run")["value"].mean()
        ax.plot(runs, np.full(len(runs), place), "o", color=series.colour, markersize=4, alpha=0.5)
        reach = 0 if np.isnan(summary["high"]) else summary["high"] - summary["mean"]
        ax.errorbar(summary["mean"], place, xerr=reach, color=series.colour, marker="D", markersize=6, capsize=4)
        names.append(series.label)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.axvline(0, color=INK, linewidth=0.8, zorder=1)


def rows_of_arm(table: pd.DataFrame, measure: str, arm: str) -> pd.DataFrame:
    """Rows of one arm; a table of one arm needs no name for it."""
    rows = select(table, measure)
    return rows if rows["arm"].nunique() < 2 else select(table, measure, arm=arm)


def _by_kind(rows: pd.DataFrame, place: str) -> pd.DataFrame:
    """Summed over layers and heads, mean over runs: `place × kind`, in the order of `ROUTES`."""
    per_run = rows.groupby([place, "run", "route"])["value"].sum().unstack("route").fillna(0.0)
    mean = per_run.groupby(level=place).mean()
    return mean[[kind for kind in ROUTES if kind in mean]]


def _binned(parts: pd.DataFrame) -> pd.DataFrame:
    """At most `MOST_BARS` rows: each the mean of as many neighbouring steps, at their mean step."""
    size = -(-len(parts) // MOST_BARS)
    binned = parts.reset_index().groupby(np.arange(len(parts)) // size).mean()
    return binned.set_index("step")


def stack_areas(ax: Axes, parts: pd.DataFrame, looks: Mapping[str, tuple[str, str]] = ROUTES) -> None:
    """What is above 0 stands on what is above 0, what is below hangs on what is below; `looks`: name and colour."""
    for signed in (parts.clip(lower=0), parts.clip(upper=0)):
        tops = signed.cumsum(axis=1)
        for kind in parts:
            name, colour = looks[str(kind)]
            ax.fill_between(parts.index, tops[kind] - signed[kind], tops[kind], color=colour, linewidth=0, label=name)


def _bars(ax: Axes, parts: pd.DataFrame, places: np.ndarray, width: float) -> None:
    for signed in (parts.clip(lower=0), parts.clip(upper=0)):
        tops = signed.cumsum(axis=1)
        for kind in parts:
            name, colour = ROUTES[str(kind)]
            ax.bar(places, signed[kind], width, tops[kind] - signed[kind], color=colour, label=name, linewidth=0)


def _groups(layers: list[int], kinds: set[str]) -> list[tuple[int, list[str]]]:
    """(layer, kinds that belong to it); -1 is what belongs to no layer."""
    inside = [kind for kind in ROUTES if kind in kinds and kind in ("q", "k", "v", "mlp")]
    outside = [kind for kind in ROUTES if kind in kinds and kind not in inside]
    return [*((layer, inside) for layer in layers), *([(-1, outside)] if outside else [])]


def group_bars(
    ax: Axes, place: int, bars: list[tuple[str, dict]], looks: Mapping[str, tuple[str, str]] = ROUTES, most: int = 4
) -> None:
    """Bars side by side around `place`, which has room for `most`; each with its 95 % interval."""
    width = 0.8 / most
    for number, (kind, found) in enumerate(bars):
        name, colour = looks[kind]
        x = place + (number - (len(bars) - 1) / 2) * width
        reach = None if np.isnan(found["high"]) else found["high"] - found["mean"]
        whisker = {"ecolor": INK, "error_kw": {"linewidth": 0.9, "capsize": 2}}
        ax.bar(x, found["mean"], 0.9 * width, yerr=reach, color=colour, label=name, **whisker)


def finish(ax: Axes, ylabel: str, title: str | None, legend: bool, columns: int = 1) -> None:
    """A line at 0, the labels, and a legend in the order of the stack."""
    ax.axhline(0, color=INK, linewidth=0.8, zorder=3)
    ax.set(ylabel=ylabel, title=title or "")
    if legend:
        entries = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
        ax.legend(list(entries.values()), list(entries), ncols=columns)


def _name(structure: str) -> str:
    return structure.replace("_", " ").replace("r2", "R²")
