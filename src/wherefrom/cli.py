"""The command line. Each command is a function whose arguments, with their sentences, are its options."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg

from wherefrom.config import TrainConfig, from_toml
from wherefrom.studies import StudyConfig

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130

DESCRIPTION = "Shows where a Vision Transformer's sense of space comes from. Start with: wherefrom study"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 0 done, 1 some runs failed, 2 wrong use or bad input, 130 interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        return tyro.extras.subcommand_cli_from_dict(
            _commands(arguments), prog="wherefrom", description=DESCRIPTION, args=arguments or ["--help"]
        )
    except KeyboardInterrupt:
        say("wherefrom: interrupted; everything recorded so far is kept")
        return INTERRUPTED
    except (ValueError, FloatingPointError, OSError, ImportError) as error:
        say(f"wherefrom: {error}")
        return WRONG_USE


def say(sentence: str) -> None:
    """One line to the person at the terminal; standard output stays free for what machines read."""
    Console(stderr=True).print(sentence, markup=False, highlight=False, soft_wrap=True)


# ---- commands


def study(
    config: Annotated[StudyConfig, arg(name="")] = StudyConfig(),  # noqa: B008 - frozen
    out: Path = Path("runs/study"),
    quick: bool = False,
    jobs: int = 0,
) -> int:
    """The main job: train the arms, judge the claims, write the report.

    Trains natural and scrambled images with several seeds, shuffled images once, and other head counts; then judges each
    claim and writes verdicts.json and report.html. Run it again to go on where it stopped; what is finished is kept.

    Args:
        config: which runs.
        out: folder of the study.
        quick: fewer seeds, head counts and steps, in a quarter of the time; every sentence is preliminary.
        jobs: processes at once, one thread each; 0: one a processor.
    """
    from wherefrom import display, studies

    console = Console(stderr=True)
    config = studies.quick_study(config) if quick else config
    say(f"{len(config.runs())} runs of {config.steps} steps on {config.data}; recorded in {out}")
    try:
        with display.study_progress(console) as report:
            result = studies.run_study(config, out, jobs=jobs, report=report)
    except KeyboardInterrupt:
        say(f"wherefrom: interrupted; everything recorded so far is kept in {out}; the same command goes on from there")
        return INTERRUPTED
    Console().print(display.verdict_table(result.verdicts))
    for name, sentence in result.failed.items():
        say(f"{name} failed: {sentence}")
    if result.failed:
        say(f"{len(result.failed)} runs are missing from the verdicts; the same command tries them again")
    say(f"report: {result.path / 'report.html'}")
    return FAILED if result.failed else DONE


def train(
    run: Annotated[TrainConfig, arg(name="")],
    out: Path = Path("runs/run"),
    config: Path | None = None,
    resume: bool = False,
) -> int:
    """One recorded run. torchrun starts it on many processes: torchrun --nproc-per-node 2 -m wherefrom train.

    Args:
        run: the configuration.
        out: folder of the run.
        config: TOML file with the configuration; options given beside it come before what it says.
        resume: go on from the last checkpoint of an interrupted run.
    """
    from wherefrom.display import run_progress
    from wherefrom.train import fit

    try:
        with run_progress(Console(stderr=True), run.steps) as progress:
            fit(run, out, resume=resume, progress=progress)
    except KeyboardInterrupt:
        say(f"wherefrom: interrupted; everything recorded so far is kept in {out}; --resume goes on from there")
        return INTERRUPTED
    say(f"recorded in {out}")
    return DONE


def report(study: Positional[Path], out: Annotated[Path | None, arg(aliases=["-o"])] = None) -> int:
    """Write one self-contained page from a study.

    Args:
        study: folder of the study.
        out: file to write; report.html in the study if left out.
    """
    from wherefrom.report import write_report

    print(write_report(study, out))
    return DONE


def export(
    run: Positional[Path],
    to: Literal["parquet", "csv", "npz"] = "parquet",
    out: Annotated[Path | None, arg(aliases=["-o"])] = None,
) -> int:
    """Write the record of a run, or of all runs of a study, as a file that other tools open.

    Args:
        run: folder of a run or of a study.
        to: parquet or csv for the measurements, npz for the arrays of a run.
        out: file to write; measurements.parquet, measurements.csv or arrays.npz in the folder if left out.
    """
    from wherefrom.store.export import export as write

    print(write(run, to, out))
    return DONE


def data(as_json: Annotated[bool, arg(name="json")] = False) -> int:
    """The data sets it knows, and what each needs.

    Args:
        as_json: print JSON.
    """
    from wherefrom.data import describe

    sets = describe()
    if as_json:
        print(json.dumps(sets, indent=2))
        return DONE
    table = Table(*sets[0])
    for row in sets:
        table.add_row(*map(str, row.values()))
    Console().print(table)
    return DONE


def _commands(arguments: list[str]) -> dict:
    return {"study": study, "train": _train_from(arguments), "report": report, "export": export, "data": data}


def _train_from(arguments: list[str]):
    """`train` with the file named by --config as its defaults, so that options come before what the file says."""
    path = None
    if arguments[:1] == ["train"]:
        for place, argument in enumerate(arguments):
            if argument == "--config" and place + 1 < len(arguments):
                path = arguments[place + 1]
            elif argument.startswith("--config="):
                path = argument.removeprefix("--config=")
    start = from_toml(path) if path else TrainConfig()
    train.__defaults__ = (start, *train.__defaults__[-3:])
    return train


if __name__ == "__main__":
    sys.exit(main())
