"""The sections on routes and cuts, and that cut arms leave the other sections alone."""

import re

import pytest

from wherefrom.report import write_report
from wherefrom.report.drawing import SECTIONS
from wherefrom.report.material import Material
from wherefrom.report.routes import cuts, ledger
from wherefrom.report.words import number
from wherefrom.store import StudyDirectory

from .synthetic_study import variant, write_study

CUTS = ("pos:q,k", "pairs:far")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> StudyDirectory:
    recipe = variant(sweep=(), cuts=CUTS, ledger=True)
    return write_study(tmp_path_factory.mktemp("routes") / "study", recipe)


def numbers(section) -> dict[str, dict[str, str]]:
    """Cells by row and column."""
    table = section.numbers
    return {label: dict(zip(table.columns, cells, strict=True)) for label, cells in table.rows}


def test_the_ledger_is_told_in_shares_with_what_it_misses(study):
    section = ledger(Material(study))
    found = numbers(section)
    column = "similarity falloff (2 seeds)"
    assert found["Queries and keys together (share)"][column].startswith("0.50 [")
    assert found["Values (v) (share)"][column].startswith("0.60 [")
    assert found["MLP (share)"][column].startswith("−0.10 [")
    assert found["Whole change"]["coordinate R² (2 seeds)"].startswith(f"{0.8 * (1 - 2.718281828**-4):.2f} [")
    assert any("1.0e−07" in note for note in section.numbers.notes)
    assert len(section.pictures) == 1, "no force was recorded, so none is drawn"


def test_cut_arms_stand_beside_the_natural_one_paired_by_seed(study):
    section = cuts(Material(study))
    found = numbers(section)
    columns = ["natural (2 seeds)", "scrambled (2 seeds)", "without far pairs (2 seeds)", "without q, k (2 seeds)"]
    assert list(found["Falloff at the end"]) == columns
    falloff = study.measurements("similarity_falloff", grid="model").set_index(["arm", "seed", "step"])["value"]
    gained = falloff.xs(40, level="step") - falloff.xs(0, level="step")
    paired = (gained["cut-pos:q,k"] - gained["natural"]).mean()
    assert found["Falloff gained"][columns[3]].startswith(number(gained["cut-pos:q,k"].mean()) + " [")
    assert section.numbers.rows[2][1][3].startswith(number(paired) + " [")
    assert "shuffled" not in section.pictures[0].svg


def test_no_other_section_shows_cut_arms(study):
    material = Material(study)
    for section in (make(material) for make in SECTIONS if make is not cuts):
        table = section.numbers
        shown = " ".join([*(table.columns if table else ()), *(picture.svg for picture in section.pictures)])
        assert "without" not in shown, section.anchor
        assert "cut-" not in shown, section.anchor


def test_without_ledger_or_cuts_a_sentence_says_so(tmp_path):
    material = Material(write_study(tmp_path / "study", variant(arms=("natural",), seeds=1, sweep=())))
    assert "No ledger was kept" in ledger(material).missing
    assert "study --causal" in cuts(material).missing


def test_the_command_names_the_cuts_once(study):
    page = write_report(study.path).read_text(encoding="utf-8")
    command = re.sub(r"<.*?>", "", re.findall(r"<pre><code>(.*?)</code></pre>", page)[0])
    assert re.findall(r"--cut [^-]*", command) == ["--cut pos:q,k pairs:far "]
    assert "ledger-every" not in command  # each run has its own
