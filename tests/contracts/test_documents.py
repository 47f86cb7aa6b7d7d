"""What the documents say can be typed is there: commands, options, names, measures, files."""

import re
from pathlib import Path

import pytest

import wherefrom
from wherefrom.catalogue import MEASURES
from wherefrom.cli import main

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text()
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
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
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
    tables = {name for table in rows for name in re.findall(r"^\| *`(\w+)`", table, re.MULTILINE)}
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
