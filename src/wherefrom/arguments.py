"""From typed words to calls, through tyro; what it says of wrong ones, as one sentence."""

from __future__ import annotations

import contextlib
import functools
import io
import re
from collections.abc import Callable
from dataclasses import dataclass

import tyro


@dataclass(frozen=True)
class Words:
    """Arguments of a command, which tyro reads."""

    prog: str
    arguments: list[str]

    def read(self, kind: Callable, **options):
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                return tyro.cli(kind, prog=self.prog, args=self.arguments, **options)
        except SystemExit as end:
            if end.code:
                raise ValueError(sentence_in(said.getvalue(), self.prog)) from None
            raise


def later(command: Callable[..., int]) -> Callable[..., Callable[[], int]]:
    """`command`, but it gives the call instead of making it."""

    @functools.wraps(command)
    def later(*arguments, **options):
        return functools.partial(command, *arguments, **options)

    return later


REWORDED = {
    r"^error parsing (?:run|config)\S*: ": "",  # a class refused the values: its own sentence names them
    r"^error parsing ": "",
    r"invalid literal for int\(\) with base 10: ": "expected a whole number, found ",
    r"could not convert string to float: ": "expected a number, found ",
    r" ?\(required\)$": "",
    r"\. Expected 1 values\.?$": "",
    r"\. Expected": "; expected",
}


def sentence_in(box: str, prog: str) -> str:
    """What tyro says in a box of several parts: what is wrong, and the option it guesses.

    >>> sentence_in("╭─ Oh ─╮\\n│ Error parsing --steps: it is │\\n│ odd. │\\n│ ────────── │\\n│ Help │", "wherefrom x")
    '--steps: it is odd; see wherefrom x --help'
    """
    plain = re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯]", "", box)
    body = plain.partition("\n")[2]  # below the title
    parts = [" ".join(part.split()) for part in re.split(r"^[ ─-]{8,}$", body, flags=re.MULTILINE) if part.strip()]
    sentence = parts[0][0].lower() + parts[0][1:] if parts else "these options cannot be understood"
    for pattern, words in REWORDED.items():
        sentence = re.sub(pattern, words, sentence)
    guess = re.search(r"Perhaps you meant: (--[\w.-]+)", " ".join(parts))
    return f"{sentence.rstrip('.')}; " + (f"did you mean {guess[1]}?" if guess else f"see {prog} --help")
