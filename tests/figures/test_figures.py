"""Figures draw what the table says: known numbers in, the same numbers in the artists."""

import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from wherefrom import figures
from wherefrom.figures.images import tile_mosaic
from wherefrom.figures.places import place_colours
from wherefrom.figures.tables import over_runs
from wherefrom.geometry import PatchGrid
from wherefrom.statistics import t_interval

COLUMNS = ["run", "arm", "num_heads", "seed", "step", "measure", "value", "split", "layer", "head", "relation",
           "distance", "grid"]  # fmt: skip


def table(*rows: dict) -> pd.DataFrame:
    """Rows with the columns of a study; the run's name is its arm, head count and seed."""
    full = []
    for row in rows:
        row = {"arm": "natural", "num_heads": 2, "seed": 0, "step": 0, **row}
        full.append({"run": f"{row['arm']}-{row['num_heads']}-{row['seed']}", **row})
    text = dict.fromkeys(("split", "relation", "grid"), "object")
    return pd.DataFrame(full, columns=COLUMNS).astype({"layer": "Int64", "head": "Int64", "distance": float} | text)


def lines(ax) -> dict[str, list]:
    """(x, y) of each labelled line."""
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in ax.get_lines()}


def test_a_thin_line_is_a_run_and_the_thick_one_their_mean():
    rows = [
        {"measure": "accuracy", "split": "test", "seed": seed, "step": step, "value": value}
        for seed, values in enumerate([(0.1, 0.7), (0.3, 0.9)])
        for step, value in zip((0, 10), values, strict=True)
    ]
    ax = figures.accuracy_over_steps(table(*rows, {"measure": "accuracy", "split": "train", "value": 0.0}))
    assert [list(line.get_ydata()) for line in ax.get_lines()[:2]] == [[0.1, 0.7], [0.3, 0.9]]
    x, mean = lines(ax)["natural"]
    assert x == [0, 10]
    np.testing.assert_allclose(mean, [0.2, 0.8])
    assert ax.get_ylabel() == "accuracy (share)"


def test_each_arm_and_grid_has_its_own_line_and_the_band_is_the_relabelling_interval():
    arms = [
        ("natural", "model", 0.6),
        ("shuffled", "model", 0.01),
        ("shuffled", "true", 0.5),
        ("scrambled", "model", 0),
    ]
    rows = [{"measure": "similarity_falloff", "arm": arm, "grid": grid, "value": v} for arm, grid, v in arms]
    bounds = [("similarity_falloff_null_low", -0.1), ("similarity_falloff_null_high", 0.2)]
    rows += [{"measure": name, "arm": "natural", "grid": "model", "value": value} for name, value in bounds]
    ax = figures.falloff_over_steps(table(*rows))
    drawn = {label: y for label, (_, y) in lines(ax).items()}
    assert drawn == {
        "natural": [0.6], "shuffled, true grid": [0.5], "shuffled, model's grid": [0.01], "scrambled": [0]
    }  # fmt: skip
    box = ax.patches[0].get_bbox()
    assert (box.y0, box.y1) == pytest.approx((-0.1, 0.2))


def test_means_over_runs_average_heads_first_and_carry_the_t_interval():
    values = {"a": [1.0, 3.0], "b": [5.0], "c": [0.0, 0.0, 3.0]}
    rows = pd.DataFrame([{"run": run, "step": 0, "value": v} for run, some in values.items() for v in some])
    found = over_runs(rows, ["step"]).loc[0]
    per_run = [2.0, 5.0, 1.0]
    np.testing.assert_allclose(found[["mean", "low", "high"]], [np.mean(per_run), *t_interval(per_run)])
    assert np.isnan(over_runs(rows[rows["run"] == "a"], ["step"]).loc[0, "low"])


