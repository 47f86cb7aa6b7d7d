"""Everything a run depends on, as frozen data. A run is reproduced from its config alone."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

import cattrs
import cattrs.gen

from wherefrom.vary import Vary, read_series, value_of, with_value

Arm = Literal["natural", "shuffled", "scrambled"]
Pool = Literal["mean", "class"]
PosEmbed = Literal["learned", "sincos", "none", "rope"]
ARMS: tuple[str, ...] = get_args(Arm)


@dataclass(frozen=True)
class ModelConfig:
    """A pre-norm Vision Transformer."""

    width: int = 64
    """Length of the vector that stands for one token."""
    depth: int = 3
    """Number of layers."""
    num_heads: int = 4
    """Number of attention heads in each layer; must divide the width."""
    patch_size: int = 4
    """Side of a square patch in pixels; must divide height and width of the images."""
    mlp_ratio: float = 1.0
    """Hidden width of each MLP as a multiple of the width."""
    pool: Pool = "mean"
    """Read-out of the classifier: the mean over patches, or a class token."""
    pos_embed: PosEmbed = "learned"
    """Position embedding: learned from noise, fixed sines and cosines, none, or rope: queries and keys rotated."""
    pos_embed_std: float = 0.02
    """Standard deviation of the noise that a learned position embedding starts from."""

    def __post_init__(self):
        _refuse_below(1, self, "width", "depth", "num_heads", "patch_size")
        _refuse_below(0, self, "pos_embed_std")
        _refuse_unknown(self, pool=get_args(Pool), pos_embed=get_args(PosEmbed))
        if not isfinite(self.mlp_ratio) or self.width * self.mlp_ratio < 1:
            raise ValueError(f"mlp_ratio must give the MLP a hidden width of at least 1; found {self.mlp_ratio}")
        if self.width % self.num_heads:
            raise ValueError(
                f"num_heads must divide width: width {self.width} is not a multiple of num_heads {self.num_heads}; "
                f"choose num_heads from {[n for n in range(1, self.width + 1) if self.width % n == 0]}"
            )
        if self.pos_embed == "sincos" and self.width % 4:
            raise ValueError(f"a sincos position embedding needs a width that 4 divides; found {self.width}")
        if self.pos_embed == "rope" and self.width // self.num_heads % 4:
            raise ValueError(
                f"rope needs heads of a size that 4 divides; found width {self.width} in {self.num_heads} heads, "
                f"{self.width // self.num_heads} each"
            )


@dataclass(frozen=True)
class RecordConfig:
    """What is recorded while a model trains, and how often."""

    probe_every: int = 25
    """Measure the model on the held-out probe images every so many steps (and at steps 0 and last); 0: never."""
    gradient_every: int = 5
    """Measure advantage and pressure on the training batch every so many steps; 0: never."""
    ledger_every: int = 0
    """Keep the account of which route of the gradient builds the map, every so many steps; 0: none."""
    alignment_ledger: bool = False
    """Keep a second account at every step: which pairs' gradient moved attention; a step then costs about 2.5."""
    probe_size: int = 64
    """Number of held-out images in the probe."""
    checkpoint_every: int = 50
    """Write a checkpoint to resume from every so many steps (and at the last one); 0: only at the last."""

    def __post_init__(self):
        _refuse_below(0, self, "probe_every", "gradient_every", "checkpoint_every", "ledger_every")
        _refuse_below(1, self, "probe_size")


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    data: str = "photos"
    """Name of a data set (`wherefrom data` lists them), or the path of an image folder or parquet file."""
    arm: Arm = "natural"
    """Patches as they are (natural), permuted once for all images (shuffled), or anew for each image (scrambled)."""
    seed: int = 0
    """Seed of everything random: initial parameters, order of images, crops, permutations."""
    steps: int = 240
    """Number of training steps."""
    batch_size: int = 64
    """Images in a training batch, over all processes."""
    learning_rate: float = 2.5e-3
    """Highest learning rate, reached after the warm-up, then lowered to 0 along a cosine."""
    warmup_steps: int = 10
    """Steps of linear warm-up."""
    cut: str = ""
    """Gradient to take away: pos:q,k (routes to pos_embed) or pairs:far (pairs of patches); nothing if empty."""
    weight_decay: float = 0.05
    """Weight decay of AdamW, on matrices only."""
    grad_clip: float = 1.0
    """Largest norm of the gradient; a larger one is scaled down to it. 0: no clipping."""
    threads: int = 0
    """Threads torch may use; 0 leaves it to torch."""
    device: str = "auto"
    """Device to train on: auto, cpu, cuda or mps."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The model."""
    record: RecordConfig = field(default_factory=RecordConfig)
    """What is recorded."""

    def __post_init__(self):
        _refuse_below(1, self, "steps", "batch_size")
        _refuse_below(0, self, "seed", "learning_rate", "warmup_steps", "weight_decay", "grad_clip", "threads")
        _refuse_unknown(self, arm=ARMS)
        if self.seed >= 2**63:
            raise ValueError(f"seed must be below 2^63; found {self.seed}")


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


