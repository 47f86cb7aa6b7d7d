"""For all tests: shapes are checked, numbers do not depend on the machine's cores, and the data at hand are found."""

import os
import signal
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for processes that tests start
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
torch.set_num_threads(1)
settings.register_profile("wherefrom", deadline=None, derandomize=True)
settings.load_profile("wherefrom")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of images and of a real trained model that lies beside the repository, where there is one."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the folder ../shared/data, which is not here")
    return SHARED_DATA
