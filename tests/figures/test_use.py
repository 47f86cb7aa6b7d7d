"""Figures of position use: lines, dots and bars are what the table says."""

import numpy as np
import pandas as pd
import pytest

from wherefrom import figures
from wherefrom.figures.use import accuracies

from .test_figures import lines, table

SHARES = {
    "content_content": 0.7,
    "content_position": 0.1,
    "position_content": 0.2,
    "position_position": 0.1,
    "covariance": -0.1,
}


def used(arm="natural", seed=0, step=0, value=0.0, split="probe") -> dict:
    return {"measure": "position_use", "arm": arm, "seed": seed, "step": step, "value": value, "split": split}


def test_position_use_is_that_of_the_probe_and_an_arm_on_other_data_is_called_by_them():
    rows = [used(seed=seed, step=step, value=seed + step) for seed in (0, 2) for step in (0, 10)]
    rows += [used("shuffled", step=step, value=0.5) for step in (0, 10)]
    rows += [used(step=10, value=99.0, split="test")]
    ax = figures.position_use_over_steps(table(*rows), names={"shuffled": "shuffled (photos)"})
    drawn = lines(ax)
    assert drawn["natural"] == ([0, 10], [1.0, 11.0])
    assert drawn["shuffled (photos)"] == ([0, 10], [0.5, 0.5])
    assert "shuffled" not in drawn
    assert max(max(y) for _, y in drawn.values()) < 99, "test images have no place on this axis"


def accuracy_rows(arm, seed, whole, lost) -> list[dict]:
    ends = {"accuracy": whole, "position_use_accuracy": lost}
    at = {"arm": arm, "seed": seed, "split": "test"}
    return [{"measure": name, "step": step, "value": value * (step > 0), **at}
            for name, value in ends.items() for step in (0, 10)]  # fmt: skip


def test_accuracy_without_positions_is_the_accuracy_less_what_is_lost_at_the_last_step():
    rows = [*accuracy_rows("natural", 0, 0.9, 0.6), *accuracy_rows("natural", 1, 0.7, 0.2),
            *accuracy_rows("scrambled", 0, 0.4, -0.1)]  # fmt: skip
    ax = figures.accuracy_without_positions(table(*rows))
    drawn = lines(ax)
    np.testing.assert_allclose(drawn["natural"][1], [0.8, 0.4])
    np.testing.assert_allclose(drawn["scrambled"][1], [0.4, 0.5])
    found = accuracies(table(*rows)).set_index(["arm", "seed"])["shuffled"]
    np.testing.assert_allclose(found.loc["natural"], [0.3, 0.5])
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["images as they are", "patches shuffled"]


def term_rows(content: str, **changes) -> list[dict]:
    return [
        {"measure": f"logit_share_{term}", "split": "probe", "arm": arm, "layer": 0, "head": head, "step": step,
         "content": content, "value": share + (term == "content_content") * (step / 100 + head / 10)}
        for arm in ("natural", "scrambled") for step in (0, 10) for head in (0, 1)
        for term, share in (SHARES | changes).items()
    ]  # fmt: skip


def with_content(*rows: dict) -> pd.DataFrame:
    return table(*rows).assign(content=[row.get("content") for row in rows])


def test_shares_are_stacked_up_from_0_and_a_covariance_below_0_hangs():
    axes = figures.logit_shares(with_content(*term_rows("natural"), *term_rows("shuffled", content_content=0.9)))
    assert [ax.get_title(loc="left") for ax in axes] == ["natural images", "contents shuffled"]
    assert [tick.get_text() for tick in axes[0].get_xticklabels()] == [
        f"{arm},\n{when} step" for arm in ("natural", "scrambled") for when in ("first", "last")
    ]
    for ax, content in zip(axes, (0.7, 0.9), strict=True):
        bars = {group.get_label(): [(bar.get_y(), bar.get_height()) for bar in group] for group in ax.containers}
        np.testing.assert_allclose(bars["content–content"][1], (0, content + 0.1 + 0.05))  # mean over heads, last step
        np.testing.assert_allclose(bars["content–position"][0], (content + 0.05, 0.1))
        np.testing.assert_allclose(bars["position–position"][0], (content + 0.05 + 0.1 + 0.2, 0.1))
        np.testing.assert_allclose(bars["their covariance"][0], (0, -0.1))


def test_without_rows_a_sentence_names_what_is_missing():
    empty = table({"measure": "loss", "value": 1.0, "split": "test"})
    for draw in (figures.position_use_over_steps, figures.accuracy_without_positions, figures.logit_shares):
        with pytest.raises(ValueError, match="expected rows of measure"):
            draw(empty)
