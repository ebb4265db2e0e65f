"""What ran, where, and on what: a run's folder, its record, and what a resume takes."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import shlex
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from ssl_video.utils.errors import InputError
from ssl_video.utils.files import write_atomically
from ssl_video.utils.kept import checkpoints

RUN_DIR_VARIABLE = "SSL_VIDEO_RUN_DIR"
NAMING = ("method", "backbone", "dataset")  # groups whose choices name a run
_RECORDED_PACKAGES = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "decord2", "av", "numpy", "ssl_video")


@dataclass(frozen=True)
class Job:
    """What Hydra says of the current job.

    Attributes:
        choices: chosen option of each config group (``{"method": "moco", ...}``).
        overrides: the job's overrides.
        sweep_dir: folder of the sweep, None for a single run.
        number: place in the sweep.
    """

    choices: dict[str, str]
    overrides: list[str]
    sweep_dir: Path | None
    number: int

    @property
    def name(self) -> str:
        """``<method>_<backbone>_<dataset>``."""
        return "_".join(self.choices[group] for group in NAMING)

    @classmethod
    def current(cls) -> Job:
        """The job that Hydra runs now; forgets Hydra's state afterwards.

        Lightning re-launches a Hydra job by a command line of its own making when it sees that state, which loses
        ``-m`` and the run folder; without it, it repeats the command as it was given.
        """
        hydra = HydraConfig.get()
        sweep = hydra.mode == RunMode.MULTIRUN
        job = cls(
            choices={key: str(value) for key, value in hydra.runtime.choices.items() if not key.startswith("hydra/")},
            overrides=list(hydra.overrides.task),
            sweep_dir=Path(hydra.sweep.dir) if sweep else None,
            number=int(hydra.job.num) if sweep else 0,
        )
        HydraConfig.instance().cfg = None
        return job


def new_run_dir(run_dir: str | None, job: Job) -> Path:
    """The folder of a new run; the first process decides it, the others read it from the environment.

    Args:
        run_dir: the user's choice, if any.
        job: what Hydra says.
    """
    if started_by_another_rank():
        return Path(os.environ[RUN_DIR_VARIABLE])
    if run_dir is not None:
        path = Path(run_dir)
    elif job.sweep_dir is not None and "LOCAL_RANK" not in os.environ:
        path = _sweep_folder(job, job.sweep_dir)
    elif started_from_outside():
        raise InputError(
            "Several processes were started from outside (torchrun, srun), and no rank may choose a folder by its own "
            "clock; give run_dir=DIR."
        )
    else:
        path = _free(Path("outputs") / job.name / datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
    os.environ[RUN_DIR_VARIABLE] = str(path.resolve())
    return path


def started_by_another_rank() -> bool:
    """Whether a first process has decided this run's folder already."""
    return RUN_DIR_VARIABLE in os.environ and "LOCAL_RANK" in os.environ


def started_from_outside() -> bool:
    """Whether somebody else than this program starts the processes: torchrun, srun, or a command on each machine."""
    several_tasks = int(os.environ.get("SLURM_NTASKS") or 1) > 1
    return several_tasks or "LOCAL_RANK" in os.environ or "NODE_RANK" in os.environ


def _is_first_process() -> bool:
    """As far as the environment tells before the processes are joined."""
    numbers = (os.environ.get(name) or "0" for name in ("RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK"))
    return all(number == "0" for number in numbers)


def _free(path: Path) -> Path:
    """``path``, or the first of ``path_2, path_3, …`` that does not exist: two runs may start within a second."""
    candidate, number = path, 2
    while candidate.exists():
        candidate, number = path.with_name(f"{path.name}_{number}"), number + 1
    return candidate


def holds_run(folder: Path) -> bool:
    """Whether a folder is that of a training run."""
    return (folder / "run.json").is_file()


def refuse_existing(folder: Path) -> None:
    """Keeps one run from writing over another.

    Raises:
        InputError: the folder holds a run.
    """
    if holds_run(folder) and _is_first_process():
        raise InputError(
            f"run_dir={folder} holds a run already; go on with it by resume={folder}, or choose another run_dir."
        )


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a run's folder."""
    path = folder / "checkpoints" / "last.ckpt"
    return path if path.is_file() else None


