"""What a training loop calls to keep the account of its position embedding: routes, forces, ledger, and cuts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from wherefrom.catalogue import Measurement
from wherefrom.geometry import PatchGrid
from wherefrom.observe.alignment_ledger import AlignmentLedger
from wherefrom.observe.cuts import NOTHING, Cut
from wherefrom.observe.ledger import Ledger, RouteMomentum, forces, structures
from wherefrom.observe.routes import RouteGradients, RouteTap, mean_over_processes


class Account:
    """Follows pos_embed through training.

        account = Account(model, optimizer, grid)
        for step, batch in enumerate(batches):
            with account.listening(step):   # the forward and backward pass of one update
                loss.backward()
            account.take()                  # the routes; those that are cut leave the gradient
            …                               # clipping
            with account.update():
                optimizer.step()

    Args:
        model: a pre-norm Vision Transformer with a learned position embedding.
        optimizer: SGD, Adam or AdamW over its parameters.
        grid: where the patches truly are.
        name: of the grid in the record.
        cut: routes to take from the gradient on pos_embed.
        every: only every so many updates are entered, and each stands for so many; 0: none is, there is only the cut.
        alignment: a second account, of q–k alignment, to be kept at every update beside this one.

    Raises:
        ValueError: for a model without a learned position embedding, or an optimiser whose update is not known.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        grid: PatchGrid,
        name: str = "model",
        cut: Cut = NOTHING,
        every: int = 1,
        alignment: AlignmentLedger | None = None,
    ):
        self.alignment = alignment
        self.model, self.grid, self.name, self.cut, self.every = model, grid, name, cut, every
        tap = RouteTap(model)
        assert tap.parameter is not None
        self.backbone, self.parameter = tap.backbone, tap.parameter
        self.momentum = RouteMomentum(optimizer, self.parameter, self.backbone.patch_rows)
        self.structures = structures(grid)
        self.ledger = Ledger(self.structures, self.position, every)
        self.tap: RouteTap | None = None
        self.found: RouteGradients | None = None
        self.begun = False

    @property
    def position(self) -> Tensor:
        """pos_embed now, `patch width`, float64."""
        return self.backbone.patch_rows(self.parameter.detach()).double().clone()

    @contextlib.contextmanager
    def listening(self, step: int) -> Iterator[None]:
        """The scope of one forward and backward pass."""
        self.entered = self.every > 0 and step % self.every == 0
        self.tap = RouteTap(self.model) if self.entered or self.cut.routes else None
        second = self.alignment.listening() if self.alignment else contextlib.nullcontext()
        with self.tap or contextlib.nullcontext(), second:
            yield

    def take(self) -> None:
        """Split the gradient that has arrived; take what is cut out of it."""
        if self.tap is None:
            return
        if self.parameter.grad is not None and not self.parameter.grad.isfinite().all():
            self.entered, self.found = False, None  # the update spoils the model, and the next loss will say so
            return
        found = mean_over_processes(self.tap.gradients())
        self.closure = found.closure
        self.found = self.cut.kept(found)
        if self.cut.routes:
            assert self.parameter.grad is not None
            self.backbone.patch_rows(self.parameter.grad).copy_(self.found.total)

    @contextlib.contextmanager
    def update(self) -> Iterator[None]:
        """The scope of one update; gradients are final before it."""
        if self.entered and self.found is not None:
            self.momentum.before(self.found, self.every if self.begun else 1)
            self.begun = True
        with self.alignment.update() if self.alignment else contextlib.nullcontext():
            yield
        if self.entered:
            routes, shares, update = self.momentum.after()
            self.ledger.add(routes, shares, self.momentum.start, update)

    def rows(self) -> Iterator[Measurement]:
        """The account so far."""
        if self.every:
            self.ledger.look(self.position)
            yield from (replace(row, grid=self.name) for row in self.ledger.measurements())
        if self.alignment:
            yield from self.alignment.rows()

    def force_rows(self) -> Iterator[Measurement]:
        """Closure and forces of the batch just seen, where it was entered."""
        if self.found is None or not self.entered:
            return
        yield Measurement("route_closure", self.closure, "train")
        for name, structure in self.structures.items():
            values = forces(structure, self.momentum.start, self.found).tolist()
            for route, value in zip(self.found.routes, values, strict=True):
                place = {"layer": route.layer, "head": route.head, "route": route.kind, "grid": self.name}
                yield Measurement(f"force_{name}", value, "train", **place)

    def state_dict(self) -> dict:
        """Everything that must survive for a resumed run to keep the same account."""
        momentum, ledger = self.momentum.state_dict(), self.ledger.state_dict()
        alignment = self.alignment and self.alignment.state_dict()
        return {"momentum": momentum, "ledger": ledger, "alignment": alignment, "begun": self.begun}

    def load_state_dict(self, state: Mapping) -> None:
        self.momentum.load_state_dict(state["momentum"])
        self.ledger.load_state_dict(state["ledger"])
        self.begun = state["begun"]
        if self.alignment:
            self.alignment.load_state_dict(state["alignment"])
