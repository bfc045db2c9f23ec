import os
import resource
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
# Tiny models on several threads each spend their time waiting for one another.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import numpy as np
import pytest
from client import Client, spawn
from listeners import Listener
from tiny import save_model

from prunebridge_shim.slicing import kernel as kernels


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Folders of tiny random models by name, made when first asked for."""
    root = tmp_path_factory.mktemp("checkpoints")
    made = {}

    def get(name):
        if name not in made:
            made[name] = save_model(name, root / name)
        return made[name]

    return get


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    """A client of a spawned shim that all tests of a session share."""
    folder = tmp_path_factory.mktemp("shim", numbered=True)
    folder.chmod(0o700)
    process, ready = spawn(folder, allow=["user_functions", "user_networks", "user_imports:score"])
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(process.stderr.read)  # it would wait where nobody reads what it logs
        yield Client(ready["address"])
        process.terminate()
        log = reading.result()
    assert process.wait(40) == 0, log
    assert "a defect of the shim" not in log, log
    process.communicate()


@pytest.fixture
def few_files():
    """Has this process, and what it starts, open 512 files at most; gives the limits that such may raise theirs to."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, most))
    yield most, most
    resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


@pytest.fixture(scope="session")
def kernel_source(tmp_path_factory):
    """A source of the kernel that gathers, which was built."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler")
    source = Path(shutil.copy(kernels.SOURCE, tmp_path_factory.mktemp("kernel")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "SOURCE", source)
        kernels.build()
    return source


@pytest.fixture
def kernel(kernel_source, monkeypatch):
    """The kernel that gathers, whether the shim's own is built or not."""
    monkeypatch.setattr(kernels, "SOURCE", kernel_source)
    return kernels.load.__wrapped__()


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def socket_folder(tmp_path):
    folder = tmp_path / "s"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture(scope="session")
def listener(tmp_path_factory):
    """A shim that listens on a port of this machine, with a token for each right."""
    tokens = {"--token-file": "may-change-everything", "--read-token-file": "may-look-and-measure"}
    listener = Listener(tmp_path_factory.mktemp("listener"), tokens)
    yield listener
    status, log = listener.stop()
    assert status == 0, log
    assert not any(token in log for token in tokens.values())
