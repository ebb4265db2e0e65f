"""Local sweeps: what is told at the end, one process per job where a job has several, and runs that end early."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ssl_video.cli.train import main
from ssl_video.methods.base import SSLMethod
from support.folders import REPOSITORY, SMALL, labelled_folder, read_metrics

pytestmark = pytest.mark.usefixtures("own_folder")

Printed = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("labelled"), videos=12)


def command(videos: Path, *overrides: str) -> list[str]:
    return ["dataset=folder", f"dataset.root={videos}", "trainer.max_steps=2", *SMALL, *overrides]


def outcomes() -> dict[int, dict[str, object]]:
    files = Path().glob("outputs/sweeps/*/outcomes/*.json")
    return {said["number"]: said for said in (json.loads(file.read_text()) for file in files)}


def test_failed_jobs_are_listed_and_the_others_run(videos: Path, capsys: Printed) -> None:
    arguments = [text for text in command(videos, "trainer.max_steps=1") if not text.startswith("dataset.root=")]
    assert main(["-m", *arguments, f"dataset.root=/no/such/folder,{videos}"]) == 1
    printed = capsys.readouterr().err
    assert "1 of 2 jobs failed:\n  job 0 (dataset.root=/no/such/folder dataset=folder" in printed
    assert {number: said["code"] for number, said in outcomes().items()} == {0: 2, 1: 0}
    (done,) = Path("outputs/sweeps").glob("*/1_*")
    assert done.name.startswith("1_dataset.root=")  # what varies names the folder
    assert len(read_metrics(done)) == 1


@pytest.mark.slow
def test_a_sweep_is_given_again_with_resume_auto(videos: Path, capsys: Printed) -> None:
    """What it has finished is not done again, and what it had not goes on where it was."""
    arguments = [text for text in command(videos, "checkpoint_every_steps=1") if "max_steps" not in text]
    again = ["-m", *arguments, "trainer.max_steps=3", "seed=0,1", "resume=auto"]
    step = SSLMethod.training_step

    def broken(self: SSLMethod[Any], batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step == 2 and self.seed == 1:
            raise ValueError("broken on purpose")
        return step(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SSLMethod, "training_step", broken)
        assert main(again) == 1
    done, begun = sorted(Path("outputs/sweeps").glob("*/?_*"))
    capsys.readouterr()
    assert main(again) == 0
    printed = capsys.readouterr().out
    assert f"resume=auto: going on with {done}." in printed
    assert f"{done} is finished: nothing to do." in printed
    assert f"resume=auto: going on with {begun}." in printed
    assert json.loads((begun / "run.json").read_text())["resumed_at"] == [2]
    assert [int(row["step"]) for row in read_metrics(begun)] == [0, 1, 2]
    assert sorted(Path("outputs/sweeps").glob("*/?_*")) == [done, begun]


@pytest.mark.slow
def test_a_local_sweep_over_several_devices_gives_each_job_its_own_processes(videos: Path) -> None:
    several = ["strategy=ddp_cpu", "trainer.devices=2", "seed=0,1"]
    assert main(["-m", *command(videos, *several)]) == 0
    runs = sorted(Path("outputs/sweeps").glob("*/?_*"))
    assert [run.name[:8] for run in runs] == ["0_seed=0", "1_seed=1"]
    for run in runs:
        assert [int(row["step"]) for row in read_metrics(run)] == [0, 1]
        # 4 videos of each of two processes in each of two steps, two clips of 4 frames of each.
        assert json.loads((run / "run.json").read_text())["decoded_frames"] == 2 * 2 * 4 * 2 * 4
    assert read_metrics(runs[0]) != read_metrics(runs[1])


@pytest.mark.slow
def test_an_interrupt_reaches_a_job_of_several_devices_and_ends_the_sweep(videos: Path) -> None:
    several = ["strategy=ddp_cpu", "trainer.devices=2", "seed=0,1", "trainer.max_steps=100000"]
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "train.py"), "-m", *command(videos, *several)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 200
        while not list(Path("outputs/sweeps").glob("*/0_*/metrics.csv")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal's Ctrl-C does
        assert process.wait(timeout=120) == 130
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert {number: said["code"] for number, said in outcomes().items()} == {0: 130}


@pytest.mark.slow
def test_a_hopeless_run_ends_early_and_its_score_counts(videos: Path, capsys: Printed) -> None:
    knn = ["callbacks=[online_knn,end_early]", "callbacks.online_knn.every_steps=2", "callbacks.online_knn.k=1"]
    labels = f"dataset.labels={videos / 'labels.csv'}"
    early = [*knn, labels, "callbacks.end_early.at_step=3", "trainer.max_steps=9"]
    assert main(command(videos, *early, "callbacks.end_early.below=1.1", "run_dir=a")) == 0
    assert "step 4: val/knn_top1 is" in capsys.readouterr().err
    assert [int(row["step"]) for row in read_metrics(Path("a"))] == [0, 1, 2, 3]
    assert main(command(videos, *early, "callbacks.end_early.below=0.0", "run_dir=b")) == 0
    assert len(read_metrics(Path("b"))) == 9
    study = ["sweep=optuna_lr", "sweep.trials=1", *early, "callbacks.end_early.below=1.1"]
    assert main(command(videos, *study)) == 0
    (said,) = outcomes_of_study()
    (trial,) = Path("outputs/sweeps/optuna_lr").glob("*/0_*")
    assert [int(row["step"]) for row in read_metrics(trial)] == [0, 1, 2, 3]
    assert said["value"] == float(read_metrics(trial)[-1]["val/knn_top1"])
    assert "Study optuna_lr: 1 trials" in capsys.readouterr().out


def outcomes_of_study() -> list[dict[str, object]]:
    return [json.loads(file.read_text()) for file in Path().glob("outputs/sweeps/*/*/outcomes/*.json")]
