"""Putting shuffled images back together by the position embedding: as it stands, and by the path it took."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from wherefrom import measures
from wherefrom.catalogue import Measurement
from wherefrom.geometry import PatchGrid

PIXEL_BATCHES = 16
"""Training batches from which the baseline takes its pixels."""


class Unscrambling:
    """Follows pos_embed through the training of a shuffled arm and says, when asked, where each patch belongs.

        unscrambling = Unscrambling(model.pos_embed, true_grid)
        for step in …:
            rows, arrays = unscrambling.measurements()
            …
            optimizer.step()
            unscrambling.note()

    The true grid is needed for the score, and to turn and mirror the pictures upright; the search never sees it.

    Args:
        pos_embed: the parameter, `1 patch width`.
        grid: the true grid.
    """

    def __init__(self, pos_embed: Tensor, grid: PatchGrid):
        self.pos_embed, self.grid = pos_embed, grid
        self.recent: list[Tensor] = []
        self.total = torch.zeros(grid.num_patches, grid.num_patches, dtype=torch.float64)
        self.count = 0
        self.known: list[Tensor] = []
        self.note()

    def note(self) -> None:
        """The table after one more update; once a training step."""
        self.recent = [*self.recent[-2:], self.pos_embed.detach()[0].double().cpu().clone()]
        if len(self.recent) == 3:
            self.total += torch.from_numpy(measures.path_similarity(torch.stack(self.recent).numpy()))
            self.count += 1

    def measurements(self) -> tuple[list[Measurement], dict[str, np.ndarray]]:
        """Recovery by pos_embed as it is, by its path until now, and by chance; and the two arrangements, upright."""
        true = np.asarray(self.grid.order)
        found = {"": measures.unscramble(measures.direction_similarity(self.recent[-1].numpy()), self.grid)}
        if self.count:
            known = [each.numpy() for each in self.known]
            found["_path"] = measures.unscramble((self.total / self.count).numpy(), self.grid, known=known)
            self.known = [torch.from_numpy(found["_path"])]
        chance = {"edge_recovery_chance": measures.edge_recovery_chance(self.grid)}
        scores = {f"edge_recovery{by}": measures.edge_recovery(each, true, self.grid) for by, each in found.items()}
        arrays = {f"pos_arrangement{by}": measures.upright(each, true, self.grid) for by, each in found.items()}
        return [Measurement(name, value, grid="true") for name, value in (scores | chance).items()], arrays

    def state_dict(self) -> dict:
        """Everything that must survive for a resumed run to go on as if it had not stopped."""
        return {"recent": self.recent, "total": self.total, "count": self.count, "known": self.known}

    def load_state_dict(self, state: Mapping) -> None:
        self.recent, self.known = list(state["recent"]), list(state["known"])
        self.total, self.count = state["total"].clone(), state["count"]


def follow_places(pos_embed: Tensor | None, grids: Mapping[str, PatchGrid]) -> Unscrambling | None:
    """One where the patches were shuffled and a position embedding is learned."""
    if "true" not in grids or pos_embed is None or not pos_embed.requires_grad:
        return None
    return Unscrambling(pos_embed, grids["true"])


def pixel_measurements(images: Iterable[Tensor], grid: PatchGrid) -> Iterator[Measurement]:
    """The baseline: recovery by the pixels of training images alone, touching borders compared, with the same search.

    Args:
        images: batches, `image channel y x`, as the model sees them.
        grid: the true grid.
    """
    similarity = measures.border_similarity(torch.cat(list(images)).cpu().numpy(), grid)
    recovered = measures.edge_recovery(measures.unscramble(similarity, grid), np.asarray(grid.order), grid)
    yield Measurement("edge_recovery_pixels", recovered, grid="true")
