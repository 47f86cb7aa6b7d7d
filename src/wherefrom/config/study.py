"""Which runs a study is made of, and how each is called."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Any, cast, get_type_hints

from wherefrom.config.run import ARMS, Arm, ModelConfig, RecordConfig, TrainConfig, refuse_below
from wherefrom.vary import Vary, read_series, value_of, with_value

CUT = "cut-"
"""Begins the names of arms with a part of the gradient cut."""

CAUSAL = ("pos:q,k", "pos:v,mlp,residual")
"""Without the routes through q and k: are they needed? Without all others: are they enough?"""


@dataclass(frozen=True)
class RunKey:
    """Which run of a study; `arm` is one of `ARMS`, or `cut-WHAT`: natural images, a part of the gradient cut."""

    arm: str
    num_heads: int
    seed: int
    setting: str = ""
    """What it has other than the arms, as `patch_size=8`; empty for the arms and for other head counts."""

    @property
    def name(self) -> str:
        setting = f"-{self.setting}" if self.setting else ""
        return f"{self.arm}-heads{self.num_heads}{setting}-seed{self.seed}"


def settings_to_vary() -> dict[str, Any]:
    """Type of each setting that a study can vary: those of the model, and some of training."""
    training = get_type_hints(TrainConfig)
    names = ("batch_size", "learning_rate", "warmup_steps", "weight_decay", "grad_clip")
    return get_type_hints(ModelConfig) | {name: training[name] for name in names}


WITHOUT_PICTURES = ("mnist16", "mnist", "digits")
"""Data whose images are blank at their borders: nobody can see whether a shuffled one has been put back together."""


def data_to_put_back(data: str) -> str:
    """What the shuffled arm of a study trains on if nothing else is asked for."""
    return "photos" if data in WITHOUT_PICTURES else data


@dataclass(frozen=True)
class StudyConfig:
    """Which runs a study is made of."""

    data: str = "mnist16"
    """Name of a data set (`wherefrom data` lists them), or the path of an image folder or parquet file."""
    seeds: int = 6
    """Runs of the natural arm, one a seed. Seeds are the unit of evidence."""
    control_seeds: int = 3
    """Runs of the scrambled arm, at most as many. Where there is nothing of space to learn no structure is expected, so
    few will do."""
    heads: tuple[int, ...] = (1, 4, 8)
    """Head counts of the head sweep, in the natural arm, at equal width and parameters."""
    vary: Vary = ()
    """Values of another setting, one setting at a time, in the natural arm: {"patch_size": (2, 4, 8)}."""
    head_seeds: int = 5
    """Seeds of each further head count, and of each further value of a setting."""
    arms: tuple[Arm, ...] = ("natural", "shuffled", "scrambled")
    """Control arms; shuffled runs once, as a demonstration."""
    shuffled_data: str = ""
    """Data of the shuffled arm; if empty the same data, and photos in place of handwritten digits, which are blank at
    their borders."""
    cut: tuple[str, ...] = ()
    """Further arms, each with a part of the gradient cut: pos:q,k (routes to pos_embed), pairs:far (pairs), …"""
    causal: bool = False
    """Add the two cut arms that ask whether the routes through q and k are needed for the map, and enough."""
    ledger: bool = True
    """Keep the account of which route of the gradient builds the map, in the natural arm and in cut arms, and in one
    natural run that of the scores: which pairs' gradient made neighbours attend to each other."""
    steps: int = 400
    """Training steps of each run."""
    batch_size: int = 64
    """Images in a training batch."""
    learning_rate: float = 5e-3
    """Highest learning rate."""
    device: str = "auto"
    """Device to train on: auto, cpu, cuda or mps."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The model of all runs; its num_heads is that of the arms."""
    record: RecordConfig = field(default_factory=RecordConfig)
    """What is recorded."""

    def __post_init__(self):
        refuse_below(1, self, "seeds", "control_seeds", "head_seeds")
        if unknown := [arm for arm in self.arms if arm not in ARMS]:
            raise ValueError(f"unknown arm {unknown[0]!r}; known: {', '.join(ARMS)}")
        if "natural" not in self.arms:
            raise ValueError(f"arms must name natural, which all others are held against; found {', '.join(self.arms)}")
        self.runs()  # raises its own sentence for an impossible head count or value

    @property
    def train(self) -> TrainConfig:
        """What all runs share."""
        return TrainConfig(
            data=self.data, steps=self.steps, batch_size=self.batch_size, learning_rate=self.learning_rate,
            device=self.device, threads=1, model=self.model, record=self.record,
        ).resolved()  # fmt: skip

    @property
    def series(self) -> dict[str, tuple]:
        """Values of each setting that is varied, head counts first."""
        named = read_series(self.vary, settings_to_vary())
        return {"num_heads": tuple(dict.fromkeys((*self.heads, *named.pop("num_heads", ()))))} | named

    def runs(self) -> dict[RunKey, TrainConfig]:
        """Every run of the study: first one seed of each arm, so that there is soon something to see."""
        return self._runs_of_arms() | self._runs_of_series()

    def _runs_of_arms(self) -> dict[RunKey, TrainConfig]:
        cuts = tuple(f"{CUT}{what}" for what in dict.fromkeys((*(CAUSAL if self.causal else ()), *self.cut)))
        seeds = dict.fromkeys((*ARMS, *cuts), self.seeds) | {
            "shuffled": 1,
            "scrambled": min(self.control_seeds, self.seeds),
        }
        arms = [arm for arm in (*ARMS, *cuts) if arm in (*self.arms, *cuts)]
        keys = [
            RunKey(arm, self.model.num_heads, seed) for seed in range(self.seeds) for arm in arms if seed < seeds[arm]
        ]
        return {key: self._run_of_arm(key) for key in keys}

    def _run_of_arm(self, key: RunKey) -> TrainConfig:
        if key.arm == "shuffled":
            data = self.shuffled_data or data_to_put_back(self.data)
            model = self.model if data == self.data else replace(self.model, patch_size=0)
            return self._run(key, replace(self.train, data=data, model=model).resolved())
        return self._run(key, self.train, ledger=self.ledger and key.arm != "scrambled")

    def _runs_of_series(self) -> dict[RunKey, TrainConfig]:
        runs = {}
        values = [(name, value) for name, values in self.series.items() for value in values]
        for seed, (name, value) in itertools.product(range(self.head_seeds), values):
            if value != value_of(self.train, name):  # that is the natural arm
                heads = value if name == "num_heads" else self.model.num_heads
                setting = "" if name == "num_heads" else f"{name}={value}"
                key = RunKey("natural", heads, seed, setting)
                runs[key] = self._run(key, with_value(self.train, name, value))
        return runs

    def _run(self, key: RunKey, config: TrainConfig, ledger: bool = False) -> TrainConfig:
        record = config.record
        if config.model.pos_embed != "learned":
            record = replace(record, ledger_every=0, alignment_ledger=False)
        elif ledger:
            of_scores = record.alignment_ledger or (key.arm == "natural" and key.seed == 0)
            record = replace(record, ledger_every=1, alignment_ledger=of_scores)
        config = replace(config, seed=key.seed, record=record)
        cut = key.arm.startswith(CUT)
        return replace(config, cut=key.arm.removeprefix(CUT)) if cut else replace(config, arm=cast(Arm, key.arm))
