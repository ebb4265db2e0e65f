"""What holds for every test: reproducible draws, no network, nothing written outside temporary folders.

A test that needs something of the system says so with a marker and is skipped, with the reason shown, where that is
missing. With ``--require MARKER`` it fails instead.
"""

import functools
import importlib
import importlib.util
import ipaddress
import os
import random
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from support.browser import BROWSERS, find_browser
from support.slurm import missing_slurm

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"

# One thread per process: pytest-xdist already runs one process per core, and sums are then the same everywhere.
torch.set_num_threads(1)


# --- the system's parts -----------------------------------------------------------------------------------------------


def missing_gpu() -> str | None:
    """Why tests marked gpu cannot run here, or None."""
    return None if torch.cuda.is_available() else "no CUDA device"


@functools.cache
def missing_torchcodec() -> str | None:
    """Why tests marked torchcodec cannot run here, or None."""
    try:
        importlib.import_module("torchcodec.decoders").VideoDecoder(b"")  # the libraries load on first use
    except ValueError:  # they are there; empty input is refused
        return None
    except (ImportError, OSError, RuntimeError) as error:
        return f"torchcodec cannot be imported: {str(error).strip().splitlines()[0]}"
    return None


def missing_browser() -> str | None:
    """Why tests marked browser cannot run here, or None."""
    if find_browser() is None:
        return f"none of {', '.join(BROWSERS)} is on PATH (apt-get install chromium)"
    return None


def missing_oracles() -> str | None:
    """Why tests marked oracles cannot run here, or None."""
    if importlib.util.find_spec("transformers") is None:
        return "transformers is not installed (pip install -e '.[oracles]')"
    return None


def missing_shared_data() -> str | None:
    """Why tests marked shared_data cannot run here, or None.

    Raises:
        FileNotFoundError: the folder is there but holds no data: then the set-up is broken, and skipping would hide it.
    """
    if not SHARED.exists():
        return "there is no folder ../shared beside the repository"
    if not (SHARED / "data").is_dir():
        raise FileNotFoundError(f"{SHARED} has no folder data/; real videos must lie there, or ../shared be absent.")
    return None


MISSING: dict[str, Callable[[], str | None]] = {
    "gpu": missing_gpu,
    "torchcodec": missing_torchcodec,
    "browser": missing_browser,
    "oracles": missing_oracles,
    "shared_data": missing_shared_data,
    "slurm": missing_slurm,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require",
        action="append",
        default=[],
        choices=sorted(MISSING),
        metavar="MARKER",
        help=f"fail instead of skip where the system lacks what MARKER needs ({', '.join(sorted(MISSING))})",
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, missing in MISSING.items():
        if item.get_closest_marker(marker) is None:
            continue
        reason = missing()
        if reason is None:
            continue
        if marker in item.config.getoption("--require"):
            pytest.fail(f"{marker} is required: {reason}", pytrace=False)
        pytest.skip(f"{marker}: {reason}")


# --- no traces, no network --------------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    """Point every cache at a temporary folder, for this process and those that tests start."""
    folder = Path(tempfile.mkdtemp(prefix="ssl_video_tests_"))
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ |= {
        "XDG_CACHE_HOME": str(folder / "cache"),
        "XDG_DATA_HOME": str(folder / "data"),
        "MPLCONFIGDIR": str(folder / "matplotlib"),
        "MPLBACKEND": "Agg",
        "TORCH_HOME": str(folder / "torch"),
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_DIR": str(folder),
        "WANDB_CACHE_DIR": str(folder / "wandb_cache"),
        "WANDB_CONFIG_DIR": str(folder / "wandb_config"),
        "WANDB_DATA_DIR": str(folder / "wandb_data"),
        "OMP_NUM_THREADS": "1",
    }


def is_local(family: int, address: object) -> bool:
    """Whether an address stays on this machine: no IP at all, loopback (gloo needs it), or the machine's own name."""
    if family not in (socket.AF_INET, socket.AF_INET6) or not isinstance(address, tuple):
        return True
    host = str(address[0])
    if host in ("", "localhost", socket.gethostname()):
        return True
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return ip.is_loopback or ip.is_unspecified


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Refuse connections that leave this machine."""

    def guarded(original: Callable[..., object]) -> Callable[..., object]:
        def call(self: socket.socket, *arguments: object) -> object:
            if not is_local(self.family, arguments[-1]):
                raise PermissionError(f"a test asked for {arguments[-1]}; tests must not use the network.")
            return original(self, *arguments)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex", "sendto"):
            patch.setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
        yield


# --- reproducible draws -----------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def own_random_state() -> Iterator[None]:
    """Start each test from the same random state and leave none behind, whatever ran before it."""
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(0)
    np.random.seed(0)
    torch.default_generator.manual_seed(0)
    yield
    random.setstate(python_state)
    np.random.set_state(numpy_state)
    torch.set_rng_state(torch_state)


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real videos; mark the test with shared_data."""
    return SHARED / "data"


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A current folder of the test's own, where a command puts what it makes."""
    monkeypatch.chdir(tmp_path)
