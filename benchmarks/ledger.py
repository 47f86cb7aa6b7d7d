"""Does the account of pos_embed add up on real runs? A JSON line a run.

    python benchmarks/ledger.py --seeds 3 --steps 300 --depth 3 --pool mean

`closure` is the largest miss of the routes' sum, `residual` what the ledger misses at the end, both relative; `shares`
are signed shares of the whole change of each structure measure by kind of route.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time

import pandas as pd

import wherefrom as wf
from wherefrom.config import RecordConfig
from wherefrom.train import fit

STRUCTURES = ("similarity_falloff", "near_minus_far", "coordinate_r2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--pool", choices=("mean", "class"), default="mean")
    parser.add_argument("--every", type=int, default=1, help="enter every so many updates")
    parser.add_argument("--data", default="photos")
    options = parser.parse_args()
    for seed in range(options.seeds):
        print(json.dumps(vars(options) | {"seed": seed} | account(seed, options)), flush=True)


def account(seed: int, options: argparse.Namespace) -> dict:
    """One run with the ledger on, summed up."""
    config = wf.TrainConfig(
        data=options.data, seed=seed, steps=options.steps, threads=1, device="cpu",
        model=wf.ModelConfig(depth=options.depth, pool=options.pool),
        record=RecordConfig(probe_every=0, gradient_every=options.every, ledger_every=options.every),
    )  # fmt: skip
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        rows = fit(config, folder).measurements()
    seconds = round(time.perf_counter() - started, 1)
    last = rows[rows.step == options.steps]
    found = {"seconds": seconds, "closure": float(rows[rows.measure == "route_closure"].value.max())}
    found["residual"] = float(last[last.measure == "ledger_residual"].value.iloc[0])
    return found | {name: by_kind(last, name) for name in STRUCTURES}


def by_kind(last: pd.DataFrame, name: str) -> dict:
    """Change of a structure measure, what its account misses, and the share of each kind of route."""
    change, residual = (
        float(last[last.measure == f"ledger_{name}_{what}"].value.iloc[0]) for what in ("change", "residual")
    )
    shares = last[last.measure == f"ledger_{name}"].groupby("route").value.sum() / change
    return {"change": round(change, 4), "residual": residual, "shares": shares.round(3).to_dict()}


if __name__ == "__main__":
    main()
