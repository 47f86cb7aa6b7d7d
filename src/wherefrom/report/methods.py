"""How the study was made: settings, machine, runs, measures, and the command that makes it again."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass

import pandas as pd

from wherefrom.catalogue import MEASURES, Measure
from wherefrom.config import CUT, RunKey, StudyConfig, data_to_put_back, suitable_patch_size, to_dict
from wherefrom.report.details import flat
from wherefrom.report.material import ARMS, Material, last_step
from wherefrom.report.words import number
from wherefrom.store import RunDirectory


@dataclass(frozen=True)
class RunRow:
    """One run of the study."""

    name: str
    arm: str
    num_heads: int
    seed: int
    status: str
    accuracy: str
    falloff: str


def run_rows(material: Material) -> list[RunRow]:
    """All runs that the study asks for, finished or not."""
    scores = _final(material.rows("accuracy", split="test"))
    falloffs = _final(material.rows("similarity_falloff", grid="model"))
    return [
        RunRow(
            key.name, key.arm, key.num_heads, key.seed, _status(material.study.run(key)),
            number(scores.get(key.name)), number(falloffs.get(key.name)),
        )
        for key in material.study.run_keys()
    ]  # fmt: skip


def _final(rows: pd.DataFrame) -> dict[str, float]:
    return last_step(rows).groupby("run")["value"].mean().to_dict() if len(rows) else {}


def _status(run: RunDirectory) -> str:
    if not run.exists():
        return "not started"
    status, step = run.status(), run.last_step()
    if status.get("end") == "finished":
        return "finished"
    reached = f" at step {step}" if step is not None else ""
    reason = f": {status['reason']}" if status.get("reason") else ""
    return (status.get("end") or "unfinished") + reached + reason


def settings(material: Material) -> list[tuple[str, str, str]]:
    """(name, value, default where it differs) of what all runs share."""
    defaults = dict(flat(to_dict(StudyConfig().train)))
    return [
        (name, value, defaults[name] if defaults.get(name, value) != value else "") for name, value in _shared(material)
    ]


def _shared(material: Material) -> list[tuple[str, str]]:
    own = ("arm", "cut", "seed", "model.num_heads", "record.ledger_every")  # of each run by itself
    return [pair for pair in flat(material.settings["train"]) if pair[0] not in own]


def environment(material: Material) -> list[tuple[str, str]]:
    """Versions and machine of the first run that has noted them."""
    for key in material.study.run_keys():
        if (run := material.study.run(key)).exists():
            return flat(run.environment)
    return []


def command(material: Material) -> list[str]:
    """The command that makes a study like this one, in parts: its runs, and every setting that is not the default."""
    keys, heads = material.study.run_keys(), material.num_heads
    counts = sorted({key.num_heads for key in keys if key.arm == "natural" and not key.setting})
    options = {
        "data": str(material.settings["train"].get("data", StudyConfig.data)),
        "seeds": str(_seeds(keys, heads, "natural") or 1),
        "control-seeds": str(_seeds(keys, heads, "scrambled") or ""),
        "shuffled-data": _shuffled_data(material),
        "heads": " ".join(map(str, counts)),
        "head-seeds": str(len({key.seed for key in keys if key.setting or key.num_heads != heads}) or 1),
        "arms": " ".join(arm for arm in ARMS if any(key.arm == arm for key in keys)),
        "cut": " ".join(dict.fromkeys(key.arm.removeprefix(CUT) for key in keys if key.arm.startswith(CUT))),
    }
    options = {name: text for name, text in options.items() if text}
    options |= {name: shlex.quote(options[name]) for name in ("data", "shuffled-data") if name in options}
    defaults = dict(flat(asdict(StudyConfig())))
    defaults["model.patch_size"] = str(suitable_patch_size(str(material.settings["train"].get("data", ""))))
    given = [*_shared(material), ("model.num_heads", str(heads))]
    others = {name: value for name, value in given if name != "data" and defaults.get(name, value) != value}
    options |= {name.replace("_", "-"): shlex.quote(value) for name, value in others.items()}
    typed = [f"--{name} {value}" for name, value in options.items()]
    return ["wherefrom study", *typed, *_series(keys), *_without_ledger(material)]


def _without_ledger(material: Material) -> list[str]:
    """`--no-ledger` where the natural arm kept none, though its position embedding was learned."""
    natural = [run for key, run in material.finished.items() if (key.arm, key.setting) == ("natural", "")]
    configs = [run.config for run in natural if run.config.get("model", {}).get("pos_embed", "") == "learned"]
    kept = any(config.get("record", {}).get("ledger_every") for config in configs)
    return ["--no-ledger"] if configs and not kept else []


def _series(keys: list[RunKey]) -> list[str]:
    """Options of the settings that were varied by themselves."""
    values: dict[str, dict[str, None]] = {}
    for name, _, value in (key.setting.partition("=") for key in keys if key.setting):
        values.setdefault(name, {})[value] = None
    return [f"--vary {name} {' '.join(found)}" for name, found in values.items()]


def _seeds(keys: list[RunKey], num_heads: int, arm: str) -> int:
    return len({key.seed for key in keys if (key.arm, key.num_heads, key.setting) == (arm, num_heads, "")})


def _shuffled_data(material: Material) -> str:
    """What the shuffled arm was trained on; empty where it is what a study takes by itself."""
    usual = data_to_put_back(str(material.settings["train"].get("data", "")))
    runs = [run for key, run in material.finished.items() if key.arm == "shuffled"]
    found = str(runs[0].config.get("data", "")) if runs else usual
    return "" if found == usual else found


def measures(material: Material) -> list[Measure]:
    """The measures that were recorded, in the order of the catalogue."""
    if not material.finished:
        return list(MEASURES.values())
    first = next(iter(material.finished.values()))
    recorded = set(first.measurements()["measure"])
    return [measure for name, measure in MEASURES.items() if name in recorded]
