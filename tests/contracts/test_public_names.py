"""The few names that a user may rely on, and that having them costs little."""

import subprocess
import sys
from pathlib import Path

import pytest

import wherefrom
from wherefrom.store import RunDirectory


def test_public_names_are_sorted_and_each_is_there_once():
    assert list(wherefrom.__all__) == sorted(set(wherefrom.__all__))
    assert 1 < len(wherefrom.__all__) <= 24


def test_every_public_name_can_be_had_and_is_listed():
    missing = [name for name in wherefrom.__all__ if getattr(wherefrom, name, None) is None]
    assert not missing
    assert set(wherefrom.__all__) <= set(dir(wherefrom))


def test_unknown_name_is_refused_by_name():
    with pytest.raises(AttributeError, match="no_such_name"):
        wherefrom.no_such_name  # noqa: B018


def test_opening_a_run_does_not_import_torch(tmp_path: Path):
    RunDirectory.create(tmp_path / "run", config={}, environment={})
    program = "import sys, wherefrom as wf; wf.open_run(sys.argv[1]).measurements(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "run"], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
