"""Sections on the position embedding: likeness as tiles, layout in the plane, falloff and R² over steps."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from wherefrom import figures
from wherefrom.figures.images import colour_limit, cosine_bar, mosaic_aspect
from wherefrom.figures.style import legend_above, panels
from wherefrom.report.material import Material, by_arm, last_step
from wherefrom.report.numbers import Line, NumberTable, number_table
from wherefrom.report.section import Section, picture
from wherefrom.report.words import interval, listed, number

FALLOFF = ["similarity_falloff", "similarity_falloff_null_low", "similarity_falloff_null_high"]

NO_POSITIONS = (
    "No position embedding was recorded: the models have none that is learned, or the runs were not probed. "
    "What forms elsewhere, in attention, is shown further down."
)


def tiles(material: Material) -> Section:
    """Likeness of position embeddings, a tile a patch."""
    views = list(_views(material))
    if not views:
        return Section("similarity", missing=material.nothing_finished or NO_POSITIONS)
    runs = listed(key.name for key, _ in material.examples.values())
    caption = f"Cosine of position embeddings (their mean subtracted) at the last step, one run of each arm: {runs}."
    alt = f"Heat maps as tiles, one panel each for: {listed(title for title, *_ in views)}."
    return Section("similarity", (picture(_tiles_figure(views), "similarity", caption, alt),), _tiles_numbers(material))


def _views(material: Material):
    """(title, similarity, grid) of each panel."""
    for arm, (_, run) in material.examples.items():
        steps = run.array_steps("pos_similarity")
        if not steps or material.grid is None:
            continue
        similarity = run.array("pos_similarity", steps[-1])
        if arm == "shuffled":
            yield "shuffled, true grid", similarity, material.true_grid(run)
            yield "shuffled, model's grid", similarity, run.grid or material.grid
        else:
            yield arm, similarity, material.grid


def _tiles_figure(views) -> Figure:
    figure = Figure()
    grid = views[0][2]
    columns = min(2, len(views))
    height = 0.7 + 3.8 * mosaic_aspect(grid)
    axes = panels(-(-len(views) // columns), columns, height, figure, width=9 if columns == 2 else 5)
    limit = colour_limit([similarity for _, similarity, _ in views])  # one scale for all panels
    for ax, (title, similarity, grid) in zip(axes.flat, views, strict=False):
        figures.similarity_tiles(similarity, grid, ax, title=title, limit=limit)
    for ax in axes.flat[len(views) :]:
        ax.remove()
    cosine_bar(figure, axes.ravel()[: len(views)])
    return figure


def _tiles_numbers(material: Material) -> NumberTable:
    rows = last_step(material.arms("similarity_falloff"))
    shown = rows[rows["run"].isin([key.name for key, _ in material.examples.values()])]
    note = "Correlation of likeness with nearness: 0 no structure, 1 a perfect map."
    return number_table([Line("Similarity falloff of the runs shown", "", by_arm(shown))], note)


def layouts(material: Material) -> Section:
    """Positions in the plane at several steps."""
    found = {arm: pair for arm, pair in material.examples.items() if pair[1].array_steps("pos_layout")}
    if not found or material.grid is None:
        return Section("layout", missing=material.nothing_finished or NO_POSITIONS)
    runs = listed(key.name for key, _ in found.values())
    caption = f"Places recovered from the position embedding alone, at the scale of the image: {runs}."
    alt = f"Dots joined to their neighbours, a row for each arm ({listed(found)}), training steps from left to right."
    drawn = picture(_layout_figure(material, found), "layout", caption, alt)
    return Section("layout", (drawn,), _recovery_numbers(material))


def _layout_figure(material: Material, found: dict) -> Figure:
    figure = Figure()
    steps = {arm: chosen_steps(run.array_steps("pos_layout")) for arm, (_, run) in found.items()}
    columns = max(len(some) for some in steps.values())
    axes = panels(len(found), columns, 2.4, figure, width=9 if columns > 2 else 5)
    for row, (arm, (_, run)) in zip(axes, found.items(), strict=True):
        for ax, step in zip(row, steps[arm], strict=False):
            grid = material.true_grid(run)
            figures.layout(run.array("pos_layout", step), grid, ax, title=f"{arm}, step {step}")
        for ax in row[len(steps[arm]) :]:
            ax.remove()
    _same_limits(figure)
    return figure


def _same_limits(figure: Figure) -> None:
    """All panels show the same part of the plane, so that sizes can be compared."""
    x = np.array([ax.get_xlim() for ax in figure.axes])
    y = np.array([ax.get_ylim() for ax in figure.axes])  # rows run down: the first is the larger
    for ax in figure.axes:
        ax.set(xlim=(x[:, 0].min(), x[:, 1].max()), ylim=(y[:, 0].max(), y[:, 1].min()))


def chosen_steps(steps: list[int], count: int = 4) -> list[int]:
    """The first, the last, and between them steps that lie early, where most happens.

    >>> chosen_steps([0, 20, 40, 60, 80, 100, 120, 140, 160, 180, 200])
    [0, 40, 100, 200]
    """
    if len(steps) <= count:
        return steps
    last = len(steps) - 1
    places = {0, last} | {max(n, round(last ** (n / (count - 1)))) for n in range(1, count - 1)}
    return [steps[place] for place in sorted(places)]


def _recovery_numbers(material: Material) -> NumberTable:
    rows = last_step(material.arms(["neighbour_recovery", "neighbour_recovery_chance"]))
    chance = rows.loc[rows["measure"] == "neighbour_recovery_chance", "value"].mean()
    recovered = by_arm(rows[rows["measure"] == "neighbour_recovery"])
    line = Line("Patches whose most similar other patch is one of the 8 around it, at the end", "share", recovered)
    return number_table([line], f"A random guess on this grid gives {number(chance)}.")


def over_training(material: Material) -> Section:
    """Falloff and R² over steps, every seed."""
    table = material.arms([*FALLOFF, "coordinate_r2"])
    if table.loc[table["measure"] == "similarity_falloff", "value"].isna().all():
        return Section("falloff", missing=material.nothing_finished or NO_POSITIONS)
    caption = "Similarity falloff (left) and R² of the coordinates (right) over training."
    alt = "Line charts over training steps of similarity falloff and coordinate R², a colour for each arm."
    return Section("falloff", (picture(_curves_figure(table), "falloff", caption, alt),), _falloff_numbers(table))


def _curves_figure(table: pd.DataFrame) -> Figure:
    figure = Figure()
    axes = panels(1, 2, 3.2, figure, legend=True)[0]
    figures.falloff_over_steps(table, axes[0], title="similarity falloff", legend=False)
    if (table["measure"] == "coordinate_r2").any():
        figures.over_steps(table, "coordinate_r2", axes[1], title="row and column read from pos_embed", legend=False)
    legend_above(figure, axes)
    return figure


def _falloff_numbers(table: pd.DataFrame) -> NumberTable:
    last = last_step(table)
    names = {"similarity_falloff": "Similarity falloff at the end", "coordinate_r2": "R² of row and column at the end"}
    lines = [Line(name, "", by_arm(last[last["measure"] == measure])) for measure, name in names.items()]
    ends = [table.loc[table["measure"] == name, "value"].mean() for name in FALLOFF[1:]]
    notes = [f"99 % of random relabellings give a falloff within {interval(ends)}."] if interval(ends) else []
    return number_table(lines, *notes)
