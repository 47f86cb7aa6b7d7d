"""Draw docs/images/result.png, the picture in README.md, from a study: python scripts/picture.py runs/study."""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.figure import Figure

import wherefrom as wf
from wherefrom.config import RunKey

TARGET = Path(__file__).resolve().parents[1] / "docs" / "images" / "result.png"
PANELS = {"natural": "natural images", "shuffled": "shuffled, read on the true grid", "scrambled": "scrambled"}


def main(path: str) -> None:
    study = wf.open_study(path)
    figure = Figure(figsize=(13, 3.6), layout="constrained", dpi=110)
    axes = figure.subplots(1, 4, width_ratios=[1, 1, 1, 1.35])
    for ax, (arm, title) in zip(axes, PANELS.items(), strict=False):
        run = study.run(RunKey(arm, study.num_heads, 0))
        similarity, grid = run.array("pos_similarity", run.array_steps("pos_similarity")[-1]), run.grid
        if arm == "shuffled":  # put each patch back where it came from
            place = run.array("patch_order", 0).argsort()
            similarity = similarity[place][:, place]
        wf.plot.similarity_tiles(similarity, grid, ax, title=title, limit=0.5, colour_bar=arm == "scrambled")
    table = study.measurements()
    wf.plot.falloff_over_steps(table[table.num_heads == study.num_heads], axes[3])
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(TARGET)


if __name__ == "__main__":
    main(*sys.argv[1:])
