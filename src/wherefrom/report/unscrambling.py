"""Section on the shuffled arm: the picture put back together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from wherefrom import figures
from wherefrom.figures.unscramble import clearest
from wherefrom.report.material import Material, last_step
from wherefrom.report.numbers import NumberTable
from wherefrom.report.position import chosen_steps
from wherefrom.report.section import Picture, Section, picture
from wherefrom.report.words import MISSING, number
from wherefrom.store import RunDirectory

NAMES = {
    "edge_recovery_path": "By the path of the position embedding, at the end",
    "edge_recovery": "By the position embedding as it is, at the end",
    "edge_recovery_pixels": "By the pixels of training images alone, with no model",
    "edge_recovery_chance": "By chance",
}
NO_SHUFFLED = (
    "No run of the shuffled arm with a learned position embedding was recorded, so there is nothing to put back."
)


def put_together(material: Material) -> Section:
    """One shuffled photograph at several steps, and the share of neighbours recovered over steps."""
    _, run = material.examples.get("shuffled", (None, None))
    if run is None or not run.array_steps("pos_arrangement") or not run.array_steps("example_images"):
        return Section("unscrambling", missing=material.nothing_finished or NO_SHUFFLED)
    table = run.measurements(list(NAMES))
    drawn = [
        _photograph(material, run, table, array, measure)
        for array, measure in (("pos_arrangement_path", "edge_recovery_path"), ("pos_arrangement", "edge_recovery"))
        if run.array_steps(array)
    ]
    return Section("unscrambling", (*drawn, _curve(table)), _numbers(table))


def _photograph(material: Material, run: RunDirectory, table, array: str, measure: str) -> Picture:
    grid = run.grid or material.grid
    assert grid is not None
    scores = table[table["measure"] == measure].set_index("step")["value"]
    arrangements: dict[str, Sequence[int] | np.ndarray] = {"as the model sees it": range(grid.num_patches)}
    for step in chosen_steps(run.array_steps(array)):
        arrangements[f"step {step}: {number(scores.get(step))}"] = run.array(array, step)
    figure = Figure()
    images = run.array("example_images", 0)
    figures.unscrambled(images[clearest(images, grid)], arrangements, grid, figure)
    by = "the path of the position embedding until then" if array.endswith("path") else "the position embedding alone"
    caption = f"One held-out image, its patches arranged by {by}; the share of neighbours recovered above each."
    alt = f"The same photograph shuffled and at {len(arrangements) - 1} training steps, arranged by {by}."
    return picture(figure, array.replace("_", "-"), caption, alt)


def _curve(table) -> Picture:
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    figures.recovery_over_steps(table, figure.subplots())
    caption = "Share of neighbours recovered over training."
    return picture(figure, "recovery", caption, "Line chart of the share of edge neighbours recovered over steps.")


def _numbers(table) -> NumberTable:
    rows = []
    for measure, name in NAMES.items():
        values = last_step(table[table["measure"] == measure].assign(run=""))["value"]
        rows.append((name, (number(values.mean()) if len(values) else MISSING,)))
    return NumberTable(("neighbours recovered (share)",), tuple(rows))