def requeued() -> bool:
    """Whether SLURM has started this job before, so that it goes on with its own run without being told."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0


def job_id() -> str | None:
    """The job's number at the scheduler, as its commands take it; it stays the same when the job starts again."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array is not None and "SLURM_ARRAY_TASK_ID" in os.environ:
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def find_own(run_dir: str | None, job: Job, *, config: dict[str, Any]) -> Path | None:
    """The run that a job began before it was requeued: by its folder, else by the job's number and configuration."""
    if (folder := _given_folder(run_dir, job)) is not None:
        return folder if holds_run(folder) else None
    for folder in _runs(job):
        if read_record(folder).get("job") == job_id() and _comparable(read_config(folder)) == _comparable(config):
            return folder
    return None


def find_resumable(run_dir: str | None, job: Job, *, config: dict[str, Any]) -> Path | None:
    """The run that ``resume=auto`` takes: its own folder's, else the newest with an equal configuration."""
    folder = _given_folder(run_dir, job)
    if folder is not None and (run_dir is not None or holds_run(folder)):
        return folder if holds_run(folder) else None
    for folder in _runs(job):
        if folder.parent == job.sweep_dir:  # of the same sweep, so another one whatever its configuration
            continue
        if checkpoints(folder / "checkpoints") and _comparable(read_config(folder)) == _comparable(config):
            return folder
    return None


def _given_folder(run_dir: str | None, job: Job) -> Path | None:
    """The folder that does not depend on when the job starts."""
    if run_dir is not None:
        return Path(run_dir)
    return None if job.sweep_dir is None else _sweep_folder(job, job.sweep_dir)


def _sweep_folder(job: Job, sweep_dir: Path) -> Path:
    shortened = re.sub(r"[^A-Za-z0-9=.,_-]+", "-", ",".join(job.overrides))[:80]
    return sweep_dir / f"{job.number}_{shortened}"


def _runs(job: Job) -> list[Path]:
    """Folders of runs of the same method, backbone and data set, those of sweeps too, the newest first."""
    sweeps = Path("outputs/sweeps")  # <time>/<job>, or <study>/<time>/<job>
    places = (Path("outputs") / job.name, "*"), (sweeps, "*/*"), (sweeps, "*/*/*")
    files = [file for folder, runs in places for file in folder.glob(f"{runs}/run.json")]
    newest_first = sorted(files, key=lambda file: file.stat().st_mtime, reverse=True)
    return [file.parent for file in newest_first if _is_of(job, file.parent)]


def _is_of(job: Job, folder: Path) -> bool:
    """Whether a folder has a run of the job's method, backbone and data set; a configuration takes longer to read."""
    try:
        choices = read_record(folder).get("choices", {})
    except InputError:  # an old folder that is damaged is nobody's to go on with
        return False
    same = all(choices.get(group) == job.choices[group] for group in NAMING)
    return same and (folder / "config.yaml").is_file()


# What changes nothing of what is computed: a run goes on also where these are others, or not known to it yet.
_WITHOUT_EFFECT = (
    "run_dir",
    "resume",
    "checkpoint_every_steps",
    "checkpoint_every_minutes",
    "keep_last",
    "keep_best",
    "keep_best_mode",
    "requeue",
    "time_limit_minutes",
    "launcher",
    "sweep",
)


def _comparable(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in _WITHOUT_EFFECT}


def read_config(folder: Path) -> dict[str, Any]:
    """The composed configuration of a run."""
    config = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"), resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def read_record(folder: Path) -> dict[str, Any]:
    """``run.json`` of a run's folder.

    Raises:
        InputError: it is not there or not readable.
    """
    try:
        record: dict[str, Any] = json.loads((folder / "run.json").read_text())
    except (OSError, json.JSONDecodeError) as fault:
        raise InputError(f"{folder} holds no run that can be read ({fault}); name a run's folder.") from None
    return record


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes JSON whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_config(path: Path, config: dict[str, Any]) -> None:
    """Writes a configuration as YAML, whole or not at all."""
    write_text(path, OmegaConf.to_yaml(OmegaConf.create(config)))


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""

    def write(temporary: Path) -> None:
        temporary.write_text(text)

    write_atomically(path, write)


def environment(accelerator: str) -> dict[str, Any]:
    """Command, revision, versions, device, threads and the scheduler's job: what is needed to run the same again."""
    versions = {}
    for package in _RECORDED_PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "git_revision": _git_revision(),
        "python": platform.python_version(),
        "versions": versions,
        "device": torch.cuda.get_device_name() if accelerator == "gpu" else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "job": job_id(),
    }


def _git_revision() -> str | None:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def peak_memory_bytes() -> int:
    """Most memory this process and the largest of its ended children held, in bytes."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    scale = 1 if sys.platform == "darwin" else 1024
    return max(own, children) * scale
