"""The shell around every job: overrides are checked before Hydra starts, and exit codes are set here only."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException
from omegaconf import DictConfig

from ssl_video.cli.cluster import check_launcher, in_submitted_job, name_first_node
from ssl_video.cli.outcomes import Outcome, forget_outcome, process_rank, read_outcomes, write_outcome
from ssl_video.cli.own_process import needs_own_process, place_in_sweep, run_in_own_process
from ssl_video.cli.parts import quiet
from ssl_video.cli.studies import (
    StudySettings,
    describe_study,
    ends_of_space,
    fixed_overrides,
    open_study,
    study_settings,
)
from ssl_video.utils.conf_path import conf_dir
from ssl_video.utils.config import compose_job, expand_sweep, register, sweep_dir
from ssl_video.utils.errors import InputError, Preempted, RunFault, Terminated
from ssl_video.utils.extras import check_extras
from ssl_video.utils.run import RUN_DIR_VARIABLE, Job

DONE, FAULT, REFUSED, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


def launch(
    config_name: str,
    job: Callable[[DictConfig, Job], Any],
    argv: Sequence[str],
    *,
    provided: Mapping[str, Collection[str]],
    settings: type,
    complete: Callable[[list[str]], list[str]] = lambda overrides: overrides,
    score: Callable[[DictConfig, Any], float | None] = lambda config, returned: None,
) -> int:
    """Runs one job, or each job of a sweep, here or where ``launcher=`` says.

    Args:
        config_name: primary configuration file.
        job: what to do with a checked configuration.
        argv: the command line without the program's name.
        provided: per node, arguments that the program passes itself.
        settings: class whose annotations are the types of the top-level values.
        complete: turns the given overrides into all of them (a resumed run brings its own).
        score: of a job and what it returned, the value that a study compares.

    Returns:
        The exit code (see README): 0 done, 2 refused before the first step, 1 a fault later, 130 interrupted.
    """
    flags, overrides = _split(argv)
    with ExitStack() as stack:
        try:
            if flags.help or flags.hydra_help or flags.shell_completion or "--version" in argv:
                return _hydra(config_name, lambda config: None, list(argv))
            completed = complete(overrides)
            check_extras(completed)
            is_sweep = flags.multirun or _is_sweep(completed)
            config_dirs = [flags.config_dir] if flags.config_dir else []

            def composed(one: list[str]) -> tuple[DictConfig, dict[str, str]]:
                pair = compose_job(config_name, one, provided=provided, settings=settings, config_dirs=config_dirs)
                check_launcher(pair[0])
                return pair

            study = _study(completed, composed) if is_sweep else None
            jobs = expand_sweep(completed) if is_sweep and study is None else [completed]
            checked = [composed(one) for one in jobs] if study is None else []
            more = stack.enter_context(open_study(study, completed)) if study is not None else []
            if more is None:
                assert study is not None
                print(describe_study(study))
                return DONE
        except InputError as fault:
            return _refuse(str(fault))
        except HydraException as fault:
            return _refuse(f"The command line cannot be read: {str(fault).splitlines()[0]}")
        if not is_sweep and _needs_no_hydra(flags, completed):
            config, choices = checked[0]
            current = place_in_sweep(Job(choices=choices, overrides=completed, sweep_dir=None, number=0))
            return _one_job(job, config, current, score).code
        given = [text for text in argv if text not in overrides and text not in ("-m", "--multirun")]
        if not is_sweep or flags.cfg or flags.info:
            return _hydra(config_name, _alone(job, score), [*given, *completed])
        folder = sweep_dir(config_name, fixed_overrides(completed), config_dirs)
        # What varies comes first: the jobs' folders are named by what fits.
        varying = [text for text in completed if text not in fixed_overrides(completed)]
        ordered = [*varying, *fixed_overrides(completed)]
        arguments = [*given, "-m", *ordered, *more, f"hydra.sweep.dir='{folder}'"]
        code = _sweep(config_name, _in_sweep(config_name, job, score, config_dirs), arguments, Path(folder))
        if study is not None:
            print(describe_study(study))
        return code


def _split(argv: Sequence[str]) -> tuple[Any, list[str]]:
    # Intermixed: flags may stand anywhere between the overrides.
    flags = get_args_parser().parse_intermixed_args(list(argv))
    return flags, list(flags.overrides)


def _is_sweep(overrides: Sequence[str]) -> bool:
    """Whether overrides ask for what Hydra has in a sweep only; one job is then a sweep of one."""
    chosen = dict(text.lstrip("+").split("=", 1) for text in overrides if "=" in text)
    return chosen.get("launcher", "local") != "local" or chosen.get("sweep", "null") != "null"


def _study(
    overrides: list[str], composed: Callable[[list[str]], tuple[DictConfig, dict[str, str]]]
) -> StudySettings | None:
    """The study that overrides ask for, checked at both ends of its space."""
    study = study_settings(composed(fixed_overrides(overrides))[0]) if _chooses_study(overrides) else None
    for end in ends_of_space(overrides, study) if study is not None else []:
        composed(end)
    return study


def _chooses_study(overrides: Sequence[str]) -> bool:
    return any(text.lstrip("+").startswith("sweep=") and text.split("=", 1)[1] != "null" for text in overrides)


def _needs_no_hydra(flags: Any, overrides: Sequence[str]) -> bool:
    """Whether a single job is all there is to do: Hydra would compose it twice again, half a second."""
    asked = (flags.multirun, flags.cfg, flags.info, flags.experimental_rerun, flags.config_path, flags.config_name)
    return not any(asked) and not any(text.lstrip("+~").startswith("hydra") for text in overrides)


def _refuse(message: str) -> int:
    print(message, file=sys.stderr)
    return REFUSED


Task = Callable[[DictConfig], float | None]
Score = Callable[[DictConfig, Any], float | None]


def _alone(job: Callable[[DictConfig, Job], Any], score: Score) -> Task:
    """A single job for Hydra, which ends by the job's exit code."""

    def task(config: DictConfig) -> None:
        code = _one_job(job, config, place_in_sweep(Job.current()), score).code
        if code != DONE:
            raise SystemExit(code)

    return task


