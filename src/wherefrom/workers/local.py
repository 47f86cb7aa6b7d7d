"""Runs trained in processes of their own: one that dies takes only its own run along, and all leave with their parent.

A worker is `python -m wherefrom.workers.local`: one line of JSON in says what to do, one line out how that ended. The
first one also looks at machine and data, so that the parent need not load torch. Where its input ends, it leaves at
once: what was recorded is whole at any moment.
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
from pathlib import Path

from wherefrom.process import start
from wherefrom.workers.task import RunLost, check_runs, checked, raise_error, seconds_in, train_run

KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
"""glibc, left alone, gives memory back at the end of a step and asks for it again in the next: 8 % of a small step."""


class Workers:
    """So many processes of one thread each. Two of them do 1.75 times the work of one process with two threads.

    At the end of the scope all processes are gone; after an exception, such as Ctrl-C, without waiting for their runs.
    """

    def __init__(self, jobs: int):
        self._threads = ThreadPoolExecutor(max(1, jobs))
        self._workers = [_Worker() for _ in range(jobs)]
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()  # a process that is warm comes first
        for worker in reversed(self._workers):
            self._idle.put(worker)

    def check(self, configs: list[dict]) -> None:
        """`check_runs` in the first process, which then has the data."""
        try:
            return self._workers[0].check(configs)
        except (IndexError, RunLost):  # nothing to train, or it died
            return check_runs(configs)

    def submit(self, config: dict, out: Path) -> Future[float]:
        """Train one run; the future gives the seconds it took, or raises RunFailed or RunLost."""
        return self._threads.submit(self._train, config, out)

    def __enter__(self) -> Workers:
        for worker in self._workers:  # their imports take some seconds
            worker.start()
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

    def _train(self, config: dict, out: Path) -> float:
        worker = self._idle.get()
        try:
            return worker.train(config, out)
        finally:
            self._idle.put(worker)


class _Worker:
    """One process, started when it is first needed, and anew after it died."""

    def __init__(self):
        self._process: subprocess.Popen | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def check(self, configs: list[dict]) -> None:
        raise_error(self._ask("check", configs))

    def train(self, config: dict, out: Path) -> float:
        return seconds_in(self._ask("train", config, str(out)))

    def _ask(self, what: str, *given) -> dict:
        process = self._running()
        assert process.stdin
        assert process.stdout
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps([what, *given]) + "\n")
            process.stdin.flush()
        reply = process.stdout.readline()
        if not reply:
            self.close()
            raise RunLost(f"its process ended with code {process.wait()}; is there enough memory?")
        return json.loads(reply)

    def start(self) -> None:
        self._running()

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
            self._process = self._process or start("wherefrom.workers.local", text=True, **KEEP_MEMORY)
            return self._process


# ---- inside the process


WORK = {"check": checked, "train": train_run}


def work() -> None:
    """Do what standard input says, one after the other."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no reply
    tasks: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(tasks,), daemon=True).start()
    with contextlib.suppress(Exception):  # the first run will say what is missing
        import wherefrom.train  # noqa: F401
    while True:
        what, *given = json.loads(tasks.get())
        print(json.dumps(WORK[what](*given)), file=replies, flush=True)


def _listen(tasks: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        tasks.put(line)
    os._exit(0)  # the parent is done, or dead


if __name__ == "__main__":
    work()
