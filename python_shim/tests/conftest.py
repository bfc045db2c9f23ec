import os

os.environ["HF_HUB_OFFLINE"] = "1"
# Tiny models on several threads each spend their time waiting for one another.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import numpy as np
import pytest
from client import Client, spawn
from tiny import save_model


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
    process, ready = spawn(folder, allow=["user_functions", "user_imports:score"])
    yield Client(ready["address"])
    process.terminate()
    log = process.stderr.read()
    assert process.wait(40) == 0, log
    assert "a defect of the shim" not in log, log
    process.communicate()


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def socket_folder(tmp_path):
    folder = tmp_path / "s"
    folder.mkdir(mode=0o700)
    return folder
