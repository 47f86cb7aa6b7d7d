"""The command line. Each command is a function whose arguments, with their sentences, are its options."""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

from rich.console import Console
from rich.table import Table
from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg

from wherefrom import __version__
from wherefrom.arguments import Words, later
from wherefrom.config import StudyConfig, TrainConfig, from_toml
from wherefrom.workers import Place

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130

OutFile = Annotated[Path | None, arg(aliases=["-o"], metavar="FILE")]


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 0 done, 1 some runs failed, 2 wrong use or bad input, 130 interrupted."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        if name in ("-h", "--help", "--version"):
            print(f"wherefrom {__version__}" if name == "--version" else overview())
            return DONE
        return understood(name, rest)()
    except KeyboardInterrupt:
        say("wherefrom: interrupted; everything recorded so far is kept")
        return INTERRUPTED
    except BrokenPipeError:  # who read our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (ValueError, FloatingPointError, OSError, ImportError) as error:
        say(f"wherefrom: {' '.join(str(error).split())}")
        return WRONG_USE


def say_accounts(accounts: Iterable[dict[str, float]]) -> None:
    """What the routes of the gradient and the ledgers of the runs miss, the worst; nothing where there are none."""
    kept = [account for account in accounts if account]
    for measure, words in {
        "route_closure": "the routes of the gradient on pos_embed miss at most {} of it",
        "ledger_residual": "the ledgers of the position embedding miss at most {} of all its changes",
    }.items():
        if values := [account[measure] for account in kept if measure in account]:
            say(f"{words.format(f'{max(values):.1e}')} ({measure}, {len(values)} runs)")


def say(sentence: str) -> None:
    """One line to the person at the terminal; standard output stays free for what machines read."""
    Console(stderr=True).print(sentence, markup=False, highlight=False, soft_wrap=True)


# ---- commands


@dataclass(frozen=True)
class StudyOptions(StudyConfig):
    """A study as it is typed."""

    vary: Annotated[UseAppendAction[tuple[tuple[str, ...], ...]], arg(metavar="SETTING VALUES…")] = ()
    """Further runs of the natural arm, with other values of one setting: patch_size 2 4 8."""


def study(
    config: Annotated[StudyOptions, arg(name="")] = StudyOptions(),
    out: Annotated[Path, arg(aliases=["-o"])] = Path("runs/study"),
    quick: bool = False,
    jobs: int = 0,
    on: Place = "local",
    resources: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE")] = (),
) -> int:
    """Train the arms, judge the claims, write the report: the main job.

    - trains on natural and on scrambled images, with several seeds
    - trains once on shuffled images, and on natural ones with other head counts
    - judges each claim and writes verdicts.json and report.html
    - run again, goes on where it stopped; what is finished is kept

        wherefrom study                           # handwritten digits that it carries: their layout matters
        wherefrom study --quick --out runs/quick  # a smaller study of the same kind
        wherefrom study --data photos --out runs/photos  # photographs: a map forms that nothing reads
        wherefrom study --data pictures/ --model.patch-size 8 --out runs/pictures
        wherefrom study --vary patch_size 2 4 8 --vary pos_embed learned none rope
        wherefrom study --on slurm --resources slurm_partition=gpu timeout_min=240 gpus_per_node=1
        RAY_ADDRESS=head:6379 wherefrom study --on ray --resources num_gpus=1

    Args:
        config: which runs.
        out: folder of the study.
        quick: fewer seeds, head counts and steps, in a quarter of the time; every sentence is preliminary.
        jobs: runs at once; 0: one a processor, and on slurm or ray as many as there is room for.
        on: where runs are trained: processes here, jobs of Slurm, or tasks of Ray; resumed and shown alike.
        resources: what each run is given, in the words of submitit for slurm and of Ray's options for ray.
    """
    from wherefrom import display, studies

    console = Console(stderr=True)
    runs: StudyConfig = studies.quick_study(config) if quick else config
    opening = f"{len(runs.runs())} runs of {runs.steps} steps on {runs.data}; recorded in {out}"
    try:
        with display.study_progress(console, opening) as report:
            result = studies.run_study(runs, out, jobs=jobs, on=on, resources=named_values(resources), report=report)
    except KeyboardInterrupt:
        say(f"wherefrom: interrupted; everything recorded so far is kept in {out}; the same command goes on from there")
        return INTERRUPTED
    Console().print(display.verdict_table(result.verdicts))
    for name, sentence in result.failed.items():
        say(f"{name} failed: {sentence}")
    if result.failed:
        say(f"{len(result.failed)} runs are missing from the verdicts; the same command tries them again")
    from wherefrom.store import open_study

    say_accounts(run.account() for run in open_study(result.path).finished_runs().values())
    say(f"report: {result.path / 'report.html'}")
    return FAILED if result.failed else DONE


