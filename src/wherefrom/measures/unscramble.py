"""Unscrambling: where does each patch belong, by nothing but how alike the patches are?

On a grid, likeness falls with distance: C_ij ≈ K(D_ij). So the arrangement sought is the one under which a kernel K of
distance alone explains the likeness best, Σ_{i≠j} (C_ij − K(D_π(i)π(j)))² least. For a given K that is a quadratic
assignment; K is fitted to the arrangement and the arrangement to K in turn.

An arrangement is `order`, as in `PatchGrid.reordered`: patch p of the model is put at place order[p]. It can be known
up to the symmetries of the grid only, and scores do not see them. Plain numpy; no model and no truth.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
import scipy  # loads its parts when they are first used: scipy.optimize takes half a second, and few runs unscramble
from jaxtyping import Float, Int

from wherefrom.geometry import PatchGrid
from wherefrom.statistics import TIED, first_of_largest

ANGLES = 6
"""Turns at which a layout in the plane is laid onto the grid: the two axes of a layout have no direction."""
NEAREST = (4, 6, 8)
"""Nearest patches joined for distances along the map (Isomap)."""
LARGEST_FULL_SEARCH = 100
"""On more patches only two turns of each layout are tried and nothing is disturbed: an assignment takes patches³."""
NO_GAIN = 1e-10
"""What an exchange of two patches gains, of a likeness of about 1, if it gains nothing but rounding."""
DISTURBANCES = 25
"""Rectangles of the best arrangement that are mirrored or rolled, to get out of a place where no exchange helps."""

Similarity = Float[np.ndarray, "patch patch"]
Order = Int[np.ndarray, " patch"]


def unscramble(similarity: Similarity, grid: PatchGrid, seed: int = 0, known: Iterable[Order] = ()) -> Order:
    """argmin over arrangements π of Σ_{i≠j} (C_ij − K(D_π(i)π(j)))², K fitted; a good one, not proven to be the best.

    Layouts in the plane (classical scaling, Isomap) at several turns are laid onto the grid, each is improved by the
    fast approximate quadratic assignment and then by exchanges of two patches until none helps. Rectangles of the
    best are then mirrored or rolled and improved again.

    Args:
        similarity: C_ij, symmetric, larger for more alike; the diagonal is not used.
        grid: height and width; its order is not used.
        seed: of the rectangles.
        known: arrangements to start from as well, such as that of an earlier step of training.

    Returns:
        Place of each patch, up to the symmetries of the grid.

    Raises:
        ValueError: if `similarity` has not one row and column a patch, or holds a number that is not finite.

    References:
        Koopmans & Beckmann 1957 (the problem). Vogelstein et al. 2015, Fast approximate quadratic programming for graph
        matching. Tenenbaum, de Silva & Langford 2000 (Isomap).
    """
    plain = PatchGrid(grid.height, grid.width)
    likeness = _checked(similarity, plain)
    kernel = np.exp(-plain.distances / 2)
    starts = [_matched(likeness, start, kernel) for start in _starts(likeness, plain)]
    found = [_improved(likeness, np.asarray(start), plain) for start in (*starts, *known)]
    best = first_of_largest([-arrangement_error(likeness, order, plain) for order in found])
    return _disturbed(likeness, found[best], plain, np.random.default_rng(seed))


def arrangement_error(similarity: Similarity, order: Order, grid: PatchGrid) -> float:
    """Σ_{i≠j} (C_ij − K(D_ij))² with the best K, the mean likeness at each distance: what `unscramble` makes small.

    Where the true arrangement has a smaller error than the one found, the search failed; where it has a larger one, the
    likeness does not say enough.
    """
    likeness = _checked(similarity, grid)
    return float(((likeness - _fitted_kernel(likeness, order, grid)[np.ix_(order, order)]) ** 2).sum())


def edge_recovery(order: Order, true_order: Order, grid: PatchGrid) -> float:
    """Share of the true pairs of edge neighbours that are edge neighbours in the arrangement, in [0, 1].

    A turn or mirror image of the grid keeps all neighbours, so the score is the same for all of its symmetries.
    NaN on a grid of one patch.

    >>> edge_recovery(np.array([2, 1, 0]), np.array([0, 1, 2]), PatchGrid(1, 3))
    1.0
    """
    edges = PatchGrid(grid.height, grid.width).relation_pairs("edge")
    true = edges[np.ix_(true_order, true_order)]
    return float(edges[np.ix_(order, order)][true].mean()) if true.any() else float("nan")


def edge_recovery_chance(grid: PatchGrid) -> float:
    """(pairs of edge neighbours) / (pairs of patches): the expected recovery of a random arrangement.

    >>> round(edge_recovery_chance(PatchGrid(8, 8)), 4)
    0.0556
    """
    return float(grid.relation_pairs("edge").sum() / max(1, grid.num_patches * (grid.num_patches - 1)))


def symmetries(grid: PatchGrid) -> list[Order]:
    """The turns and mirrorings that keep the grid: eight of a square, four of another; each as place of each place."""
    places = np.arange(grid.num_patches).reshape(grid.height, grid.width)
    turned = [places, places.T] if grid.height == grid.width else [places]
    return [some[::down, ::across].ravel() for some in turned for down in (1, -1) for across in (1, -1)]


def upright(order: Order, true_order: Order, grid: PatchGrid) -> Order:
    """The arrangement under the symmetry that brings its patches closest to their true places, to be looked at."""
    places = PatchGrid(grid.height, grid.width).coordinates
    choices = [symmetry[order] for symmetry in symmetries(grid)]
    return min(choices, key=lambda choice: ((places[choice] - places[true_order]) ** 2).sum())


def path_similarity(path: Float[np.ndarray, "step patch width"]) -> Similarity:
    """mean over steps t of cos(d_ti, d_tj), d_t = pos(t+1) − 2 pos(t) + pos(t−1), centred over patches.

    The steps that pos_embed takes carry what each batch has taught it; their differences free this from the momentum
    and from the slow drift common to all batches, so that each step is new evidence of who is near whom.

    Args:
        path: the position embedding after every training step, at least three.
    """
    second = np.diff(np.asarray(path, float), n=2, axis=0)
    if not len(second):
        raise ValueError(f"a path of the position embedding needs at least 3 steps; found {len(path)}")
    return np.mean([direction_similarity(change) for change in second], axis=0)


def direction_similarity(change: Float[np.ndarray, "patch width"]) -> Similarity:
    """cos(d_i − mean, d_j − mean), in [−1, 1]; 0 for a patch that moved as the mean did, but for rounding."""
    centred = change - change.mean(0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    centred = np.where(lengths > TIED * np.linalg.norm(change, axis=1).max(), centred, 0)
    unit = centred / np.maximum(lengths, 1e-30)
    return unit @ unit.T


def border_similarity(images: Float[np.ndarray, "image channel y x"], grid: PatchGrid) -> Similarity:
    """Largest of the four correlations, over images, channels and pixels, of the borders where i and j could touch.

    What pixels alone tell, with no model: right border of i and left of j, bottom and top, and both the other way.

    Args:
        images: as the model is trained on them.
        grid: cuts the images into patches.
    """
    count, channels, height, width = images.shape
    cut = images.reshape(count, channels, grid.height, height // grid.height, grid.width, width // grid.width)
    patches = (
        np.asarray(cut, float).transpose(2, 4, 0, 1, 3, 5).reshape(grid.num_patches, -1, cut.shape[3], cut.shape[5])
    )
    left, right = _standard(patches[..., 0]), _standard(patches[..., -1])
    top, bottom = _standard(patches[..., 0, :]), _standard(patches[..., -1, :])
    across, down = right @ left.T, bottom @ top.T
    return np.maximum(np.maximum(across, across.T), np.maximum(down, down.T))


def _standard(borders: np.ndarray) -> np.ndarray:
    """Each patch's border pixels in one row of mean 0 and length 1."""
    rows = borders.reshape(len(borders), -1)
    rows = rows - rows.mean(1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)


