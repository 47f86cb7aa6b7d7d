"""Runs on other machines: what waits, what was started, and a thread that asks how it ended."""

from __future__ import annotations

import contextlib
import math
import threading
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

from wherefrom.workers.task import RunLost, check_runs, seconds_in

Task = tuple[dict, Path]
"""A run's configuration, and its folder."""


class Cluster(Protocol):
    """What Slurm and Ray have in common. A handle stands for a run that was started."""

    every: float
    """Seconds between two questions how its runs are."""

    def start(self, tasks: list[Task]) -> list[Any]:
        """Start runs, in this order; a handle each."""
        ...

    def ended(self, handles: list[Any]) -> dict[Any, dict]:
        """What those said that have ended, in the words of `train_run`."""
        ...

    def stop(self, handles: list[Any]) -> None:
        """Stop runs, and do not wait for them."""
        ...

    def close(self) -> None: ...


class Remote:
    """Trains runs on a cluster, at most `jobs` at once; 0: all at once, and the cluster makes them wait.

    At the end of the scope nothing of it is left on the cluster: after an exception, such as Ctrl-C, runs are stopped.
    """

    def __init__(self, cluster: Cluster, jobs: int):
        self._cluster, self._room = cluster, jobs or math.inf
        self._waiting: deque[tuple[Future[float], Task]] = deque()
        self._started: dict[Any, tuple[Future[float], Task]] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def check(self, configs: list[dict]) -> None:
        check_runs(configs)

    def submit(self, config: dict, out: Path) -> Future[float]:
        """Train one run; the future gives the seconds it took, or raises RunFailed or RunLost."""
        future: Future[float] = Future()
        self._waiting.append((future, (config, out.absolute())))
        return future

    def __enter__(self) -> Remote:
        self._thread.start()
        return self

    def __exit__(self, error: type[BaseException] | None, *_) -> None:
        self._end.set()
        self._thread.join()
        try:
            self._cluster.stop(list(self._started))
        finally:
            self._cluster.close()

    def _serve(self) -> None:
        while not self._end.wait(0 if self._waiting and not self._started else self._cluster.every):
            try:
                self._start()
                self._take()
            except Exception as error:  # the cluster does not answer: who waits must hear of it
                self._give_up(f"{type(error).__name__}: {error}")

    def _start(self) -> None:
        tasks = []
        while self._waiting and len(self._started) + len(tasks) < self._room:
            tasks.append(self._waiting.popleft())
        if tasks:
            try:
                handles = self._cluster.start([task for _, task in tasks])
            except Exception:
                self._waiting.extendleft(reversed(tasks))
                raise
            self._started |= dict(zip(handles, tasks, strict=True))

    def _take(self) -> None:
        for future, (_, out) in self._started.values():
            if not future.running() and (out / "run.sqlite").is_file():
                future.set_running_or_notify_cancel()
        for handle, reply in self._cluster.ended(list(self._started)).items():
            future, _ = self._started.pop(handle)
            try:
                future.set_result(seconds_in(reply))
            except Exception as error:  # RunFailed or RunLost
                future.set_exception(error)

    def _give_up(self, sentence: str) -> None:
        with contextlib.suppress(Exception):
            self._cluster.stop(list(self._started))
        for future, _ in (*self._started.values(), *self._waiting):
            future.set_exception(RunLost(sentence))
        self._started.clear()
        self._waiting.clear()
