"""What a training loop calls to keep the account of its position embedding: routes, forces, ledger, and cuts."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wherefrom.catalogue import Measurement
from wherefrom.geometry import PatchGrid
from wherefrom.observe.cuts import Cut
from wherefrom.observe.ledger import Ledger, RouteMomentum, forces, structures
from wherefrom.observe.routes import RouteGradients, RouteTap


class Account:
    """Follows pos_embed through training.

        account = Account(model, optimizer, grid)
        with account.listening():            # forward and backward of one update
            loss.backward()
        account.take()                       # the routes; cut routes leave the gradient
        …                                    # clipping
        account.before_update(); optimizer.step(); account.after_update()

    Args:
        model: a pre-norm Vision Transformer with a learned position embedding.
        optimizer: SGD, Adam or AdamW over its parameters.
        grid: where the patches truly are.
        cut: routes to take from the gradient on pos_embed.
        every: only every so many updates are observed, and each stands for so many.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, grid: PatchGrid, cut: Cut = Cut(), every: int = 1
    ):
        self.model, self.grid, self.cut, self.every = model, grid, cut, every
        self.backbone = RouteTap(model).backbone
        parameter = self.backbone.pos_parameter
        assert parameter is not None
        self.parameter = parameter
        self.momentum = RouteMomentum(optimizer, parameter, self.backbone.patch_rows)
        self.structures = structures(grid)
        self.ledger = Ledger(self.structures, self.position, every)
        self.found: RouteGradients | None = None
        self.closure = 0.0

    @property
    def position(self) -> Tensor:
        """pos_embed now, `patch width`, float64."""
        return self.backbone.patch_rows(self.parameter.detach()).double().clone()

    def listening(self) -> RouteTap:
        """The scope of one forward and backward pass."""
        self.tap = RouteTap(self.model)
        return self.tap

    def take(self) -> None:
        """Split the gradient that has arrived; take what is cut out of it."""
        found = self.tap.gradients()
        self.closure = found.closure
        self.found = self.cut.kept(found)
        if self.cut.routes:
            rows = self.backbone.patch_rows(self.parameter.grad)
            rows.copy_(rows - (found.total - self.found.total))

    def before_update(self) -> None:
        """Enter the gradients of the update; call when they are final."""
        assert self.found is not None, "call take() after the backward pass"
        self.momentum.before(self.found)

    def after_update(self) -> None:
        """Enter the update as it was made."""
        routes, shares, update = self.momentum.after()
        self.ledger.add(routes, shares, self.momentum.start, update)

    def measurements(self) -> list[Measurement]:
        """Closure and forces of the batch just seen, and the account so far."""
        rows = [Measurement("route_closure", self.closure, "train")]
        if self.found is not None:
            for name, structure in self.structures.items():
                values = forces(structure, self.momentum.start, self.found).tolist()
                for route, value in zip(self.found.routes, values, strict=True):
                    place = {"layer": route.layer, "head": route.head, "route": route.kind}
                    rows.append(Measurement(f"force_{name}", value, "train", **place))
        return [*rows, *self.ledger.measurements()]

    def state_dict(self) -> dict:
        """Everything that must survive for a resumed run to keep the same account."""
        return {"momentum": self.momentum.state_dict(), "ledger": self.ledger.state_dict()}

    def load_state_dict(self, state: Mapping) -> None:
        self.momentum.load_state_dict(state["momentum"])
        self.ledger.load_state_dict(state["ledger"])
