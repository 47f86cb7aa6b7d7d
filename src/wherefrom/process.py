"""Processes of our own beside this one: how they are started, how many there is room for, and one that answers."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any


def start(module: str, text: bool, **environment: str) -> subprocess.Popen:
    """`python -m module` of one thread with pipes to its input and output; it finds what this process can import.

    multiprocessing would import the caller's script again in each process, so that a plain script could not start one.

    Args:
        module: dotted name; it must leave where its input ends.
        text: whether its pipes carry text or bytes.
        environment: variables to set besides.
    """
    path = os.pathsep.join(path or os.getcwd() for path in sys.path)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module], text=text, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | environment,
        start_new_session=True,  # the terminal sends Ctrl-C to all of its session; the parent decides
    )  # fmt: skip


def available_processors() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Helper:
    """A process that answers questions by `answer`, one after the other; at the end of the scope it is gone.

    Args:
        module: what the process is; it calls `answer`.
    """

    def __init__(self, module: str):
        self._module = module
        self._process: subprocess.Popen | None = None

    def start(self) -> bool:
        """Start the process, unless it is there, and say whether it is: one processor alone has no time for two."""
        if self._process is None and available_processors() > 1:
            with contextlib.suppress(OSError):
                self._process = start(self._module, text=False)
        return self._process is not None

    def ask(self, question: Any) -> Any:
        """Raises EOFError where the process died; it was started before."""
        assert self._process
        asking, replies = self._process.stdin, self._process.stdout
        assert asking
        assert replies
        try:
            pickle.dump(question, asking)
            asking.flush()
            return pickle.load(replies)
        except (OSError, ValueError, pickle.UnpicklingError) as error:
            raise EOFError(str(error)) from error

    def stop(self) -> None:
        """Whatever it is doing; who waits for an answer is given EOFError."""
        if self._process:
            self._process.kill()

    def __enter__(self) -> Helper:
        return self

    def __exit__(self, *_) -> None:
        self.stop()
        if self._process:
            with contextlib.suppress(BrokenPipeError), self._process:  # closes its pipes and waits for its end
                pass


def answer(by: Callable[[Any], Any]) -> None:
    """Be a `Helper`: answer what is asked; an error ends the process. It leaves at once where its parent does."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no reply
    asked: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(asked,), daemon=True).start()
    while True:
        pickle.dump(by(asked.get()), replies)
        replies.flush()


def _listen(asked: queue.SimpleQueue) -> None:
    with contextlib.suppress(EOFError):
        while True:
            asked.put(pickle.load(sys.stdin.buffer))
    os._exit(0)
