"""The terminal's table of verdicts."""

import io
from typing import get_args

from rich.console import Console

from wherefrom.claims.rule import Outcome
from wherefrom.display import COLOURS, SYMBOLS, verdict_table
from wherefrom.report.verdicts import LOOKS

USED = {
    "claim": "C3c", "verdict": "supported", "statistic": 1.93, "interval": [1.7, 2.1], "n": 5, "control": None,
    "sentence": "Supported [for this model].",
    "details": {"seeds": {"0": 1.8, "1": 2.0}, "accuracy": {"natural": 0.894, "shuffled": 0.27}},
}  # fmt: skip


def shown(verdicts) -> str:
    file = io.StringIO()
    Console(width=200, file=file).print(verdict_table(verdicts))
    return file.getvalue()


def test_the_table_opens_with_the_premise():
    other = USED | {"claim": "C0", "verdict": "by construction", "sentence": "By construction."}
    lines = [line for line in shown([other, USED]).splitlines() if line.strip()]
    assert lines[0].strip() == (
        "Does the model use positions? Yes: shuffling the patches of test images costs 1.9 nats (1.7 to 2.1), "
        "accuracy .89 → .27."
    )
    text = " ".join(lines)
    assert "≡ by construction" in text
    assert "Supported [for this model]." in text, "brackets are no markup"
    assert text.index("What the data say") < text.index("C0") < text.index("C3c")


def test_an_older_study_has_no_premise():
    assert shown([USED | {"claim": "C1"}]).strip().startswith("What the data say")


def test_every_outcome_has_a_look_of_its_own():
    assert set(SYMBOLS) == set(COLOURS) == set(LOOKS) == set(get_args(Outcome))
    assert len(set(SYMBOLS.values())) == len(SYMBOLS)