def _one_job(job: Callable[[DictConfig, Job], Any], config: DictConfig, current: Job, score: Score) -> Outcome:
    """Runs a job in this process; if it is one of a sweep, its outcome is written down."""
    if current.sweep_dir is not None:
        forget_outcome(current.sweep_dir, current.number)
    outcome = _guarded(job, config, current, score)
    if current.sweep_dir is not None:
        write_outcome(current.sweep_dir, outcome)
    return outcome


def _in_sweep(
    config_name: str, job: Callable[[DictConfig, Job], Any], score: Score, config_dirs: Sequence[str]
) -> Task:
    """One of a sweep's jobs, wherever it runs: what it says goes into its outcome, as it may be another machine."""

    def task(config: DictConfig) -> float | None:
        quiet()
        current = Job.current()
        if needs_own_process(config):
            outcome = run_in_own_process(config_name, current, config_dirs)
        else:
            outcome = _one_job(job, config, current, score)
        if in_submitted_job() and outcome.code != DONE:
            # For SLURM's own accounts, and so that srun ends the other processes. No result is written then.
            raise SystemExit(outcome.code)
        if outcome.code == INTERRUPTED:
            raise KeyboardInterrupt
        return outcome.value

    return task


def _sweep(config_name: str, task: Task, arguments: list[str], folder: Path) -> int:
    """Runs a sweep and tells which of its jobs failed."""
    try:
        code = _hydra(config_name, task, arguments)
    except KeyboardInterrupt:
        if any(text.startswith("launcher=") for text in arguments):
            print(
                "Nobody waits for the jobs now; they go on. `squeue --me` shows them, scancel ends them.",
                file=sys.stderr,
            )
        return INTERRUPTED
    outcomes = read_outcomes(folder)
    failed = [outcome for outcome in outcomes if outcome.code != DONE]
    if not failed:
        if code == DONE and "launcher=slurm" in arguments:  # what they said themselves stands in their logs
            print(f"All jobs are done ({len(outcomes)}); the sweep's folder: {folder}")
        return code
    print(f"\n{len(failed)} of {len(outcomes)} jobs failed:", file=sys.stderr)
    for outcome in failed:
        print(f"  job {outcome.number} ({' '.join(outcome.overrides)}): {outcome.reason}", file=sys.stderr)
    return FAULT


def _guarded(job: Callable[[DictConfig, Job], Any], config: DictConfig, current: Job, score: Score) -> Outcome:
    """Runs a job and turns what it raises into an exit code and one line of reason."""

    def ended(code: int, reason: str = "", value: float | None = None) -> Outcome:
        return Outcome(current.number, current.overrides, code=code, reason=reason, value=value)

    try:
        name_first_node()
        returned = job(config, current)
        return ended(DONE, value=score(config, returned) if process_rank() == 0 else None)
    except InputError as fault:
        print(f"Refused: {fault}", file=sys.stderr)
        return ended(REFUSED, str(fault).splitlines()[0])
    except KeyboardInterrupt:
        print("Interrupted. The last checkpoint can be resumed: resume=RUN_FOLDER.", file=sys.stderr)
        return ended(INTERRUPTED, "interrupted")
    except Preempted as end:
        print(end, file=sys.stderr)
        if in_submitted_job():  # a result would end the wait for it
            raise SystemExit(DONE) from None
        return ended(DONE)
    except Terminated as end:
        print(f"{end or 'Terminated.'} The last checkpoint can be resumed: resume=RUN_FOLDER.", file=sys.stderr)
        return ended(TERMINATED, "terminated")
    except RunFault as fault:
        if str(fault):
            print(fault, file=sys.stderr)
        return ended(FAULT, str(fault).split("\n")[0])
    except Exception as fault:
        traceback.print_exc()
        return ended(FAULT, f"{type(fault).__name__}: {str(fault).splitlines()[0] if str(fault) else ''}")
    finally:
        os.environ.pop(RUN_DIR_VARIABLE, None)  # it tells the other ranks, not what this process does next


def _hydra(config_name: str, task: Task, arguments: list[str]) -> int:
    """Hands over to Hydra: ``--cfg``, ``--help``, ``-m`` and launchers are its own."""
    register()
    program = sys.argv

    def as_given(config: DictConfig) -> float | None:
        register()  # in another process where a launcher started one
        # Lightning starts the other ranks by repeating sys.argv.
        sys.argv = program
        return task(config)

    sys.argv = [program[0], *arguments]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config_name)(as_given)()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FAULT
    finally:
        sys.argv = program
    return DONE
