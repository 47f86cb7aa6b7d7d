"""Sections on what went in and how training went: example images, loss and accuracy."""

from __future__ import annotations

from matplotlib.figure import Figure

from wherefrom import figures
from wherefrom.figures.style import legend_above, panels
from wherefrom.report.material import Material, by_arm, last_step
from wherefrom.report.numbers import Line, number_table
from wherefrom.report.section import Section, picture
from wherefrom.report.words import listed

ARM_SENTENCES = {
    "natural": "images as they are",
    "shuffled": "one permutation of the patches, the same for every image",
    "scrambled": "a new permutation of the patches for every image",
}


def images(material: Material) -> Section:
    """The same images as each arm sees them."""
    found = {arm: material.array(run, "example_images") for arm, (_, run) in material.examples.items()}
    found = {arm: array for arm, array in found.items() if array is not None}
    if not found:
        return Section("images", missing=material.nothing_finished or "No example images were recorded.")
    first = next(iter(found.values()))
    figure = Figure()
    axes = panels(len(found), 1, 0.35 + 8.6 * first.shape[1] / (first.shape[2] * len(first)), figure)
    for ax, (arm, array) in zip(axes.flat, found.items(), strict=True):
        figures.example_images(array, ax, title=f"{arm}: {ARM_SENTENCES[arm]}")
    caption = "Example images, brought into the visible range of colours."
    alt = f"{len(first)} images in a row, one row for each arm: {listed(found)}."
    return Section("images", (picture(figure, "images", caption, alt),))


def curves(material: Material) -> Section:
    """Loss and accuracy over training, by arm."""
    table = material.arms(["accuracy", "loss"], split="test")
    drawn = [name for name in ("loss", "accuracy") if table.loc[table["measure"] == name, "value"].notna().any()]
    if not drawn:
        return Section("training", missing=material.nothing_finished or "No loss on test images was recorded.")
    figure = Figure()
    axes = panels(1, len(drawn), 2.8, figure, legend=True)[0]
    for ax, measure in zip(axes, drawn, strict=True):
        figures.over_steps(table, measure, ax, split="test", title=f"test {measure}", legend=False)
    legend_above(figure, axes)
    last = last_step(table)
    units = {"loss": "nats", "accuracy": "share"}
    lines = [
        Line(f"Test {measure} at the end", units[measure], by_arm(last[last["measure"] == measure]))
        for measure in drawn
    ]
    others = (f" The {arm} arm is trained on {data}." for arm, data in material.other_data.items())
    caption = "Test loss and test accuracy over training." + "".join(others)
    alt = "Line charts over training steps of test loss and test accuracy, a colour for each arm."
    return Section("training", (picture(figure, "training", caption, alt),), number_table(lines))