# ---- the search


def _checked(similarity: np.ndarray, grid: PatchGrid) -> np.ndarray:
    likeness = np.array(similarity, float)
    if likeness.shape != (grid.num_patches, grid.num_patches) or not np.isfinite(likeness).all():
        raise ValueError(
            f"expected the likeness of each of {grid.num_patches} patches with each as finite numbers, for a grid "
            f"of {grid.height} × {grid.width}; found shape {likeness.shape} with "
            f"{(~np.isfinite(likeness)).sum()} not finite"
        )
    np.fill_diagonal(likeness, 0)
    return (likeness + likeness.T) / 2


def _starts(likeness: np.ndarray, grid: PatchGrid) -> Iterator[np.ndarray]:
    """Arrangements from layouts in the plane."""
    products = [likeness] + [_along_the_map(likeness, nearest) for nearest in NEAREST if nearest < len(likeness)]
    turns = ANGLES if grid.num_patches <= LARGEST_FULL_SEARCH else 2
    for product in products:
        layout = _plane(product)
        for angle in np.arange(turns) * np.pi / (2 * turns):
            yield _laid_on_grid(layout, angle, grid)


def _along_the_map(likeness: np.ndarray, nearest: int) -> np.ndarray:
    """−(distance along the map)²/2: the shortest way over pairs of nearest patches, those tied for the last with it."""
    others = np.where(np.eye(len(likeness), dtype=bool), -np.inf, likeness)
    last = -np.partition(-others, nearest - 1, axis=1)[:, nearest - 1 : nearest]
    joined = others >= last - TIED * np.abs(likeness).max()
    steps = np.where(joined, 1 + likeness.max() - likeness, np.inf)
    ways = scipy.sparse.csgraph.shortest_path(np.where(np.isfinite(steps), steps, 0), directed=False)
    longest = ways[np.isfinite(ways)].max()
    return -(np.where(np.isfinite(ways), ways, 1.5 * longest) ** 2) / 2


