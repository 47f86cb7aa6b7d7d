"""Runs as tasks of Ray core: on the cluster that RAY_ADDRESS names, on one started here, or on a new one of its own."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from typing import Any

import ray
import ray.exceptions

from wherefrom.workers.remote import Task
from wherefrom.workers.task import train_run_elsewhere

QUIET = {"log_to_driver": False, "logging_level": logging.ERROR}


class Ray:
    """Tasks that Ray starts again on another machine, up to three times, where theirs dies; the run goes on."""

    every = 0.2

    def __init__(self, processors: int, resources: Mapping):
        self._ours = not ray.is_initialized()
        if self._ours:
            _connect(processors)
        try:
            self._task = ray.remote(train_run_elsewhere).options(**resources)
        except (ValueError, TypeError) as error:
            self.close()
            raise ValueError(f"Ray does not take these resources: {' '.join(str(error).split())}") from None

    def start(self, tasks: list[Task]) -> list[Any]:
        return [self._task.remote(config, str(out), os.getcwd()) for config, out in tasks]

    def ended(self, handles: list[Any]) -> dict[Any, dict]:
        done, _ = ray.wait(handles, num_returns=len(handles), timeout=0) if handles else ([], [])
        return {ref: _reply(ref) for ref in done}

    def stop(self, handles: list[Any]) -> None:
        for ref in handles:
            ray.cancel(ref, force=True)

    def close(self) -> None:
        if self._ours:
            ray.shutdown()


def _reply(ref: Any) -> dict:
    try:
        return ray.get(ref)
    except ray.exceptions.RayError as error:
        sentence = str(error).strip().splitlines()
        again = not isinstance(error, ray.exceptions.RayTaskError)  # the task itself catches what a run can raise
        return {"again": again, "sentence": f"{type(error).__name__}: {sentence[-1] if sentence else ''}"}


def _connect(processors: int) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _refuse_silent(os.environ.get("RAY_ADDRESS", ""))
    try:
        ray.init(address="auto", **QUIET)
    except ConnectionError:  # no cluster is named, and none was started on this machine
        ray.init(address="local", num_cpus=processors, include_dashboard=False, **QUIET)


def _refuse_silent(address: str) -> None:
    """Raise ValueError where nobody listens at host:port; Ray itself would ask for some minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise ValueError(f"no Ray cluster answers at {address}, which RAY_ADDRESS names: {error}") from None