def test_attention_distance_has_a_dot_for_each_head_of_each_run_before_and_after():
    rows = [
        {"measure": "attention_distance", "split": "probe", "step": step, "seed": seed, "layer": layer, "head": head,
         "value": 4.0 - step / 10 - layer - head / 10}
        for step in (0, 5, 10) for seed in (0, 1) for layer in (0, 1) for head in (0, 1)
    ]  # fmt: skip
    ax = figures.attention_distance(table(*rows), 4.1365)
    first, last = (collection.get_offsets() for collection in ax.collections)
    assert sorted(first[:, 1]) == pytest.approx(sorted([4.0, 3.9, 3.0, 2.9] * 2))
    assert sorted(last[:, 1]) == pytest.approx(sorted([3.0, 2.9, 2.0, 1.9] * 2))
    assert set(np.round(last[:, 0])) == {0, 1}, "a dot stands at its layer"
    assert lines(ax)["uniform attention"][1] == [4.1365, 4.1365]
    assert len(np.unique(last[:, 0])) == 8, "no dot hides another"
    assert ax.get_ylim()[0] < 1.9
    assert ax.get_ylim()[1] > 4.1365


def test_gradients_have_a_panel_for_each_layer_and_arm_and_a_line_for_each_relation():
    value = {"edge": 2.0, "far": -1.0}
    rows = [
        {"measure": "advantage", "split": "train", "arm": arm, "layer": layer, "head": head, "relation": relation,
         "grid": "model", "value": value[relation] * (arm == "natural") + layer + head}
        for arm in ("natural", "scrambled") for layer in (0, 1, 2) for head in (0, 1) for relation in value
    ]  # fmt: skip
    axes = figures.gradients_by_relation(table(*rows))
    assert axes.shape == (3, 2)
    drawn = lines(axes[1, 0])
    assert drawn["edge neighbours"][1] == [2.0 + 1 + 0.5]
    assert drawn["far"][1] == [-1.0 + 1 + 0.5]
    assert lines(axes[1, 1])["far"][1] == [1.5]
    assert "between" not in drawn, "a relation without pairs has no line"


def test_gradients_against_a_relation_are_differences_head_by_head():
    value = {"edge": 5.0, "between": 3.0}
    rows = [
        {"measure": "advantage", "split": "train", "seed": seed, "layer": 0, "head": head, "relation": relation,
         "step": step, "value": value[relation] * (1 + head) + 100 * seed + step}
        for seed in (0, 1, 2) for head in (0, 1) for relation in value for step in (0, 5)
    ]  # fmt: skip
    (ax,) = figures.gradients_by_relation(table(*rows), against="between").ravel()
    assert list(lines(ax)["edge neighbours"][1]) == [3.0, 3.0], "mean of 2 and 4"
    assert "between" not in lines(ax)
    band = ax.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose(band[:, 1], 3.0, err_msg="what is common to all pairs of a seed widens no interval")


def test_a_layer_that_no_gradient_reaches_says_so():
    rows = [
        {"measure": "advantage", "split": "train", "layer": layer, "head": 0, "relation": "edge", "grid": "model",
         "value": value}
        for layer, value in ((0, 1.0), (1, None))
    ]  # fmt: skip
    axes = figures.gradients_by_relation(table(*rows))
    assert axes.shape == (2, 1)
    assert "no gradient" in axes[1, 0].texts[0].get_text()


def test_alignment_has_a_panel_a_layer_with_the_first_step_dotted():
    rows = [
        {"measure": "qk_alignment", "split": "probe", "layer": layer, "head": 0, "distance": d, "grid": "model",
         "step": step, "value": (step / 10) * (1 - d)}
        for layer in range(5) for d in (0.0, 1.0, 2.0) for step in (0, 10)
    ]  # fmt: skip
    axes = figures.alignment_by_distance(table(*rows))
    assert len(axes) == 5
    assert len(axes[0].figure.axes) == 5, "no empty panels are left"
    first, last = axes[3].get_lines()[:2]
    assert (list(first.get_ydata()), first.get_linestyle()) == ([0, 0, 0], ":")
    assert list(last.get_ydata()) == [1, 0, -1]


