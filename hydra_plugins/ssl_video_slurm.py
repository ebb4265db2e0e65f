"""``launcher=slurm``: Hydra takes launchers only from this package."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, filter_overrides

# Hydra reads this file at every start, also where the extra is not installed.
if find_spec("hydra_plugins.hydra_submitit_launcher") is not None:
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher

    class SlurmLauncher(BaseSubmititLauncher):
        """The submitit launcher, with what its own class leaves out.

        A job that dies does not end the sweep, nothing waits for ever where SLURM keeps no accounts (no ``sacct``), and
        containers, ``srun``'s and all of ``sbatch``'s options can be given.

        Args:
            nodes: of each job.
            tasks_per_node: processes on each node, one per device.
            accelerator: the trainer's; with ``gpu`` one GPU per process is asked for.
            partition: as in ``sbatch``; so are ``account``, ``qos``, ``constraint``, ``gres`` and ``gpus_per_node``.
            cpus_per_task: cores for each process, its data workers included.
            mem_gb: memory of each node, in GB.
            minutes: longest time of a job.
            signal_seconds: so long before the time is up, the job is told to save and to queue again.
            requeue: whether a job may be started again, after preemption, a lost node, or its time being up.
            timeouts: how often a job may go on after its time was up.
            array_parallelism: jobs of the sweep that run at once.
            setup: shell lines before the start, such as ``module load cuda``.
            srun: options of ``srun``, such as ``--container-image=FILE``.
            python: what starts Python, such as ``apptainer exec --nv image.sif python``.
            sbatch: any other option, ``{"mail-user": "me@example.org"}``; true for one without a value.
        """

        _EXECUTOR = "slurm"

        def __init__(
            self,
            *,
            nodes: int | str,
            tasks_per_node: int | str | list[Any],
            accelerator: str,
            partition: str | None = None,
            account: str | None = None,
            qos: str | None = None,
            constraint: str | None = None,
            gres: str | None = None,
            gpus_per_node: int | None = None,
            cpus_per_task: int | None = None,
            mem_gb: float | None = None,
            minutes: int = 60,
            signal_seconds: int = 120,
            requeue: bool = True,
            timeouts: int = 1000,
            array_parallelism: int = 256,
            setup: list[str] | None = None,
            srun: list[str] | None = None,
            python: str | None = None,
            sbatch: dict[str, Any] | None = None,
        ) -> None:
            from ssl_video.cli.own_process import checkout_on_path

            super().__init__()
            if accelerator == "gpu" and gres is None and gpus_per_node is None:
                gpus_per_node = tasks_per_node  # type: ignore[assignment]
            here = checkout_on_path() if python is None else {}
            # With it, a process that fails ends the others, which would wait for it.
            start = [
                "export SLURM_KILL_BAD_EXIT=1",
                *(f"export {name}={shlex.quote(value)}" for name, value in here.items()),
                *(setup or []),
            ]
            # srun does not take it from sbatch since SLURM 22.05: each process would have one core, its workers too.
            cores = [] if cpus_per_task is None else [f"--cpus-per-task={cpus_per_task}"]
            asked = {
                "nodes": nodes,
                "tasks_per_node": tasks_per_node,
                "gpus_per_node": gpus_per_node,
                "cpus_per_task": cpus_per_task,
                "mem_gb": mem_gb,
                "timeout_min": minutes,
                "name": "ssl_video",
                "slurm_partition": partition,
                "slurm_account": account,
                "slurm_qos": qos,
                "slurm_constraint": constraint,
                "slurm_gres": gres,
                "slurm_signal_delay_s": signal_seconds,
                "slurm_array_parallelism": array_parallelism,
                "slurm_setup": start,
                "slurm_srun_args": [*cores, *(srun or [])],
                "slurm_additional_parameters": {"requeue" if requeue else "no-requeue": True, **(sbatch or {})},
            }
            self.asked = {key: value for key, value in asked.items() if value is not None}
            self.python = python
            self.timeouts = timeouts if requeue else 0

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            """Submits the jobs as one array and waits until each has ended, well or not."""
            import submitit

            assert self.config is not None
            sweep_dir = Path(str(self.config.hydra.sweep.dir)).absolute()
            executor = submitit.AutoExecutor(
                cluster="slurm",
                folder=sweep_dir / "slurm" / "%j",
                slurm_max_num_timeout=self.timeouts,
                slurm_python=self.python,
            )
            executor.update_parameters(**self.asked)
            numbers = range(initial_job_idx, initial_job_idx + len(job_overrides))
            calls = [
                (list(overrides), "hydra.sweep.dir", number, f"job_id_for_{number}", Singleton.get_state())
                for number, overrides in zip(numbers, job_overrides, strict=True)
            ]
            try:
                jobs = executor.map_array(self, *zip(*calls, strict=True))
            except (
                submitit.core.utils.FailedJobError
            ) as fault:  # of sbatch: a partition that is not there, and the like
                print(f"Refused: SLURM does not take the jobs: {str(fault).strip()}", file=sys.stderr)
                raise SystemExit(2) from None
            given = "1 job was" if len(jobs) == 1 else f"{len(jobs)} jobs were"
            print(f"{given} given to SLURM, from {jobs[0].job_id} on; output: {sweep_dir / 'slurm'}", flush=True)
            return [
                self._result(job, sweep_dir, number, filter_overrides(overrides))
                for job, number, overrides in zip(jobs, numbers, job_overrides, strict=True)
            ]

        def _result(self, job: Any, sweep_dir: Path, number: int, overrides: Sequence[str]) -> JobReturn:
            """What a job returned; a failed one returns None, and its outcome says why."""
            from ssl_video.cli.cluster import last_words, wait_for_result
            from ssl_video.cli.outcomes import Outcome, read_outcome, write_outcome

            def has_failed() -> bool:
                said = read_outcome(sweep_dir, number)
                return said is not None and said.code != 0

            returned = wait_for_result(job, has_failed=has_failed)
            if read_outcome(sweep_dir, number) is None:
                reason = last_words(job) if returned is None else str(returned._return_value)
                write_outcome(sweep_dir, Outcome(number, list(overrides), code=1, reason=reason))
            if isinstance(returned, JobReturn):
                return returned
            failed = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
            failed.return_value = None
            return failed
