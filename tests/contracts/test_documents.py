"""What the documents say can be typed is there: commands, options, names, measures, files."""

import re
from pathlib import Path

import pytest

import wherefrom
from wherefrom.catalogue import MEASURES
from wherefrom.cli import main
from wherefrom.roles import ROLES

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
}
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")


def code(text: str) -> list[str]:
    """Lines that a reader may type: those of fenced blocks, and each inline piece of code."""
    blocks = [line.strip().removeprefix("$ ") for _, block in FENCED.findall(text) for line in block.splitlines()]
    return blocks + INLINE.findall(FENCED.sub("", text))


CODE = {name: code(text) for name, text in DOCUMENTS.items()}
EVERY_LINE = [line for lines in CODE.values() for line in lines]


def found(pattern: str) -> set[str]:
    return {match for line in EVERY_LINE for match in re.findall(pattern, line)}


def test_code_of_a_document():
    assert code("Type `make x`:\n```sh\n$ make demo  # now\n```\nand make tea.") == ["make demo  # now", "make x"]


def test_make_commands_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test"} <= set(re.findall(r"^make ([a-z]+)", "\n".join(CODE["README.md"]), re.MULTILINE))
    assert found(r"^make ([a-z]+)") <= targets


def test_commands_and_their_options_exist(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    named = [re.match(r"(?:\.venv/bin/|python -m )?wherefrom ([a-z]+)\b([^#]*)", line) for line in EVERY_LINE]
    assert any(named)
    for command, rest in (match.groups() for match in named if match):
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
        help_text = capsys.readouterr().out
        assert set(re.findall(r"--[a-z][a-z.-]*", rest)) <= set(re.findall(r"--[a-z][a-z.-]*", help_text)), command


def test_public_names_exist():
    assert found(r"\bwf\.([A-Za-z]\w*)") <= set(wherefrom.__all__)


def test_python_blocks_are_python():
    blocks = [block for text in DOCUMENTS.values() for language, block in FENCED.findall(text) if language == "python"]
    assert blocks
    for block in blocks:
        compile(block, "document", "exec")


def test_measures_exist():
    rows = re.findall(r"^\| *measure\b[^\n]*\n[^\n]*\n((?:\|.*\n)+)", "\n".join(DOCUMENTS.values()), re.MULTILINE)
    cells = [cell for table in rows for cell in re.findall(r"^\|([^|]*)", table, re.MULTILINE)]
    tables = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert "near_minus_far" in tables
    assert tables | found(r"measurements\(\"(\w+)\"") <= set(MEASURES)


def test_files_exist():
    assert not [
        path for path in found(r"^((?:src|tests|docs|scripts|benchmarks)/[\w./-]*)$") if not (ROOT / path).exists()
    ]


def test_links_lead_somewhere():
    links = [
        ((ROOT / name).parent / target).resolve()
        for name, text in DOCUMENTS.items()
        for target in re.findall(r"\]\((?!https?://|mailto:|#)([^)#\s]+)", FENCED.sub("", text))
    ]
    assert not [str(link) for link in links if not link.exists()]


# ---- docs/science.md, which docstrings refer to by the number of a section

SCIENCE = DOCUMENTS["docs/science.md"]
PARTS = ("_null_low", "_null_high", "_low", "_high", "_threshold", "_change", "_residual")
"""Endings of what is recorded beside a measure, and explained with it."""


def headings(text: str) -> set[str]:
    """Numbers of the sections of a document."""
    return set(re.findall(r"^## (\d+)\. ", text, re.MULTILINE))


def cited(text: str) -> set[str]:
    """Numbers of the sections that a text cites: those in "section 7", "sections 4 and 5", also across a line break."""
    runs = re.findall(r"\bsections?\s+(\d+(?:(?:,|\s+and|\s+to)\s+\d+)*)", text, re.IGNORECASE)
    return {number for run in runs for number in re.findall(r"\d+", run)}


def families(names: set[str]) -> set[str]:
    """What a document must name: each measure that is not a part of another one; a role by its own name."""
    stems = {name: {name.removesuffix(part) for part in PARTS} & (names - {name}) for name in names}
    return {name.removeprefix("role_") if name.startswith("role_") else name for name in names if not stems[name]}


def test_reading_of_sections_and_families():
    assert headings("# A\n## 1. One\n### 1.5. No\n## 12. Twelve\n") == {"1", "12"}
    assert cited("(science.md, section 8); see\nsections 4 and 5, or Section\n    10.") == {"8", "4", "5", "10"}
    names = {"role_self", "role_self_low", "change", "ledger_a", "ledger_a_change", "loss_change"}
    assert families(names) == {"self", "change", "ledger_a", "loss_change"}


def test_cited_sections_exist():
    assert headings(SCIENCE) == {str(number) for number in range(1, 11)}
    sources = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in ROOT.glob("src/**/*.py")}
    assert "8" in cited(sources["src/wherefrom/claims/primary.py"])
    missing = {name: cited(text) - headings(SCIENCE) for name, text in (sources | DOCUMENTS).items()}
    assert not {name: numbers for name, numbers in missing.items() if numbers}


def test_every_measure_is_defined():
    names = set(re.findall(r"`(\w+)`", SCIENCE))
    assert not sorted(families(set(MEASURES)) - names)


def test_every_role_is_defined():
    table = re.search(r"^\| role \|.*\n.*\n((?:\|.*\n)+)", SCIENCE, re.MULTILINE)
    assert table
    rows = {name for cell in re.findall(r"^\|([^|]*)", table[1], re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)}
    assert rows == set(ROLES)


def anchors(text: str) -> set[str]:
    """What a link may name after #, as GitHub makes it from headings."""
    titles = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_to_headings_lead_somewhere():
    links = {
        (name, target): DOCUMENTS[
            str((ROOT / name).parent.joinpath(page).resolve().relative_to(ROOT)) if page else name
        ]
        for name, text in DOCUMENTS.items()
        for page, target in re.findall(r"\]\((?!https?://)([^)#\s]*\.md|)#([^)\s]+)\)", FENCED.sub("", text))
    }
    assert links
    assert not [link for link, text in links.items() if link[1] not in anchors(text)]
