"""A made-up study on disk: rows and arrays shaped like those of a real one, made in a second and without torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from wherefrom.catalogue import MEASURES, Measurement
from wherefrom.config import CUT, ModelConfig, RecordConfig, RunKey, TrainConfig
from wherefrom.geometry import PatchGrid
from wherefrom.store import RunDirectory, StudyDirectory

RELATIONS = ("self", "edge", "corner", "far", "row", "column", "mid", "between")
PULL = {"self": 1.2, "edge": 0.9, "corner": 0.5, "row": 0.1, "column": 0.1, "mid": 0.0, "between": 0.05, "far": -0.3}


@dataclass(frozen=True)
class Recipe:
    """What to make up."""

    height: int = 4
    width: int = 4
    depth: int = 2
    num_heads: int = 4
    seeds: int = 2
    sweep: tuple[int, ...] = (1, 2)
    sweep_seeds: int = 2
    arms: tuple[str, ...] = ("natural", "shuffled", "scrambled")
    steps: int = 40
    probe_every: int = 20
    gradient_every: int = 10
    pos_embed: str = "learned"
    pool: str = "mean"
    data: str = "photos"
    cuts: tuple[str, ...] = ()
    ledger: bool = False
    settings: tuple[str, ...] = ()

    def config(self, key: RunKey) -> TrainConfig:
        model = ModelConfig(
            width=48, depth=self.depth, num_heads=key.num_heads, pos_embed=self.pos_embed, pool=self.pool
        )
        record = RecordConfig(probe_every=self.probe_every, gradient_every=self.gradient_every)
        of_arm = {"cut": key.arm.removeprefix(CUT)} if key.arm.startswith(CUT) else {"arm": key.arm}
        config = TrainConfig(data=self.data, seed=key.seed, steps=self.steps, model=model, record=record, **of_arm)
        return config.resolved()

    def run_keys(self) -> list[RunKey]:
        keys = []
        for arm in (*self.arms, *(f"{CUT}{what}" for what in self.cuts)):
            seeds = 1 if arm == "shuffled" else self.seeds
            keys += [RunKey(arm, self.num_heads, seed) for seed in range(seeds)]
        for setting in self.settings:
            keys += [RunKey("natural", self.num_heads, seed, setting) for seed in range(self.sweep_seeds)]
        for heads in self.sweep:
            keys += [RunKey("natural", heads, seed) for seed in range(self.sweep_seeds) if heads != self.num_heads]
        return keys


def write_study(path: Path, recipe: Recipe = Recipe(), verdicts: bool = True) -> StudyDirectory:
    """Write a whole study at `path`."""
    study = StudyDirectory(path)
    keys = recipe.run_keys()
    study.write_settings(asdict(recipe.config(keys[0])), recipe.num_heads, keys)
    for key in keys:
        write_run(study, key, recipe)
    if verdicts:
        study.write_verdicts(example_verdicts())
    return study


def write_run(study: StudyDirectory, key: RunKey, recipe: Recipe, end: str = "finished", reason: str = "") -> None:
    environment = {"python": "3.12.1", "torch": "2.6.0", "device": "cpu", "commit": "0123abc", "cores": 2}
    maker = _Maker(key, recipe)
    run = RunDirectory.create(study.path / key.name, asdict(recipe.config(key)), environment, maker.grid)
    with run.writing():
        for step in maker.steps():
            run.record(step, maker.rows(step), maker.arrays(step))
        run.set_status(end=end, **({"reason": reason} if reason else {}))


class _Maker:
    """Rows and arrays of one run."""

    def __init__(self, key: RunKey, recipe: Recipe):
        self.key, self.recipe = key, recipe
        self.random = np.random.default_rng([len(key.arm), key.num_heads, key.seed, *key.setting.encode()])
        self.grid = PatchGrid(recipe.height, recipe.width, int(recipe.pool == "class"))
        self.order = self.random.permutation(self.grid.num_patches)
        self.true_grid = self.grid.reordered(self.order) if key.arm == "shuffled" else self.grid
        self.noise = self.random.normal(size=(self.grid.num_patches, 16))
        self.lift = self.random.normal(size=(4, 16))
        self.learns_space = key.arm != "scrambled"
        self.more = np.random.default_rng([1, len(key.arm), key.num_heads, key.seed, *key.setting.encode()])
        self.keeps_second_account = key == RunKey("natural", recipe.num_heads, 0)

    def steps(self) -> list[int]:
        return sorted({*self.gradient_steps(), *self.probe_steps()})

    def gradient_steps(self) -> range:
        return range(0, self.recipe.steps, self.recipe.gradient_every)

    def probe_steps(self) -> list[int]:
        every = self.recipe.probe_every
        return sorted({*range(0, self.recipe.steps, every), self.recipe.steps}) if every else []

    def progress(self, step: int) -> float:
        return 1 - np.exp(-4 * step / self.recipe.steps)

    def noisy(self, value: float, spread: float = 0.05, random: np.random.Generator | None = None) -> float:
        return float(value + spread * (random or self.random).normal())

    # ---- rows

    def rows(self, step: int) -> list[Measurement]:
        rows = []
        if step in self.gradient_steps():
            rows += self.train_rows(step)
        if step in self.probe_steps():
            rows += self.probe_rows(step) + self.score_rows(step)
            rows += [*self.use_rows(step), *self.content_rows(step)]
            rows += self.position_rows(step) if self.recipe.pos_embed != "none" else []
            rows += self.ledger_rows(step) if self.recipe.ledger and self.learns_space else []
            rows += self.score_account_rows(step) if self.recipe.ledger and self.keeps_second_account else []
        return rows

    def grids(self) -> tuple[str, ...]:
        return ("model", "true") if self.key.arm == "shuffled" else ("model",)

    def sees_space(self, grid: str) -> bool:
        return self.learns_space and (self.key.arm != "shuffled" or grid == "true")

    def heads(self):
        return [(layer, head) for layer in range(self.recipe.depth) for head in range(self.key.num_heads)]

    def silent(self, layer: int) -> bool:
        return self.recipe.pool == "class" and layer == self.recipe.depth - 1

    def gradient_rows(self, step: int, split: str) -> list[Measurement]:
        rows = []
        for measure, size in (("advantage", 0.02), ("pressure", 0.0005)):
            for (layer, head), grid in ((pair, grid) for pair in self.heads() for grid in self.grids()):
                for relation in RELATIONS:
                    pull = PULL[relation] if self.sees_space(grid) else PULL["self"] * (relation == "self")
                    value = self.noisy(size * pull * (1 - 0.8 * self.progress(step)) / (1 + layer), 0.1 * size)
                    value = None if self.silent(layer) else value
                    rows.append(Measurement(measure, value, split, layer, head, relation=relation, grid=grid))
        return rows

    def train_rows(self, step: int) -> list[Measurement]:
        rate = 2e-3 * (1 + np.cos(np.pi * step / self.recipe.steps)) / 2
        rows = [
            Measurement("loss", self.noisy(2.6 - 2 * self.progress(step)), "train"),
            Measurement("learning_rate", rate, "train"),
            Measurement("grad_norm", self.noisy(1, 0.2), "train"),
        ]
        return rows + self.gradient_rows(step, "train")

    def probe_rows(self, step: int) -> list[Measurement]:
        rows = self.gradient_rows(step, "probe")
        for layer, head in self.heads():
            reach = self.grid.mean_distance * (1 - 0.5 * self.progress(step) * (head / 4) * self.learns_space)
            rows += [
                Measurement("attention_distance", self.noisy(reach), "probe", layer, head),
                Measurement("angle_share", self.noisy(0.4 + 0.3 * self.progress(step)), "probe", layer, head),
            ]
            rows += [row for grid in self.grids() for row in self.alignment_rows(step, layer, head, grid)]
        for layer in range(self.recipe.depth):
            divergence = 0.3 * self.progress(step) * (1 + np.log2(self.key.num_heads)) * self.learns_space
            for measure in ("head_divergence_attn", "head_divergence_pressure"):
                value = None if self.key.num_heads == 1 else self.noisy(divergence)
                rows.append(Measurement(measure, value, "probe", layer))
        return rows + self.role_rows(step) + (self.ablation_rows() if step == self.recipe.steps else [])

    def use_rows(self, step: int) -> Iterator[Measurement]:
        """Positions come to be worth 1.5 nats and half of the accuracy, where there is space to be learned."""
        used = self.progress(step) * (self.key.arm == "natural")
        for split in ("probe", "test") if step in (0, self.recipe.steps) else ("probe",):
            yield Measurement("position_use", 1.5 * used + 0.01 * self.more.normal(), split)
            yield Measurement("position_use_accuracy", 0.5 * used, split)

    def content_rows(self, step: int) -> Iterator[Measurement]:
        """On shuffled contents half of everything is left."""
        for content, left in (("natural", 1.0), ("shuffled", 0.5)):
            rows = [*self.attention_rows(step, left), *self.term_rows(step, left), *self.divergence_rows(step, left)]
            if content == "shuffled":
                rows += [*self.role_rows(step, left), *self.stream_rows(step), *self.distance_rows(step, left)]
                rows += [replace(row, value=row.value * left) for row in self.all_alignment_rows(step)]
            yield from (replace(row, content=content) for row in rows if row.measure in MEASURES)

    def attention_rows(self, step: int, left: float) -> Iterator[Measurement]:
        """log(N · attention) = left × progress × `PULL`, to a hundredth."""
        relations = [*RELATIONS, *["prefix"] * (self.recipe.pool == "class")]
        for (layer, head), grid in ((pair, grid) for pair in self.heads() for grid in self.grids()):
            for relation in relations:
                pull = left * self.progress(step) * PULL.get(relation, 0.2) * self.sees_space(grid)
                value = float(np.exp(pull + 0.01 * self.more.normal())) / self.grid.num_tokens
                yield Measurement("attn", value, "probe", layer, head, relation=relation, grid=grid)

    def term_rows(self, step: int, left: float) -> Iterator[Measurement]:
        """Shares that add up to 1, the covariance below 0; parts of the mean scores, not to be had in layer 1."""
        placed = left * self.progress(step) * self.learns_space
        shares = (0.85 - 0.6 * placed, 0.05 + 0.2 * placed, 0.15, 0.02 + 0.4 * placed, -0.07)
        terms = ("content_content", "content_position", "position_content", "position_position", "covariance")
        for head in range(self.key.num_heads):
            for term, share in zip(terms, shares, strict=True):
                yield Measurement(f"logit_share_{term}", float(share), "probe", 0, head)
        for (layer, head), part in ((pair, part) for pair in self.heads() for part in ("offset", "key", "pair")):
            yield Measurement(f"positional_{part}_share", None if layer == 1 else 1 / 3, "probe", layer, head)

    def divergence_rows(self, step: int, left: float) -> Iterator[Measurement]:
        for layer in range(self.recipe.depth):
            value = left * 0.4 * self.progress(step) * self.learns_space + 0.005 * self.more.normal()
            yield Measurement("row_divergence", None if self.key.num_heads == 1 else float(value), "probe", layer)

    def stream_rows(self, step: int) -> Iterator[Measurement]:
        for layer in range(self.recipe.depth + 1):
            value = 0.9 * self.progress(step) * self.learns_space / (1 + layer)
            yield Measurement("position_in_stream", float(value), "probe", layer)

    def distance_rows(self, step: int, left: float) -> Iterator[Measurement]:
        for layer, head in self.heads():
            nearer = 0.5 * left * self.progress(step) * (head / 4) * self.learns_space
            yield Measurement("attention_distance", self.grid.mean_distance * (1 - nearer), "probe", layer, head)

    def all_alignment_rows(self, step: int) -> list[Measurement]:
        places = ((layer, head, grid) for layer, head in self.heads() for grid in self.grids())
        return [row for place in places for row in self.alignment_rows(step, *place, random=self.more)]

    def role_rows(self, step: int, left: float = 1.0) -> list[Measurement]:
        """Head 0 becomes local, where there is space to be learned; all are global before training."""
        rows = []
        for layer, head in self.heads():
            local = 0.5 * left * self.progress(step) * self.learns_space * (head == 0)
            for role, score in (("local", local), ("global", 0.9 * (step == 0))):
                values = {"": score, "_low": score - 0.05, "_high": score + 0.05, "_threshold": 0.1}
                rows += [Measurement(f"role_{role}{part}", v, "probe", layer, head) for part, v in values.items()]
        return rows

    def ablation_rows(self) -> list[Measurement]:
        """Head 0 is needed, the last head idle; with more than two, those between are not sure."""
        rows = []
        for layer, head in self.heads():
            ends = (0.2, 0.4) if head == 0 else (-0.01, 0.005) if head == self.key.num_heads - 1 else (-0.1, 0.3)
            values = {"": sum(ends) / 2, "_low": ends[0], "_high": ends[1]}
            rows += [Measurement(f"ablation_loss_change{part}", v, "probe", layer, head) for part, v in values.items()]
        return rows

    def alignment_rows(self, step: int, layer: int, head: int, grid: str, random=None) -> list[Measurement]:
        place = {"split": "probe", "layer": layer, "head": head, "grid": grid}
        slope = 0.4 * self.progress(step) * self.sees_space(grid)
        furthest = int(self.grid.offset_bins.max())
        by_distance = [
            Measurement(
                "qk_alignment", self.noisy(0.1 + slope * (1 - 2 * d / furthest), random=random), distance=d, **place
            )
            for d in range(furthest + 1)
        ]
        by_relation = [
            Measurement("qk_alignment", self.noisy(0.1 + slope * PULL[name], random=random), relation=name, **place)
            for name in RELATIONS
        ]
        return by_distance + by_relation

    def score_rows(self, step: int) -> list[Measurement]:
        best = 0.85 + 0.03 * np.log2(self.key.num_heads)
        return [
            Measurement("loss", self.noisy(2.6 - 1.8 * self.progress(step), 0.1), "test"),
            Measurement("accuracy", min(1.0, self.noisy(0.08 + (best - 0.08) * self.progress(step), 0.02)), "test"),
        ]

    def position_rows(self, step: int) -> list[Measurement]:
        likeness = self.similarity(step)
        rows = [Measurement("effective_rank", self.noisy(10 - 5 * self.progress(step)))]
        for name in self.grids():
            grid = self.true_grid if name == "true" else self.grid
            falloff = known_falloff(likeness, grid)
            values = {"similarity_falloff": falloff, "coordinate_r2": falloff * 1.2 - 0.2}
            values |= {"neighbour_recovery": max(0.1, falloff), "neighbour_recovery_chance": 0.1}
            if step in (0, self.recipe.steps):
                values |= {"similarity_falloff_null_low": -0.08, "similarity_falloff_null_high": 0.09}
                values |= {"similarity_falloff_p": 0.0005 if falloff > 0.09 else 0.5}
            if name == "true":
                values |= {"edge_recovery": self.noisy(0.2), "edge_recovery_chance": 0.2}
                values |= {"edge_recovery_path": 1.0} if step else {"edge_recovery_pixels": 1.0}
            rows += [Measurement(measure, value, grid=name) for measure, value in values.items()]
        return rows

    def ledger_rows(self, step: int) -> list[Measurement]:
        """Values build 60 % of the change, queries and keys 25 % each, and the MLPs take 10 % away."""
        grid, rows = self.grids()[-1], [Measurement("ledger_residual", 1e-7, grid=self.grids()[-1])]
        for name, change in {"similarity_falloff": 0.5, "near_minus_far": 0.4, "coordinate_r2": 0.8}.items():
            change *= self.progress(step)
            rows.append(Measurement(f"ledger_{name}_change", change, grid=grid))
            rows.append(Measurement(f"ledger_{name}_residual", 1e-7, grid=grid))
            for kind, share in {"q": 0.25, "k": 0.25, "v": 0.6, "mlp": -0.1}.items() if step else ():
                places = [(layer, None) for layer, _ in self.heads()[:: self.key.num_heads]] if kind == "mlp" else None
                for layer, head in places or self.heads():
                    value = share * change / len(places or self.heads())
                    rows.append(Measurement(f"ledger_{name}", value, None, layer, head, kind, grid=grid))
        return rows

    def score_account_rows(self, step: int) -> list[Measurement]:
        """The first seed of the natural arm: far pairs' gradient moves attention, weight decay takes a little back."""
        rows, size, grid = [], self.progress(step), self.grids()[-1]
        parts = {("w_q", "edge"): 0.1, ("w_k", "edge"): 0.1, ("w_q", "far"): 0.3, ("w_k", "far"): 0.2}
        parts |= {("w_q", "other"): -0.1, ("drift", None): 0.2, ("weight_decay", None): -0.05}
        for name, sign in {"qk_alignment": 0.1, "log_attn_edge": 1.0, "log_attn_far": -1.0}.items():
            for layer in range(self.recipe.depth):
                place, change = {"layer": layer, "grid": grid}, sign * size * (1 + layer)
                rows += [
                    Measurement(f"ledger_{name}", change * share, route=route, relation=relation, **place)
                    for (route, relation), share in (parts if step else {}).items()
                ]
                rows.append(Measurement(f"ledger_{name}_change", change * sum(parts.values()), **place))
                rows.append(Measurement(f"ledger_{name}_residual", 2e-4, **place))
        return rows

    # ---- arrays

    def pos_embed(self, step: int) -> np.ndarray:
        """Noise, and on it a smooth map of the patches' true places."""
        row, column = (self.true_grid.coordinates / [[self.recipe.height, self.recipe.width]]).T
        places = np.stack([row, column, np.cos(np.pi * row), np.cos(np.pi * column)], 1)
        return 0.3 * self.noise + self.progress(step) * self.learns_space * (places - places.mean(0)) @ self.lift

    def similarity(self, step: int) -> np.ndarray:
        centred = self.pos_embed(step) - self.pos_embed(step).mean(0)
        unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
        return unit @ unit.T

    def layout(self, step: int) -> np.ndarray:
        true = self.true_grid.coordinates
        left, size, _ = np.linalg.svd(self.pos_embed(step) - self.pos_embed(step).mean(0))
        plane = left[:, :2] * size[:2]
        u, s, vt = np.linalg.svd(plane.T @ (true - true.mean(0)))
        return plane @ (u @ vt) * (s.sum() / (plane**2).sum()) + true.mean(0)

    def arrays(self, step: int) -> dict:
        if step not in self.probe_steps():
            return {}
        arrays = {}
        if self.recipe.pos_embed != "none":
            arrays |= {"pos_embed": self.pos_embed(step), "pos_similarity": self.similarity(step)}
            arrays |= {"pos_layout": self.layout(step)}
        if self.key.arm == "shuffled" and self.recipe.pos_embed != "none":
            arrays |= {"pos_arrangement": self.random.permutation(self.order)}
            arrays |= {"pos_arrangement_path": self.order} if step else {}
        arrays |= {("attn_offset_map", layer): self.offset_maps(step) for layer in range(self.recipe.depth)}
        maps = self.offset_maps(step, self.more, 0.5)
        arrays |= {("attn_offset_map_shuffled", layer): maps for layer in range(self.recipe.depth)}
        if step == self.recipe.steps:
            likeness = 0.3 + 0.7 * np.eye(self.key.num_heads)
            for layer in range(self.recipe.depth):
                arrays |= {("attn_similarity", layer): likeness, ("contribution_similarity", layer): likeness}
        if step == 0:
            arrays |= {"example_images": self.example_images()}
        if step == 0 and self.key.arm == "shuffled":
            arrays |= {"patch_order": self.order}
        return arrays

    def offset_maps(self, step: int, random: np.random.Generator | None = None, left: float = 1.0) -> np.ndarray:
        """`head dy dx`: even, and head by head more and more local."""
        near = np.exp(-self.grid.offset_distances)
        bump = left * self.progress(step) * self.learns_space * np.arange(self.key.num_heads)[:, None, None]
        noise = 0.05 * (random or self.random).random((self.key.num_heads, *near.shape))
        return (1 + bump * near + noise) / self.grid.num_tokens

    def example_images(self) -> np.ndarray:
        """Discs on a slope of colour, 4 pixels a patch, permuted as the arm says."""
        height, width = 4 * self.recipe.height, 4 * self.recipe.width
        y, x = np.mgrid[:height, :width]
        images = []
        for number in range(8):
            disc = (y - height / 2) ** 2 + (x - width * (number + 1) / 9) ** 2 < (height / 3) ** 2
            image = np.stack([255 * disc, 255 * y / height, 255 * x / width], -1).astype(np.uint8)
            images.append(self.permuted(image))
        return np.stack(images)

    def permuted(self, image: np.ndarray) -> np.ndarray:
        if self.key.arm == "natural":
            return image
        order = self.order if self.key.arm == "shuffled" else self.random.permutation(self.grid.num_patches)
        height, width = self.recipe.height, self.recipe.width
        patches = image.reshape(height, 4, width, 4, 3).swapaxes(1, 2).reshape(-1, 4, 4, 3)[order]
        return patches.reshape(height, width, 4, 4, 3).swapaxes(1, 2).reshape(image.shape)


