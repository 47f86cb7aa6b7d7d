"""The account of a structure measure along training: which route of the gradient built it.

    M(end) − M(start) = Σ_steps Σ_routes contribution + weight decay + carried + what the account misses

M is a function of pos_embed alone. Given the preconditioner, the optimiser's update is linear in its momentum, and
momentum is a running average of gradients, so each route keeps a momentum of its own and has its share Δ_route of each
update Δ. Its contribution is ∫₀¹ ⟨∇M(pos + τΔ), Δ_route⟩ dτ along the straight segment of the update, by quadrature.
(The idea is Loss Change Allocation, Lan et al. 2019, applied to structure instead of loss.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from wherefrom.catalogue import Measurement
from wherefrom.geometry import PatchGrid
from wherefrom.measures import coordinate_r2, near_minus_far, similarity_falloff
from wherefrom.observe.routes import Route, RouteGradients

Structure = Callable[[Tensor], Tensor]

QUADRATURE = ((0.5 - 0.15**0.5, 5 / 18), (0.5, 8 / 18), (0.5 + 0.15**0.5, 5 / 18))
"""Nodes in [0, 1] and weights of three-point Gauss–Legendre quadrature."""

DECAY, CARRIED = Route("weight_decay"), Route("carried")


def structures(grid: PatchGrid) -> dict[str, Structure]:
    """The structure measures of a position embedding that can be differentiated, by name."""
    return {
        "similarity_falloff": lambda pos: similarity_falloff(pos, grid),
        "near_minus_far": lambda pos: near_minus_far(pos, grid),
        "coordinate_r2": lambda pos: coordinate_r2(pos, grid)[0],
    }


def gradient_of(structure: Structure, pos: Float[Tensor, "patch width"]) -> Float[Tensor, "patch width"]:
    """∇_pos M."""
    with torch.enable_grad():
        start = pos.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(structure(start), start)
    return gradient


def forces(structure: Structure, pos: Float[Tensor, "patch width"], found: RouteGradients) -> Float[Tensor, " route"]:
    """−⟨∇_pos M, g_route⟩: how fast descent along this route's gradient alone would raise M, per unit learning rate."""
    return -torch.einsum("pw,rpw->r", gradient_of(structure, pos.double()), found.gradients.double())


