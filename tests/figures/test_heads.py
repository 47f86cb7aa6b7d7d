"""Figures of heads: maps, onsets, shares and intervals are those handed in; every shape of model can be drawn."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from wherefrom import figures
from wherefrom.figures import HeadMaps
from wherefrom.figures.heads import against_even
from wherefrom.onset import NO_ONSET, Onset


def table(measure, rows, **columns) -> pd.DataFrame:
    full = pd.DataFrame(rows).assign(measure=measure, split="probe", num_heads=2, grid=None, **columns)
    full = full.assign(run=full.get("arm", "natural") + full.get("seed", 0).astype(str))
    return full.astype({"layer": "Int64", "head": "Int64"} if "head" in full else {"layer": "Int64"})


@pytest.mark.parametrize(
    ("heads", "shape", "steps"), [(1, (7, 7), 1), (2, (3, 15), 4), (12, (27, 27), 4), (5, (15, 3), 2)]
)
def test_a_gallery_draws_each_head_at_each_step_inside_the_figure_and_without_overlap(heads, shape, steps):
    random = np.random.default_rng(0)
    maps = [{10 * step: random.random(shape) + 0.5 for step in range(steps)} for _ in range(heads)]
    figure = Figure()
    axes = figures.head_gallery([HeadMaps(f"h{n}", own, {0: "local\n0.3"}) for n, own in enumerate(maps)], figure)
    assert axes.shape == (heads, steps)
    for head, row in enumerate(axes):
        for step, ax in zip(maps[head], row, strict=True):
            np.testing.assert_allclose(ax.images[0].get_array(), np.log2(maps[head][step] / maps[head][step].mean()))
            assert ax.get_title(loc="center") == f"step {step}"
        assert row[0].get_xlabel() == "local\n0.3"
    boxes = [ax.get_position() for ax in figure.axes]
    assert all(0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1 for box in boxes)
    assert not [(a, b) for n, a in enumerate(boxes) for b in boxes[:n] if a.overlaps(b)]
    limits = {ax.images[0].get_clim() for ax in axes.ravel()}
    assert len(limits) == 1, "all maps share their colours"


def test_a_place_never_looked_at_has_no_ratio_and_twice_the_mean_is_one():
    ratio = against_even(np.array([[0.0, 1.0], [1.0, 2.0]]))
    assert np.isnan(ratio[0, 0])
    assert ratio[1, 1] == 1


def test_a_gallery_of_nothing_or_of_different_steps_is_refused():
    one = np.ones((3, 3))
    for heads in ([], [HeadMaps("a", {0: one}, {}), HeadMaps("b", {5: one}, {})]):
        with pytest.raises(ValueError, match="expected heads with a map at the same steps each"):
            figures.head_gallery(heads)


def test_divergence_is_a_mean_over_layers_and_marks_sure_onsets_only():
    rows = [
        {"arm": "natural", "seed": seed, "step": step, "layer": layer, "value": seed + layer + step / 10}
        for seed in range(2)
        for step in (0, 10)
        for layer in range(2)
    ]
    onsets = {0: Onset(10.0, 0.0, 10.0, 0.01), 1: NO_ONSET}
    ax = figures.divergence_over_steps(table("head_divergence_attn", rows), onsets=onsets)
    drawn = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in ax.get_lines()}
    assert drawn["natural"] == ([0, 10], [1.0, 2.0])
    assert drawn["onset in a natural run, with its interval"][0] == [10.0]
    bars = [list(line.get_xdata()) for line in ax.get_lines() if line.get_transform() == ax.get_xaxis_transform()]
    assert [0.0, 10.0] in bars
    assert len(bars) == 2


def test_roles_are_shares_of_heads_in_percent_mean_over_runs():
    has = {("a", 0): [True, True], ("a", 1): [False, False], ("b", 0): [True, False], ("b", 1): [False, False]}
    roles = pd.DataFrame(
        {"run": run, "role": "local", "layer": layer, "head": head, "has": value}
        for (run, layer), heads in has.items()
        for head, value in enumerate(heads)
    )
    ax = figures.roles_by_layer(roles)
    assert [text.get_text() for text in ax.texts] == ["75", "0"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["local"]
    with pytest.raises(ValueError, match="found none: were they recorded"):
        figures.roles_by_layer(roles[:0])


def test_loss_changes_have_their_intervals_in_the_order_of_heads():
    heads = [{"arm": "natural", "seed": 0, "step": 9, "layer": layer, "head": head, "value": layer + head / 10.0}
             for layer in range(2) for head in range(2)]  # fmt: skip
    parts = [table(f"ablation_loss_change{ending}", heads).assign(value=lambda own, by=by: own["value"] + by)
             for ending, by in (("", 0.0), ("_low", -0.3), ("_high", 0.2))]  # fmt: skip
    rows = pd.concat([part.sample(frac=1, random_state=seed) for seed, part in enumerate(parts)])
    ax = figures.ablation_by_layer(rows, small=0.05)
    dots, bars = ax.collections
    values = np.sort(dots.get_offsets()[:, 1])
    np.testing.assert_allclose(values, [0.0, 0.1, 1.0, 1.1])
    for (x, value), bar in zip(dots.get_offsets(), bars.get_segments(), strict=True):
        np.testing.assert_allclose(bar, [[x, value - 0.3], [x, value + 0.2]])


def test_a_pair_of_heads_is_a_dot_and_no_pair_is_refused():
    pairs = pd.DataFrame({"layer": [0, 0, 1], "attn": [0.1, -0.5, 1.0], "contribution": [0.2, 0.3, 0.95]})
    ax = figures.copies_by_layer(pairs, copy=0.9)
    assert [own.get_offsets().tolist() for own in ax.collections] == [[[0.1, 0.2], [-0.5, 0.3]], [[1.0, 0.95]]]
    assert "copies from 0.9 on" in [text.get_text() for text in ax.get_legend().get_texts()]
    with pytest.raises(ValueError, match="one head has no pair"):
        figures.copies_by_layer(pairs[:0])