def known_falloff(similarity: np.ndarray, grid: PatchGrid) -> float:
    """Pearson correlation of C_ij and −D_ij over i < j."""
    pairs = np.triu_indices(grid.num_patches, 1)
    return float(np.corrcoef(similarity[pairs], -grid.distances[pairs])[0, 1])


def example_verdicts() -> list[dict]:
    """One of each verdict."""
    contrast = {"name": "scrambled", "statistic": 0.051, "interval": [0.031, 0.071], "n": 5, "p": 0.0021}
    whole = {"statistic": 0.052, "interval": [0.032, 0.072], "n": 5, "p": 0.0042, "control": contrast}
    empty = {"statistic": None, "interval": None, "n": 0, "p": None, "control": None}
    use = {"seeds": {"0": 1.8, "1": 2.0}, "control_seeds": {"0": 0.01}, "accuracy": {"natural": 0.89, "shuffled": 0.27}}
    return [
        {"claim": "C0", "verdict": "by construction", **whole, "p": None, "control": None,
         "details": {"at the start": 0.41},
         "sentence": "By construction: a score is the product of two lengths and the cosine of an angle."},
        {"claim": "C1", "verdict": "supported", **whole,
         "details": {"layers": {"0": 0.1, "1": 0.02}, "p_adjusted": 0.0312},
         "sentence": "The gradient pulls neighbours together, in this model on these photographs."},
        {"claim": "C2", "verdict": "mixed", **whole, "details": {},
         "sentence": "Far patches are pushed apart in layer 0 and pulled together in layer 2."},
        {"claim": "C3a", "verdict": "inconclusive", **whole, "details": {},
         "sentence": "Whether position embeddings become a map stays open: between 9 and 30 seeds would settle it."},
        {"claim": "C3b", "verdict": "not judged", **empty, "details": {},
         "sentence": "Not judged: there is no ledger."},
        {"claim": "C3c", "verdict": "supported", **whole | {"statistic": 1.9, "interval": [1.7, 2.1]}, "details": use,
         "sentence": "The model uses its positions."},
        {"claim": "C4", "verdict": "contradicted", **whole | {"statistic": -0.3, "interval": [-0.4, -0.2]},
         "details": {}, "sentence": "Heads grow more alike & do not specialise <in this model>."},
    ]  # fmt: skip


def variant(**changes) -> Recipe:
    """The small recipe with changes."""
    return replace(Recipe(), **changes)
