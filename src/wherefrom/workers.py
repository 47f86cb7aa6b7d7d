"""Runs trained in processes of their own: one that dies takes only its own run along, and all leave with their parent.

A worker is `python -m wherefrom.workers`: one line of JSON in is a run to train, one line out says how it ended. Where
its input ends, it leaves at once: what was recorded is whole at any moment. multiprocessing would import the caller's
script again in each process, so that a plain script could not start a study.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is loaded in the worker alone
    from wherefrom.data import ImageData


KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
"""glibc, left alone, gives memory back at the end of a step and asks for it again in the next: 8 % of a small step."""


class RunFailed(Exception):
    """The run cannot succeed; to try it again would end the same way."""


class RunLost(Exception):
    """The process died or its disk failed; what was recorded is kept, and another try may succeed."""


class Workers:
    """Processes of one thread each. Two of them do 1.75 times the work of one process with two threads.

    At the end of the scope all processes are gone; after an exception, such as Ctrl-C, without waiting for their runs.
    """

    def __init__(self, jobs: int):
        self._threads = ThreadPoolExecutor(jobs)
        self._workers = [_Worker() for _ in range(jobs)]
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)

    def submit(self, config: dict, out: Path) -> Future[None]:
        """Train one run; the future raises RunFailed or RunLost."""
        return self._threads.submit(self._train, config, out)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, error: type[BaseException] | None, *_) -> None:
        if error:
            self._stop()
        self._threads.shutdown(cancel_futures=True)
        self._stop()
        for worker in self._workers:
            worker.close()

    def _stop(self) -> None:
        for worker in self._workers:
            worker.stop()

    def _train(self, config: dict, out: Path) -> None:
        worker = self._idle.get()
        try:
            worker.train(config, out)
        finally:
            self._idle.put(worker)


class _Worker:
    """One process, started when it is first needed, and anew after it died."""

    def __init__(self):
        self._process: subprocess.Popen | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def train(self, config: dict, out: Path) -> None:
        process = self._running()
        assert process.stdin
        assert process.stdout
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps([config, str(out)]) + "\n")
            process.stdin.flush()
        reply = process.stdout.readline()
        if not reply:
            self.close()
            raise RunLost(f"its process ended with code {process.wait()}; is there enough memory?")
        if found := json.loads(reply):
            raise (RunLost if found["again"] else RunFailed)(found["sentence"])

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            if self._process:
                self._process.kill()

    def close(self) -> None:
        with self._lock:
            if self._process:
                with contextlib.suppress(BrokenPipeError), self._process:  # closes its pipes and waits for its end
                    pass
            self._process = None

    def _running(self) -> subprocess.Popen:
        with self._lock:
            if self._stopped:
                raise RunLost("interrupted")
            self._process = self._process or _start()
            return self._process


def _start() -> subprocess.Popen:
    ours = {
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "OMP_NUM_THREADS": "1",
    } | KEEP_MEMORY
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "wherefrom.workers"], env=os.environ | ours, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        start_new_session=True,  # the terminal sends Ctrl-C to all of its session; the parent decides
    )  # fmt: skip


# ---- inside the process


def work() -> None:
    """Train the runs that standard input names, one after the other."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no reply
    tasks: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(tasks,), daemon=True).start()
    while True:
        print(json.dumps(_train(*json.loads(tasks.get()))), file=replies, flush=True)


def _listen(tasks: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        tasks.put(line)
    os._exit(0)  # the parent is done, or dead


def _train(config: dict, out: str) -> dict | None:
    from wherefrom.config import from_dict
    from wherefrom.train import fit

    try:
        run = from_dict(config)
        fit(run, out, resume=True, data=_data(run.data))
    except (OSError, MemoryError) as error:
        return {"again": True, "sentence": _sentence(error)}
    except Exception as error:  # whatever it is, the other runs go on
        return {"again": False, "sentence": _sentence(error)}
    return None


@lru_cache(maxsize=1)
def _data(name: str) -> ImageData:
    """The runs of a study share their images, so that a process reads them once."""
    from wherefrom.data import load

    return load(name)


def _sentence(error: Exception) -> str:
    meant_for_users = isinstance(error, (ValueError, FloatingPointError, OSError)) and str(error)
    return str(error) if meant_for_users else f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    work()
