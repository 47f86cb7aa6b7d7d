"""A process that answers, and dies."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from wherefrom import process
from wherefrom.process import Helper

ANSWERS = """
import os, time
from wherefrom.process import answer

def by(question):
    print("not an answer")
    if question == "sleep":
        time.sleep(600)
    return (os.getpid(), 10 // question)

answer(by)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "answers.py").write_text(ANSWERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(process, "available_processors", lambda: 2)
    return "answers"


def test_a_helper_answers_one_question_after_the_other_and_is_gone_in_the_end(module: str):
    with Helper(module) as helper:
        assert helper.start()
        (pid, first), (same, second) = helper.ask(5), helper.ask(2)
        assert (first, second) == (2, 5)
        assert pid == same != os.getpid()
    assert not psutil.pid_exists(pid)


def test_a_helper_that_fails_or_is_stopped_gives_no_answer(module: str, capfd: pytest.CaptureFixture):
    with Helper(module) as helper:
        helper.start()
        with pytest.raises(EOFError):
            helper.ask(0)
        assert "ZeroDivisionError" in capfd.readouterr().err
        with pytest.raises(EOFError):
            helper.ask(1)
    helper = Helper(module)
    helper.start()
    helper.stop()
    with helper, pytest.raises(EOFError):
        helper.ask(1)


def test_one_processor_has_no_helper(module: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(process, "available_processors", lambda: 1)
    with Helper(module) as helper:
        assert not helper.start()


def test_a_helper_leaves_with_its_parent_whatever_it_is_doing(module: str, tmp_path: Path):
    program = textwrap.dedent("""
        from wherefrom import process
        process.available_processors = lambda: 2
        helper = process.Helper("answers")
        helper.start()
        print(helper.ask(5)[0], flush=True)
        helper.ask("sleep")
    """)
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        helper = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs([helper], timeout=300)
    assert not alive
