"""What one run depends on, as frozen data. A run is reproduced from its config alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Literal, get_args

Arm = Literal["natural", "shuffled", "scrambled"]
Pool = Literal["mean", "class"]
PosEmbed = Literal["learned", "sincos", "none", "rope"]
ARMS: tuple[str, ...] = get_args(Arm)


@dataclass(frozen=True)
class ModelConfig:
    """A pre-norm Vision Transformer."""

    width: int = 64
    """Length of the vector that stands for one token."""
    depth: int = 2
    """Number of layers."""
    num_heads: int = 4
    """Number of attention heads in each layer; must divide the width."""
    patch_size: int = 0
    """Side of a square patch in pixels; must divide height and width of the images. 0: what suits the data, which is 2
    for mnist16, 1 for digits and 4 for all others."""
    mlp_ratio: float = 1.0
    """Hidden width of each MLP as a multiple of the width."""
    pool: Pool = "mean"
    """Read-out of the classifier: the mean over patches, or a class token."""
    pos_embed: PosEmbed = "learned"
    """Position embedding: learned from noise, fixed sines and cosines, none, or rope: queries and keys rotated."""
    pos_embed_std: float = 0.005
    """Standard deviation of the noise that a learned position embedding starts from; small starts give clearer maps."""

    def __post_init__(self):
        refuse_below(1, self, "width", "depth", "num_heads")
        refuse_below(0, self, "patch_size", "pos_embed_std")
        refuse_unknown(self, pool=get_args(Pool), pos_embed=get_args(PosEmbed))
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


def suitable_patch_size(data: str) -> int:
    """Side of a patch in pixels that leaves about 8 × 8 patches, for the images that come with a name.

    >>> suitable_patch_size("mnist16"), suitable_patch_size("photos")
    (2, 4)
    """
    return {"mnist16": 2, "digits": 1}.get(data, 4)


@dataclass(frozen=True)
class RecordConfig:
    """What is recorded while a model trains, and how often."""

    probe_every: int = 40
    """Measure the model on the held-out probe images every so many steps (and at steps 0 and last); 0: never."""
    gradient_every: int = 8
    """Measure advantage and pressure on the training batch every so many steps; 0: never."""
    ledger_every: int = 0
    """Keep the account of which route of the gradient builds the map, every so many steps; 0: none."""
    alignment_ledger: bool = False
    """Keep a second account at every step, of the scores: which pairs' gradient made neighbours attend to each other; a
    step then costs about 2.5. Only on grids that have edge neighbours and far pairs."""
    probe_size: int = 64
    """Number of held-out images in the probe."""
    checkpoint_every: int = 50
    """Write a checkpoint to resume from every so many steps (and at the last one); 0: only at the last."""

    def __post_init__(self):
        refuse_below(0, self, "probe_every", "gradient_every", "checkpoint_every", "ledger_every")
        refuse_below(1, self, "probe_size")


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    data: str = "mnist16"
    """Name of a data set (`wherefrom data` lists them), or the path of an image folder or parquet file."""
    arm: Arm = "natural"
    """Patches as they are (natural), permuted once for all images (shuffled), or anew for each image (scrambled)."""
    seed: int = 0
    """Seed of everything random: initial parameters, order of images, crops, permutations."""
    steps: int = 400
    """Number of training steps."""
    batch_size: int = 64
    """Images in a training batch, over all processes."""
    learning_rate: float = 5e-3
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
        refuse_below(1, self, "steps", "batch_size")
        refuse_below(0, self, "seed", "learning_rate", "warmup_steps", "weight_decay", "grad_clip", "threads")
        refuse_unknown(self, arm=ARMS)
        if self.seed >= 2**63:
            raise ValueError(f"seed must be below 2^63; found {self.seed}")

    def resolved(self) -> TrainConfig:
        """The same with what was left to the data filled in."""
        patch_size = self.model.patch_size or suitable_patch_size(self.data)
        return replace(self, model=replace(self.model, patch_size=patch_size))


def refuse_below(least: int, config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not (isfinite(value) and value >= least):
            wanted = ("at least 1" if least else "0 or more") if isfinite(value) else "a finite number"
            raise ValueError(f"{name} must be {wanted}; found {value}")


def refuse_unknown(config: object, **known: tuple[str, ...]) -> None:
    for name, words in known.items():
        if (value := getattr(config, name)) not in words:
            raise ValueError(f"unknown {name} {value!r}; known: {', '.join(words)}")
