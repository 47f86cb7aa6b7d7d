"""Everything a run depends on, as frozen data. A run is reproduced from its config alone."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import cattrs

Arm = Literal["natural", "shuffled", "scrambled"]
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
    mlp_ratio: float = 2.0
    """Hidden width of each MLP as a multiple of the width."""
    pool: Literal["mean", "class"] = "mean"
    """Read-out of the classifier: the mean over patches, or a class token."""
    pos_embed: Literal["learned", "sincos", "none"] = "learned"
    """Position embedding: learned from noise, fixed sines and cosines, or none at all."""
    pos_embed_std: float = 0.02
    """Standard deviation of the noise that a learned position embedding starts from."""

    def __post_init__(self):
        for name in ("width", "depth", "num_heads", "patch_size"):
            _at_least_one(self, name)
        if self.width % self.num_heads:
            raise ValueError(
                f"num_heads must divide width: width {self.width} is not a multiple of num_heads {self.num_heads}; "
                f"choose num_heads from {[n for n in range(1, self.width + 1) if self.width % n == 0]}"
            )
        if self.pos_embed == "sincos" and self.width % 4:
            raise ValueError(f"a sincos position embedding needs a width that 4 divides; found {self.width}")


@dataclass(frozen=True)
class RecordConfig:
    """What is recorded while a model trains, and how often."""

    probe_every: int = 25
    """Measure the model on the held-out probe images every so many steps (and at steps 0 and last); 0: never."""
    gradient_every: int = 5
    """Measure advantage and pressure on the training batch every so many steps; 0: never."""
    probe_size: int = 64
    """Number of held-out images in the probe."""
    checkpoint_every: int = 50
    """Write a checkpoint to resume from every so many steps (and at the last one); 0: only at the last."""

    def __post_init__(self):
        for name in ("probe_every", "gradient_every", "checkpoint_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more; found {getattr(self, name)}")
        _at_least_one(self, "probe_size")


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    data: str = "photos"
    """Name of a data set (`wherefrom data` lists them), or the path of an image folder or parquet file."""
    arm: Arm = "natural"
    """Patches as they are (natural), permuted once for all images (shuffled), or anew for each image (scrambled)."""
    seed: int = 0
    """Seed of everything random: initial parameters, order of images, crops, permutations."""
    steps: int = 200
    """Number of training steps."""
    batch_size: int = 64
    """Images in a training batch, over all processes."""
    learning_rate: float = 3e-3
    """Highest learning rate, reached after the warm-up, then lowered to 0 along a cosine."""
    warmup_steps: int = 10
    """Steps of linear warm-up."""
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
        _at_least_one(self, "steps")
        _at_least_one(self, "batch_size")
        if self.arm not in ARMS:
            raise ValueError(f"unknown arm {self.arm!r}; known: {', '.join(ARMS)}")
        for name in ("seed", "learning_rate", "warmup_steps", "weight_decay", "grad_clip", "threads"):
            if not getattr(self, name) >= 0:  # a NaN fails too
                raise ValueError(f"{name} must be 0 or more; found {getattr(self, name)}")


def _at_least_one(config: object, name: str) -> None:
    if getattr(config, name) < 1:
        raise ValueError(f"{name} must be at least 1; found {getattr(config, name)}")


def to_dict(config: TrainConfig) -> dict:
    """The config as plain data, ready for JSON."""
    return dataclasses.asdict(config)


def from_dict(data: dict) -> TrainConfig:
    """The config written by `to_dict`, or by hand.

    Raises:
        ValueError: for an unknown key, a value of the wrong type or an impossible value; the sentence names it.

    >>> from_dict({"steps": 7}).steps
    7
    >>> from_dict({"stpes": 7})
    Traceback (most recent call last):
    ValueError: the configuration does not fit: extra fields found (stpes) @ $
    """
    converter = cattrs.Converter(forbid_extra_keys=True)
    _refuse_silent_casts(converter)
    try:
        return converter.structure(data, TrainConfig)
    except cattrs.BaseValidationError as error:
        reasons = "; ".join(cattrs.transform_error(error))
        raise ValueError(f"the configuration does not fit: {reasons}") from None


def _refuse_silent_casts(converter: cattrs.Converter) -> None:
    def number(value, kind):
        if isinstance(value, bool) or not isinstance(value, (int, kind)):
            raise ValueError(f"expected {kind.__name__}, found {value!r}")
        return kind(value)

    def text(value, _):
        if not isinstance(value, str):
            raise ValueError(f"expected text, found {value!r}")
        return value

    converter.register_structure_hook(int, number)
    converter.register_structure_hook(float, number)
    converter.register_structure_hook(str, text)


def from_toml(path: str | Path) -> TrainConfig:
    """The config in a TOML file.

    Raises:
        ValueError: where the file is missing, is not TOML, or does not fit.
    """
    try:
        return from_dict(tomllib.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the configuration {path}: {error}") from None
