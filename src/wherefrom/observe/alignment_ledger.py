"""The account of q–k alignment along training: the gradient of which pairs of patches built it.

In each layer the structure is M = mean cos(q_i, k_j) over edge neighbours − over far pairs, on fixed probe images, mean
over heads. It changes with w_q and w_k, and with their inputs y. The gradient on w_q is a sum over pairs,

    ∂L/∂w_q = Σ_ij scale · ∂L/∂S_ij k_j y_iᵀ ,        likewise ∂L/∂w_k = Σ_ij scale · ∂L/∂S_ij q_i y_jᵀ ,

so it splits exactly by the relation of i and j; each part keeps a momentum of its own, as in `ledger`. Of each update,

    M(w', y') − M(w, y) = Σ_parts ∫ ⟨∇_w M, Δ_part⟩ + weight decay + drift,    drift = M(w', y') − M(w', y) .
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from wherefrom.attention import AttentionRecord
from wherefrom.catalogue import Measurement
from wherefrom.geometry import PatchGrid
from wherefrom.models.backbone import Layer, as_backbone
from wherefrom.observe.capture import evaluating, tap
from wherefrom.observe.ledger import DECAY, QUADRATURE, RouteMomentum
from wherefrom.observe.routes import Route, RouteGradients, mean_over_processes

PAIRS = ("self", "edge", "corner", "between", "far")
"""Relations that part the pairs of patches; pairs with a prefix token are a part of their own, `prefix`."""

Weights = dict[str, Tensor]
"""`weight` and, where there is one, `bias` of a projection."""


@dataclass
class _Sums:
    """The account of one layer; contributions by (matrix, relation)."""

    start: float
    last: float
    contributions: dict[tuple[str, str], float]
    travelled: float = 0.0


class AlignmentLedger:
    """Follows the edge − far contrast of q–k alignment of every layer; used as `Account` is.

    Args:
        model: a pre-norm Vision Transformer with projections w_q and w_k of their own.
        optimizer: SGD, Adam or AdamW over its parameters.
        grid: where the patches truly are.
        images: probe images, held out, `batch channel y x`.
        name: of the grid in the record.

    Raises:
        ValueError: for a model with fused projections, a grid without far pairs, or an optimiser that is not known.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, grid: PatchGrid, images: Tensor, name: str = "model"
    ):
        self.model, self.grid, self.images, self.name = model, grid, images, name
        self.backbone = as_backbone(model)
        self.layers = self.backbone.layers
        if any("q" not in layer.projections for layer in self.layers):
            raise ValueError(
                "the alignment ledger needs projections w_q and w_k of their own; found one for q, k and v"
            )
        if not grid.relation_pairs("far").any() or not grid.relation_pairs("edge").any():
            raise ValueError(f"a grid of {grid.height} × {grid.width} has no edge and far pairs to compare")
        self.momenta = [
            {(kind, name): RouteMomentum(optimizer, p, _whole) for kind, name, p in _parameters(layer)}
            for layer in self.layers
        ]
        self.inputs = self._probe_inputs()
        values = [self._contrast(number) for number in range(len(self.layers))]
        self.sums = [_Sums(value, value, {}) for value in values]

    # ---- one update

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """The scope of one forward and backward pass."""
        self.found: dict[int, dict[tuple[str, str], RouteGradients]] = {}
        seen: dict[int, Tensor] = {}
        handles = [
            layer.projections["q"].register_forward_hook(partial(_note_input, seen, number))
            for number, layer in enumerate(self.layers)
        ]

        def receive(number: int, record: AttentionRecord) -> None:
            if record.grad_z is not None:
                self.found[number] = self._split(number, record, seen[number])

        try:
            with tap(receive, len(self.layers)):
                yield
        finally:
            for handle in handles:
                handle.remove()

    @contextlib.contextmanager
    def update(self) -> Iterator[None]:
        """The scope of one update; gradients are final before it."""
        before = [_weights(layer) for layer in self.layers]
        for number, parts in self.found.items():
            for key, gradients in parts.items():
                self.momenta[number][key].before(mean_over_processes(gradients))
        yield
        earlier = [sums.last for sums in self.sums]
        for number, layer in enumerate(self.layers):
            self._enter(number, before[number], _weights(layer))
        self.inputs = self._probe_inputs()
        for number, sums in enumerate(self.sums):
            now = self._contrast(number)
            self._credit(sums, ("drift", ""), now - sums.last)
            sums.travelled += abs(now - earlier[number])
            sums.last = now

    def _enter(self, number: int, before: dict[str, Weights], after: dict[str, Weights]) -> None:
        """Credit one layer's update, its inputs as they were."""
        sums = self.sums[number]
        shares = {key: momentum.after() for key, momentum in self.momenta[number].items()}
        slopes = self._slopes(number, before, after)
        for (kind, name), (routes, parts, _) in shares.items():
            values = torch.einsum("...,r...->r", slopes[kind, name].double(), parts).tolist()
            for route, value in zip(routes, values, strict=True):
                key = ("weight_decay", "") if route == DECAY else (f"w_{kind}", route.kind)
                self._credit(sums, key, value)
        sums.last = float(self._structure(number, after))

    def _slopes(self, number: int, before: dict[str, Weights], after: dict[str, Weights]) -> dict:
        """∫₀¹ ∇M dτ on the straight way from `before` to `after`, by parameter."""
        total: dict[tuple[str, str], Tensor] = {}
        for node, weight in QUADRATURE:
            here = {
                kind: {name: (w + node * (after[kind][name] - w)).requires_grad_() for name, w in weights.items()}
                for kind, weights in before.items()
            }
            places = [(kind, name) for kind, weights in here.items() for name in weights]
            with torch.enable_grad():
                value = self._structure(number, here)
                slopes = torch.autograd.grad(value, [here[kind][name] for kind, name in places])
            for place, slope in zip(places, slopes, strict=True):
                total[place] = total.get(place, torch.zeros_like(slope)) + weight * slope
        return total

    @staticmethod
    def _credit(sums: _Sums, key: tuple[str, str], value: float) -> None:
        sums.contributions[key] = sums.contributions.get(key, 0.0) + value

    # ---- the structure

    def _contrast(self, number: int) -> float:
        return float(self._structure(number, _weights(self.layers[number])))

    def _structure(self, number: int, weights: dict[str, Weights]) -> Float[Tensor, ""]:
        """mean cos(q_i, k_j) over edge neighbours − over far pairs, mean over heads and probe images."""
        layer, prefix = self.layers[number], self.grid.num_prefix_tokens
        y = self.inputs[number][:, prefix:].double()
        q, k = (
            normalize(linear(y, w["weight"], w.get("bias")).unflatten(2, (layer.num_heads, -1)), dim=-1)
            for w in (weights["q"], weights["k"])
        )
        cosine = torch.einsum("bihd,bjhd->ij", q, k) / (len(y) * layer.num_heads)
        edge, far = (torch.as_tensor(self.grid.relation_pairs(name)) for name in ("edge", "far"))
        return cosine[edge].mean() - cosine[far].mean()

    @torch.no_grad()
    def _probe_inputs(self) -> list[Float[Tensor, "batch token width"]]:
        """What w_q and w_k of each layer are given on the probe images."""
        seen: dict[int, Tensor] = {}
        handles = [
            layer.projections["q"].register_forward_hook(partial(_note_input, seen, number))
            for number, layer in enumerate(self.layers)
        ]
        try:
            with evaluating(self.model):
                self.model(self.images)
        finally:
            for handle in handles:
                handle.remove()
        return [seen[number] for number in range(len(self.layers))]

    # ---- the gradient, by relation

    @torch.no_grad()
    def _split(self, number: int, record: AttentionRecord, y: Tensor) -> dict[tuple[str, str], RouteGradients]:
        """The gradients of the mean loss on w_q and w_k, each split by the relation of the pairs."""
        by_relation = {name: _pair_gradients(record, keep) for name, keep in self._pairs_kept().items()}
        routes = tuple(Route(name) for name in by_relation)
        found: dict[tuple[str, str], RouteGradients] = {}
        for place, kind in enumerate(("q", "k")):
            parts = [grads[place].transpose(1, 2).flatten(2) / len(y) for grads in by_relation.values()]
            weight = torch.stack([torch.einsum("bto,bti->oi", part, y) for part in parts])
            found[kind, "weight"] = RouteGradients(routes, weight, weight.sum(0))
            if self.layers[number].projections[kind].bias is not None:
                bias = torch.stack([part.sum((0, 1)) for part in parts])[:, None]
                found[kind, "bias"] = RouteGradients(routes, bias, bias.sum(0))
        return found

    def _pairs_kept(self) -> dict[str, Tensor]:
        """Which pairs each part holds, `token token`; together all pairs, each once."""
        prefix, tokens = self.grid.num_prefix_tokens, self.grid.num_tokens
        parts = {}
        for name in PAIRS:
            parts[name] = torch.zeros(tokens, tokens, dtype=torch.bool)
            parts[name][prefix:, prefix:] = torch.as_tensor(self.grid.relation_pairs(name))
        if prefix:
            parts["prefix"] = ~torch.stack(list(parts.values())).any(0)
        return parts

    # ---- the account

    def residual(self, number: int) -> float:
        """|M(now) − M(start) − Σ contributions| / Σ_steps |ΔM_step| of a layer."""
        sums = self.sums[number]
        missed = sums.last - sums.start - sum(sums.contributions.values())
        return abs(missed) / sums.travelled if sums.travelled else 0.0

    def rows(self) -> Iterator[Measurement]:
        """The account so far: by matrix and relation of pairs, drift of the inputs, weight decay."""
        for number, sums in enumerate(self.sums):
            place = {"layer": number, "grid": self.name}
            for (what, relation), value in sorted(sums.contributions.items()):
                yield Measurement("ledger_qk_alignment", value, route=what, relation=relation or None, **place)
            yield Measurement("ledger_qk_alignment_change", sums.last - sums.start, **place)
            yield Measurement("ledger_qk_alignment_residual", self.residual(number), **place)

    def state_dict(self) -> dict:
        """Everything that must survive for a resumed run to keep the same account."""
        momenta = [[(*key, m.state_dict()) for key, m in layer.items()] for layer in self.momenta]
        sums = [
            (s.start, s.last, s.travelled, [(*key, value) for key, value in s.contributions.items()]) for s in self.sums
        ]
        return {"momenta": momenta, "sums": sums}

    def load_state_dict(self, state: Mapping) -> None:
        for layer, saved in zip(self.momenta, state["momenta"], strict=True):
            for kind, name, momentum in saved:
                layer[kind, name].load_state_dict(momentum)
        self.sums = [
            _Sums(start, last, {(what, relation): value for what, relation, value in rows}, travelled)
            for start, last, travelled, rows in state["sums"]
        ]
        self.inputs = self._probe_inputs()  # a function of the parameters, which are restored before


