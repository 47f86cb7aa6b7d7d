"""Which pairs' gradient built the scores: the account of log attention at edge neighbours and at far pairs."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from wherefrom.figures.routes import finish, group_bars, rows_of_arm, stack_areas
from wherefrom.figures.style import BLUE, FAINT, GREEN, INK, PURPLE, RED, one_panel, styled
from wherefrom.figures.tables import first_and_last, layers_of, over_runs

PARTS = {
    "edge": ("gradient of edge pairs", BLUE),
    "far": ("gradient of far pairs", RED),
    "other": ("gradient of all other pairs", GREEN),
    "drift": ("drift of the inputs", PURPLE),
    "weight_decay": ("weight decay", FAINT),
    "carried": ("from before", "#c8c8c8"),
}
"""Name and colour of each part of the account, in the order in which they are stacked."""

LABELS = {
    "log_attn_edge": "log attention at edge (nats)",
    "log_attn_far": "log attention at far (nats)",
    "qk_alignment": "alignment, edge − far (cosine)",
}


@styled
def scores_over_steps(
    table: pd.DataFrame,
    structure: str = "log_attn_edge",
    ax: Axes | None = None,
    *,
    arm: str = "natural",
    title: str | None = None,
    legend: bool = True,
) -> Axes:
    """What each part of the pairs has added to a structure of the scores so far, stacked; losses hang below 0.

    Layers and runs are averaged, w_q and w_k summed. The black line is the whole change; thin ones are single runs.

    Args:
        table: rows `ledger_<structure>` and `ledger_<structure>_change` of a study or of one run.
        structure: `log_attn_edge`, `log_attn_far` or `qk_alignment`.
        ax: where to draw; None makes a figure.
        arm: which arm, where the table has several.
        title: above the panel.
        legend: name the parts in the panel.

    Raises:
        ValueError: if the table has no account of this structure in this arm.
    """
    parts = score_parts(rows_of_arm(table, f"ledger_{structure}", arm))
    change = rows_of_arm(table, f"ledger_{structure}_change", arm)
    stacked = over_runs(parts, ["step", "part"])["mean"].unstack("part").fillna(0.0)
    mean = over_runs(change, ["step"])["mean"]
    stacked = stacked[[part for part in PARTS if part in stacked]].reindex(mean.index, fill_value=0.0)
    ax = one_panel(ax)
    stack_areas(ax, stacked, PARTS)
    for _, run in change.groupby("run"):
        ax.plot(run.groupby("step")["value"].mean(), color=INK, linewidth=0.7, alpha=0.45)
    ax.plot(mean.index, mean, color=INK, label="whole change")
    finish(ax, f"added to {LABELS[structure]}", title, legend)
    ax.set(xlabel="training step", xlim=(mean.index.min(), mean.index.max()))
    return ax


@styled
def scores_by_layer(
    table: pd.DataFrame,
    structure: str = "log_attn_edge",
    ax: Axes | None = None,
    *,
    arm: str = "natural",
    title: str | None = None,
    legend: bool = True,
) -> Axes:
    """What each part of the pairs has added to a structure by the last step, layer by layer.

    Black marks are the whole change of a layer, whiskers 95 % intervals over runs. Arguments and errors are those of
    `scores_over_steps`.
    """
    _, last = first_and_last(rows_of_arm(table, f"ledger_{structure}", arm))
    _, change = first_and_last(rows_of_arm(table, f"ledger_{structure}_change", arm))
    summary = over_runs(score_parts(last), ["layer", "part"])
    found = dict(zip(summary.index.tolist(), summary.to_dict("records"), strict=True))
    kinds = [part for part in PARTS if part in summary.index.get_level_values("part")]
    ax = one_panel(ax)
    for place, layer in enumerate(layers_of(last)):
        bars = [(part, found[layer, part]) for part in kinds if (layer, part) in found]
        group_bars(ax, place, bars, PARTS, most=max(4, len(kinds)))
    whole = over_runs(change, ["layer"])["mean"]
    ax.plot(range(len(whole)), whole, "D", color=INK, markersize=5, label="whole change", zorder=4)
    ax.set_xticks(range(len(whole)), [str(int(layer)) for layer in whole.index])
    ax.grid(axis="x", visible=False)
    finish(ax, f"added to {LABELS[structure]}", title, legend)
    ax.set_xlabel("layer")
    return ax


def score_parts(rows: pd.DataFrame) -> pd.DataFrame:
    """Contributions as `run, step, layer, part, value`, with `part` one of `PARTS`, w_q and w_k summed."""
    relation = rows["relation"].where(rows["relation"].isin(("edge", "far")), "other")
    part = relation.where(rows["relation"].notna(), rows["route"]).rename("part")
    return rows.groupby(["run", "step", "layer", part])["value"].sum().reset_index()
