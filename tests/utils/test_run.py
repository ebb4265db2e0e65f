"""Which folder a run gets, which run a resume takes, and what is recorded of it."""

import json
import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ssl_video.utils import run as run_module
from ssl_video.utils.errors import InputError
from ssl_video.utils.run import (
    RUN_DIR_VARIABLE,
    Job,
    environment,
    find_own,
    find_resumable,
    holds_run,
    job_id,
    last_checkpoint,
    new_run_dir,
    peak_memory_bytes,
    read_config,
    read_record,
    refuse_existing,
    requeued,
    started_by_another_rank,
    write_config,
    write_json,
    write_text,
)

CHOICES = {"method": "moco", "backbone": "r3d_tiny", "dataset": "folder", "logger": "csv"}
SINGLE = Job(CHOICES, ["method=moco"], None, 0)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(RUN_DIR_VARIABLE, raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)


@pytest.fixture(autouse=True)
def restored_environment() -> Any:
    """new_run_dir writes the environment itself, so that other ranks inherit it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def make_run(folder: Path, *, config: dict[str, Any] | None = None, age: float = 0, checkpoint: bool = True) -> Path:
    """A folder as a run leaves it, `age` seconds ago."""
    write_json(folder / "run.json", {"overrides": [], "choices": CHOICES})
    write_config(folder / "config.yaml", config or {})
    if checkpoint:
        write_text(folder / "checkpoints" / "last.ckpt", "weights")
    time = datetime.now().timestamp() - age
    os.utime(folder / "run.json", (time, time))
    return folder


# --- run folders ------------------------------------------------------------------------------------------------------


def test_the_default_names_method_backbone_dataset_and_time() -> None:
    folder = new_run_dir(None, SINGLE)
    assert SINGLE.name == "moco_r3d_tiny_folder"
    assert re.fullmatch(r"outputs/moco_r3d_tiny_folder/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", str(folder))
    assert not folder.exists()


def test_a_second_run_in_the_same_second_gets_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr(run_module, "datetime", Stopped)
    names = []
    for _ in range(3):
        folder = new_run_dir(None, SINGLE)
        folder.mkdir(parents=True)
        names.append(folder.name)
    assert names == ["2026-01-02_03-04-05", "2026-01-02_03-04-05_2", "2026-01-02_03-04-05_3"]


def test_the_users_choice_wins() -> None:
    assert new_run_dir("mine/run", SINGLE) == Path("mine/run")
    sweep = Job(CHOICES, ["seed=1"], Path("outputs/sweeps/t"), 3)
    assert new_run_dir("mine/run", sweep) == Path("mine/run")


def test_jobs_of_a_sweep_are_numbered_and_named_by_their_overrides() -> None:
    overrides = ["method=moco", "dataset.root=/my videos/x", "seed=3", "sampler.note='a b'"]
    folder = new_run_dir(None, Job(CHOICES, overrides, Path("outputs/sweeps/t"), 12))
    assert folder == Path("outputs/sweeps/t/12_method=moco,dataset.root=-my-videos-x,seed=3,sampler.note=-a-b-")
    long = new_run_dir(None, Job(CHOICES, [f"key_{n}=value" for n in range(99)], Path("outputs/sweeps/t"), 1))
    assert len(long.name) == len("1_") + 80
    same_start = ["x" * 80 + "=1", "x" * 80 + "=2"]
    first, second = (new_run_dir(None, Job(CHOICES, [o], Path("s"), n)) for n, o in enumerate(same_start))
    assert first != second


def test_other_ranks_take_the_first_ones_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = new_run_dir(None, SINGLE)
    assert os.environ[RUN_DIR_VARIABLE] == str(tmp_path / folder)
    assert not started_by_another_rank()
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert started_by_another_rank()
    for given in (None, "elsewhere"):
        assert new_run_dir(given, SINGLE) == tmp_path / folder


def test_a_rank_alone_decides_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun sets LOCAL_RANK for every rank, the first too; a stale folder needs both."""
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert not started_by_another_rank()
    assert new_run_dir("mine", SINGLE) == Path("mine")


