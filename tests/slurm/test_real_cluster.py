"""On a real SLURM of two nodes: processes on both, sweeps, preemption, a lost node, and that nothing of it remains.

Every command is what a user types on a login node.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from support.folders import REPOSITORY, SMALL, labelled_folder, read_metrics
from support.slurm import Cluster, running_cluster, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(420)]

STEPS = 40
# A run that lasts long enough to be disturbed; what it computes is the same.
SLOW = "import time\n\nimport pytorch_lightning as pl\n\n\nclass SlowSteps(pl.Callback):\n" + (
    "    def on_train_batch_start(self, *_):\n        time.sleep(0.2)\n"
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with (
        # A short path: munged's socket lies in it.
        tempfile.TemporaryDirectory(prefix="slurm_") as folder,
        running_cluster(Path(folder)) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("labelled"), videos=15)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for --config-dir with callbacks=slow."""
    folder = tmp_path_factory.mktemp("slow")
    (folder / "callbacks").mkdir()
    (folder / "callbacks" / "slow.yaml").write_text("slow:\n  _target_: slow_steps.SlowSteps\n")
    (folder / "slow_steps.py").write_text(SLOW)
    return folder


def command(videos: Path, *overrides: str) -> list[str]:
    return ["dataset=folder", f"dataset.root={videos}", *SMALL, *overrides]


class Login:
    """A shell on the login node.

    Args:
        cluster: to which it belongs.
        folder: where commands are given.
        path: for modules of the user's own.
    """

    def __init__(self, cluster: Cluster, folder: Path, *, path: Path | None = None) -> None:
        self.cluster = cluster
        self.folder = folder
        places = [str(REPOSITORY), *([str(path)] if path else [])]
        self.environment = {**cluster.environment, "PYTHONPATH": os.pathsep.join(places)}

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, str(REPOSITORY / "train.py"), *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        """Exit code and all that was printed."""
        return self.end(self.start(*arguments))

    def end(self, process: "subprocess.Popen[str]") -> tuple[int, str]:
        try:
            printed, _ = process.communicate(timeout=300)
        finally:
            process.kill()
            process.wait()
        return process.returncode, printed + self.output()

    def output(self) -> str:
        """What the jobs wrote."""
        files = sorted(self.folder.glob("outputs/sweeps/*/slurm/*/*_log.*"))
        return "".join(f"\n--- {file.name}\n{file.read_text()}" for file in files)

    def runs(self) -> list[Path]:
        """Folders of the runs of this shell's sweeps, by number."""
        return sorted(self.folder.glob("outputs/sweeps/*/[0-9]_*"))


