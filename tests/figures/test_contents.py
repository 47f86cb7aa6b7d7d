"""Natural images beside content-shuffled ones: each column holds its own rows, and numbers are those of the table."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from wherefrom import figures
from wherefrom.figures.contents import log_attention
from wherefrom.figures.style import limit_to_lines, one_panel

from .test_figures import lines, table


def with_content(rows: list[dict]) -> pd.DataFrame:
    return table(*rows).assign(content=[row.get("content") for row in rows])


def attn_rows(content, power, arm="natural", seeds=(0,), relations=("edge", "far")) -> list[dict]:
    """Attention exp(power · step · (layer + 1)) / 10 at edge pairs, its inverse at far ones; heads alike."""
    return [
        {"measure": "attn", "split": "probe", "arm": arm, "seed": seed, "layer": layer, "head": head, "step": step,
         "relation": relation, "grid": "model", "content": content,
         "value": float(np.exp((1 if relation == "edge" else -1) * power * step * (layer + 1))) / 10}
        for seed in seeds for layer in (0, 1) for head in (0, 1) for step in (0, 1) for relation in relations
    ]  # fmt: skip


def test_log_attention_has_a_row_a_layer_and_a_column_a_content():
    rows = attn_rows("natural", 0.4) + attn_rows("shuffled", 0.1) + attn_rows("natural", 0.05, "scrambled")
    axes = figures.attention_by_content(with_content(rows), tokens=10)
    assert axes.shape == (2, 2)
    for layer in (0, 1):
        for column, power in enumerate((0.4, 0.1)):
            drawn = lines(axes[layer, column])
            np.testing.assert_allclose(drawn["edge neighbours"][1], [0, power * (layer + 1)], atol=1e-12)
            np.testing.assert_allclose(drawn["far"][1], [0, -power * (layer + 1)], atol=1e-12)
            assert "between" not in drawn, "a relation without pairs has no line"
    assert axes[1, 1].get_title(loc="left") == "layer 1, contents shuffled"
    assert "scrambled control" in lines(axes[0, 0])
    assert "scrambled control" not in lines(axes[0, 1]), "there the control was not measured"


def test_without_a_content_shuffled_probe_there_is_one_column():
    rows = [{**row, "content": None} for row in attn_rows("natural", 0.4)]
    for own in (with_content(rows), table(*rows)):  # of a record that knows of no content, and of one without a column
        assert figures.attention_by_content(own, tokens=10).shape == (2, 1)


def test_no_attention_at_all_has_no_logarithm_and_the_true_grid_is_left_out():
    rows = attn_rows("natural", 0.4)
    odd = [{**rows[0], "value": 0.0, "head": 7}, {**rows[0], "grid": "true", "head": 8}]
    found = log_attention(with_content(rows + odd), 10)
    assert set(found["head"]) == {0, 1}
    assert np.isfinite(found["value"]).all()


def test_class_and_register_tokens_are_drawn_where_they_are_asked_for():
    rows = attn_rows("natural", 0.4, relations=("edge", "self", "prefix"))
    (ax, *_), *_ = figures.attention_by_content(with_content(rows), 10, relations=("self", "prefix"))
    assert set(lines(ax)) >= {"the patch itself", "class and register tokens"}
    assert "edge neighbours" not in lines(ax)


def test_alignment_beside_itself_on_shuffled_contents():
    rows = [
        {"measure": "qk_alignment", "split": "probe", "layer": 0, "head": 0, "step": step, "distance": float(distance),
         "grid": "model", "content": content, "value": step * slope * distance}
        for content, slope in (("natural", -0.1), ("shuffled", -0.02)) for step in (0, 1) for distance in (0, 1, 2)
    ]  # fmt: skip
    axes = figures.alignment_by_content(with_content(rows), Figure())
    assert axes.shape == (1, 2)
    for ax, slope in zip(axes[0], (-0.1, -0.02), strict=True):
        np.testing.assert_allclose(lines(ax)["natural"][1], [0, slope, 2 * slope])


def test_parts_of_the_mean_scores_are_stacked_by_layer_at_the_last_step():
    parts = {"offset": 0.5, "key": 0.3, "pair": 0.2}
    rows = [
        {"measure": f"positional_{part}_share", "split": "probe", "layer": layer, "head": head, "step": step,
         "content": content, "value": None if layer == 1 and content == "shuffled" else share + (step == 0)}
        for content in ("natural", "shuffled") for layer in (0, 1) for head in (0, 1) for step in (0, 5)
        for part, share in parts.items()
    ]  # fmt: skip
    natural, shuffled = figures.positional_parts(with_content(rows))
    bars = {group.get_label(): [(bar.get_y(), bar.get_height()) for bar in group] for group in natural.containers}
    np.testing.assert_allclose(bars["offset of the two patches"], [(0, 0.5)] * 2)
    np.testing.assert_allclose(bars["position looked at"], [(0.5, 0.3)] * 2)
    np.testing.assert_allclose(bars["pair of positions"], [(0.8, 0.2)] * 2)
    assert [group[1].get_height() for group in shuffled.containers] == [0, 0, 0], "what is null has no bar"
    with pytest.raises(ValueError, match="expected values of positional_offset_share"):
        figures.positional_parts(with_content(rows).assign(value=np.nan))


def test_a_band_that_would_flatten_the_lines_is_cut_off_and_a_narrow_one_is_not():
    for half, expected in ((50.0, (-2.0, 4.0)), (0.5, None)):
        ax = one_panel(None)
        ax.plot([0, 1], [0.0, 2.0])
        ax.fill_between([0, 1], [-half, 2 - half], [half, 2 + half])
        before = ax.get_ylim()
        limit_to_lines([ax])
        assert ax.get_ylim() == (expected or before)


def test_heads_have_their_map_on_shuffled_contents_beside_those_of_training():
    maps = {step: np.full((3, 3), 1.0 + step) for step in (0, 5)}
    beside = np.arange(1.0, 10).reshape(3, 3)
    axes = figures.head_gallery([figures.HeadMaps("a", maps, {5: "local"}, beside, "self")], Figure())
    assert [ax.get_title(loc="center") for ax in axes[0]] == ["step 0", "step 5", "shuffled"]
    assert [ax.get_xlabel() for ax in axes[0]] == ["", "local", "self"]
    np.testing.assert_allclose(axes[0, 2].images[0].get_array(), np.log2(beside / beside.mean()))
    with pytest.raises(ValueError, match="expected heads with a map at the same steps each"):
        figures.head_gallery([figures.HeadMaps("a", maps, {}, beside), figures.HeadMaps("b", maps, {})])