def test_a_folder_that_holds_a_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_existing(tmp_path / "new")
    (tmp_path / "notes").mkdir()
    refuse_existing(tmp_path / "notes")
    folder = make_run(tmp_path / "run", checkpoint=False)
    with pytest.raises(InputError, match="holds a run already; go on with it by resume="):
        refuse_existing(folder)
    monkeypatch.setenv(RUN_DIR_VARIABLE, str(folder))
    monkeypatch.setenv("LOCAL_RANK", "1")  # the first rank has just filled it
    refuse_existing(folder)


# --- what a resume takes ----------------------------------------------------------------------------------------------


def test_last_checkpoint(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", checkpoint=False)
    assert holds_run(folder)
    assert last_checkpoint(folder) is None
    assert last_checkpoint(make_run(folder)) == folder / "checkpoints" / "last.ckpt"
    assert not holds_run(tmp_path)


def test_auto_looks_in_the_folder_that_is_named(tmp_path: Path) -> None:
    make_run(Path("outputs") / SINGLE.name / "newest", config={"seed": 1})
    assert find_resumable("mine", SINGLE, config={"seed": 1}) is None
    make_run(tmp_path / "mine", checkpoint=False)  # killed before its first checkpoint: it starts again
    assert find_resumable("mine", SINGLE, config={"seed": 1}) == Path("mine")
    make_run(tmp_path / "mine")
    assert find_resumable("mine", SINGLE, config={"seed": 1}) == Path("mine")


def test_auto_takes_the_newest_with_an_equal_configuration() -> None:
    runs = Path("outputs") / SINGLE.name
    assert find_resumable(None, SINGLE, config={"seed": 1}) is None
    make_run(runs / "b_older", config={"seed": 1, "resume": None, "run_dir": None}, age=300)
    make_run(runs / "a_newer", config={"seed": 1, "resume": "auto", "run_dir": "x"}, age=200)
    make_run(runs / "c_other", config={"seed": 2}, age=100)
    make_run(runs / "d_empty", config={"seed": 1}, age=50, checkpoint=False)
    make_run(Path("outputs") / "vcop_r3d_tiny_folder" / "e", config={"seed": 1})
    assert find_resumable(None, SINGLE, config={"seed": 1, "resume": "auto", "run_dir": None}) == runs / "a_newer"
    assert find_resumable(None, SINGLE, config={"seed": 2}) == runs / "c_other"
    assert find_resumable(None, SINGLE, config={"seed": 3}) is None


def test_auto_in_a_sweep_takes_the_jobs_own_folder_first() -> None:
    job = Job(CHOICES, ["seed=1"], Path("outputs/sweeps/t"), 3)
    make_run(Path("outputs") / job.name / "single", config={"seed": 1})
    assert find_resumable(None, job, config={"seed": 1}) == Path("outputs") / job.name / "single"
    own = make_run(Path("outputs/sweeps/t/3_seed=1"), config={"seed": 1}, age=100)
    assert find_resumable(None, job, config={"seed": 1}) == own


@pytest.mark.parametrize("folder", ["outputs/sweeps/2026-01-01/0_seed=1", "outputs/sweeps/lr/2026-01-01/5_seed=1"])
def test_auto_finds_runs_of_sweeps_and_studies(folder: str) -> None:
    run = make_run(Path(folder), config={"seed": 1})
    again = Job(CHOICES, ["seed=1"], Path("outputs/sweeps/2026-01-02"), 0)
    assert find_resumable(None, SINGLE, config={"seed": 1}) == run
    assert find_resumable(None, again, config={"seed": 1}) == run
    assert find_resumable(None, again, config={"seed": 2}) is None


def test_auto_never_takes_another_job_of_the_same_sweep() -> None:
    """Which may vary what changes nothing of the result, or draw the same values twice."""
    make_run(Path("outputs/sweeps/t/0_keep_last=1"), config={"seed": 1, "keep_last": 1})
    job = Job(CHOICES, ["keep_last=5"], Path("outputs/sweeps/t"), 1)
    assert find_resumable(None, job, config={"seed": 1, "keep_last": 5}) is None


def test_auto_passes_over_runs_of_another_kind_and_folders_that_cannot_be_read() -> None:
    sweep = Path("outputs/sweeps/t")
    write_json(make_run(sweep / "0", config={"seed": 1}) / "run.json", {"choices": {**CHOICES, "method": "vcop"}})
    (make_run(sweep / "1", config={"seed": 1}) / "run.json").write_text("{")
    (make_run(sweep / "2", config={"seed": 1}) / "config.yaml").unlink()
    assert find_resumable(None, SINGLE, config={"seed": 1}) is None


def test_what_changes_nothing_of_the_result_hinders_no_resume() -> None:
    run = make_run(Path("outputs") / SINGLE.name / "a", config={"seed": 1, "keep_last": 3})
    found = find_resumable(None, SINGLE, config={"seed": 1, "keep_best": "train/loss", "requeue": False})
    assert found == run
    by_slurm_in_a_study = {"seed": 1, "launcher": {"nodes": 1}, "sweep": {"name": "lr"}}
    assert find_resumable(None, SINGLE, config=by_slurm_in_a_study) == run


def test_requeued_is_what_slurm_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for count, expected in (("", False), ("0", False), ("1", True), ("12", True)):
        monkeypatch.setenv("SLURM_RESTART_COUNT", count)
        assert requeued() is expected
    monkeypatch.delenv("SLURM_RESTART_COUNT")
    assert not requeued()


def test_a_job_is_named_as_scontrol_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    assert job_id() is None
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    assert job_id() == "9" == environment("cpu")["job"]
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "5")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert job_id() == "5_2"


