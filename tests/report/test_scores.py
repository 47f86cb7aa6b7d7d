"""The section on the account of the scores: its numbers are those of the rows, and it says where there are none."""

import math

import pytest

from wherefrom.report.material import Material
from wherefrom.report.scores import account
from wherefrom.report.words import number
from wherefrom.store import StudyDirectory

from .synthetic_study import variant, write_study

GROWN = 1.5 * (1 - math.exp(-4))
"""Mean over two layers of what all shares are multiplied by at the end."""


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> StudyDirectory:
    return write_study(tmp_path_factory.mktemp("scores") / "study", variant(sweep=(), ledger=True))


def test_each_part_is_told_with_what_the_account_misses(study):
    section = account(Material(study))
    table = section.numbers
    columns = ("log attention at edge (1 seed)", "log attention at far (1 seed)", "alignment, edge − far (1 seed)")
    assert table.columns == columns
    shares = {
        "Whole change": 0.75,
        "Gradient of edge pairs": 0.2,
        "Gradient of far pairs": 0.5,
        "Gradient of all other pairs": -0.1,
        "Drift of the inputs": 0.2,
        "Weight decay": -0.05,
    }
    for label, share in shares.items():
        cells = dict(table.rows)[label]
        assert cells == tuple(number(sign * share * GROWN) for sign in (1, -1, 0.1))
    assert dict(table.rows)["Missed by the account (10⁻⁴ share of the way travelled)"] == ("2.00",) * 3
    assert any("misses 0.0002" in note for note in table.notes)
    assert len(section.pictures) == 1


def test_without_an_account_it_says_which_setting_keeps_one(tmp_path):
    material = Material(write_study(tmp_path / "study", variant(arms=("natural",), seeds=1, sweep=())))
    assert "record.alignment_ledger" in account(material).missing
