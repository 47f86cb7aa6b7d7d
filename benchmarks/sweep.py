"""What a sweep costs beside its runs: a study of 40 tiny runs on two local workers; one JSON line.

    python benchmarks/sweep.py
    python benchmarks/run.py --only sweep

`ratio` is the time of the whole command, from the start of Python to the written report, against half the sum of the
runs' own times: what each takes in a worker that has loaded all it needs. Two runs at once on two cores disturb each
other; that is in their own time, and in the whole.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time

WORKERS = 2
RUNS = 40
STEPS = 250

PROGRAM = f"""
import json, time, wherefrom.studies as studies
from wherefrom.config import ModelConfig, StudyConfig
loaded = time.time()
config = StudyConfig(
    data="digits", steps={STEPS}, batch_size=32, seeds=14, heads=(1, 2, 4, 8), head_seeds=4, device="cpu",
    arms=("natural", "scrambled"), model=ModelConfig(width=16, depth=2, num_heads=2, patch_size=2),
)
train_all, times = studies.train_all, []
def timed(*given, **named):
    trained = train_all(*given, **named)
    times.append(time.time())
    return trained
studies.train_all = timed
result = studies.run_study(config, OUT, jobs={WORKERS}, report=lambda snapshot: None)
print(json.dumps({{"loaded": loaded, "trained": times[0], "failed": result.failed, "seconds": result.seconds}}))
"""


def sweep(_: int = 1) -> dict:
    """A study of 40 tiny runs on two workers, against half the sum of its runs' own times."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.time()
        program = PROGRAM.replace("OUT", repr(f"{folder}/study"))
        done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
        whole = time.time() - begun
    found = json.loads(done.stdout)
    assert len(found["seconds"]) == RUNS, found["failed"]
    own = sum(found["seconds"].values()) / WORKERS
    trained = found["trained"] - begun
    return {
        "ratio": round(whole / own, 3), "limit": 1.15, "seconds": round(whole, 1), "against": round(own, 1),
        "ratio_until_trained": round(trained / own, 3), "import": round(found["loaded"] - begun, 1),
        "beside_runs": round(trained - own, 1), "judge_and_report": round(whole - trained, 1),
        "run": round(statistics.median(found["seconds"].values()), 2),
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps({"benchmark": "sweep"} | sweep()))
