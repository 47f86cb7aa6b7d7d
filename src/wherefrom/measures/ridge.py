"""What can be read from vectors by a linear map, each row predicted from all other rows."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def ridge_loo(
    features: Float[Tensor, "row width"], targets: Float[Tensor, "row target"]
) -> Float[Tensor, "row target"]:
    """y_i − ŷ_i = residual_i / (1 − leverage_i), with ŷ_i the ridge regression of y on x fitted without row i.

    The ridge constant is λ = mean feature variance × number of rows, the same whichever row is left out; the intercept
    is free. Differentiable.

    Args:
        features: x, `row width`.
        targets: y, `row target`.

    Returns:
        Errors in the unit of the targets, `row target`; NaN for a single row.

    References:
        Hastie, Tibshirani & Friedman 2009, The Elements of Statistical Learning, section 7.10 (eq. 7.64).
    """
    x, y = features - features.mean(0), targets - targets.mean(0)
    rows, width = x.shape
    ridge = (x.square().mean() * rows).clamp(min=torch.finfo(x.dtype).tiny)  # a table of zeros
    # x (xᵀx + λ)⁻¹ xᵀ = (xxᵀ + λ)⁻¹ xxᵀ: the smaller of the two systems is solved
    if rows > width:
        inverse = torch.linalg.solve(x.T @ x + ridge * torch.eye(width).to(x), x.T)
        fitted, leverage = x @ (inverse @ y), (x * inverse.T).sum(1)
    else:
        kernel = x @ x.T
        hat = torch.linalg.solve(kernel + ridge * torch.eye(rows).to(x), kernel)
        fitted, leverage = hat @ y, hat.diagonal()
    return (y - fitted) / (1 - leverage - 1 / rows)[:, None]


def ridge_r2(features: Float[Tensor, "row width"], targets: Float[Tensor, "row target"]) -> Float[Tensor, " target+1"]:
    """1 − Σ (y_i − ŷ_i)² / Σ (y_i − ȳ)² with ŷ_i of `ridge_loo`: of all targets together, then of each.

    Args:
        features: x, `row width`.
        targets: y, `row target`.

    Returns:
        Shares, at most 1; NaN for a target that does not vary.
    """
    squared = ridge_loo(features, targets).square().sum(0)
    total = (targets - targets.mean(0)).square().sum(0)
    return torch.cat([1 - squared.sum(0, keepdim=True) / total.sum(), 1 - squared / total])
