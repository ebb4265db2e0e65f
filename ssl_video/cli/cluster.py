"""SLURM: what a job asks of it, how its processes find each other, and when it has ended."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from omegaconf import DictConfig

from ssl_video.utils.errors import InputError

POLL_SECONDS = 2.0
GRACE_SECONDS = 15.0  # until a shared file system shows what another machine wrote


def check_launcher(config: DictConfig) -> None:
    """Refuses a request that does not fit the trainer's processes: SLURM starts one for each device.

    Raises:
        InputError: names the key to set.
    """
    launcher, trainer = config.get("launcher"), config.trainer
    if not launcher:
        return
    if not isinstance(trainer.devices, int) or trainer.devices < 1:
        raise InputError(
            f"launcher=slurm asks for one process per device, so trainer.devices={trainer.devices} must be their "
            "number on each node, such as trainer.devices=8."
        )
    for key, own in (("nodes", "num_nodes"), ("tasks_per_node", "devices")):
        if launcher[key] != trainer[own]:
            raise InputError(
                f"launcher.{key}={launcher[key]} and trainer.{own}={trainer[own]} must be equal; "
                f"give trainer.{own}={launcher[key]} alone, the launcher follows it."
            )
    if shutil.which("sbatch") is None:
        raise InputError(
            "launcher=slurm: there is no sbatch here; start it where jobs are submitted, or launcher=local."
        )


def in_submitted_job() -> bool:
    """Whether submitit started this process."""
    return os.environ.get("SUBMITIT_EXECUTOR") == "slurm"


def name_first_node() -> None:
    """Sets ``MASTER_ADDR`` for the processes of a SLURM job, where it is not set.

    It is the first node's name, or the address that SLURM knows it by where that name means nothing to the resolver:
    then the processes would wait for each other for ever.

    Raises:
        InputError: neither leads anywhere.
    """
    nodes = os.environ.get("SLURM_JOB_NODELIST")
    if "MASTER_ADDR" in os.environ or nodes is None or int(os.environ.get("SLURM_NTASKS", "1")) == 1:
        return
    name = SLURMEnvironment.resolve_root_node_address(nodes)
    address = name if _resolves(name) else _address_in_slurm(name)
    if address is None:
        raise InputError(
            f"The first node of this job, {name}, has a name that cannot be resolved; export MASTER_ADDR with its "
            "address in the job (launcher.setup=['export MASTER_ADDR=…'])."
        )
    os.environ["MASTER_ADDR"] = address


def _resolves(name: str) -> bool:
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return False
    return True


def _address_in_slurm(name: str) -> str | None:
    told = _ask("scontrol", "--oneliner", "show", "node", name)
    found = re.search(r"\bNodeAddr=(\S+)", told.stdout) if told is not None else None
    return found.group(1) if found and _resolves(found.group(1)) else None


def _ask(*command: str) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None


def is_queued(job_id: str) -> bool:
    """Whether SLURM still has a job to wait for: waiting, running, or about to run again."""
    told = _ask("squeue", "--noheader", "--jobs", job_id, "--format", "%T")
    if told is None or (told.returncode != 0 and "Invalid job id" not in told.stderr):
        return True  # the controller does not answer now: that says nothing of the job
    return bool(told.stdout.strip())


def wait_for_result(job: Any, *, has_failed: Callable[[], bool]) -> Any:
    """What the first process of a submitit job returned, or None: it ended without.

    submitit itself asks ``sacct``, which knows nothing where no accounting is set up, and would then wait for ever for
    a job that was killed.

    Args:
        job: of submitit.
        has_failed: whether the job itself has said so.
    """
    result = Path(job.task(0).paths.result_pickle)
    left_at: float | None = None
    while not result.exists():
        if left_at is None and not is_queued(job.job_id):
            left_at = time.monotonic()
        if left_at is not None and (has_failed() or time.monotonic() - left_at > GRACE_SECONDS):
            return None
        time.sleep(POLL_SECONDS)
    try:
        return job.task(0).result()
    except Exception:  # submitit's wrapping of whatever the job raised; its log has it all
        return None


def last_words(job: Any) -> str:
    """The last line that a job's first process wrote, and where the others lie."""
    paths = job.task(0).paths
    for file in (Path(paths.stderr), Path(paths.stdout)):
        lines = file.read_text(errors="replace").split("\n") if file.is_file() else []
        spoken = [line.strip() for line in lines if line.strip()]
        if spoken:
            return f"ended without a result; its last line: {spoken[-1][:200]} (see {file})"
    return f"ended without a result or a word (see {paths.folder})"
