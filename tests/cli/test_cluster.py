"""What is asked of SLURM, how a job's processes meet, and when a job has ended; tests/slurm has a real cluster."""

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ssl_video.cli import cluster
from ssl_video.cli.cluster import check_launcher, is_queued, last_words, name_first_node, wait_for_result
from ssl_video.cli.train import main
from ssl_video.utils import extras
from ssl_video.utils.config import build
from ssl_video.utils.errors import InputError
from support.methods import compose_train


@pytest.fixture(autouse=True)
def on_a_login_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.shutil, "which", lambda program: f"/usr/bin/{program}")
    for name in [name for name in os.environ if name.startswith("SLURM_") or name == "MASTER_ADDR"]:
        monkeypatch.delenv(name)


def sbatch_script(*overrides: str) -> list[str]:
    """Lines of the script that would be submitted."""
    from submitit import AutoExecutor

    config = compose_train("launcher=slurm", *overrides)
    check_launcher(config)
    launcher: Any = build(config.launcher)
    executor = AutoExecutor(cluster="slurm", folder="logs/%j", slurm_python=launcher.python)
    executor.update_parameters(**launcher.asked)
    inner: Any = executor._executor
    return inner._make_submission_file_text(inner._submitit_command_str, "id").splitlines()  # type: ignore[no-any-return]


def test_nodes_and_processes_are_those_of_the_trainer() -> None:
    lines = sbatch_script("trainer=gpu", "trainer.devices=8", "trainer.num_nodes=4", "strategy=ddp")
    assert {"#SBATCH --nodes=4", "#SBATCH --ntasks-per-node=8", "#SBATCH --gpus-per-node=8"} <= set(lines)
    assert not any("gpus" in line for line in sbatch_script())
    by_type = sbatch_script("trainer=gpu", "launcher.gres=gpu:a100:1")
    assert "#SBATCH --gres=gpu:a100:1" in by_type
    assert not any("gpus-per-node" in line for line in by_type)


def test_all_that_a_cluster_asks_for() -> None:
    lines = sbatch_script(
        *("launcher.partition=long", "launcher.account=me", "launcher.qos=low", "launcher.constraint=a100"),
        *("launcher.cpus_per_task=9", "launcher.mem_gb=64", "launcher.minutes=90", "launcher.signal_seconds=300"),
        *("launcher.setup=[module load cuda]", "+launcher.sbatch.mail-user=me@example.org"),
    )
    assert {
        *("#SBATCH --partition=long", "#SBATCH --account=me", "#SBATCH --qos=low", "#SBATCH --constraint=a100"),
        *("#SBATCH --cpus-per-task=9", "#SBATCH --mem=64GB", "#SBATCH --time=90", "#SBATCH --signal=USR2@300"),
        *("module load cuda", "#SBATCH --mail-user=me@example.org", "#SBATCH --requeue"),
    } <= set(lines)
    assert "export SLURM_KILL_BAD_EXIT=1" in lines
    assert " --cpus-per-task=9 " in next(line for line in lines if line.startswith("srun --"))


def test_a_job_may_not_be_started_again() -> None:
    lines = sbatch_script("launcher.requeue=false")
    assert "#SBATCH --no-requeue" in lines
    assert "#SBATCH --requeue" not in lines


def test_containers_by_srun_or_around_python() -> None:
    command = next(line for line in sbatch_script("launcher.srun=['--container-image=/i.sqsh']") if "srun --" in line)
    assert " --container-image=/i.sqsh " in command
    command = next(line for line in sbatch_script("launcher.python='apptainer exec i.sif python'") if "srun --" in line)
    assert " apptainer exec i.sif python -u -m submitit" in command


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("trainer.devices=auto",), "trainer.devices=auto must be their number on each node"),
        (("launcher.nodes=2",), "give trainer.num_nodes=2 alone"),
        (("launcher.tasks_per_node=4",), "give trainer.devices=4 alone"),
    ],
)
def test_a_request_that_does_not_fit_the_trainer_is_refused(overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_launcher(compose_train("launcher=slurm", *overrides))


def test_a_wrong_key_and_a_wrong_type_are_refused() -> None:
    with pytest.raises(InputError, match=r"did you mean 'launcher\.partition'"):
        compose_train("launcher=slurm", "launcher.partitoin=x")
    with pytest.raises(InputError, match=r"launcher\.minutes='long'"):
        compose_train("launcher=slurm", "launcher.minutes=long")


def test_without_sbatch_it_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster.shutil, "which", lambda program: None)
    assert main(["launcher=slurm"]) == 2
    assert "there is no sbatch here" in capsys.readouterr().err


