"""Sections that hold natural images beside content-shuffled ones, and the premise that opens the page."""

import dataclasses
import json

import numpy as np
import pytest

from wherefrom.report import Material
from wherefrom.report.attention import alignment, distance
from wherefrom.report.contents import contents, growth
from wherefrom.report.divergence import divergence
from wherefrom.report.drawing import SECTIONS
from wherefrom.report.heads import gallery, roles
from wherefrom.report.training import curves
from wherefrom.report.use import use
from wherefrom.store import StudyDirectory

from .synthetic_study import variant, write_study

BOTH = ("natural images", "contents shuffled")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> StudyDirectory:
    return write_study(tmp_path_factory.mktemp("contents") / "study", variant(sweep=(), pool="class", seeds=3))


def numbers(section) -> dict[str, dict[str, str]]:
    """Cells by row and column; of rows of one name the first."""
    table = section.numbers
    cells: dict = {}
    for label, row in table.rows:
        cells.setdefault(label, dict(zip(table.columns, row, strict=True)))
    return cells


def value(cell: str) -> float:
    return float(cell.split(" [")[0].replace("−", "-"))


def test_the_page_opens_with_the_premise(study):
    assert SECTIONS[0] is use
    found = numbers(use(Material(study)))
    cells = found["Position use at the end (nats)"]
    assert list(cells) == ["natural (3 seeds)", "shuffled (1 seed)", "scrambled (3 seeds)"]
    table = study.measurements("position_use", split="test", step=40)
    mean = table[table["arm"] == "natural"]["value"].mean()
    assert value(cells["natural (3 seeds)"]) == pytest.approx(mean, abs=0.006)
    assert value(found["Accuracy lost with it (share)"]["natural (3 seeds)"]) == pytest.approx(0.49, abs=0.006)
    first, last = (found[f"position–position, {when} step (share)"]["natural (3 seeds)"] for when in ("first", "last"))
    assert value(first) == 0.02
    assert value(last) == pytest.approx(0.02 + 0.4 * (1 - np.exp(-4)), abs=0.006)
    stream = [found[f"Position in the stream {where} (R²)"]["natural (3 seeds)"]
              for where in ("before layer 0", "before layer 1", "after the last layer")]  # fmt: skip
    assert [value(cell) for cell in stream] == pytest.approx([0.88, 0.44, 0.29], abs=0.006)


def test_an_arm_trained_on_other_data_says_so(tmp_path):
    study = write_study(tmp_path / "study", variant(sweep=(), seeds=1))
    path = study.path / "shuffled-heads4-seed0" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"data": "/pictures/of cats/"}), encoding="utf-8")
    material = Material(study)
    assert material.other_data == {"shuffled": "/pictures/of cats/"}
    assert "shuffled (of cats) (1 seed)" in use(material).numbers.columns
    assert "“shuffled (of cats)” is trained on other data" in use(material).pictures[0].caption
    assert "The shuffled arm is trained on /pictures/of cats/." in curves(material).pictures[0].caption


def test_growth_is_told_on_both_contents_beside_the_control(study):
    found = numbers(contents(Material(study)))
    whole = 1 - np.exp(-4)
    for content, left in zip(BOTH, (1.0, 0.5), strict=True):
        for name, pull in (("Edge neighbours", 0.9), ("Far pairs", -0.3)):
            cells = found[f"{name}, {content} (nats)"]
            assert value(cells["natural (3 seeds)"]) == pytest.approx(left * pull * whole, abs=0.02)
            assert value(cells["scrambled (3 seeds)"]) == pytest.approx(0, abs=0.02)


def test_growth_does_not_hang_on_the_number_of_tokens(study):
    table = Material(study).arms("attn", content="shuffled")
    one, other = (growth(table, tokens, "edge", "shuffled")["value"] for tokens in (1, 65))
    np.testing.assert_allclose(one, other, atol=1e-12)


def test_pictures_of_attention_hold_the_judged_relations_and_then_the_patch_itself(study):
    section = contents(Material(study))
    assert [("itself" in one.caption, "scrambled control" in one.caption) for one in section.pictures[:2]] == [
        (False, True),
        (True, False),
    ]
    assert len(section.pictures) == 3


def test_distance_alignment_and_roles_have_numbers_of_both_contents(study):
    material = Material(study)
    assert "the same, contents shuffled (patches)" in numbers(distance(material))
    assert "Edge neighbours − far pairs, contents shuffled, after training (cosine)" in numbers(alignment(material))
    assert list(roles(material).numbers.columns) == [
        "natural, before training (3 seeds)",
        "natural, after training (3 seeds)",
        "scrambled, after training (3 seeds)",
        "natural, after training, contents shuffled (3 seeds)",
        "scrambled, after training, contents shuffled (3 seeds)",
    ]


def test_a_role_that_shuffled_contents_take_away_is_0_there(tmp_path):
    study = write_study(tmp_path / "study", variant(sweep=(), arms=("natural",), seeds=1, num_heads=2))
    material = Material(study)
    everything = material.everything
    local = everything["measure"].isin(["role_local", "role_local_low"]) & (everything["content"] == "shuffled")
    material.everything = everything.assign(value=everything["value"].where(~local, 0.0))
    cells = numbers(roles(material))["local (%)"]
    assert cells["natural, after training (1 seed)"] == "50.00"
    assert cells["natural, after training, contents shuffled (1 seed)"] == "0.00"


def test_the_gallery_shows_shuffled_contents_beside_the_last_step(study):
    (drawn,) = gallery(Material(study)).pictures
    assert "“Shuffled”: step 40" in drawn.caption


def test_divergence_of_rows_comes_first_and_on_both_contents(study):
    section = divergence(Material(study))
    found = numbers(section)
    assert len(section.pictures) == 2
    assert "query by query" in section.pictures[0].caption
    for content in BOTH:
        assert f"Heads differ in which patches they look at, {content}, before training (nats)" in found
    assert next(iter(found)).startswith("Heads differ in which patches they look at, natural images")


def of_older_record(study: StudyDirectory) -> Material:
    """As if nothing had been measured on shuffled contents, nor position use, nor attention by relation."""
    material = Material(study)
    table = material.everything
    late = table["measure"].str.startswith(("position_use", "logit_", "positional_", "row_div"))
    material.everything = table[~late & table["content"].isna()].drop(columns="content").reset_index(drop=True)
    return material


def test_a_study_recorded_before_there_were_shuffled_contents_is_shown_as_it_was(study):
    material = of_older_record(study)
    assert "was not recorded" in use(material).missing
    assert "has recorded its attention by relation" in contents(material).missing
    assert len(divergence(material).pictures) == 1
    for make in (distance, alignment, roles):
        section = make(material)
        assert section.missing is None, section.anchor
        assert "shuffled contents" not in " ".join([*section.numbers.columns, *numbers(section)])
        assert "contents shuffled" not in " ".join([*section.numbers.columns, *numbers(section)])


def test_one_run_of_one_layer_and_nothing_to_hold_it_against(tmp_path):
    recipe = dataclasses.replace(variant(sweep=(), arms=("natural",), seeds=1), depth=1, num_heads=1)
    material = Material(write_study(tmp_path / "study", recipe))
    for make in (use, contents, distance, alignment, gallery, roles):
        assert make(material).missing is None
    assert "scrambled control" not in contents(material).pictures[0].caption
    assert divergence(material).missing
