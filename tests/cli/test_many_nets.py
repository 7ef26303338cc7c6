"""Where many nets are scored, the weights of one at a time are in memory."""

import pytest
from peak import peak

from nnlite.datasets import load
from nnlite.init import generator
from nnlite.network import mlp
from nnlite.training.loop import Epoch, TrainingResult
from nnlite.training.run_folder import Results, write_run
from nnlite.training.settings import Settings

MAIN = "from nnlite.evaluation import nets; nets.ROOM = 0; from nnlite.cli.main import main; main()"
HIDDEN = (3000, 500)  # 7 MB
COUNT = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of runs whose nets take 140 MB together, and an attack file of all of them."""
    folder = tmp_path_factory.mktemp("many")
    settings, data = Settings(hidden=HIDDEN, epochs=1), load("digits")
    (folder / "runs/digits").mkdir(parents=True)
    for k in range(COUNT):
        trained = TrainingResult(mlp((64, *HIDDEN, 10), generator(k, "weights")), history=[Epoch(1, 2.0, 10.0, 1.0)])
        trained.environment, trained.data = {"nnlite": "0"}, data.description
        results = Results("finished", 1, 10.0, 10.0, (0.0, 0.005, 0.01, 0.05, 0.1), (10.0,) * 5)
        write_run(folder / f"runs/digits/n{k}", settings, trained, results)
    return folder


NAMES = [f"n{k}" for k in range(COUNT)]
ATTACK = ["attack", "--adversary", "n0", "--phi", "0", "--first", "1"]


@pytest.mark.once
@pytest.mark.parametrize(
    "command",
    [
        ["runs"],
        ["runs", "--check"],
        ATTACK,
        [*ATTACK, "--save", "new.safetensors"],
        ["verify", "all.safetensors", *(f"--run={name}" for name in NAMES)],
        ["certify", *NAMES, "--phi", "0.001", "--examples", "1"],
    ],
    ids=lambda command: " ".join(command[:7]),
)
def test_one_net_at_a_time_is_in_memory(folder, monkeypatch, command):
    monkeypatch.chdir(folder)
    if command[0] == "verify":
        peak(MAIN, *ATTACK, "--save", "all.safetensors")
    assert peak(MAIN, *command) < peak("import nnlite.cli.main") + 60 * 1024
