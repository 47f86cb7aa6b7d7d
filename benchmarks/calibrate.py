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
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
from planted import CONTENT, NOISE, SIZE, Case, planted

import wherefrom as wf
from wherefrom.data import Batches, load
from wherefrom.measures.contents import pair_contents
from wherefrom.measures.layer import layer_measurements
from wherefrom.measures.sums import layer_sums
from wherefrom.models.vit import ViT
from wherefrom.observe.probe import probe
from wherefrom.roles import ROLES, roles_of
from wherefrom.statistics import binomial_interval

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "heads.md"
MARKS = "<!-- calibration -->", "<!-- end of calibration -->"

PLACES = ("local", "horizontal", "vertical", "offset")
"""Roles that no head may have where there is nothing to learn about places."""

MAY_ALSO = {
    "local": {"self"}, "self": set(), "horizontal": {"self", "local"}, "vertical": {"self", "local"},
    "offset": {"local"}, "global": set(), "contour": {"global"}, "texture": {"global", "self"}, "prefix": {"global"},
}  # fmt: skip
"""A planted head looks at itself too where its row or its neighbourhood holds it, and from the margin, where the
favourite place is outside the image, at what is nearest; any other role is a mistake."""

GRIDS = ((8, 8, 4), (6, 10, 4), (12, 5, 4), (7, 7, 8), (14, 14, 4), (16, 6, 4))
"""Rows and columns of patches, and the side of a patch in pixels."""
HEAD_DIMS = (16, 32, 64)
PREFIXES = (0, 1, 5)

MODELS = {
    "": {}, "1 head": {"num_heads": 1}, "8 heads": {"num_heads": 8}, "16 patches": {"patch_size": 8},
    "class token": {"width": 128, "num_heads": 16, "pool": "class"}, "strong start": {"pos_embed_std": 0.5},
}  # fmt: skip
TRAINED = (*(({}, seed) for seed in range(6)), *(({"num_heads": 8}, seed) for seed in (6, 7)), ({"pool": "class"}, 8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=6, help="planted heads of each role, grid, width and prefix")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--dry", action="store_true", help="leave docs/heads.md as it is")
    options = parser.parse_args()
    start = time.perf_counter()
    combinations = itertools.product(GRIDS, PREFIXES, HEAD_DIMS, range(options.repeats))
    cases = [Case(*grid, prefix, dim, seed) for seed, (grid, prefix, dim, _) in enumerate(combinations)]
    cases = [case for case in cases if can_code(case)]
    models = list(itertools.product(("natural", "scrambled"), MODELS.values(), range(100, 106)))
    with ProcessPoolExecutor(options.workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        trained = pool.map(trained_roles, TRAINED)  # the longest first
        at_start = pool.map(initial_roles, models, chunksize=4)
        found = pool.map(planted_roles, cases, chunksize=8)
        tables = (planted_table(pd.concat(found)), null_table(pd.concat(at_start), pd.concat(trained)))
    text = document(*tables)
    print(text)
    print(f"{time.perf_counter() - start:.0f} seconds", file=sys.stderr)
    if not options.dry:
        put(text)


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


def initial_roles(setting: tuple[str, dict, int]) -> pd.DataFrame:
    """Roles of the heads of a model that has not been trained, on photographs."""
    arm, changed, seed = setting
    data, config = load("photos"), wf.ModelConfig(**changed)
    torch.manual_seed(seed)
    model = ViT(config, data.image_shape, data.num_classes)
    batches = Batches(data, arm=arm, patch_size=config.patch_size, batch_size=64, seed=seed)
    rows, _ = probe(model, *batches.probe(64))
    return as_roles(rows).assign(arm=arm, run=f"{changed} {seed}")


def trained_roles(setting: tuple[dict, int]) -> pd.DataFrame:
    """Roles of the heads of the default model after the default training on scrambled photographs."""
    changed, seed = setting
    record = wf.RecordConfig(probe_every=0, gradient_every=0, checkpoint_every=0)
    config = wf.TrainConfig(
        arm="scrambled", seed=100 + seed, threads=1, device="cpu", record=record, model=wf.ModelConfig(**changed)
    )
    with tempfile.TemporaryDirectory() as folder:
        table = wf.fit(config, folder).measurements()
    found = roles_of(table[table["step"] == config.steps])
    return found.assign(run=f"{changed} {seed}")


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
        wrong = sorted({other for roles in given for other in roles - {role} - MAY_ALSO[role]})
        scores = found.loc[(found["planted"] == role) & (found["role"] == role), "score"]
        rows.append([f"`{role}`", str(len(given)), rate(sum(role in roles for roles in given), len(given)),
                     rate(sum(right), len(given)), ", ".join(wrong) or "none", f"{scores.median():.2f}"])  # fmt: skip
    return rows


def null_table(at_start: pd.DataFrame, trained: pd.DataFrame) -> list[list[str]]:
    """By role: share of heads that have it where there is nothing about places to have; all four together last."""
    groups = [at_start[at_start["arm"] == arm] for arm in ("natural", "scrambled")] + [trained]
    sizes = [len(group.groupby(["run", "layer", "head"])) for group in groups]
    rows = [["heads", *itertools.chain.from_iterable((str(size), "") for size in sizes)]]
    for role in (*ROLES, None):
        cells = [f"`{role}`" if role else "**any of local, horizontal, vertical, offset**"]
        for group in groups:
            chosen = group[group["role"].isin([role] if role else PLACES)]
            heads = chosen.groupby(["run", "layer", "head"])["has"].any()
            cells += [f"{rate(int(heads.sum()), len(heads))}", f"{chosen['score'].max():.2f}"]
        rows.append(cells)
    return rows


def rate(successes: int, trials: int) -> str:
    if not trials:
        return "–"
    low, high = binomial_interval(successes, trials)
    return f"{100 * successes / trials:.1f} % ({100 * low:.1f}–{100 * high:.1f})"


# ---- the text


PLANTED_TEXT = """\
Planted heads: grids of {grids} patches, queries of {dims} numbers (where that is
at least twice the longer side), {prefixes} prefix tokens, 64 crops of photographs. Before noise, {size:.0%} of
attention beyond an even spread is where the role wants it, or as much as so few numbers can hold (contour and texture:
scores with a deviation of {content:g} along a row; global: none). Noise adds a deviation of {noise:g} to the scores and
more where they are large.
"""

NULL_TEXT = """
Heads that can know nothing of places, each column with the largest score in it. Trained: the default training on
scrambled photographs, of the default model, of one with 8 heads, of one with a class token.
"""


def document(planted_rows: list[list[str]], null_rows: list[list[str]]) -> str:
    first = PLANTED_TEXT.format(
        grids=", ".join(f"{height} × {width}" for height, width, _ in GRIDS), dims=", ".join(map(str, HEAD_DIMS)),
        prefixes=", ".join(map(str, PREFIXES)), size=SIZE, content=CONTENT, noise=NOISE,
    )  # fmt: skip
    titles = ["planted role", "heads", "have it", "and no role that is wrong", "wrong roles", "median score"]
    arms = ["initialisation, natural", "initialisation, scrambled", "trained, scrambled"]
    null_titles = ["role", *itertools.chain.from_iterable((arm, "largest") for arm in arms)]
    return "\n".join([first, *markdown(titles, planted_rows), NULL_TEXT, *markdown(null_titles, null_rows)])


def markdown(titles: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (titles, ["---"] * len(titles), *rows)]


def put(text: str) -> None:
    """Between the two marks of the document."""
    before, rest = DOCUMENT.read_text(encoding="utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    DOCUMENT.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
