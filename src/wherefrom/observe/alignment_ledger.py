"""The account of the scores along training: the gradient of which pairs of patches built what attention has become.

For each layer it follows the structures M of `measures.score_structures`: the edge − far contrast of q–k alignment, and
log attention at edge neighbours and at far pairs, on fixed probe images. M changes with w_q and w_k, and with their
inputs y. The gradient on w_q and w_k splits exactly by the relation of i and j (`pair_gradients`); each part keeps a
momentum of its own, as in `ledger`. Of each update,

    M(w', y') − M(w, y) = Σ_parts ⟨∇_w M, Δ_part⟩ + weight decay + drift + miss,    drift = M(w', y') − M(w', y) ,

with ∇_w M taken midway between w and w', at y: the midpoint rule, which misses some 1e-4 of the way travelled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from wherefrom.attention import AttentionRecord
from wherefrom.catalogue import Measurement
from wherefrom.geometry import PatchGrid
from wherefrom.measures.score_structures import NAMES, ScoreStructures
from wherefrom.models.backbone import Layer, as_backbone
from wherefrom.observe.capture import evaluating, tap
from wherefrom.observe.cuts import NOTHING, Cut, pairs_kept
from wherefrom.observe.ledger import CARRIED, DECAY, RouteMomentum
from wherefrom.observe.pair_gradients import PairParts
from wherefrom.observe.routes import Route, RouteGradients, mean_over_processes

Weights = dict[tuple[str, str], Tensor]
"""`weight` and, where there is one, `bias` of the projections to `q` and `k`."""


@dataclass
class _Sums:
    """The account of one layer: a number for each structure; contributions by (matrix, relation)."""

    start: Float[Tensor, " structure"]
    last: Float[Tensor, " structure"]
    travelled: Float[Tensor, " structure"]
    contributions: dict[tuple[str, str], Float[Tensor, " structure"]] = field(default_factory=dict)

    def credit(self, key: tuple[str, str], values: Float[Tensor, " structure"]) -> None:
        self.contributions[key] = self.contributions.get(key, 0.0) + values

    def arrive(self, values: Float[Tensor, " structure"]) -> None:
        self.travelled = self.travelled + (values - self.last).abs()
        self.last = values

    @property
    def residual(self) -> Float[Tensor, " structure"]:
        """|M(now) − M(start) − Σ contributions| / Σ_steps |ΔM_step|."""
        missed = self.last - self.start - sum(self.contributions.values())
        return torch.where(self.travelled > 0, missed.abs() / self.travelled.clamp(min=1e-300), 0.0)


@dataclass(frozen=True)
class _Seen:
    """What the layers were given on the probe images, and the structures there."""

    y: Float[Tensor, "batch token width"]
    record: AttentionRecord


class AlignmentLedger:
    """Follows the scores of every layer between edge neighbours and far pairs; used as `Account` is.

    Args:
        model: a pre-norm Vision Transformer with projections w_q and w_k of their own.
        optimizer: SGD, Adam or AdamW over its parameters.
        grid: where the patches truly are.
        images: probe images, held out, `batch channel y x`; with permuted patches the account is of what heads do
            because of positions.
        name: of the grid in the record.
        cut: pairs that are cut from the gradient on queries and keys.
        relations: of patches, by which the gradient is split; all other pairs are one more part. Each costs about a
            tenth of a training step.

    Raises:
        ValueError: for a model with fused projections or whose attention gets anything but w_q y and w_k y, a grid
            without far pairs, or an optimiser that is not known.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        grid: PatchGrid,
        images: Tensor,
        name: str = "model",
        cut: Cut = NOTHING,
        relations: tuple[str, ...] = ("edge", "far"),
    ):
        self.model, self.images, self.name = model, images, name
        backbone = as_backbone(model)
        self.prefix, self.layers = grid.num_prefix_tokens, backbone.layers
        if any("q" not in layer.projections for layer in self.layers):
            raise ValueError(
                "the alignment ledger needs projections w_q and w_k of their own; found one for q, k and v"
            )
        like = self.layers[0].projections["q"].weight.detach()
        self.structures = ScoreStructures.of(grid, like)
        self.parts = PairParts.of(grid, relations, pairs_kept(cut, backbone.grid), like)
        self.momenta = [
            {key: RouteMomentum(optimizer, p, _whole) for key, p in _parameters(layer)} for layer in self.layers
        ]
        self.seen = self._look()
        self._refuse_other_scores()
        self.sums = [_Sums(value, value, torch.zeros_like(value)) for value in self._values_now()]

    # ---- one update

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """The scope of one forward and backward pass."""
        self.found: dict[int, dict[str, RouteGradients]] = {}
        given: dict[int, Tensor] = {}

        def receive(number: int, record: AttentionRecord) -> None:
            if record.grad_z is not None:
                self.found[number] = self.parts.split(record, given[number])

        with _noting(self.layers, given), tap(receive, len(self.layers)):
            yield

    @contextlib.contextmanager
    def update(self) -> Iterator[None]:
        """The scope of one update; gradients are final before it."""
        before = [_weights(layer) for layer in self.layers]
        for number, found in self.found.items():
            for kind, gradients in found.items():
                self._take(number, kind, mean_over_processes(gradients))
        yield
        moved = [self._enter(number, weights) for number, weights in enumerate(before)]
        self.seen = self._look()
        for sums, value, now in zip(self.sums, moved, self._values_now(), strict=True):
            sums.credit(("drift", ""), now - value)
            sums.arrive(now)

    def _take(self, number: int, kind: str, found: RouteGradients) -> None:
        """Hand a step's gradients, the bias in their last column, to the momenta."""
        for (own, name), momentum in self.momenta[number].items():
            if own == kind:
                part = found.gradients[..., :-1] if name == "weight" else found.gradients[:, None, :, -1]
                momentum.before(RouteGradients(found.routes, part, part.sum(0)))

    @torch.no_grad()
    def _enter(self, number: int, before: Weights) -> Float[Tensor, " structure"]:
        """Credit one layer's update, its inputs as they were; M(w', y)."""
        after = _weights(self.layers[number])
        slopes = self._slopes(number, {key: start.lerp(after[key], 0.5) for key, start in before.items()})
        for key, momentum in self.momenta[number].items():
            routes, shares, _ = momentum.after()
            values = torch.einsum("s...,r...->rs", slopes[key].double(), shares).cpu()
            for route, value in zip(routes, values, strict=True):
                self.sums[number].credit(_key(key[0], route), value)
        return self._values(number, *self._project(number, after))

    def _slopes(self, number: int, weights: Weights) -> Weights:
        """∇M by parameter, `structure` first."""
        seen, (q, k) = self.seen[number], self._project(number, weights)
        grads = self.structures.gradients(q[:, :, self.prefix :], k, seen.record.scale)
        given, slopes = pad(seen.y, (0, 1), value=1.0), {}
        for kind, grad, y in zip(("q", "k"), grads, (given[:, self.prefix :], given), strict=True):
            slope = torch.einsum("sbhtd,btw->shdw", grad, y).flatten(1, 2)
            slopes |= {(kind, "weight"): slope[..., :-1], (kind, "bias"): slope[:, None, :, -1]}
        return slopes

    # ---- the structures

    def _values(self, number: int, q: Tensor, k: Tensor) -> Float[Tensor, " structure"]:
        scale = self.seen[number].record.scale
        return self.structures.values(q[:, :, self.prefix :], k, scale).double().cpu()

    def _values_now(self) -> list[Float[Tensor, " structure"]]:
        return [self._values(number, seen.record.q, seen.record.k) for number, seen in enumerate(self.seen)]

    def _project(self, number: int, weights: Weights) -> list[Float[Tensor, "batch head token head_dim"]]:
        """Queries and keys of all tokens on the probe."""
        y, num_heads = self.seen[number].y, self.layers[number].num_heads
        made = (linear(y, weights[kind, "weight"], weights.get((kind, "bias"))) for kind in ("q", "k"))
        return [x.unflatten(2, (num_heads, -1)).transpose(1, 2) for x in made]

    @torch.no_grad()
    def _look(self) -> list[_Seen]:
        """What w_q and w_k of each layer are given on the probe images, and what attention is given."""
        given: dict[int, Tensor] = {}
        records: dict[int, AttentionRecord] = {}
        with _noting(self.layers, given), tap(records.__setitem__, len(self.layers)), evaluating(self.model):
            self.model(self.images)
        return [_Seen(given[number].to(record.q), record) for number, record in sorted(records.items())]

    def _refuse_other_scores(self) -> None:
        for number, seen in enumerate(self.seen):
            made = self._project(number, _weights(self.layers[number]))
            pairs = zip(made, (seen.record.q, seen.record.k), strict=True)
            plain = all((x - y).norm() <= 0.02 * x.norm() for x, y in pairs)  # half precision is no other score
            if not plain or seen.record.bias is not None:
                raise ValueError(
                    f"the alignment ledger needs attention of w_q y and w_k y as they are; in layer {number} they are "
                    f"turned, normalised or masked on the way"
                )

    # ---- the account

    def rows(self) -> Iterator[Measurement]:
        """The account so far: by matrix and relation of pairs, drift of the inputs, weight decay."""
        for number, sums in enumerate(self.sums):
            place = {"layer": number, "grid": self.name}
            change, residual = (sums.last - sums.start).tolist(), sums.residual.tolist()
            for index, name in enumerate(NAMES):
                for (what, relation), values in sorted(sums.contributions.items()):
                    value = float(values[index])
                    yield Measurement(f"ledger_{name}", value, route=what, relation=relation or None, **place)
                yield Measurement(f"ledger_{name}_change", change[index], **place)
                yield Measurement(f"ledger_{name}_residual", residual[index], **place)

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
            _Sums(start, last, travelled, {(what, relation): value for what, relation, value in rows})
            for start, last, travelled, rows in state["sums"]
        ]
        self.seen = self._look()  # a function of the parameters, which are restored before


@contextlib.contextmanager
def _noting(layers: list[Layer], given: dict[int, Tensor]) -> Iterator[None]:
    """Inside the scope, what w_q of each layer is given goes to `given`."""

    def listen(number: int, layer: Layer):
        def note(_module, inputs, _output):
            given[number] = inputs[0].detach()

        return layer.projections["q"].register_forward_hook(note)

    handles = [listen(number, layer) for number, layer in enumerate(layers)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _key(kind: str, route: Route) -> tuple[str, str]:
    return (route.kind, "") if route in (DECAY, CARRIED) else (f"w_{kind}", route.kind)


def _whole(tensor: Tensor) -> Tensor:
    return tensor if tensor.dim() > 1 else tensor[None]


def _parameters(layer: Layer) -> Iterator[tuple[tuple[str, str], nn.Parameter]]:
    for kind in ("q", "k"):
        for name, parameter in layer.projections[kind].named_parameters():
            yield (kind, name), parameter


def _weights(layer: Layer) -> Weights:
    """Copies of the parameters of w_q and w_k."""
    return {key: parameter.detach().clone() for key, parameter in _parameters(layer)}
