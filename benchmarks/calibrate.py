"""Are the roles of heads right? Planted heads, heads at initialisation, heads trained on scrambled images.

    make calibrate

Prints a Markdown table of rates with 95 % binomial intervals and puts it into docs/heads.md, between its two marks.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
from planted import CONTENT, DIRECTION_SIZE, NOISE, SIZE, Case, planted
from tables import markdown, put, rate

import wherefrom as wf
from wherefrom.data import Batches, load
from wherefrom.measures.contents import pair_contents
from wherefrom.measures.layer import layer_measurements
from wherefrom.measures.sums import layer_sums
from wherefrom.models.vit import ViT
from wherefrom.observe.probe import probe
from wherefrom.roles import OF_POSITION, ROLES, roles_of

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "heads.md"
MARKS = "<!-- calibration -->", "<!-- end of calibration -->"

MAY_ALSO = {
    "local": {"near", "self"},
    "near": {"local", "self"},
    "self": {"similar"},
    "horizontal": {"self", "local", "near"},
    "vertical": {"self", "local", "near"},
    "offset": {"local", "near", "direction"},
    "direction": {"global", "place"},
    "global": set(),
    "place": {"sink", "direction"},
    "sink": set(),
    "contour": {"global", "sink", "similar"},
    "texture": {"global", "self", "similar"},
    "similar": {"global", "self"},
    "prefix": {"global", "sink", "place"},
}
"""What a planted head does besides, by construction; any other role is a mistake. It looks at itself and at neighbours
too where its row or its neighbourhood holds them, and from the margin, where the favourite patch is outside the image,
at what is nearest. A displaced patch lies in a direction; so do favourite positions that are not in the middle. Half a
plane may be over half of all tokens. The same positions for all queries draw the queries of each image, as prefix
tokens and strong edges do. Strong queries that have something in common magnify the noise of keys, half of which is the
same in all images: `direction` heads, and what `prefix` heads leave to patches, then have favourite positions (without
noise none has). A head that looks at itself because q_i = k_i looks at similar keys next; keys that hold what contour
and texture heads follow are similar where that is similar; a patch is most similar to itself."""

GRIDS = ((8, 8, 4), (6, 10, 4), (12, 5, 4), (7, 7, 8), (14, 14, 4), (16, 6, 4))
"""Rows and columns of patches, and the side of a patch in pixels."""
HEAD_DIMS = (16, 32, 64)
PREFIXES = (0, 1, 5)

DATA = {
    "photographs": ("photos", {"depth": 3, "patch_size": 4, "pos_embed_std": 0.02}),
    "digits": ("mnist", {"depth": 3, "patch_size": 4, "pos_embed_std": 0.02}),
}
"""What the models see, and what they are unless it is changed."""
MODELS = {
    "": {}, "1 head": {"num_heads": 1}, "8 heads": {"num_heads": 8}, "large patches": {"patch_size": (8, 7)},
    "class token": {"width": 128, "num_heads": 16, "pool": "class"}, "strong start": {"pos_embed_std": 0.5},
}  # fmt: skip
"""Changes; a pair holds what photographs and digits get."""
TRAINED = (*(({}, seed) for seed in range(4)), ({"num_heads": 8}, 4), ({"pool": "class"}, 5))
TRAINING = {"steps": 240, "learning_rate": 2.5e-3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=4, help="planted heads of each role, grid, width and prefix")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--seed", type=int, default=0, help="first seed; least effects were chosen with others than 0")
    parser.add_argument("--untrained", action="store_true", help="leave out trained models")
    parser.add_argument("--dry", action="store_true", help="leave docs/heads.md as it is")
    options = parser.parse_args()
    start = time.perf_counter()
    combinations = itertools.product(GRIDS, PREFIXES, HEAD_DIMS, range(options.repeats))
    cases = [Case(*grid, prefix, dim, seed) for seed, (grid, prefix, dim, _) in enumerate(combinations)]
    cases = [case for case in cases if can_code(case)]
    cases = [replace(case, seed=case.seed + options.seed) for case in cases]
    start_seeds = range(100 + options.seed, 106 + options.seed)
    models = list(itertools.product(DATA, ("natural", "scrambled"), MODELS.values(), start_seeds))
    runs = [(data, changed, 100 + options.seed + seed) for data in DATA for changed, seed in TRAINED]
    with ProcessPoolExecutor(options.workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        trained = pool.map(trained_roles, () if options.untrained else runs)  # the longest first
        at_start = pool.map(initial_roles, models, chunksize=4)
        found = pool.map(planted_roles, cases, chunksize=8)
        tables = planted_table(pd.concat(found)), null_tables(pd.concat([*at_start, *trained]))
    text = document(*tables)
    print(text)
    print(f"{time.perf_counter() - start:.0f} seconds", file=sys.stderr)
    if not options.dry:
        put(DOCUMENT, MARKS, text)


# ---- heads and the roles they are given


def can_code(case: Case) -> bool:
    """Whether queries are long enough to tell places: d numbers hold d/4 waves an axis, one for two patches."""
    return max(case.height, case.width) <= case.head_dim // 2


def planted_roles(case: Case) -> pd.DataFrame:
    """Roles of one head of each planted role."""
    record, images, roles = planted(case)
    sums = layer_sums(record, {"model": case.grid}, contents=pair_contents(images, case.grid))
    found = as_roles(layer_measurements(sums, 0, "probe"))
    return found.assign(planted=found["head"].map(dict(enumerate(roles))), case=case.seed)


def model_config(data: str, changed: dict) -> wf.ModelConfig:
    number = list(DATA).index(data)
    changed = {name: value[number] if isinstance(value, tuple) else value for name, value in changed.items()}
    return wf.ModelConfig(**DATA[data][1] | changed)


def initial_roles(setting: tuple[str, str, dict, int]) -> pd.DataFrame:
    """Roles of the heads of a model that has not been trained."""
    name, arm, changed, seed = setting
    data, config = load(DATA[name][0]), model_config(name, changed)
    torch.manual_seed(seed)
    model = ViT(config, data.image_shape, data.num_classes)
    batches = Batches(data, arm=arm, patch_size=config.patch_size, batch_size=64, seed=seed)
    rows, _ = probe(model, *batches.probe(64))
    return as_roles(rows).assign(data=name, group=f"initialisation, {arm}", run=f"{changed} {seed}")


def trained_roles(setting: tuple[str, dict, int]) -> pd.DataFrame:
    """Roles of the heads of a model trained on scrambled images."""
    data, changed, seed = setting
    record = wf.RecordConfig(probe_every=0, gradient_every=0, checkpoint_every=0)
    config = wf.TrainConfig(
        data=DATA[data][0], arm="scrambled", seed=seed, threads=1, device="cpu", record=record,
        model=model_config(data, changed), **TRAINING,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        table = wf.fit(config, folder).measurements()
    found = roles_of(table[table["step"] == config.steps])
    return found.assign(data=data, group="trained, scrambled", run=f"{changed} {seed}")


def as_roles(rows) -> pd.DataFrame:
    columns = ["measure", "value", "split", "layer", "head"]
    return roles_of(pd.DataFrame([[getattr(row, name) for name in columns] for row in rows], columns=columns))


# ---- rates


def planted_table(found: pd.DataFrame) -> list[list[str]]:
    """By planted role: heads that have it, heads that have it and no other that they may not have."""
    rows = []
    for role in ROLES:
        heads = found[found["planted"] == role].groupby("case")
        given = [set(head.loc[head["has"], "role"]) for _, head in heads]
        right = [role in roles and roles <= {role} | MAY_ALSO[role] for roles in given]
        wrong = Counter(other for roles in given for other in roles - {role} - MAY_ALSO[role])
        scores = found.loc[(found["planted"] == role) & (found["role"] == role), "score"]
        others = ", ".join(f"{other} ({count})" for other, count in wrong.most_common()) or "none"
        have = sum(role in roles for roles in given)
        rates = rate(have, len(given)), rate(sum(right), len(given))
        rows.append([f"`{role}`", str(len(given)), *rates, others, f"{scores.median():.2f}"])
    return rows


def null_tables(found: pd.DataFrame) -> dict[str, list[list[str]]]:
    """By data and role: share of heads that have it where no position can be known; all roles of position last."""
    tables = {}
    for data, rows in found.groupby("data", sort=False):
        groups = [group for _, group in rows.groupby("group", sort=False)]
        sizes = [len(group.groupby(["run", "layer", "head"])) for group in groups]
        table = [["heads", *itertools.chain.from_iterable((str(size), "") for size in sizes)]]
        for role in (*ROLES, None):
            cells = [f"`{role}`" if role else "**any role of position**"]
            for group in groups:
                chosen = group[group["role"].isin([role] if role else OF_POSITION)]
                heads = chosen.groupby(["run", "layer", "head"])["has"].any()
                cells += [f"{rate(int(heads.sum()), len(heads))}", f"{chosen['score'].max():.2f}"]
            table.append(cells)
        names = [name for name, _ in rows.groupby("group", sort=False)]
        tables[str(data)] = [["role", *itertools.chain.from_iterable((name, "largest") for name in names)], *table]
    return tables


# ---- the text


PLANTED_TEXT = """\
Planted heads: grids of {grids} patches,
queries of {dims} numbers (where that is at least twice the longer side), {prefixes} prefix tokens, 64 crops of
photographs. Before noise, {size:.0%} of attention beyond a uniform spread is where the role wants it ({direction:.0%}
for direction), or as much as so few numbers can hold (contour, texture and similar: scores with a standard deviation of
{content:g} along a row; global: none). Noise adds a standard deviation of {noise:g} to the scores, and more where
they are large.
"""

NULL_TEXT = """
Heads that can know nothing of positions, models for {data}; each column with the largest score in it. Trained: {steps}
steps on scrambled images, of a model with 3 layers and 4 heads, of one with 8 heads, of one with a class token.
"""


def document(planted_rows: list[list[str]], null_rows: dict[str, list[list[str]]]) -> str:
    first = PLANTED_TEXT.format(
        grids=", ".join(f"{height} × {width}" for height, width, _ in GRIDS), dims=", ".join(map(str, HEAD_DIMS)),
        prefixes=", ".join(map(str, PREFIXES)), size=SIZE, direction=DIRECTION_SIZE, content=CONTENT, noise=NOISE,
    )  # fmt: skip
    titles = ["planted role", "heads", "have it", "and no role that is wrong", "wrong roles", "median score"]
    lines = [first, *markdown(titles, planted_rows)]
    for data, (names, *rows) in null_rows.items():
        lines += [NULL_TEXT.format(data=data, steps=TRAINING["steps"]), *markdown(names, rows)]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