@pytest.mark.parametrize("order", [None, [5, 3, 1, 0, 2, 4]])
def test_tiles_show_every_pair_at_its_place(order):
    grid = PatchGrid(2, 3) if order is None else PatchGrid(2, 3).reordered(order)
    similarity = np.arange(36.0).reshape(6, 6) / 36
    mosaic = tile_mosaic(similarity, grid)
    assert mosaic.shape == (2 * 3 - 1, 3 * 4 - 1)
    for i, (row, column) in enumerate(grid.coordinates):
        for j, (y, x) in enumerate(grid.coordinates):
            assert mosaic[row * 3 + y, column * 4 + x] == similarity[i, j]
    assert np.isnan(mosaic).sum() == mosaic.size - 36
    image = figures.similarity_tiles(similarity, grid).images[0]
    np.testing.assert_array_equal(np.asarray(image.get_array().filled(np.nan)), mosaic)
    assert image.get_clim() == (-1, 1), "pairs reach 34/36, so colours reach 1"


def test_layout_puts_columns_to_the_right_and_joins_true_neighbours():
    grid = PatchGrid(2, 3).reordered([1, 0, 2, 3, 4, 5])
    ax = figures.layout(grid.coordinates.astype(float), grid)
    joins, dots = ax.collections
    np.testing.assert_array_equal(dots.get_offsets(), grid.coordinates[:, ::-1])
    assert len(joins.get_segments()) == 7, "2 × 3 patches have 7 pairs of edge neighbours"
    assert all(np.abs(np.diff(segment, axis=0)).sum() == 1 for segment in joins.get_segments())
    assert ax.yaxis_inverted(), "rows run down"
    assert len(np.unique(place_colours(grid).round(6), axis=0)) == 6


def test_example_images_stand_side_by_side():
    images = np.stack([np.full((4, 4, 3), shade, np.uint8) for shade in (10, 20)])
    shown = figures.example_images(images).images[0].get_array()
    assert shown.shape == (4, 9, 3)
    assert shown[0, 0, 0] == 10
    assert shown[0, -1, 0] == 20


def test_the_table_of_a_single_run_is_enough():
    rows = table(
        {"measure": "loss", "split": "test", "value": 2.0},
        {"measure": "loss", "split": "test", "step": 5, "value": 1.0},
    )
    ax = figures.over_steps(rows.drop(columns=["run", "arm", "num_heads", "seed"]), "loss", split="test")
    assert lines(ax)["this run"] == ([0, 5], [2.0, 1.0])


@pytest.mark.parametrize(
    ("draw", "sentence"),
    [
        (lambda: figures.over_steps(pd.DataFrame({"a": [1]}), "loss"), "expected a table of measurements"),
        (lambda: figures.over_steps(table(), "loss"), "found an empty table"),
        (lambda: figures.falloff_over_steps(table({"measure": "loss", "value": 1.0})), "'similarity_falloff'"),
        (lambda: figures.gradients_by_relation(table(), relations=["near"]), "unknown relation 'near'"),
        (lambda: figures.alignment_by_distance(table({"measure": "qk_alignment", "value": 1.0})), "by relation only"),
        (lambda: figures.similarity_tiles(np.zeros((3, 3)), PatchGrid(2, 2)), r"shape \(4, 4\)"),
        (lambda: figures.layout(np.zeros((3, 2)), PatchGrid(2, 2)), r"found \(3, 2\)"),
        (lambda: figures.example_images(np.zeros((4, 4, 3), np.uint8)), "expected images of shape"),
    ],
)  # fmt: skip
def test_what_does_not_fit_gets_a_sentence(draw, sentence):
    with pytest.raises(ValueError, match=sentence):
        draw()


def test_drawing_leaves_settings_alone_and_takes_the_axes_it_is_given():
    before = dict(matplotlib.rcParams)
    ax = Figure().add_subplot()
    assert figures.layout(np.zeros((4, 2)), PatchGrid(2, 2), ax) is ax
    assert dict(matplotlib.rcParams) == before


def test_figures_need_neither_torch_nor_a_window_system():
    code = (
        "import sys, numpy as np, wherefrom.figures as f; from wherefrom.geometry import PatchGrid; "
        "f.layout(np.zeros((4, 2)), PatchGrid(2, 2)); print({'torch', 'matplotlib.pyplot'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_public_names_are_sorted_and_there():
    assert sorted(figures.__all__) == figures.__all__
    assert all(callable(getattr(figures, name)) and getattr(figures, name).__doc__ for name in figures.__all__)
