"""Where the gradient on pos_embed comes from: an exact sum over routes.

In a pre-norm ViT the residual stream makes back-propagation additive. With x the stream before a layer,

    ∂L/∂x = ∂L/∂x' + J_normᵀ (W_qᵀ ∂L/∂q + W_kᵀ ∂L/∂k + W_vᵀ ∂L/∂v)        x' = x + Attention(norm x)
    ∂L/∂x' = ∂L/∂x'' + J_normᵀ ∂L/∂(norm x')                                x'' = x' + MLP(norm x')

so the gradient on the tokens that carry pos_embed is what reaches the last layer's output (`residual`) plus, for each
layer, what entered through `q`, `k`, `v` (each split over heads) and `mlp`. Nothing is run twice: each term is made of
gradients that autograd has computed anyway. The gradients are the batch's own, as the optimiser sees them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wherefrom.models.backbone import Layer, as_backbone
from wherefrom.observe.branches import ONE_PASS, Branch, moments
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


Place = tuple[str, int | None]
"""What a gradient arrives at: `residual`, a projection such as `q` or `qkv`, or `mlp`; and its layer."""


class RouteTap:
    """Splits the one backward pass made inside `with RouteTap(model) as tap:`; then `tap.gradients()`.

    Each gradient is summed over the batch as it arrives, so that nothing of the pass is kept.

    Raises:
        ValueError: for a model whose layers are not known or that learns no position embedding; inside the scope, for a
            layer whose two branches start from the same tokens.
    """

    def __init__(self, model: nn.Module):
        self.backbone = as_backbone(model)
        self.layers = self.backbone.layers
        self.prefix = self.backbone.grid.num_prefix_tokens
        self.sums: dict[Place, Float[Tensor, "part patch width"]] = {}
        self.called: set[Place] = set()
        self._handles: list = []
        self.parameter = self.backbone.pos_parameter
        if self.parameter is None:
            raise ValueError(
                f"{self.backbone.name} learns no position embedding, so no gradient reaches one by any route"
            )

    def __enter__(self) -> RouteTap:
        assert self.parameter is not None
        self._spare = self.parameter.detach().new_empty(0)
        for number, layer in enumerate(self.layers):
            self._listen(number, layer)
        self._handles.append(self.layers[-1].block.register_forward_hook(self._leave))
        # copied: a parameter's gradient is changed in place later, by clipping or by the sum over processes
        self._handles.append(self.parameter.register_hook(lambda grad: self._keep(("total", None), grad.clone())))
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
        if ("total", None) not in self.sums:
            raise RuntimeError(f"no gradient reached the position embedding of {self.backbone.name} inside the scope")
        total = self.backbone.patch_rows(self.sums["total", None])
        routes, sums = [Route("residual")], [self._sum(("residual", None), 1, total)]
        for number, layer in enumerate(self.layers):
            for name in layer.projections:  # "qkv" is one projection for three kinds
                routes += [Route(kind, number, head) for kind in name for head in range(layer.num_heads)]
                sums.append(self._sum((name, number), len(name) * layer.num_heads, total))
            routes.append(Route("mlp", number))
            sums.append(self._sum(("mlp", number), 1, total))
        found = RouteGradients(tuple(routes), torch.cat(sums), total)
        if not found.closure <= TOLERANCE[total.dtype]:
            raise RuntimeError(
                f"the routes of {self.backbone.name} miss autograd's gradient on pos_embed by {found.closure:.1e} of "
                f"it; routes add up only in a pre-norm model whose branches are added to one residual stream"
            )
        return found

    def _sum(self, place: Place, parts: int, total: Tensor) -> Float[Tensor, "part patch width"]:
        """What came back to an output; 0 where nothing did, as behind a detach. Closure tells whether that is true."""
        if place not in self.called:
            name, number = place
            where = "the last layer" if number is None else f"{name} of layer {number}"
            raise RuntimeError(
                f"{where} of {self.backbone.name} was never called as a module with gradients on, so its route cannot "
                f"be told; routes need a pre-norm layer with norm1, attn (qkv, or w_q, w_k, w_v) and norm2, each called"
            )
        return self.sums.get(place, total.new_zeros(parts, *total.shape))

    # ---- listening

    def _listen(self, number: int, layer: Layer) -> None:
        started: list[Branch] = []  # attention's, between norm1 and norm2

        def begin(norm, inputs, output):
            if output.requires_grad:  # not an evaluation in between
                started[:] = [self._branch(norm, inputs[0], output)]
                self._await(output, partial(self._close, number, started[0]))

        def project(name, projection, _, output):
            if output.requires_grad:
                self._refuse_post_norm(number, started)
                branch = started[0]
                branch.expect(name, self._patches(output), projection, layer.num_heads * len(name))
                self._await(output, partial(branch.take, name))
                self.called.add((name, number))

        def turn(norm, inputs, output):
            if output.requires_grad:
                branch = self._branch(norm, inputs[0], output)
                self._refuse_parallel(number, branch, *started)
                started.clear()
                branch.expect("mlp", self._patches(output))
                self._await(output, partial(branch.take, "mlp"))
                self._await(output, partial(self._close, number, branch))
                self.called.add(("mlp", number))

        hooks = {layer.norm1: begin, layer.norm2: turn}
        hooks |= {projection: partial(project, name) for name, projection in layer.projections.items()}
        self._handles += [module.register_forward_hook(hook) for module, hook in hooks.items()]

    def _leave(self, _module, _inputs, output: Tensor) -> None:
        if output.requires_grad:
            self._await(output, lambda grad: self._keep(("residual", None), grad.sum(0)[None]))
            self.called.add(("residual", None))

    def _await(self, output: Tensor, arrive: Callable[[Tensor], None]) -> None:
        @torch.no_grad()
        def listen(grad):
            arrive(self._patches(grad))

        output.register_hook(listen)

    def _close(self, number: int, branch: Branch, _grad: Tensor) -> None:
        for name, parts in branch.parts().items():
            self._keep((name, number), parts)

    def _keep(self, place: Place, parts: Tensor) -> None:
        if place in self.sums:
            raise RuntimeError(ONE_PASS)
        self.sums[place] = parts

    def _patches(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch patch width"]:
        return x.detach()[:, self.prefix :]

    def _branch(self, norm: nn.Module, x: Tensor, y: Tensor) -> Branch:
        mean, r = (self._patches(moment) for moment in moments(norm, x.detach(), y))
        return Branch(norm, self._patches(x), (mean, r), self._spare)

    def _refuse_post_norm(self, number: int, started: list[Branch]) -> None:
        if not started:
            raise ValueError(
                f"layer {number} of {self.backbone.name} makes queries, keys and values before its norm1 is called, as "
                f"post-norm layers do; routes add up only in a pre-norm layer"
            )

    def _refuse_parallel(self, number: int, mlp: Branch, *attention: Branch) -> None:
        if any(branch.x.data_ptr() == mlp.x.data_ptr() for branch in attention):
            raise ValueError(
                f"layer {number} of {self.backbone.name} runs attention and MLP in parallel, both from the same "
                f"tokens; routes need a pre-norm layer in which the MLP follows attention"
            )


def mean_over_processes(found: RouteGradients) -> RouteGradients:
    """The mean gradient of all processes' images, as the optimiser sees it."""
    if num_processes() == 1:
        return found
    gradients, total = found.gradients.clone(), found.total.clone()
    add_over_processes([gradients, total])
    return RouteGradients(found.routes, gradients / num_processes(), total / num_processes())
