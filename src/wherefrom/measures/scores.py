"""A score of each image becomes a score of a head: its mean, its interval over images, its threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import special
from torch import Tensor

NULL_DEVIATIONS = 4
"""A threshold lies this many standard deviations above the mean of its null: one-sided 3e-5, so that of 1,500 heads and
roles that are nothing but chance fewer than one in twenty times a single one passes."""


@dataclass(frozen=True)
class RoleScore:
    """Score, 95 % interval over images, and threshold, one a head; NaN where a role cannot be had."""

    score: Float[Tensor, " head"]
    low: Float[Tensor, " head"]
    high: Float[Tensor, " head"]
    threshold: Float[Tensor, " head"]

    def parts(self) -> dict[str, Float[Tensor, " head"]]:
        """By the ending of the recorded name."""
        return {"": self.score, "_low": self.low, "_high": self.high, "_threshold": self.threshold}


def over_images(values: Float[Tensor, "image head"]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean over images and the ends of its 95 % t-interval; NaN are left out; no interval below two images."""
    known = values.isfinite()
    count = known.sum(0)
    mean = values.nanmean(0)
    variance = torch.where(known, (values - mean).square(), 0.0).sum(0) / (count - 1)
    half = torch.where(count > 1, student(count) * (variance / count).sqrt(), torch.nan)
    return mean, mean - half, mean + half


def above_exchanged(own: Float[Tensor, "image head"], exchanged: Float[Tensor, "image head"]) -> RoleScore:
    """The mean of `own`; threshold: the mean with the next image's contents in place of the own + 4 standard errors."""
    null, null_low, _ = over_images(exchanged)
    error = (null - null_low) / student(exchanged.isfinite().sum(0))
    return RoleScore(*over_images(own), threshold=null + NULL_DEVIATIONS * error)


def student(count: Tensor) -> Tensor:
    """The 97.5 % quantile of Student's t for means of so many numbers."""
    return torch.as_tensor(special.stdtrit(np.maximum(count.numpy() - 1, 1), 0.975))