def named_values(pairs: Iterable[str]) -> dict:
    """Values as in TOML; what is none is text.

    >>> named_values(["timeout_min=60", "slurm_partition=gpu", "slurm_setup=['module load cuda']"])
    {'timeout_min': 60, 'slurm_partition': 'gpu', 'slurm_setup': ['module load cuda']}
    """
    found = {}
    for name, equals, text in (pair.partition("=") for pair in pairs):
        if not (name and equals):
            raise ValueError(f"resources must be given as NAME=VALUE, such as timeout_min=60; found {name or equals!r}")
        try:
            found[name] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            found[name] = text
    return found


def train(
    run: Annotated[TrainConfig, arg(name="")],
    out: Annotated[Path, arg(aliases=["-o"])] = Path("runs/run"),
    config: Annotated[Path | None, arg(metavar="FILE")] = None,
    resume: bool = False,
) -> int:
    """Train one model and record the run.

        wherefrom train --arm shuffled --seed 1 --out runs/shuffled
        wherefrom train --config run.toml --steps 500     # options outdo the file
        wherefrom train --out runs/shuffled --resume …    # the same options again
        torchrun --nproc-per-node 2 -m wherefrom train …  # on several processes

    A file holds the options by their names; those with a dot are in tables:

        steps = 500
        [model]
        num_heads = 2

    Args:
        run: the configuration.
        out: folder of the run.
        config: TOML file with the configuration; options given beside it come before what it says.
        resume: go on from the last checkpoint of an interrupted run.
    """
    from wherefrom.display import run_progress
    from wherefrom.train import fit

    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun starts, one speaks
    try:
        with run_progress(Console(stderr=True, quiet=not first), run.steps) as progress:
            record = fit(run, out, resume=resume, progress=progress)
    except KeyboardInterrupt:
        say(f"wherefrom: interrupted; everything recorded so far is kept in {out}; --resume goes on from there")
        return INTERRUPTED
    if first:
        say_accounts([record.account()])
        say(f"recorded in {out}")
    return DONE


def report(study: Positional[Path], out: OutFile = None) -> int:
    """Write a study as one self-contained page.

        wherefrom report runs/study
        wherefrom report runs/study -o page.html

    Args:
        study: folder of the study.
        out: file to write; report.html in the study if left out.
    """
    from wherefrom.report import write_report

    print(write_report(study, out))
    return DONE


def export(run: Positional[Path], to: Literal["parquet", "csv", "npz"] = "parquet", out: OutFile = None) -> int:
    """Write a record as a file that other tools open.

        wherefrom export runs/study                          # parquet
        wherefrom export runs/run --to csv -o run.csv
        wherefrom export runs/run --to npz                   # the arrays

    Args:
        run: folder of a run, or of a study for all its finished runs.
        to: parquet or csv for the measurements, npz for the arrays.
        out: file to write; measurements.parquet, measurements.csv or arrays.npz in the folder if left out.
    """
    from wherefrom.store.export import export as write

    print(write(run, to, out))
    return DONE


def data(as_json: Annotated[bool, arg(name="json")] = False) -> int:
    """List the data sets it knows, and what each needs.

    Args:
        as_json: print JSON.
    """
    from wherefrom.data import describe

    sets = describe()
    if as_json:
        print(json.dumps(sets, indent=2, ensure_ascii=False))
        return DONE
    table = Table(*sets[0])
    for row in sets:
        table.add_row(*row.values())
    Console().print(table)
    return DONE


COMMANDS: dict[str, Callable[..., int]] = {
    "study": study,
    "train": train,
    "report": report,
    "export": export,
    "data": data,
}


def about(name: str) -> str:
    """What a command is for, with its examples."""
    return (inspect.getdoc(COMMANDS[name]) or "").partition("\n\nArgs:")[0]


def overview() -> str:
    """What `wherefrom --help` prints."""
    commands = (f"  {name:8}{about(name).splitlines()[0]}" for name in COMMANDS)
    return "\n".join(
        (
            "usage: wherefrom COMMAND [OPTIONS]",
            "\nShows where a Vision Transformer's sense of space comes from.",
            "\ncommands:",
            *commands,
            "\nexamples:",
            "  wherefrom study --quick     a small study of digits that it carries",
            "  wherefrom study --help      the options of a command, and more examples",
            "  wherefrom --version",
        )
    )


# ---- from words to calls


@dataclass(frozen=True)
class _File:
    config: Path | None = None


def understood(name: str, arguments: list[str]) -> Callable[[], int]:
    """The command of that name, ready to be called with what the arguments say.

    Raises:
        ValueError: for what cannot be understood, in one sentence.
    """
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1) if not name.startswith("-") else []
        guess = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"there is no command {name!r}; {guess}known: {', '.join(COMMANDS)}")
    words = Words(f"wherefrom {name}", arguments)
    command = later(COMMANDS[name])
    if name == "train":  # the file's settings are the defaults that options come before
        file = words.read(_File, return_unknown_args=True, add_help=False)[0].config
        command = functools.partial(command, run=from_toml(file) if file else TrainConfig())
    return words.read(command, description=about(name), config=(FlagCreatePairsOff,))


if __name__ == "__main__":
    sys.exit(main())
