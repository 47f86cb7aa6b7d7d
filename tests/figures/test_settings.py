"""Figures of one setting: known numbers in, the same numbers in the artists, each at its place."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from wherefrom import figures
from wherefrom.figures.settings import final_values
from wherefrom.statistics import t_interval

LAST = 10


def series(values: dict, name: str = "patch_size", more=()) -> pd.DataFrame:
    """A table like `study.series(name)`: accuracy of the seeds by value of the setting, at two steps."""
    rows = [
        {"setting_value": value, "seed": seed, "step": step, "measure": "accuracy", "split": "test",
         "value": number if step else 0.0}
        for value, numbers in values.items() for seed, number in enumerate(numbers) for step in (0, LAST)
    ]  # fmt: skip
    table = pd.DataFrame([*rows, *more]).assign(setting=name, arm="natural", num_heads=4)
    for column in ("split", "layer", "head", "grid"):
        table[column] = table.get(column)
    return table.assign(run=[f"{value}-{seed}" for value, seed in zip(table.setting_value, table.seed, strict=True)])


def drawn(ax):
    """Thin lines, one a seed, and the (x, mean, low, high) of the means."""
    means = ax.containers[0]
    (line, _, (bars,)) = means
    ends = [segment[:, 1] for segment in bars.get_segments()]
    return ax.get_lines()[:-3], list(zip(*line.get_data(), *np.array(ends).T, strict=True))


def test_means_with_intervals_stand_at_the_value_and_a_thin_line_is_a_seed():
    values = {8: [0.4, 0.5, 0.45], 2: [0.6, 0.7, 0.5], 4: [0.8, 0.6, 0.9]}
    ax = figures.over_setting(series(values), "accuracy")
    seeds, means = drawn(ax)
    assert [list(line.get_xdata()) for line in seeds] == [[2, 4, 8]] * 3
    assert [list(line.get_ydata()) for line in seeds] == [[values[v][seed] for v in (2, 4, 8)] for seed in range(3)]
    expected = [(v, np.mean(values[v]), *t_interval(values[v])) for v in (2, 4, 8)]
    np.testing.assert_allclose(means, expected)
    assert ax.get_xscale() == "log"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["2", "4", "8"]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title("left")) == ("patch_size", "share", "test accuracy")


def test_words_are_points_in_their_order():
    ax = figures.over_setting(series({"learned": [0.5, 0.6], "none": [0.3, 0.4], "rope": [0.7, 0.8]}), "accuracy")
    seeds, means = drawn(ax)
    assert {line.get_linestyle() for line in seeds} == {"None"}
    assert ax.containers[0].lines[0].get_linestyle() == "None"
    assert [x for x, *_ in means] == [0, 1, 2]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["learned", "none", "rope"]


def test_values_that_have_no_logarithm_stand_one_after_the_other():
    ax = figures.over_setting(series({0.5: [0.1, 0.2], 0.0: [0.3, 0.4], 0.02: [0.5, 0.6]}), "accuracy")
    assert [x for x, *_ in drawn(ax)[1]] == [0, 1, 2]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "0.02", "0.5"]


def test_layers_and_heads_are_averaged_and_roles_counted():
    place = {"setting_value": 2, "seed": 0, "step": LAST, "split": "probe", "layer": 0}
    more = [{**place, "measure": "offset_sharpness", "head": head, "value": head / 2} for head in range(3)]
    scores = {0: {"local": 0.5, "texture": 0.6}, 1: {"local": 0.1, "global": 0.9}, 2: {}}
    for head, found in scores.items():
        for role in ("local", "texture", "global"):
            values = {"low": found.get(role, 0.0), "threshold": 0.3}
            more += [{**place, "measure": f"role_{role}_{p}", "head": head, "value": v} for p, v in values.items()]
    found = final_values(series({2: [0.5], 4: [0.6]}, more=more)).set_index(["setting_value", "measure"])["value"]
    assert found[2, "offset_sharpness"] == pytest.approx(0.5)
    assert found[2, "roles"] == pytest.approx(2 / 3)  # to look everywhere is none
    assert found[4, "accuracy"] == 0.6


def test_all_outcomes_that_were_recorded_have_a_panel():
    figure = Figure()
    axes = figures.setting_sweep(series({2: [0.5, 0.6], 4: [0.6, 0.7]}), figure)
    assert [ax.get_title("left") for ax in axes] == ["test accuracy"]
    assert figure.axes == list(axes)
    empty = series({2: [np.nan], 4: [np.nan]})
    with pytest.raises(ValueError, match="found none of them"):
        figures.setting_sweep(empty)
    with pytest.raises(ValueError, match="a column setting_value; found a table without"):
        figures.setting_sweep(empty.drop(columns="setting_value"))
    with pytest.raises(ValueError, match="unknown outcome 'acuracy'; known: accuracy, loss"):
        figures.over_setting(empty, "acuracy")