@dataclass(frozen=True)
class StudyConfig:
    """Which runs a study is made of."""

    data: str = "photos"
    """Name of a data set (`wherefrom data` lists them), or the path of an image folder or parquet file."""
    seeds: int = 5
    """Runs of the natural and of the scrambled arm, one a seed. Seeds are the unit of evidence."""
    heads: tuple[int, ...] = (1, 2, 4, 8)
    """Head counts of the head sweep, in the natural arm, at equal width and parameters."""
    vary: Vary = ()
    """Values of another setting, one setting at a time, in the natural arm: {"patch_size": (2, 4, 8)}."""
    head_seeds: int = 3
    """Seeds of each further head count, and of each further value of a setting."""
    arms: tuple[Arm, ...] = ("natural", "shuffled", "scrambled")
    """Control arms; shuffled runs once, as a demonstration."""
    cut: tuple[str, ...] = ()
    """Further arms, each with a part of the gradient cut: pos:q,k (routes to pos_embed), pairs:far (pairs), …"""
    causal: bool = False
    """Add the two cut arms that ask whether the routes through q and k are needed for the map, and enough."""
    ledger: bool = True
    """Keep the account of which route of the gradient builds the map, in the natural arm and in cut arms."""
    steps: int = 240
    """Training steps of each run."""
    batch_size: int = 64
    """Images in a training batch."""
    learning_rate: float = 2.5e-3
    """Highest learning rate."""
    device: str = "auto"
    """Device to train on: auto, cpu, cuda or mps."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The model of all runs; its num_heads is that of the arms."""
    record: RecordConfig = field(default_factory=RecordConfig)
    """What is recorded."""

    def __post_init__(self):
        _refuse_below(1, self, "seeds", "head_seeds")
        if "natural" not in self.arms:
            raise ValueError(f"arms must name natural, which all others are held against; found {', '.join(self.arms)}")
        self.runs()  # raises its own sentence for an impossible head count or value

    @property
    def train(self) -> TrainConfig:
        """What all runs share."""
        return TrainConfig(
            data=self.data, steps=self.steps, batch_size=self.batch_size, learning_rate=self.learning_rate,
            device=self.device, threads=1, model=self.model, record=self.record,
        )  # fmt: skip

    @property
    def series(self) -> dict[str, tuple]:
        """Values of each setting that is varied, head counts first."""
        named = read_series(self.vary, settings_to_vary())
        return {"num_heads": tuple(dict.fromkeys((*self.heads, *named.pop("num_heads", ()))))} | named

    def runs(self) -> dict[RunKey, TrainConfig]:
        """Every run of the study: first one seed of each arm, so that there is soon something to see."""
        cuts = tuple(f"{CUT}{what}" for what in dict.fromkeys((*(CAUSAL if self.causal else ()), *self.cut)))
        keys = [RunKey(arm, self.model.num_heads, 0) for arm in (*ARMS, *cuts) if arm in (*self.arms, *cuts)]
        for seed in range(1, self.seeds):
            keys += [RunKey(arm, self.model.num_heads, seed) for arm in (*self.arms, *cuts) if arm != "shuffled"]
        runs = {key: self._run(key, self.train, self.ledger and key.arm != "scrambled") for key in keys}
        places = [(name, value) for name, values in self.series.items() for value in values]
        for seed in range(self.head_seeds):
            for name, value in places:
                if value != value_of(self.train, name):  # that is the natural arm
                    heads = value if name == "num_heads" else self.model.num_heads
                    setting = "" if name == "num_heads" else f"{name}={value}"
                    key = RunKey("natural", heads, seed, setting)
                    runs[key] = self._run(key, with_value(self.train, name, value))
        return runs

    def _run(self, key: RunKey, config: TrainConfig, ledger: bool = False) -> TrainConfig:
        if config.model.pos_embed != "learned":
            record = replace(config.record, ledger_every=0, alignment_ledger=False)
        else:
            record = replace(config.record, ledger_every=1) if ledger else config.record
        config = replace(config, seed=key.seed, record=record)
        cut = key.arm.startswith(CUT)
        return replace(config, cut=key.arm.removeprefix(CUT)) if cut else replace(config, arm=cast(Arm, key.arm))


