"""Studies: what is checked before they begin, what they go on with, and what a trial is worth."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from ssl_video.cli.outcomes import Outcome, write_outcome
from ssl_video.cli.studies import StudySettings, describe_study, ends_of_space, open_study, score, study_settings
from ssl_video.cli.train import main
from ssl_video.utils.errors import InputError
from support.folders import REPOSITORY, SMALL, labelled_folder
from support.methods import compose_train

pytestmark = pytest.mark.usefixtures("own_folder")

optuna = pytest.importorskip("optuna", reason="the extra [sweep] is not installed")

STUDY = ("sweep=optuna_lr", "callbacks=none", "sweep.objective=train/loss", "sweep.direction=minimize")


def settings(*overrides: str) -> StudySettings:
    found = study_settings(compose_train(*STUDY, *overrides))
    assert found is not None
    return found


def states(study: StudySettings) -> list[str]:
    loaded = optuna.load_study(study_name=study.name, storage=study.storage)
    return [trial.state.name for trial in loaded.trials]


# --- before it begins -------------------------------------------------------------------------------------------------


def test_a_run_without_a_study_has_none() -> None:
    assert study_settings(compose_train()) is None


def test_faults_of_a_study_are_told_together() -> None:
    with pytest.raises(InputError) as fault:
        settings("sweep.trials=0", "sweep.direction=up", "+sweep.prunes=true", "sweep.name=a/b")
    assert all(f"sweep.{key}: " in str(fault.value) for key in ("trials", "direction", "prunes", "name"))


def test_an_objective_that_nothing_measures_is_refused() -> None:
    with pytest.raises(InputError, match=r"val/knn_top1 is measured by callbacks=\[online_knn\]"):
        study_settings(compose_train("sweep=optuna_lr", "callbacks=none"))
    assert study_settings(compose_train("sweep=optuna_lr")) is not None


def test_a_space_is_checked_at_its_ends_and_the_command_line_wins() -> None:
    given = ["sweep=optuna_lr", "batch_size=8,16,32", "optimizer.weight_decay=interval(0.1,0.2)", "seed=range(1,4)"]
    low, high = ends_of_space(given, settings())
    assert {"optimizer.lr=1e-05", "batch_size=8", "optimizer.weight_decay=0.1", "seed=1"} <= set(low)
    assert {"optimizer.lr=0.01", "batch_size=32", "optimizer.weight_decay=0.2", "seed=3"} <= set(high)
    low, high = ends_of_space(["optimizer.lr=0.5"], settings())
    assert "optimizer.lr=0.5" in low and "optimizer.lr=0.5" in high


def test_a_fault_at_an_end_of_the_space_is_told_before_it_begins(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*STUDY, "batch_size=8,0"]) == 2
    assert "batch_size=0" in capsys.readouterr().err
    assert not Path("outputs").exists()


# --- going on ---------------------------------------------------------------------------------------------------------


def test_only_missing_trials_are_run_and_they_are_drawn_anew() -> None:
    study, command = settings("sweep.trials=3", "seed=5"), [*STUDY]
    with open_study(study, command) as more:
        assert more == ["hydra.sweeper.n_trials=3", "hydra.sweeper.sampler.seed=5"]
    made = optuna.load_study(study_name=study.name, storage=study.storage)
    for value in (1.0, 2.0):
        made.tell(made.ask(), value)
    with open_study(study, command) as more:
        assert more == ["hydra.sweeper.n_trials=1", "hydra.sweeper.sampler.seed=2005"]
    made.tell(made.ask(), state=optuna.trial.TrialState.FAIL)  # a trial that failed by itself is not tried again
    with open_study(study, command) as more:
        assert more is None
    assert "best train/loss 1 with" in describe_study(study)


def test_killed_trials_are_settled() -> None:
    """One had ended before its study heard of it; the other is tried again with the same values."""
    study = settings("sweep.trials=4")
    with open_study(study, STUDY):
        made = optuna.load_study(study_name=study.name, storage=study.storage)
        trials = [made.ask() for _ in range(3)]
        for trial, lr in zip(trials[1:], (0.1, 0.2), strict=True):
            trial.suggest_float("optimizer.lr", lr, lr)
        made.tell(trials[0], 1.0)
        start = study.folder / "2026-01-01"
        write_outcome(start, Outcome(1, ["optimizer.lr=0.1", "seed=0"], code=0, value=0.7))
        write_outcome(start, Outcome(2, ["optimizer.lr=0.2", "seed=0"], code=1))
    with open_study(study, STUDY) as more:
        assert more is not None and more[0] == "hydra.sweeper.n_trials=2"
    assert states(study) == ["COMPLETE", "COMPLETE", "FAIL", "WAITING"]
    made = optuna.load_study(study_name=study.name, storage=study.storage)
    assert made.trials[1].value == 0.7
    assert made.ask().suggest_float("optimizer.lr", 0, 1) == 0.2


def test_another_command_begins_another_study() -> None:
    study = settings()
    with open_study(study, [*STUDY, "seed=0"]):
        pass
    with open_study(study, [*STUDY, "seed=0", "launcher=slurm", "sweep.trials=9", "batch_size=4,8"]) as more:
        assert more is not None
    with (
        pytest.raises(InputError, match=r"begun with another command.*seed=0.*seed=1.*sweep\.name=NAME"),
        open_study(study, [*STUDY, "seed=1"]),
    ):
        pass


def test_a_study_runs_once_at_a_time() -> None:
    study = settings()
    with (
        open_study(study, STUDY),
        pytest.raises(InputError, match="is running already"),
        open_study(study, STUDY),
    ):
        pass


# --- what a trial is worth --------------------------------------------------------------------------------------------


def scored(text: str, *overrides: str) -> float | None:
    Path("metrics.csv").write_text(text)
    config: DictConfig = compose_train(*STUDY, *overrides)
    return score(config, Path())


def test_the_score_is_the_mean_of_the_last_values() -> None:
    rows = "epoch,step,train/loss,val/x\n0,0,8,\n0,1,4,0.5\n0,2,2,\n"
    assert scored(rows) == 2
    assert scored(rows, "sweep.over_last=2") == 3
    assert scored(rows, "sweep.objective=val/x", "sweep.over_last=9") == 0.5
    assert score(compose_train(), Path()) is None


def test_no_score_is_told_with_what_is_there() -> None:
    with pytest.raises(InputError, match="there are epoch, step, train/loss"):
        scored("epoch,step,train/loss\n0,0,1\n", "sweep.objective=train/other")
    with pytest.raises(RuntimeError, match="train/loss was nan in the end"):
        scored("epoch,step,train/loss\n0,0,nan\n")


# --- through the command line -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("labelled"), videos=12)


def command(videos: Path, *overrides: str) -> list[str]:
    return [*STUDY, "dataset=folder", f"dataset.root={videos}", "trainer.max_steps=2", *SMALL, *overrides]


@pytest.mark.slow
def test_a_study_through_the_command_line(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(videos, "sweep.trials=2", "sweep.name=mine")) == 0
    assert "Study mine: 2 trials in outputs/sweeps/mine/study.db; best train/loss" in capsys.readouterr().out
    assert main(command(videos, "sweep.trials=2", "sweep.name=mine")) == 0
    assert "has 2 of 2 trials; 0 are missing" in capsys.readouterr().out
    assert len(list(Path("outputs/sweeps/mine").glob("*/*/metrics.csv"))) == 2


@pytest.mark.slow
def test_a_value_that_no_run_has_is_told_after_one_step(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(videos, "sweep.trials=1", "sweep.objective=train/los")) == 1
    printed = capsys.readouterr()
    assert "sweep.objective=train/los is no value of this run; there are train/info_nce, train/loss" in printed.err
    assert "1 of 1 jobs failed" in printed.err
    assert "0 trials in" in printed.out


@pytest.mark.slow
def test_a_killed_study_goes_on_and_runs_no_finished_trial_again(videos: Path) -> None:
    """SIGKILL in the middle of the third of four trials."""
    arguments = command(videos, "sweep.trials=4", "trainer.max_steps=8")
    study = settings("sweep.trials=4")
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "train.py"), *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 200
        while not list(study.folder.glob("*/2_*/metrics.csv")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    before: Any = optuna.load_study(study_name=study.name, storage=study.storage).trials
    assert [trial.state.name for trial in before] == ["COMPLETE", "COMPLETE", "RUNNING"]
    assert main(arguments) == 0
    after: Any = optuna.load_study(study_name=study.name, storage=study.storage).trials
    assert [trial.state.name for trial in after] == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert [trial.value for trial in after[:2]] == [trial.value for trial in before[:2]]
    assert after[3].params == before[2].params
    rates = [trial.params["optimizer.lr"] for trial in (*after[:2], *after[3:])]
    assert len(set(rates)) == 4
    runs = sorted(file.parent.name for file in study.folder.glob("*/*/metrics.csv"))
    assert len(runs) == 5  # two finished, one killed and begun again, one more
