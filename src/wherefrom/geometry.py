"""The grid of patches: places, distances, offsets, relations. Plain numpy; imports nothing of ours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

RELATIONS = ("self", "edge", "corner", "far", "row", "column", "mid")
"""Exclusive relations of two patches, in the order in which they are matched."""

PREFIX = "prefix"
"""Relation of a patch query and a prefix key: recorded beside `RELATIONS`, but none of two patches."""

UNIONS = {"between": ("row", "column", "mid")}
"""Relations that are made of others."""


@dataclass(frozen=True)
class PatchGrid:
    """Patches on a `height × width` grid, preceded by `num_prefix_tokens` tokens that have no position.

    A patch and a prefix token have no offset: their relation is `PREFIX`, and no mask of the grid holds it.

    `order[p]` is the true place of the patch that the model holds at position p; None means p itself. A model whose
    images were shuffled by one permutation is read on its true grid with `grid.reordered(permutation)`.

    >>> grid = PatchGrid(2, 3)
    >>> grid.num_patches, grid.num_offsets
    (6, 15)
    >>> grid.distances[0].round(2).tolist()
    [0.0, 1.0, 2.0, 1.0, 1.41, 2.24]
    """

    height: int
    width: int
    num_prefix_tokens: int = 0
    order: tuple[int, ...] | None = None

    def __post_init__(self):
        if self.height < 1 or self.width < 1 or self.num_prefix_tokens < 0:
            raise ValueError(
                f"a grid needs height and width of at least 1 and no negative number of prefix tokens; found "
                f"{self.height} × {self.width} with {self.num_prefix_tokens} prefix tokens"
            )
        if self.order is not None and sorted(self.order) != list(range(self.num_patches)):
            raise ValueError(f"order must be a permutation of the {self.num_patches} patches; found {self.order}")

    def reordered(self, order) -> PatchGrid:
        """The same grid where position p holds the patch whose true place is `order[p]`."""
        return replace(self, order=tuple(int(place) for place in order))

    @property
    def num_patches(self) -> int:
        return self.height * self.width

    @property
    def num_tokens(self) -> int:
        return self.num_prefix_tokens + self.num_patches

    @property
    def num_offsets(self) -> int:
        """How many offsets (dy, dx) there are between two patches: (2·height − 1)(2·width − 1)."""
        return (2 * self.height - 1) * (2 * self.width - 1)

    @cached_property
    def coordinates(self) -> np.ndarray:
        """(row, column) of each patch, `patch 2`, integers."""
        places = np.arange(self.num_patches) if self.order is None else np.asarray(self.order)
        return np.stack(np.divmod(places, self.width), axis=1)

    @cached_property
    def offsets(self) -> np.ndarray:
        """(dy, dx) from query patch to key patch, `query key 2`, integers."""
        return self.coordinates[None, :, :] - self.coordinates[:, None, :]

    @cached_property
    def distances(self) -> np.ndarray:
        """D_ij = √(dy² + dx²), Euclidean, `query key`, unit patches."""
        return np.hypot(self.offsets[..., 0], self.offsets[..., 1])

    @cached_property
    def offset_index(self) -> np.ndarray:
        """Index of the offset of each pair in the flattened offset map, `query key`, integers in [0, num_offsets)."""
        dy, dx = self.offsets[..., 0], self.offsets[..., 1]
        return (dy + self.height - 1) * (2 * self.width - 1) + dx + self.width - 1

    @cached_property
    def offset_counts(self) -> np.ndarray:
        """How many pairs have each offset: (height − |dy|)(width − |dx|), `dy dx`."""
        dy, dx = (
            np.abs(np.arange(1 - self.height, self.height)),
            np.abs(np.arange(1 - self.width, self.width)),
        )
        return np.outer(self.height - dy, self.width - dx)

    @cached_property
    def offset_distances(self) -> np.ndarray:
        """Euclidean length of each offset, `dy dx`, unit patches."""
        return np.hypot(*np.mgrid[1 - self.height : self.height, 1 - self.width : self.width])

    @cached_property
    def mean_distance(self) -> float:
        """Mean of D_ij over all pairs, self included: the attention distance of uniform attention."""
        return float((self.offset_counts * self.offset_distances).sum() / self.num_patches**2)

    @cached_property
    def offset_relations(self) -> np.ndarray:
        """Relation of each offset as its index in `RELATIONS`, `dy dx`. The first match wins."""
        dy, dx = np.abs(np.mgrid[1 - self.height : self.height, 1 - self.width : self.width])
        conditions = {
            "self": (dy == 0) & (dx == 0),
            "edge": dy + dx == 1,
            "corner": (dy == 1) & (dx == 1),
            "far": self.offset_distances >= self.mean_distance,
            "row": dy == 0,
            "column": dx == 0,
            "mid": np.ones_like(dy, dtype=bool),
        }
        return np.select([conditions[name] for name in RELATIONS], range(len(RELATIONS)))

    @cached_property
    def relations(self) -> np.ndarray:
        """Relation of each pair of patches as its index in `RELATIONS`, `query key`."""
        return self.offset_relations.ravel()[self.offset_index]

    @cached_property
    def offset_bins(self) -> np.ndarray:
        """Distance bin of each offset: the distance rounded to the nearest whole patch, `dy dx`, integers."""
        return np.floor(self.offset_distances + 0.5).astype(int)

    def relation_offsets(self, relation: str) -> np.ndarray:
        """Which offsets belong to `relation` (one of `RELATIONS` or `UNIONS`), `dy dx`, booleans.

        Raises:
            ValueError: for a name that is no relation.
        """
        if relation not in self._relation_masks:
            raise ValueError(f"unknown relation {relation!r}; known: {', '.join((*RELATIONS, *UNIONS))}")
        return self._relation_masks[relation].copy()

    @cached_property
    def _relation_masks(self) -> dict[str, np.ndarray]:
        members = {name: (name,) for name in RELATIONS} | UNIONS
        return {
            union: np.isin(self.offset_relations, [RELATIONS.index(name) for name in names])
            for union, names in members.items()
        }

    def relation_pairs(self, relation: str) -> np.ndarray:
        """Which pairs of patches belong to `relation`, `query key`, booleans."""
        return self.relation_offsets(relation).ravel()[self.offset_index]