@pytest.mark.parametrize(("override", "extra"), [("launcher=slurm", "slurm"), ("sweep=optuna_lr", "sweep")])
def test_a_missing_extra_is_named(
    override: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda module: None)
    assert main([override]) == 2
    assert f"pip install 'ssl_video[{extra}]'" in capsys.readouterr().err


# --- how processes find each other ------------------------------------------------------------------------------------


def two_tasks(monkeypatch: pytest.MonkeyPatch, nodes: str) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_JOB_NODELIST", nodes)
    monkeypatch.setenv("MASTER_ADDR", "")  # so that it is taken away afterwards
    monkeypatch.delenv("MASTER_ADDR")


def test_the_first_nodes_name_is_taken_where_it_resolves(monkeypatch: pytest.MonkeyPatch) -> None:
    two_tasks(monkeypatch, "localhost")
    name_first_node()
    assert os.environ["MASTER_ADDR"] == "localhost"


def answers(monkeypatch: pytest.MonkeyPatch, stdout: str, *, code: int = 0, stderr: str = "") -> None:
    told = subprocess.CompletedProcess((), code, stdout=stdout, stderr=stderr)
    monkeypatch.setattr(cluster, "_ask", lambda *command: told)


def test_else_the_address_that_slurm_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    two_tasks(monkeypatch, "no-such-node[7-8]")
    answers(monkeypatch, "NodeName=no-such-node7 Arch=x86_64 NodeAddr=127.0.0.1 NodeHostName=x")
    name_first_node()
    assert os.environ["MASTER_ADDR"] == "127.0.0.1"


def test_else_it_is_refused_and_not_waited_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    two_tasks(monkeypatch, "no-such-node[7-8]")
    answers(monkeypatch, "NodeName=no-such-node7 NodeAddr=no-such-node7")
    with pytest.raises(InputError, match="export MASTER_ADDR"):
        name_first_node()


def test_what_is_given_and_what_needs_none_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    two_tasks(monkeypatch, "no-such-node")
    monkeypatch.setenv("MASTER_ADDR", "given")
    name_first_node()
    assert os.environ["MASTER_ADDR"] == "given"
    monkeypatch.delenv("MASTER_ADDR")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    name_first_node()
    assert "MASTER_ADDR" not in os.environ


# --- when a job has ended ---------------------------------------------------------------------------------------------


def test_a_job_is_waited_for_as_long_as_it_is_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "PENDING\n")
    assert is_queued("5")
    answers(monkeypatch, "")
    assert not is_queued("5")
    answers(monkeypatch, "", code=1, stderr="slurm_load_jobs error: Invalid job id specified")
    assert not is_queued("5")
    answers(monkeypatch, "", code=1, stderr="Unable to contact slurm controller")
    assert is_queued("5")
    monkeypatch.setattr(cluster, "_ask", lambda *command: None)
    assert is_queued("5")


class Job:
    """Stands in for submitit's."""

    job_id = "5_0"

    def __init__(self, folder: Path) -> None:
        self.paths = SimpleNamespace(
            folder=folder, result_pickle=folder / "result", stderr=folder / "err", stdout=folder / "out"
        )

    def task(self, number: int) -> "Job":
        return self

    def result(self) -> str:
        text = self.paths.result_pickle.read_text()
        if text == "error":
            raise RuntimeError(text)
        return str(text)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setattr(cluster, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(cluster, "GRACE_SECONDS", 0.05)
    return Job(tmp_path)


def test_a_result_is_returned(job: Job) -> None:
    job.paths.result_pickle.write_text("7")
    assert wait_for_result(job, has_failed=lambda: False) == "7"


def test_a_requeued_job_is_waited_for(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter(["RUNNING", "COMPLETING", "PENDING", "RUNNING"])

    def queued(job_id: str) -> bool:
        if next(states, None) is None:
            job.paths.result_pickle.write_text("8")
        return True

    monkeypatch.setattr(cluster, "is_queued", queued)
    assert wait_for_result(job, has_failed=lambda: False) == "8"


def test_a_killed_job_ends_the_wait_and_its_last_words_are_told(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "is_queued", lambda job_id: False)
    assert wait_for_result(job, has_failed=lambda: False) is None
    assert "without a result or a word" in last_words(job)
    job.paths.stderr.write_text("loading\nslurmstepd: error: Detected 1 oom-kill event\n\n")
    assert "its last line: slurmstepd: error: Detected 1 oom-kill event (see" in last_words(job)


def test_a_job_that_said_it_failed_is_not_waited_for(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "is_queued", lambda job_id: False)
    monkeypatch.setattr(cluster, "GRACE_SECONDS", 1e9)
    assert wait_for_result(job, has_failed=lambda: True) is None


def test_what_a_job_raised_outside_of_ours_is_no_result(job: Job) -> None:
    job.paths.result_pickle.write_text("error")
    assert wait_for_result(job, has_failed=lambda: False) is None
