"""Progress of long work in the terminal: bars where there is one, plain lines where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from wherefrom.watcher import Snapshot

LINE_EVERY = 15.0
"""Seconds between plain lines."""

BARS = 16
"""Runs at work that have a bar of their own; on a cluster there may be hundreds."""

SYMBOLS = {
    "by construction": "≡", "supported": "✓", "contradicted": "✗", "mixed": "±", "inconclusive": "?", "not judged": "–",
}  # fmt: skip
COLOURS = {
    "by construction": "cyan", "supported": "blue", "contradicted": "red", "mixed": "yellow", "inconclusive": "yellow",
    "not judged": "dim",
}  # fmt: skip


@contextmanager
def study_progress(console: Console, opening: str = "") -> Iterator[Callable[[Snapshot], None]]:
    """A function that shows a snapshot of a study; before the first one it says `opening`."""
    shown = _Bars(console) if console.is_terminal else _Lines(console)
    openings = [opening] if opening else []

    def show(snapshot: Snapshot) -> None:
        while openings:
            console.print(openings.pop(), markup=False, highlight=False, soft_wrap=True)
        shown.show(snapshot)

    with shown:
        yield show


@contextmanager
def run_progress(console: Console, steps: int) -> Iterator[Callable[[int, float], None]]:
    """A function that shows (steps done, loss) of one run."""
    if console.is_terminal:
        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        progress = Progress(*columns, TextColumn("loss {task.fields[loss]:.3f}"), console=console)
        task = progress.add_task("", total=steps, loss=0.0)

        def bar(step: int, loss: float) -> None:
            progress.start()  # not before: what goes wrong until then is said without a bar
            progress.update(task, completed=step, loss=loss)

        try:
            yield bar
        finally:
            _stop(progress)
    else:
        shown = [0.0]

        def line(step: int, loss: float) -> None:
            if step == steps or time.monotonic() - shown[0] > LINE_EVERY:
                shown[0] = time.monotonic()
                console.print(f"step {step} of {steps}, loss {loss:.3f}", highlight=False)

        yield line


def _stop(progress: Progress) -> None:
    if progress.live.is_started:  # stopping what never started would print an empty line
        progress.stop()


class _Bars:
    def __init__(self, console: Console):
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self.progress = Progress(*columns, TextColumn("{task.fields[note]}"), console=console)
        self.clock = _Clock()
        self.tasks: dict = {}

    def __enter__(self):
        self.all = self.progress.add_task("all runs", total=None, note="")
        return self

    def __exit__(self, *_):
        _stop(self.progress)

    def show(self, snapshot: Snapshot) -> None:
        self.progress.start()  # not before: what goes wrong until then is said without a bar
        runs, total = len(snapshot.steps), snapshot.total_steps
        done = sum(snapshot.steps.values())
        self.progress.update(self.all, total=runs * total, completed=done, note=self.clock.note(snapshot))
        for key in snapshot.active[:BARS]:
            if key not in self.tasks:
                self.tasks[key] = self.progress.add_task(key.name, total=total, note="")
            falloff = snapshot.falloff.get(key)
            note = "" if falloff is None else f"falloff {falloff:+.2f}"
            self.progress.update(self.tasks[key], completed=snapshot.steps[key], note=note)
        for key in (*snapshot.finished, *snapshot.failed):
            if key in self.tasks:
                self.progress.update(self.tasks[key], visible=False)


class _Lines:
    def __init__(self, console: Console):
        self.console, self.clock = console, _Clock()
        self.told: set = set()
        self.last = 0.0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def show(self, snapshot: Snapshot) -> None:
        news = [key for key in snapshot.finished if key not in self.told]
        for key in news:
            self.told.add(key)
            falloff = snapshot.falloff.get(key)
            self._print(f"{key.name} finished" + ("" if falloff is None else f", falloff {falloff:+.2f}"))
        for key in snapshot.failed.keys() - self.told:
            self.told.add(key)
            self._print(f"{key.name} failed: {snapshot.failed[key]}")
        if time.monotonic() - self.last > LINE_EVERY:
            self.last = time.monotonic()
            self._print(
                f"{snapshot.share:4.0%} of all steps, {len(snapshot.finished)} of {len(snapshot.steps)} runs; "
                f"{self.clock.note(snapshot)}"
            )

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


class _Clock:
    """Speed and time left, from what was done since the first snapshot."""

    def __init__(self):
        self.first: tuple[float, int] | None = None

    def note(self, snapshot: Snapshot) -> str:
        now, done = time.monotonic(), sum(snapshot.steps.values())
        if self.first is None:
            self.first = now, done
        seconds, steps = now - self.first[0], done - self.first[1]
        if seconds < 5 or steps <= 0:
            return "starting"
        left = (snapshot.total_steps * len(snapshot.steps) - done) * seconds / steps
        return f"{steps / seconds:.1f} steps/s, {_duration(left)} left"


def _duration(seconds: float) -> str:
    """
    >>> _duration(75), _duration(8), _duration(7300)
    ('1 min 15 s', '8 s', '2 h 01 min')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def verdict_table(verdicts: list[dict]) -> Group:
    """Whether the model uses its positions, then a row a claim, each with its sentence."""
    from wherefrom.claims import premise  # with pandas, which training a run can do without

    opening = premise(verdicts)
    return Group(*([Text(opening)] if opening else []), _rows(verdicts))


def _rows(verdicts: list[dict]) -> Table:
    table = Table(title="What the data say", show_lines=True, title_justify="left")
    table.add_column("claim", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("sentence")
    for verdict in verdicts:
        word = verdict["verdict"]
        colour = COLOURS[word]
        table.add_row(verdict["claim"], f"[{colour}]{SYMBOLS[word]} {word}[/{colour}]", _plain(verdict["sentence"]))
    return table


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
