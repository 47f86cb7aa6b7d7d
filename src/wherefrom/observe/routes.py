"""Where the gradient on pos_embed comes from: an exact sum over routes.

In a pre-norm ViT the residual stream makes back-propagation additive. With x the stream before a layer,

    ∂L/∂x = ∂L/∂x' + J_normᵀ (W_qᵀ ∂L/∂q + W_kᵀ ∂L/∂k + W_vᵀ ∂L/∂v)        x' = x + Attention(norm x)
    ∂L/∂x' = ∂L/∂x'' + J_normᵀ ∂L/∂(norm x')                                x'' = x' + MLP(norm x')

so the gradient on the tokens that carry pos_embed is what reaches the last layer's output (`residual`) plus, for each
layer, what entered through `q`, `k`, `v` (each split over heads) and `mlp`. Nothing is run twice: each term is made of
gradients that autograd has computed anyway. The gradients are the batch's own, as the optimiser sees them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wherefrom.models.backbone import Layer, as_backbone
from wherefrom.observe.training import add_over_processes, num_processes

KINDS = ("residual", "q", "k", "v", "mlp")
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}
"""A closure worse than this is no rounding: the model is not pre-norm."""


@dataclass(frozen=True, order=True)
class Route:
    """A way by which gradient reaches pos_embed: `residual`, or `q`, `k`, `v` (by head), `mlp` of a layer."""

    kind: str
    layer: int | None = None
    head: int | None = None


@dataclass(frozen=True)
class RouteGradients:
    """The gradient on pos_embed, route by route.

    Args:
        routes: what each row is.
        gradients: one gradient a route, `route patch width`.
        total: autograd's own gradient on pos_embed, `patch width`.
    """

    routes: tuple[Route, ...]
    gradients: Float[Tensor, "route patch width"]
    total: Float[Tensor, "patch width"]

    @property
    def closure(self) -> float:
        """‖Σ_routes gradient − total‖ / ‖total‖, Frobenius: 0 but for rounding."""
        return float((self.gradients.sum(0) - self.total).norm() / self.total.norm().clamp(min=1e-30))


class RouteTap:
    """Splits the one backward pass made inside `with RouteTap(model) as tap:`; then `tap.gradients()`.

    Raises:
        ValueError: for a model whose layers are not known or that learns no position embedding.
    """

    def __init__(self, model: nn.Module):
        self.backbone = as_backbone(model)
        self.seen: dict[tuple[str, int | None], Tensor] = {}
        self.inputs: dict[tuple[str, int], Tensor] = {}
        self.outputs: dict[tuple[str, int | None], Tensor] = {}
        self._handles: list = []
        self.parameter = self.backbone.pos_parameter
        if self.parameter is None:
            raise ValueError(
                f"{self.backbone.name} learns no position embedding, so no gradient reaches one by any route"
            )

    def __enter__(self) -> RouteTap:
        layers = self.backbone.layers
        for number, layer in enumerate(layers):
            self._listen(layer.norm1, number, "norm1")
            self._listen(layer.norm2, number, "norm2")
            for name, projection in layer.projections.items():
                self._handles.append(projection.register_forward_hook(partial(self._output, (name, number))))
        self._handles.append(layers[-1].block.register_forward_hook(partial(self._output, ("residual", None))))
        assert self.parameter is not None
        self._handles.append(self.parameter.register_hook(partial(self._keep, ("total", None))))
        return self

    def __exit__(self, *_) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @torch.no_grad()
    def gradients(self) -> RouteGradients:
        """The split of the gradient that reached pos_embed.

        Raises:
            RuntimeError: if the routes do not add up to autograd's gradient, as in a post-norm model.
        """
        if ("total", None) not in self.seen:
            raise RuntimeError(f"no gradient reached the position embedding of {self.backbone.name} inside the scope")
        prefix = self.backbone.grid.num_prefix_tokens
        parts = [(Route("residual"), self._gradient("residual", None).sum(0)[prefix:])]
        for number, layer in enumerate(self.backbone.layers):
            parts += self._layer_parts(number, layer)
        total = self.backbone.patch_rows(self.seen["total", None])
        found = RouteGradients(tuple(r for r, _ in parts), torch.stack([g for _, g in parts]), total)
        if not found.closure <= TOLERANCE[total.dtype]:
            raise RuntimeError(
                f"the routes of {self.backbone.name} miss autograd's gradient on pos_embed by {found.closure:.1e} of "
                f"it; routes add up only in a pre-norm model whose branches are added to one residual stream"
            )
        return found

    # ---- listening

    def _listen(self, norm: nn.Module, number: int, name: str) -> None:
        def note(_, inputs, output):
            if output.requires_grad:  # not an evaluation in between
                self.inputs[name, number] = inputs[0].detach()
            if name == "norm2":
                self._output(("mlp", number), None, None, output)

        self._handles.append(norm.register_forward_hook(note))

    def _output(self, key: tuple[str, int | None], _module, _inputs, output: Tensor) -> None:
        if output.requires_grad:
            self.outputs[key] = output.detach()
            output.register_hook(partial(self._keep, key))

    def _keep(self, key: tuple[str, int | None], grad: Tensor) -> None:
        if key in self.seen:
            raise RuntimeError("routes split one backward pass; use a new RouteTap for each batch")
        # a parameter's own gradient is changed in place later, by clipping or by the sum over processes
        self.seen[key] = grad.detach().clone() if key[0] == "total" else grad.detach()

    # ---- one layer

    def _gradient(self, name: str, number: int | None) -> Tensor:
        """What came back to an output; 0 where nothing did, as behind a detach. Closure tells whether that is true."""
        if (name, number) not in self.outputs:
            where = "the last layer" if number is None else f"{name} of layer {number}"
            raise RuntimeError(
                f"{where} of {self.backbone.name} was never called as a module with gradients on, so its route cannot "
                f"be told; routes need a pre-norm layer with norm1, attn (qkv, or w_q, w_k, w_v) and norm2, each called"
            )
        if (name, number) in self.seen:
            return self.seen[name, number]
        return torch.zeros_like(self.outputs[name, number])

    def _layer_parts(self, number: int, layer: Layer) -> Iterator[tuple[Route, Float[Tensor, "patch width"]]]:
        prefix = self.backbone.grid.num_prefix_tokens
        normed = Normed(layer.norm1, self.inputs["norm1", number][:, prefix:])
        for part in self._projected(number, layer):
            by_head = normed.back(part, layer.num_heads)
            yield from ((Route(part.kind, number, head), sums) for head, sums in enumerate(by_head))
        gradient = self._gradient("mlp", number)
        mlp = back_through(layer.norm2, self.inputs["norm2", number], gradient)
        yield Route("mlp", number), mlp.sum(0)[prefix:]

    def _projected(self, number: int, layer: Layer) -> Iterator[Projected]:
        prefix = self.backbone.grid.num_prefix_tokens
        for name, projection in layer.projections.items():
            kinds = tuple(name)  # "qkv" is one projection for three kinds
            bias = projection.weight.new_zeros(len(projection.weight)) if projection.bias is None else projection.bias
            gradient = self._gradient(name, number)
            tensors = (self.outputs[name, number][:, prefix:], gradient[:, prefix:])
            parts = [x.chunk(len(kinds)) for x in (projection.weight, bias)]
            parts += [x.chunk(len(kinds), -1) for x in tensors]
            yield from (Projected(*part) for part in zip(kinds, *parts, strict=True))


@dataclass(frozen=True)
class Projected:
    """Queries, keys or values before they are cut into heads: output = weight y + bias, and the gradient on it."""

    kind: str
    weight: Float[Tensor, "out width"]
    bias: Float[Tensor, " out"]
    output: Float[Tensor, "batch patch out"]
    grad: Float[Tensor, "batch patch out"]

    def of_zero(self, norm: nn.LayerNorm) -> Float[Tensor, " out"]:
        """The output where the normalised input is 0: weight β + bias."""
        return self.bias if norm.bias is None else self.bias + self.weight @ norm.bias


class Normed:
    """y = LayerNorm(x), and how a gradient on projections of y goes back to x, summed over the batch.

    With x̂ the normalised input, r = 1/deviation, γ the norm's weight and d the gradient on W y of one head,

        Σ_b ∂L/∂x = Σ_b r (w − mean(w) − x̂ mean(w ⊙ x̂)),   w = γ ⊙ Wᵀ d

    is had without ever making w for each image: w enters as Σ_b r d, and mean(w ⊙ x̂) = d · (W (γ ⊙ x̂)) / width.
    """

    def __init__(self, norm: nn.Module, x: Float[Tensor, "batch patch width"]):
        self.norm, self.x = norm, x
        if isinstance(norm, nn.LayerNorm):
            self.normal, _, self.r = torch.native_layer_norm(x, norm.normalized_shape, None, None, norm.eps)

    def back(self, part: Projected, num_heads: int) -> Float[Tensor, "head patch width"]:
        """Σ_b ∂L/∂x by head."""
        d, weight = part.grad, part.weight
        heads = d.unflatten(-1, (num_heads, -1))
        by_head = weight.unflatten(0, (num_heads, -1))
        if not isinstance(self.norm, nn.LayerNorm):
            parts = [back_through(self.norm, self.x, heads[:, :, h] @ by_head[h]).sum(0) for h in range(num_heads)]
            return torch.stack(parts)
        scaled = by_head if self.norm.weight is None else by_head * self.norm.weight
        projected = (part.output - part.of_zero(self.norm)).unflatten(-1, (num_heads, -1))  # W (γ ⊙ x̂)
        summed = torch.einsum("bn,bnhd->hnd", self.r[..., 0], heads)
        w = summed @ scaled
        along = (heads * projected).sum(-1) * self.r / self.x.shape[-1]
        return w - w.mean(-1, keepdim=True) - torch.einsum("bnh,bnc->hnc", along, self.normal)


def back_through(norm: nn.Module, x: Tensor, grad: Tensor) -> Tensor:
    """J_normᵀ grad at x, by autograd on the norm alone."""
    with torch.enable_grad():
        start = x.detach().requires_grad_()
        (back,) = torch.autograd.grad(norm(start), start, grad)
    return back


def mean_over_processes(found: RouteGradients) -> RouteGradients:
    """The mean gradient of all processes' images, as the optimiser sees it."""
    if num_processes() == 1:
        return found
    gradients, total = found.gradients.clone(), found.total.clone()
    add_over_processes([gradients, total])
    return RouteGradients(found.routes, gradients / num_processes(), total / num_processes())