def _plane(product: np.ndarray) -> np.ndarray:
    """Classical scaling, `patch 2`; the first of the patches farthest out along an axis is on its upper side."""
    centred = product - product.mean(0) - product.mean(1, keepdims=True) + product.mean()
    values, vectors = np.linalg.eigh(centred)
    layout = (vectors * np.sqrt(np.maximum(values, 0)))[:, :-3:-1]
    return layout * [1 if axis[first_of_largest(np.abs(axis))] >= 0 else -1 for axis in layout.T]


def _laid_on_grid(layout: np.ndarray, angle: float, grid: PatchGrid) -> np.ndarray:
    """Each patch to a place of its own, squared ways to it least; the longer axis of the layout to that of the grid."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    places = grid.coordinates - grid.coordinates.mean(0)
    turned = (layout if grid.height >= grid.width else layout[:, ::-1]) @ turn
    turned = turned / np.maximum(turned.std(0), 1e-30) * places.std(0)
    ways = ((turned[:, None] - places) ** 2).sum(-1)
    return scipy.optimize.linear_sum_assignment(ways.round(9))[1]  # equal ways are equal


def _improved(likeness: np.ndarray, order: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """Kernel fitted to the arrangement, patches exchanged under the kernel, in turn until nothing changes."""
    for _ in range(6):
        better = _exchanged(likeness, order, _fitted_kernel(likeness, order, grid))
        if (better == order).all():
            break
        order = better
    return order


def _disturbed(likeness: np.ndarray, order: np.ndarray, grid: PatchGrid, random: np.random.Generator) -> np.ndarray:
    least, rounding = arrangement_error(likeness, order, grid), TIED * (likeness**2).sum()
    for _ in range(DISTURBANCES if 4 <= grid.num_patches <= LARGEST_FULL_SEARCH else 0):
        other = _improved(likeness, _with_a_rectangle_moved(order, grid, random), grid)
        error = arrangement_error(likeness, other, grid)
        if error < least - rounding:
            order, least = other, error
    return order


def _with_a_rectangle_moved(order: np.ndarray, grid: PatchGrid, random: np.random.Generator) -> np.ndarray:
    """A rectangle mirrored along an axis, or all lines of a band rolled."""
    held = np.argsort(order).reshape(grid.height, grid.width)  # which patch is at each place
    top, bottom = np.sort(random.choice(grid.height + 1, 2, replace=False))
    left, right = np.sort(random.choice(grid.width + 1, 2, replace=False))
    kind = int(random.integers(4))  # mirrored downwards or across, rows rolled, columns rolled
    where = (slice(None) if kind == 3 else slice(top, bottom), slice(None) if kind == 2 else slice(left, right))
    block = held[where].copy()
    held[where] = np.flip(block, int(kind)) if kind < 2 else np.roll(block, random.integers(1, 4), axis=kind - 2)
    return np.argsort(held.ravel())


def _matched(likeness: np.ndarray, order: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Fast approximate quadratic assignment, started half way between the arrangement and none."""
    num_patches = len(order)
    start = np.full((num_patches, num_patches), 0.5 / num_patches)
    start[np.arange(num_patches), order] += 0.5
    options = {"maximize": True, "P0": start, "maxiter": 30}
    kernel = kernel - np.diag(np.diag(kernel))
    return scipy.optimize.quadratic_assignment(likeness, kernel, method="faq", options=options).col_ind


def _exchanged(likeness: np.ndarray, order: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Exchange the two patches that gain most of Σ C K, until no exchange gains.

    gain(r, s) = 2 (M_rs + M_sr − M_rr − M_ss + 2 C_rs K_rs),  M = C K, K at the places where the patches are.
    """
    order = order.copy()
    for _ in range(20 * len(order)):
        placed = kernel[np.ix_(order, order)]
        product = likeness @ placed
        own = np.diag(product)
        gain = product + product.T - own[:, None] - own + 2 * likeness * placed
        if (most := gain.max()) <= NO_GAIN:
            break
        one, other = divmod(int((gain >= most - NO_GAIN).argmax()), len(order))
        order[[one, other]] = order[[other, one]]
    return order


def _fitted_kernel(likeness: np.ndarray, order: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """K between places: the mean likeness of the pairs put at each distance; 0 of a place with itself."""
    index, num_lengths = _lengths(grid.height, grid.width)
    placed = index[np.ix_(order, order)].ravel()
    mean = np.bincount(placed, likeness.ravel(), num_lengths) / np.bincount(placed, minlength=num_lengths)
    mean[0] = 0
    return mean[index]


@lru_cache(maxsize=8)  # saves work, changes nothing
def _lengths(height: int, width: int) -> tuple[np.ndarray, int]:
    """Which of the grid's distances, counted from the shortest, each pair of places has; and how many there are."""
    lengths, index = np.unique((PatchGrid(height, width).offsets ** 2).sum(-1), return_inverse=True)
    return index.reshape(height * width, height * width), len(lengths)
