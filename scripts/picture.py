"""Draw the pictures of the documents from studies.

python scripts/picture.py result runs/study    # docs/images/result.png, in README.md
python scripts/picture.py routes runs/cifar    # docs/images/routes.png, in docs/where-it-came-from.md
python scripts/picture.py cuts runs/cifar      # docs/images/cuts.png, there too
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.figure import Figure

import wherefrom as wf
from wherefrom.config import RunKey

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
PANELS = {"natural": "natural images", "scrambled": "scrambled images"}


def result(path: str) -> Figure:
    """The map in natural and scrambled images, how it forms, and whether it is used."""
    study = wf.open_study(path)
    figure = Figure(figsize=(13, 3.6), layout="constrained", dpi=110)
    axes = figure.subplots(1, 4, width_ratios=[1, 1, 1.2, 1.2])
    for ax, (arm, title) in zip(axes, PANELS.items(), strict=False):
        run = study.run(RunKey(arm, study.num_heads, 0))
        similarity, grid = run.array("pos_similarity", run.array_steps("pos_similarity")[-1]), run.grid
        wf.plot.similarity_tiles(similarity, grid, ax, title=title, limit=0.5, colour_bar=arm == "scrambled")
    table = study.measurements()
    table = table[(table.num_heads == study.num_heads) & table.arm.isin(PANELS)]
    wf.plot.over_steps(table, "near_minus_far", axes[2], title="neighbours minus far patches")
    wf.plot.position_use_over_steps(table, axes[3], title="what shuffling the patches costs")
    return figure


def routes(path: str) -> Figure:
    """What each route has built over training."""
    figure = Figure(figsize=(6.5, 4.2), layout="constrained", dpi=110)
    ax = wf.plot.ledger_over_steps(wf.open_study(path).measurements(), ax=figure.subplots())
    ax.get_legend().set_frame_on(True)
    return figure


def cuts(path: str) -> Figure:
    """The arms with a route cut."""
    figure = Figure(layout="constrained", dpi=110)
    wf.plot.cut_arms(wf.open_study(path).measurements(), figure)
    return figure


def main(name: str, path: str) -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    {"result": result, "routes": routes, "cuts": cuts}[name](path).savefig(IMAGES / f"{name}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