def test_a_requeued_job_finds_its_own_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    runs = Path("outputs") / SINGLE.name
    for name, job, seed, age in (("own", "7", 1, 300), ("other_seed", "7", 2, 200), ("other_job", "8", 1, 100)):
        make_run(runs / name, config={"seed": seed}, age=age)
        time = (runs / name / "run.json").stat().st_mtime
        write_json(runs / name / "run.json", {"overrides": [], "choices": CHOICES, "job": job})
        os.utime(runs / name / "run.json", (time, time))
    assert find_own(None, SINGLE, config={"seed": 1}) == runs / "own"
    assert find_own(None, SINGLE, config={"seed": 3}) is None
    assert find_own("mine", SINGLE, config={"seed": 1}) is None
    make_run(Path("mine"), config={"seed": 1}, checkpoint=False)
    assert find_own("mine", SINGLE, config={"seed": 1}) == Path("mine")
    sweep = Job(CHOICES, ["seed=1"], Path("outputs/sweeps/t"), 3)
    assert find_own(None, sweep, config={"seed": 1}) is None
    own = make_run(Path("outputs/sweeps/t/3_seed=1"), config={"seed": 1})
    assert find_own(None, sweep, config={"seed": 1}) == own


# --- records ----------------------------------------------------------------------------------------------------------


def test_config_and_record_round_trip(tmp_path: Path) -> None:
    config = {"method": {"lr": 1e-3, "names": ["a", None], "on": True}, "seed": 0, "text": "1e-3"}
    write_config(tmp_path / "config.yaml", config)
    assert read_config(tmp_path) == config
    write_json(tmp_path / "run.json", {"steps": 3})
    assert read_record(tmp_path) == {"steps": 3}


def test_a_record_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run that can be read"):
        read_record(tmp_path)
    (tmp_path / "run.json").write_text('{"steps": ')
    with pytest.raises(InputError, match="holds no run that can be read"):
        read_record(tmp_path)


def test_environment_is_what_a_repetition_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/train.py", "dataset.root=/my videos", "seed=1"])
    found = environment("cpu")
    assert found["command"] == "train.py 'dataset.root=/my videos' seed=1"
    assert {"torch", "pytorch-lightning", "hydra-core", "numpy"} <= set(found["versions"])
    assert found["versions"]["torch"][0].isdigit()
    assert found["threads"] >= 1
    json.dumps(found)


def test_outside_a_repository_there_is_no_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert environment("cpu")["git_revision"] is None


def test_peak_memory_is_in_bytes() -> None:
    assert 50_000_000 < peak_memory_bytes() < 1_000_000_000_000