class RouteMomentum:
    """Each route's share of the optimiser's updates of pos_embed, for SGD, Adam and AdamW.

    Call `before(…)` with the step's routes when gradients are final (clipped), then `after()` when the update is made.

    Args:
        optimizer: it holds `parameter` in one of its groups.
        parameter: pos_embed.
        rows: picks the patches' rows, `patch width`, out of a tensor like the parameter.

    Raises:
        ValueError: for an optimiser whose update is not known.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, parameter: Tensor, rows: Callable[[Tensor], Tensor]):
        self.kind = type(optimizer).__name__
        if self.kind not in ("SGD", "Adam", "AdamW"):
            raise ValueError(f"the ledger knows the updates of SGD, Adam and AdamW; found {self.kind}")
        self.optimizer, self.parameter, self.rows = optimizer, parameter, rows
        if self.group.get("amsgrad") or self.group.get("nesterov") or self.group.get("maximize"):
            raise ValueError(f"the ledger does not know {self.kind} with amsgrad, nesterov or maximize")
        self.routes: tuple[Route, ...] = ()
        self.momenta = torch.zeros(0, *rows(parameter.detach()).shape, dtype=torch.float64, device=parameter.device)
        if (carried := self._realised_momentum()) is not None:
            self.routes, self.momenta = (CARRIED,), carried[None]

    @property
    def group(self) -> dict:
        """The settings of the group that holds the parameter; loading a checkpoint replaces them."""
        groups = self.optimizer.param_groups
        return next(group for group in groups if any(p is self.parameter for p in group["params"]))

    @property
    def decoupled(self) -> bool:
        """Whether weight decay is left out of gradient and momentum."""
        return self.group.get("decoupled_weight_decay", self.kind == "AdamW")

    def state_dict(self) -> dict:
        """Momenta by route, ready to be saved."""
        return {"routes": [(r.kind, r.layer, r.head) for r in self.routes], "momenta": self.momenta.clone()}

    def load_state_dict(self, state: dict) -> None:
        self.routes, self.momenta = tuple(Route(*name) for name in state["routes"]), state["momenta"].clone()

    @torch.no_grad()
    def before(self, found: RouteGradients, updates: int = 1) -> None:
        """Take in the gradients of the update that is about to be made, in place of those of the last so many."""
        assert self.parameter.grad is not None
        gradient = self.rows(self.parameter.grad).double()
        total = found.gradients.double().sum(0)
        scale = (gradient * total).sum() / total.square().sum().clamp(min=1e-300)  # clipping scales all routes alike
        self.start = self.rows(self.parameter.detach()).double().clone()
        routes, fresh = found.routes, scale * found.gradients.double()
        decay = self.group["weight_decay"]
        if decay and not self.decoupled:  # decay inside the gradient has a momentum of its own
            routes, fresh = (*routes, DECAY), torch.cat([fresh, decay * self.start[None]])
        kept, taken = self._rates(updates)
        self._make_room(routes)
        self.momenta *= kept
        self.momenta[[self.routes.index(route) for route in routes]] += taken * fresh

    def _make_room(self, routes: tuple[Route, ...]) -> None:
        """A momentum of 0 for each route that has none yet; routes stay in order."""
        if missing := [route for route in routes if route not in self.routes]:
            found = (*self.routes, *missing)
            order = sorted(range(len(found)), key=lambda place: str(found[place]))
            room = self.momenta.new_zeros(len(missing), *self.start.shape)
            self.routes, self.momenta = tuple(found[n] for n in order), torch.cat([self.momenta, room])[order]

    @torch.no_grad()
    def after(self) -> tuple[tuple[Route, ...], Float[Tensor, "route patch width"], Float[Tensor, "patch width"]]:
        """(routes, each one's share of the update, the whole update as it was made)."""
        routes, shares = self.routes, -self._learning_rate() * self.momenta
        if self.decoupled and self.group["weight_decay"]:
            decay = -float(self.group["lr"]) * self.group["weight_decay"] * self.start
            routes, shares = (*routes, DECAY), torch.cat([shares, decay[None]])
        return routes, shares, self.rows(self.parameter.detach()).double() - self.start

    def _rates(self, updates: int) -> tuple[float, float]:
        """(what is kept of the momentum, what is taken of the gradient) in so many updates with the same gradient."""
        group = self.group
        beta, taken = group["betas"][0] if "betas" in group else group["momentum"], 1.0
        if "betas" in group:
            taken = 1 - beta
        elif beta and self.routes:  # the first gradient is taken whole
            taken = 1 - group["dampening"]
        return beta**updates, taken * sum(beta**n for n in range(updates))

    def _learning_rate(self) -> Tensor | float:
        """What the momentum is multiplied by in the update: the learning rate over the realised preconditioner."""
        rate = float(self.group["lr"])
        if self.kind == "SGD":
            return rate
        state, (beta1, beta2) = self.optimizer.state[self.parameter], self.group["betas"]
        step = float(state["step"])
        root = self.rows(state["exp_avg_sq"]).double().sqrt() / (1 - beta2**step) ** 0.5
        return rate / (1 - beta1**step) / (root + self.group["eps"])

    def _realised_momentum(self) -> Tensor | None:
        state = self.optimizer.state.get(self.parameter, {})
        momentum = state.get("momentum_buffer" if self.kind == "SGD" else "exp_avg")
        return None if momentum is None else self.rows(momentum).double().clone()


class Ledger:
    """Sums of contributions by route, for each structure measure; `measurements()` at any time.

    Args:
        structures: measures of pos_embed by name, as `structures(grid)` gives them.
        pos: pos_embed when the account begins, `patch width`.
        every: each observed update stands for this many.
    """

    def __init__(self, structures: Mapping[str, Structure], pos: Float[Tensor, "patch width"], every: int = 1):
        self.structures, self.every = dict(structures), every
        self.start = {name: float(m(pos.double())) for name, m in structures.items()}
        self.last = dict(self.start)
        self.contributions: dict[str, dict[Route, float]] = {name: {} for name in structures}
        self.travelled = dict.fromkeys(structures, 0.0)

    def state_dict(self) -> dict:
        """All sums, ready to be saved."""
        parts = {
            name: [(r.kind, r.layer, r.head, value) for r, value in rows.items()]
            for name, rows in self.contributions.items()
        }
        return {"start": self.start, "last": self.last, "travelled": self.travelled, "contributions": parts}

    def load_state_dict(self, state: dict) -> None:
        self.start, self.last, self.travelled = (dict(state[key]) for key in ("start", "last", "travelled"))
        self.contributions = {
            name: {Route(kind, layer, head): value for kind, layer, head, value in rows}
            for name, rows in state["contributions"].items()
        }

    def add(
        self,
        routes: tuple[Route, ...],
        shares: Float[Tensor, "route patch width"],
        before: Float[Tensor, "patch width"],
        update: Float[Tensor, "patch width"],
    ) -> None:
        """Enter one update: its start, the whole of it, and each route's share."""
        for name, structure in self.structures.items():
            slope = sum(w * gradient_of(structure, before + t * update) for t, w in QUADRATURE)
            parts = self.every * torch.einsum("pw,rpw->r", slope, shares)
            account = self.contributions[name]
            for route, part in zip(routes, parts.tolist(), strict=True):
                account[route] = account.get(route, 0.0) + part
            now = float(structure(before + update))
            self.travelled[name] += abs(now - self.last[name])
            self.last[name] = now

    def look(self, pos: Float[Tensor, "patch width"]) -> None:
        """Take note of pos_embed as it is now, after updates that were not entered."""
        for name, structure in self.structures.items():
            now = float(structure(pos))
            self.travelled[name] += abs(now - self.last[name])
            self.last[name] = now

    def residual(self, name: str) -> float:
        """|M(now) − M(start) − Σ contributions| / Σ_steps |ΔM_step|; 0 before the first update."""
        missed = self.last[name] - self.start[name] - sum(self.contributions[name].values())
        return abs(missed) / self.travelled[name] if self.travelled[name] else 0.0

    def measurements(self) -> Iterator[Measurement]:
        """The account so far: a row a route, the whole change, and what the account misses."""
        for name in self.structures:
            for route, value in sorted(self.contributions[name].items(), key=str):
                yield Measurement(f"ledger_{name}", value, None, route.layer, route.head, route.kind)
            yield Measurement(f"ledger_{name}_change", self.last[name] - self.start[name])
            yield Measurement(f"ledger_{name}_residual", self.residual(name))
        yield Measurement("ledger_residual", max(map(self.residual, self.structures)))
