"""Sections on what built the map: the ledger of the gradient's routes, and training with a route cut."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from wherefrom import figures
from wherefrom.config import CUT
from wherefrom.figures.routes import ROUTES
from wherefrom.figures.style import legend_above, panels
from wherefrom.report.material import Material, by_arm, first_step, last_step
from wherefrom.report.numbers import Line, NumberTable, number_table
from wherefrom.report.position import FALLOFF
from wherefrom.report.section import Picture, Section, picture
from wherefrom.report.words import listed, number

STRUCTURES = {
    "similarity_falloff": "similarity falloff",
    "near_minus_far": "near minus far",
    "coordinate_r2": "coordinate R²",
}
"""What ledgers are kept of, and how their columns are called."""

NO_LEDGER = (
    "No ledger was kept that credits each route of the gradient with its part in the map: the models learn no position "
    "embedding, or the study was made without it."
)
NO_CUTS = "No arm of this study has a part of the gradient cut; study --causal adds two such arms."


def ledger(material: Material) -> Section:
    """What each route of the gradient added to the map, in the natural arm."""
    names = [f"{prefix}_{name}{rest}" for name in STRUCTURES for prefix, rest in _KEPT]
    table = material.arms([*names, "ledger_residual", "route_closure"])
    table = table[(table["arm"] == "natural") & table["value"].notna()]
    if not {"ledger_similarity_falloff", "ledger_similarity_falloff_change"} <= set(table["measure"]):
        return Section("routes", missing=material.nothing_finished or NO_LEDGER)
    drawn = [_ledger_picture(table)]
    if (table["measure"] == "force_similarity_falloff").any():
        drawn.append(_force_picture(table))
    return Section("routes", tuple(drawn), _ledger_numbers(table))


_KEPT = (("ledger", ""), ("ledger", "_change"), ("ledger", "_residual"), ("force", ""))


def _ledger_picture(table: pd.DataFrame) -> Picture:
    figure = Figure()
    axes = panels(1, 2, 3.3, figure, legend=True)[0]
    figures.ledger_over_steps(table, ax=axes[0], title="added so far, natural arm", legend=False)
    figures.ledger_by_layer(table, ax=axes[1], title="added by the end, by layer", legend=False)
    axes[1].set_ylabel("")
    legend_above(figure, axes)
    caption = (
        "The ledger of the similarity falloff. Left: mean over seeds, layers and heads summed; thin lines are the "
        "whole change of single seeds. Right: means with 95 % intervals over seeds; “outside” belongs to no layer."
    )
    alt = "Left, stacked areas over training steps, one for each route of the gradient; right, bars by layer and route."
    return picture(figure, "ledger", caption, alt)


def _force_picture(table: pd.DataFrame) -> Picture:
    figure = Figure()
    ax = panels(1, 1, 2.6, figure, legend=True)[0, 0]
    figures.force_over_steps(table, ax=ax, title="force of single batches on the falloff, natural arm", legend=False)
    legend_above(figure, ax)
    caption = (
        "Force: how fast a step along one route’s gradient alone would raise the falloff. Mean over seeds; one batch "
        "says little, so signs change from batch to batch. What the optimiser makes of it is the ledger."
    )
    return picture(figure, "force", caption, "Stacked bars over training steps, one colour for each route.")


def _ledger_numbers(table: pd.DataFrame) -> NumberTable:
    last = last_step(table)
    both = ("Queries and keys together", ("q", "k"))
    lines = [
        Line("Whole change", "", {STRUCTURES[name]: _rows(last, f"ledger_{name}_change") for name in _found(last)})
    ]
    for label, kinds in (both, *((label, (kind,)) for kind, (label, _) in ROUTES.items())):
        groups = {STRUCTURES[name]: _shares(last, name, kinds) for name in _found(last)}
        if any(len(rows) for rows in groups.values()):
            lines.append(Line(f"{label[0].upper()}{label[1:]}", "share", groups, "share"))
    missed = {STRUCTURES[name]: _rows(last, f"ledger_{name}_residual") for name in _found(last)}
    lines.append(Line("Missed by the ledger", "share of the way travelled", missed))
    return number_table(lines, *_exactness(table))


def _found(last: pd.DataFrame) -> list[str]:
    return [name for name in STRUCTURES if len(_rows(last, f"ledger_{name}_change"))]


def _rows(rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    return rows[rows["measure"] == measure]


def _shares(last: pd.DataFrame, name: str, kinds: tuple[str, ...]) -> pd.DataFrame:
    """Share of the whole change that came by these routes, a row a run; runs whose structure grew."""
    change = _rows(last, f"ledger_{name}_change").groupby("run")["value"].mean()
    parts = _rows(last, f"ledger_{name}")
    sums = parts[parts["route"].isin(kinds)].groupby("run")["value"].sum()
    return (sums / change[change > 0]).dropna().rename("value").rename_axis("run").reset_index()


def _exactness(table: pd.DataFrame) -> list[str]:
    """How far routes and ledger can be off, in their worst run."""
    closure = _rows(table, "route_closure")["value"].max()
    residual = last_step(_rows(table, "ledger_residual"))["value"].max()
    return [
        "Natural arm. Shares are of the whole change and signed: what one route undoes, others built.",
        f"In the worst batch the routes miss the gradient by {number(closure)} of its size (closure); in the worst run "
        f"the ledger misses {number(residual)} of the way that its measure travelled, up and down (residual).",
    ]


def cuts(material: Material) -> Section:
    """The map and the accuracy of cut arms beside the natural and the scrambled arm."""
    table = material.with_cuts([*FALLOFF, "coordinate_r2", "accuracy"])
    table = table[(table["arm"] != "shuffled") & table["value"].notna()]
    falloff = _rows(table, "similarity_falloff")
    shown = [arm for arm in falloff["arm"].unique() if arm.startswith(CUT)]
    if not shown:
        return Section("cuts", missing=material.nothing_finished or NO_CUTS)
    figure = Figure()
    figures.cut_arms(table[table["measure"].isin(FALLOFF)], figure)
    caption = (
        "Similarity falloff of cut arms beside the natural and the scrambled arm. Left: a thin line is a seed, a thick "
        "one the mean. Right: dots are seeds, diamonds means with 95 % intervals."
    )
    alt = f"Line chart over training steps and final values for the arms {listed(by_arm(falloff))}."
    return Section("cuts", (picture(figure, "cuts", caption, alt),), _cut_numbers(table))


def _cut_numbers(table: pd.DataFrame) -> NumberTable:
    falloff, accuracy = _rows(table, "similarity_falloff"), _rows(table, "accuracy")
    accuracy = accuracy[accuracy["split"] == "test"]
    gained = _per_run(last_step(falloff)).sub(_per_run(first_step(falloff))).dropna()
    lines = [
        Line("Falloff at the end", "", by_arm(last_step(falloff))),
        Line("Falloff gained", "", by_arm(_table(gained))),
        Line("the same, minus natural", "", by_arm(_table(_minus_natural(gained)))),
        Line("R² of row and column at the end", "", by_arm(last_step(_rows(table, "coordinate_r2")))),
        Line("Test accuracy at the end", "share", by_arm(last_step(accuracy))),
        Line("the same, minus natural", "share", by_arm(_table(_minus_natural(_per_run(last_step(accuracy)))))),
    ]
    return number_table(lines, "Differences to the natural arm are paired by seed: same start, same images.")


def _per_run(rows: pd.DataFrame) -> pd.Series:
    return rows.groupby(["run", "arm", "seed"])["value"].mean()


def _minus_natural(values: pd.Series) -> pd.Series:
    natural = values[values.index.get_level_values("arm") == "natural"].droplevel(["run", "arm"])
    rest = values[values.index.get_level_values("arm") != "natural"]
    return (rest - natural.reindex(rest.index.get_level_values("seed")).to_numpy()).dropna()


def _table(values: pd.Series) -> pd.DataFrame:
    return values.rename("value").reset_index()
