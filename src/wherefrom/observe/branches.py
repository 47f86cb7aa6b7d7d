"""What follows a LayerNorm, and how gradients go back through it: summed over the batch, as they arrive."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

ONE_PASS = "routes split one backward pass; use a new RouteTap for each batch"


def moments(norm: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of x over its last axis and 1/deviation, `batch token 1`, as autograd keeps them for y = LayerNorm(x)."""
    if not isinstance(norm, nn.LayerNorm):  # not needed
        return x[..., :1], x[..., :1]
    node: Any = y.grad_fn
    if hasattr(node, "_saved_result2"):
        return node._saved_result1, node._saved_result2
    _, mean, r = torch.native_layer_norm(x, norm.normalized_shape, None, None, norm.eps)
    return mean, r


def over_batch(a: Float[Tensor, "batch patch n"], b: Float[Tensor, "batch patch c"]) -> Float[Tensor, "patch n c"]:
    """Σ_b a_b ⊗ b_b, patch by patch."""
    return torch.bmm(a.permute(1, 2, 0), b.transpose(0, 1))


class Branch:
    """What follows y = LayerNorm(x) = γ ⊙ x̂ + β, and how the gradients that come by it go back to x.

    With x̂ the normalised input, r = 1/deviation and d the gradient on W_h y, all summed over the batch,

        Σ_b ∂L/∂x = w − mean(w) − Σ_b r x̂ along,    w = γ ⊙ W_hᵀ Σ_b r d,    along = d · W_h (γ ⊙ x̂) / width

    so W_hᵀ d is never made for each image. For the MLP W is the identity.

    Args:
        norm: any module; the formula is that of nn.LayerNorm, all others are asked by autograd.
        x: its input, patches only.
        moments: mean of x, and r.
        spare: memory for what is needed for a moment; to take it anew each time costs more than to fill it.
    """

    def __init__(
        self,
        norm: Any,
        x: Float[Tensor, "batch patch width"],
        moments: tuple[Float[Tensor, "batch patch 1"], Float[Tensor, "batch patch 1"]],
        spare: Tensor,
    ):
        self.norm, self.x, self.spare = norm, x, spare
        self.known = isinstance(norm, nn.LayerNorm)
        self.mean, self.r = moments
        self.expected: dict[str, tuple[Tensor, nn.Linear | None, int]] = {}
        self.taken: dict[str, tuple[Tensor, Tensor]] = {}

    def expect(
        self, name: str, output: Float[Tensor, "batch patch out"], projection: nn.Linear | None = None, heads: int = 1
    ) -> None:
        """Note an output W y + bias until its gradient arrives; what listens lives longer, as long as the graph."""
        self.expected[name] = output, projection, heads

    def take(self, name: str, d: Float[Tensor, "batch patch out"]) -> None:
        """The gradient on an output arrives."""
        if name in self.taken:
            raise RuntimeError(ONE_PASS)
        output, projection, num_heads = self.expected.pop(name)
        heads = (num_heads, -1)
        weight = None if projection is None else projection.weight.unflatten(0, heads)
        if not self.known:
            self.taken[name] = self._by_autograd(weight, d.unflatten(-1, heads)), d.new_zeros(0)
            return
        w = over_batch(self.r, d)[:, 0].unflatten(-1, heads).transpose(0, 1)
        w = w if weight is None else w @ weight
        products = torch.sub(output, self._of_zero(projection), out=self.spare.resize_(d.shape)).mul_(d)
        along = products.unflatten(-1, heads).sum(-1)
        self.taken[name] = w if self.norm.weight is None else w * self.norm.weight, along

    def parts(self) -> dict[str, Float[Tensor, "head patch width"]]:
        """Σ_b ∂L/∂x by output and head, once all gradients are here; then the branch lets its tokens go."""
        x, self.x = self.x, self.x[:0]
        if not self.known or not self.taken:
            return {name: w for name, (w, _) in self.taken.items()}
        w, along = torch.cat([w for w, _ in self.taken.values()]), torch.cat([x for _, x in self.taken.values()], -1)
        along = along * (self.r.square() / x.shape[-1])
        along_x = over_batch(along, x).transpose(0, 1) - (along * self.mean).sum(0).mT[..., None]
        sizes = [len(w) for w, _ in self.taken.values()]
        return dict(zip(self.taken, (w - w.mean(-1, keepdim=True) - along_x).split(sizes), strict=True))

    def _of_zero(self, projection: nn.Linear | None) -> Float[Tensor, " out"] | float:
        """The output where x̂ is 0: W β + bias."""
        beta = 0.0 if self.norm.bias is None else self.norm.bias
        if projection is None:
            return beta
        bias = 0.0 if projection.bias is None else projection.bias
        return bias if self.norm.bias is None else bias + projection.weight @ beta

    def _by_autograd(
        self, weight: Float[Tensor, "head out width"] | None, d: Float[Tensor, "batch patch head out"]
    ) -> Float[Tensor, "head patch width"]:
        """Of another norm, its `forward`: to call the module would call all that listen to it."""
        parts = []
        for head, grad in enumerate(d.unbind(2)):
            with torch.enable_grad():
                start = self.x.detach().requires_grad_()
                grad = grad if weight is None else grad @ weight[head]
                (back,) = torch.autograd.grad(self.norm.forward(start), start, grad)
            parts.append(back.sum(0))
        return torch.stack(parts)