def _pair_gradients(record: AttentionRecord, keep: Tensor) -> tuple[Tensor, Tensor]:
    """∂ℓ/∂q and ∂ℓ/∂k through the kept pairs alone, `batch head token head_dim`."""
    grad_q, grad_k = torch.empty_like(record.q), torch.zeros_like(record.k)
    for tile in record.all_tiles():
        grad_scores = -record.scale * tile.pressure * keep[tile.queries]
        grad_q[tile.examples, :, tile.queries] = grad_scores @ record.k[tile.examples]
        grad_k[tile.examples] += grad_scores.mT @ tile.q
    return grad_q, grad_k


def _note_input(seen: dict[int, Tensor], number: int, _module, inputs, _output) -> None:
    seen[number] = inputs[0].detach()


def _whole(tensor: Tensor) -> Tensor:
    return tensor if tensor.dim() > 1 else tensor[None]


def _parameters(layer: Layer) -> Iterator[tuple[str, str, nn.Parameter]]:
    for kind in ("q", "k"):
        for name, parameter in layer.projections[kind].named_parameters():
            yield kind, name, parameter


def _weights(layer: Layer) -> dict[str, Weights]:
    """The parameters of w_q and w_k, float64 copies."""
    found: dict[str, Weights] = {"q": {}, "k": {}}
    for kind, name, parameter in _parameters(layer):
        found[kind][name] = parameter.detach().double().clone()
    return found