def _refuse_below(least: int, config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not (isfinite(value) and value >= least):
            wanted = ("at least 1" if least else "0 or more") if isfinite(value) else "a finite number"
            raise ValueError(f"{name} must be {wanted}; found {value}")


def _refuse_unknown(config: object, **known: tuple[str, ...]) -> None:
    for name, words in known.items():
        if (value := getattr(config, name)) not in words:
            raise ValueError(f"unknown {name} {value!r}; known: {', '.join(words)}")


def to_dict(config: TrainConfig) -> dict:
    """The config as plain data, ready for JSON."""
    return dataclasses.asdict(config)


def from_dict(data: Mapping) -> TrainConfig:
    """The config written by `to_dict`, or by hand.

    Raises:
        ValueError: for an unknown key, a value of the wrong type or an impossible value; the sentence names it.

    >>> from_dict({"steps": 7}).steps
    7
    >>> from_dict({"model": {"widht": 8}})
    Traceback (most recent call last):
    ValueError: the configuration does not fit: model: unknown setting 'widht', did you mean 'width'?
    """
    try:
        return _converter().structure(data, TrainConfig)
    except (cattrs.BaseValidationError, ValueError) as error:
        found = [reason.rpartition(" @ $") for reason in cattrs.transform_error(error, format_exception=_reason)]
        reasons = (f"{place.removeprefix('.')}: {reason}" if place else reason for reason, _, place in found)
        raise ValueError(f"the configuration does not fit: {'; '.join(reasons)}") from None


def _reason(error: BaseException, _) -> str:
    if not isinstance(error, cattrs.ForbiddenExtraKeysError):
        return str(error)
    unknown = sorted(map(str, error.extra_fields))[0]
    known = [each.name for each in dataclasses.fields(error.cl)]
    near = get_close_matches(unknown, known, n=1)
    return f"unknown setting {unknown!r}, " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}")


def _converter() -> cattrs.Converter:
    """One that casts nothing in silence. Words out of a list are left to the classes, which know them."""
    converter = cattrs.Converter(forbid_extra_keys=True)
    kinds = {
        int: (int, "a whole number"),
        float: ((int, float), "a number"),
        str: (str, "text"),
        bool: (bool, "true or false"),
    }

    def as_it_is(value, kind):
        allowed, wanted = kinds.get(kind, kinds[str])
        if isinstance(value, bool) != (kind is bool) or not isinstance(value, allowed):
            raise ValueError(f"expected {wanted}, found {value!r}")
        return float(value) if kind is float else value

    def table_for(kind):
        fill = cattrs.gen.make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True)

        def table(value, _):
            if not isinstance(value, Mapping):
                raise ValueError(f"expected a table of settings, found {value!r}")
            return fill(value, kind)

        return table

    for kind in kinds:
        converter.register_structure_hook(kind, as_it_is)
    converter.register_structure_hook_func(lambda kind: get_origin(kind) is Literal, as_it_is)
    converter.register_structure_hook_factory(dataclasses.is_dataclass, table_for)
    return converter


def from_toml(path: str | Path) -> TrainConfig:
    """The config in a TOML file.

    Raises:
        ValueError: where the file is missing, is not TOML, or does not fit.
    """
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"cannot read the configuration {path}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read the configuration {path}: {error}") from None
    try:
        return from_dict(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
