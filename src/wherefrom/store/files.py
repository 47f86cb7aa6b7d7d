"""Whole files or none: JSON, bytes, locks."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import filelock


def read_json(path: Path, kind: type = dict):
    """What is in a JSON file.

    Raises:
        ValueError: if it cannot be read, or is no `kind`.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path}: {error}") from None
    if not isinstance(data, kind):
        raise ValueError(f"cannot read {path}: expected a {kind.__name__}, found {type(data).__name__}; it is damaged")
    return data


def write_json(path: Path, data) -> None:
    write_bytes(path, (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write beside the name, then rename, so that a reader sees the old file or the new one, whole."""
    with replacing(path) as beside, open(beside, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to, which takes the place of `path` at the end of the scope, and is gone after an exception."""
    if path.is_dir():
        raise IsADirectoryError(f"expected the name of a file; {path} is a folder")
    beside = path.with_name(f".{os.getpid()}.part.{path.name}")  # keeps the suffix, which some writers insist on
    try:
        yield beside
        os.replace(beside, path)
    except PermissionError:
        raise PermissionError(f"cannot write {path}: permission denied; choose another place") from None
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def claim(path: Path, sentence: str) -> Iterator[None]:
    """Hold the lock file at `path`, or raise BlockingIOError with `sentence`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise BlockingIOError(sentence) from None
    try:
        yield
    finally:
        lock.release()


def config_differences(old: Mapping, new: Mapping, prefix: str = "") -> list[str]:
    """Where two configurations differ, in words.

    >>> config_differences({"steps": 1, "model": {"width": 8}}, {"steps": 2, "model": {"width": 8}})
    ['steps is 1 there, 2 here']
    """
    found = []
    for key in dict.fromkeys((*old, *new)):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += config_differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key} is {a} there, {b} here")
    return found
