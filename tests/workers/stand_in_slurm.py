"""As much of Slurm as submitit uses, on this machine: linked as sbatch, srun, sacct, scancel and scontrol.

Jobs are in the folder that STAND_IN_SLURM names: a file each with its state, and with the group of its processes.
"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

FOLDER = Path(os.environ.get("STAND_IN_SLURM", "."))


def note(job: str, **change) -> dict:
    path = FOLDER / f"{job}.json"
    known = (json.loads(path.read_text()) if path.exists() else {}) | change
    beside = path.with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps(known))
    beside.replace(path)
    return known


def sbatch(script: str) -> None:
    text = Path(script).read_text()
    number = str(1 + len(list(FOLDER.glob("*.sh"))))
    (FOLDER / f"{number}.sh").write_text(text)
    array = re.search(r"^#SBATCH --array=0-(\d+)", text, re.MULTILINE)
    for place in range(int(array[1]) + 1) if array else [None]:
        job = number if place is None else f"{number}_{place}"
        note(job, state="PENDING")
        command = [sys.executable, __file__, "supervise", job]
        subprocess.Popen(command, start_new_session=True, stdin=-3, stdout=-3, stderr=-3)
    print(f"Submitted batch job {number}")


def supervise(job: str) -> None:
    number, _, place = job.partition("_")
    ours = {"SLURM_JOB_ID": job.replace("_", ""), "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}
    ours |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": place} if place else {"SLURM_JOB_ID": number}
    while True:
        process = subprocess.Popen(["bash", FOLDER / f"{number}.sh"], env=os.environ | ours, start_new_session=True)
        note(job, state="RUNNING", group=process.pid, again=False)
        code = process.wait()
        if not note(job)["again"]:
            break
    if note(job)["state"] == "RUNNING":
        note(job, state="FAILED" if code else "COMPLETED")


def srun(*words: str) -> None:
    words = list(words)
    while words[0].startswith("-"):
        words = words[1 if words[0] == "--unbuffered" else 2 :]
    os.execv(words[0], words)


def sacct(*_: str) -> None:
    print("JobID|State|NodeList")
    for path in FOLDER.glob("*.json"):
        print(f"{path.stem}|{note(path.stem)['state']}|here")


def scancel(job: str) -> None:
    group = note(job, state="CANCELLED").get("group")
    if group:
        os.killpg(group, signal.SIGKILL)


def scontrol(_: str, job: str) -> None:
    note(job, again=True)


if __name__ == "__main__":
    name = Path(sys.argv[0]).name
    if name == Path(__file__).name:
        name, *rest = sys.argv[1:]
    else:
        rest = sys.argv[1:]
    {each.__name__: each for each in (sbatch, supervise, srun, sacct, scancel, scontrol)}[name](*rest)