def weights(run: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state


def is_running(login: Login, *, steps: int) -> Callable[[], bool]:
    """Whether the one run has done so many steps and written a checkpoint."""

    def holds() -> bool:
        files = [run / "metrics.csv" for run in login.runs()]
        saved = [run / "checkpoints" / "last.ckpt" for run in login.runs()]
        return any(file.is_file() and len(file.read_text().splitlines()) > steps for file in files) and all(
            file.is_file() for file in saved
        )

    return holds


def assert_same_run(run: Path, whole: Path) -> None:
    """Bit by bit, and each step once."""
    assert [int(row["step"]) for row in read_metrics(run)] == list(range(STEPS))
    assert [row["train/loss"] for row in read_metrics(run)] == [row["train/loss"] for row in read_metrics(whole)]
    expected, found = weights(whole), weights(run)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.fixture(scope="module")
def whole(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing disturbed, without a cluster."""
    folder = tmp_path_factory.mktemp("whole")
    arguments = command(videos, f"trainer.max_steps={STEPS}", "callbacks=none", "run_dir=whole")
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "train.py"), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "whole"


def disturbed(login: Login, videos: Path, slow: Path, *overrides: str) -> "subprocess.Popen[str]":
    """The same run as a job, slowed down."""
    own = (f"trainer.max_steps={STEPS}", "callbacks=slow", "launcher=slurm", *overrides)
    return login.start("--config-dir", str(slow), *command(videos, *own))


def test_one_process_on_each_of_two_nodes(cluster: Cluster, videos: Path, tmp_path: Path) -> None:
    """Their names resolve nowhere: the processes meet all the same."""
    login = Login(cluster, tmp_path)
    own = ("launcher=slurm", "trainer.num_nodes=2", "strategy=ddp_cpu", "trainer.max_steps=2", "callbacks=none")
    code, printed = login.run(*command(videos, *own))
    assert code == 0, printed
    assert "1 job was given to SLURM" in printed
    assert {"0", "1"} == set(re.findall(r"global_rank=(\d)\(2\)", printed))
    assert {"0", "1"} == set(re.findall(r"node=(\d)\(2\)", printed))
    (run,) = login.runs()
    assert [int(row["step"]) for row in read_metrics(run)] == [0, 1]
    # Keys of both processes: 4 videos of each in each of two steps, two clips each.
    assert int(weights(run)["queue.pushed"]) == 2 * 2 * 4 * 2


def test_a_sweep_of_four_jobs_of_which_two_fail(cluster: Cluster, videos: Path, tmp_path: Path) -> None:
    login = Login(cluster, tmp_path)
    arguments = [text for text in command(videos, "trainer.max_steps=2") if not text.startswith("dataset.root=")]
    swept = [f"dataset.root={videos},/no/such/folder", "seed=0,1", "launcher=slurm", "launcher.array_parallelism=3"]
    code, printed = login.run("-m", *arguments, *swept)
    assert code == 1, printed
    assert "2 of 4 jobs failed:" in printed
    assert (
        len(re.findall(r"^  job [23] \(dataset\.root=/no/such/folder seed=[01] .*is not a folder", printed, re.M)) == 2
    )
    good = [run for run in login.runs() if (run / "run.json").is_file()]
    assert [run.name[0] for run in good] == ["0", "1"]
    assert all(json.loads((run / "run.json").read_text())["finished"] for run in good)
    assert read_metrics(good[0]) != read_metrics(good[1])


def test_a_studys_trials_run_at_once(cluster: Cluster, videos: Path, tmp_path: Path) -> None:
    login = Login(cluster, tmp_path)
    study = ("sweep=optuna_lr", "sweep.objective=train/loss", "sweep.direction=minimize", "callbacks=none")
    own = (*study, "sweep.trials=2", "sweep.parallel=2", "trainer.max_steps=2", "launcher=slurm")
    code, printed = login.run(*command(videos, *own))
    assert code == 0, printed
    assert "2 jobs were given to SLURM" in printed
    assert "Study optuna_lr: 2 trials in outputs/sweeps/optuna_lr/study.db; best train/loss" in printed


def test_a_cancelled_job_is_told_and_ends_the_wait(cluster: Cluster, videos: Path, slow: Path, tmp_path: Path) -> None:
    login = Login(cluster, tmp_path, path=slow)
    process = disturbed(login, videos, slow, "checkpoint_every_steps=1")
    wait_for(is_running(login, steps=1), "a job's first steps", seconds=200)
    (job,) = cluster.jobs()
    cluster.ask("scancel", job)
    code, printed = login.end(process)
    assert code == 1, printed
    assert "1 of 1 jobs failed" in printed
    assert re.search(r"job 0 \(.*\): (terminated|ended without a result)", printed)


def test_a_preempted_job_is_requeued_and_ends_as_if_nothing_had_happened(
    cluster: Cluster, videos: Path, slow: Path, whole: Path, tmp_path: Path
) -> None:
    login = Login(cluster, tmp_path, path=slow)
    process = disturbed(login, videos, slow, "checkpoint_every_steps=5")
    wait_for(is_running(login, steps=7), "a job's first steps", seconds=200)
    (job,) = cluster.jobs()
    cluster.ask("scancel", "--signal=USR2", job)
    wait_for(lambda: "starts again" in login.output(), "the second turn", seconds=200)
    wait_for(is_running(login, steps=20), "its first steps", seconds=200)
    cluster.ask("scontrol", "requeue", job)  # as SLURM itself does when a job of higher rank comes
    code, printed = login.end(process)
    assert code == 0, printed
    assert f"Requeued job {job}" in printed  # by submitit, which was asked by its signal
    assert f"SLURM starts job {job} again" in printed  # of its own accord
    assert printed.count(f"Job {job} starts again: going on with") == 2
    (run,) = login.runs()
    assert_same_run(run, whole)


def test_a_lost_nodes_job_goes_on_on_the_other(
    cluster: Cluster, videos: Path, slow: Path, whole: Path, tmp_path: Path
) -> None:
    login = Login(cluster, tmp_path, path=slow)
    process = disturbed(login, videos, slow, "checkpoint_every_steps=5")
    wait_for(is_running(login, steps=7), "a job's first steps", seconds=200)
    ((job, (_, node)),) = cluster.jobs().items()
    try:
        cluster.lose_node(node)
        wait_for(lambda: cluster.jobs().get(job, ("", node))[1] not in ("", node), "the other node", seconds=150)
        code, printed = login.end(process)
    finally:
        cluster.start_node(node)
    assert code == 0, printed
    assert f"Job {job} starts again: going on with" in printed
    (run,) = login.runs()
    assert_same_run(run, whole)


def test_a_batch_script_with_srun_is_requeued_too(cluster: Cluster, videos: Path, slow: Path, tmp_path: Path) -> None:
    """Without submitit: srun starts a process on each node, they agree on the last step, and the first asks SLURM."""
    login = Login(cluster, tmp_path, path=slow)
    own = ("trainer.num_nodes=2", "strategy=ddp_cpu", f"trainer.max_steps={STEPS}", "callbacks=slow", "run_dir=a")
    arguments = ["--config-dir", str(slow), *command(videos, *own, "checkpoint_every_steps=5")]
    train = [sys.executable, str(REPOSITORY / "train.py"), *arguments]
    options = "#SBATCH --nodes=2 --ntasks-per-node=1 --requeue --open-mode=append --output=out"
    (tmp_path / "job.sh").write_text(f"#!/bin/bash\n{options}\nsrun {' '.join(train)}\n")
    told = subprocess.run(
        ["sbatch", "--parsable", "job.sh"],
        cwd=tmp_path,
        env=login.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    job, metrics = told.stdout.strip(), tmp_path / "a" / "metrics.csv"
    wait_for(lambda: metrics.is_file() and len(metrics.read_text().splitlines()) > 7, "the first steps", seconds=200)
    cluster.ask("scancel", "--signal=USR2", job)
    wait_for(lambda: not cluster.jobs(), "the job's end", seconds=200)
    printed = (tmp_path / "out").read_text()
    assert f"job {job} is requeued" in printed, printed
    assert f"Job {job} starts again: going on with a" in printed
    assert [int(row["step"]) for row in read_metrics(tmp_path / "a")] == list(range(STEPS))
    assert json.loads((tmp_path / "a" / "run.json").read_text())["finished"], printed


def test_it_all_stops_again() -> None:
    with tempfile.TemporaryDirectory(prefix="slurm_") as folder:
        with running_cluster(Path(folder)) as own:
            (Path(folder) / "job.sh").write_text("#!/bin/bash\nsrun sleep 1000\n")
            own.ask("sbatch", f"--output={folder}/out", f"{folder}/job.sh")
            wait_for(lambda: any("sleep" in text for text in own.remains()), "the job", seconds=60)
        assert own.remains() == []
