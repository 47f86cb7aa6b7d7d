"""For all tests: shapes are checked, nothing hangs on cores or order, and the data at hand are found.

Two settings, with which every test must pass as without: `--reversed` takes the tests from the last to the first;
WHEREFROM_TEST_THREADS=2 in the environment gives torch and numpy two threads, here and in processes that tests start.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("WHEREFROM_TEST_THREADS", "1")
os.environ["OMP_NUM_THREADS"] = os.environ["WHEREFROM_TEST_THREADS"]  # for numpy, and for processes that tests start
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # of two threads none burns a core that others need
os.environ.setdefault("MPLBACKEND", "Agg")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so a shell starts what is to run in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # processes that tests start and interrupt inherit it

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

# Modules that write axes in their signatures have them checked at every call; so this comes before they are imported.
# The others, which take what users type, refuse wrong input in the same words as outside of tests. An int is a float.
SOURCE = Path(__file__).resolve().parents[1] / "src"
WITH_AXES = [path.relative_to(SOURCE) for path in SOURCE.rglob("*.py") if "from jaxtyping import" in path.read_text()]
install_import_hook(
    [".".join(path.with_suffix("").parts) for path in WITH_AXES],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)
torch.set_num_threads(int(os.environ["WHEREFROM_TEST_THREADS"]))
settings.register_profile("wherefrom", deadline=None, derandomize=True)
settings.load_profile("wherefrom")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reversed", action="store_true", help="take the tests from the last to the first")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("reversed"):
        items.reverse()


@pytest.fixture(autouse=True)
def no_luck() -> None:
    """Random numbers that a test does not seed are the same whatever ran before it."""
    torch.manual_seed(0)


HALTS = """
import importlib.util, os, sys, time

class Halting:
    def find_spec(self, name, path=None, target=None):
        if name != "wherefrom.recording":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (execute(module), halt(module.Record))
        return spec

def halt(record):
    write = record.write
    def write_and_halt(self, step):
        write(self, step)
        while step == {step} and not os.path.exists({released!r}):
            time.sleep(0.02)
    record.write = write_and_halt

sys.meta_path.insert(0, Halting())
"""  # the module that every Python imports as it starts


@pytest.fixture
def halt(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Callable]:
    """halt(step): from now on runs in processes that tests start stop there once they have recorded that step, until
    the function that this gives is called. So they are found half-way, however fast or busy the machine is."""

    def at(step: int) -> Callable[[], None]:
        folder = tmp_path_factory.mktemp("halt")
        (folder / "sitecustomize.py").write_text(HALTS.format(step=step, released=str(folder / "released")))
        monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        return (folder / "released").touch

    return at


SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of images and of a real trained model that lies beside the repository, where there is one."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the folder ../shared/data, which is not here")
    return SHARED_DATA
