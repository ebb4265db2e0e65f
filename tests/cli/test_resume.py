"""Which run a job goes on with, and that nobody else does at the same time."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from ssl_video.cli.resume import resumed_folder
from ssl_video.cli.train import main
from ssl_video.utils.errors import InputError
from ssl_video.utils.held import LOCK, held
from ssl_video.utils.run import Job, write_config, write_json, write_text
from support.folders import REPOSITORY, SMALL, labelled_folder

pytestmark = pytest.mark.usefixtures("own_folder")

CHOICES = {"method": "moco", "backbone": "r3d_tiny", "dataset": "folder"}
CONFIG = {"seed": 1, "run_dir": None}
HOLD = """
import sys
from pathlib import Path
from ssl_video.utils.held import held
with held(Path(sys.argv[1]), insist=True):
    print("held", flush=True)
    sys.stdin.read()
"""


def make_run(folder: Path) -> Path:
    write_json(folder / "run.json", {"choices": CHOICES})
    write_config(folder / "config.yaml", CONFIG)
    write_text(folder / "checkpoints" / "last.ckpt", "weights")
    return folder


def asked(resume: str | None) -> DictConfig:
    return OmegaConf.create({**CONFIG, "resume": resume})


def test_a_job_of_a_sweep_that_starts_again_goes_on_with_what_it_went_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """It found a run of an earlier sweep; its own folder is empty."""
    run = make_run(Path("outputs/sweeps/first/0_seed=1"))
    job = Job(CHOICES, ["seed=1"], Path("outputs/sweeps/second"), 0)
    assert resumed_folder(asked("auto"), job) == run
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert resumed_folder(asked("auto"), job) == run
    assert resumed_folder(asked(None), job) is None  # it was not told to look for others
    own = make_run(Path("outputs/sweeps/second/0_seed=1"))
    assert resumed_folder(asked("auto"), job) == own


# --- one at a time ----------------------------------------------------------------------------------------------------


@pytest.fixture
def other_process(tmp_path: Path) -> "Iterator[subprocess.Popen[str]]":
    """One that holds the folder ``run``."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env={"PYTHONPATH": str(REPOSITORY)}, text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_folder_is_held_once_until_its_process_is_killed(
    tmp_path: Path, other_process: "subprocess.Popen[str]"
) -> None:
    with pytest.raises(InputError, match="is being trained in by another process"), held(tmp_path / "run", insist=True):
        pass
    with held(tmp_path / "run", insist=False):
        pass  # a job that starts again
    other_process.kill()
    other_process.wait()
    with held(tmp_path / "run", insist=True):
        assert (tmp_path / "run" / LOCK).is_file()


def test_a_run_that_is_still_trained_is_not_gone_on_with(
    tmp_path: Path, other_process: "subprocess.Popen[str]", capsys: pytest.CaptureFixture[str]
) -> None:
    videos = labelled_folder(tmp_path / "videos", videos=8)
    command = ["dataset=folder", f"dataset.root={videos}", "trainer.max_steps=1", "run_dir=run", *SMALL]
    assert main(command) == 2
    assert "run is being trained in by another process; wait for its end" in capsys.readouterr().err
    assert not list(Path("run").glob("[!.]*"))  # nothing of it was touched
    other_process.kill()
    other_process.wait()
    assert main(command) == 0
    assert main([*command, "resume=auto", "trainer.max_steps=2"]) == 0  # given back at the end
