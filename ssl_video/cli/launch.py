"""The shell around every job: overrides are checked before Hydra starts, and exit codes are set here only."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException
from omegaconf import DictConfig

from ssl_video.utils.conf_path import conf_dir
from ssl_video.utils.config import compose_checked, expand_sweep, register
from ssl_video.utils.errors import InputError, Terminated
from ssl_video.utils.run import RUN_DIR_VARIABLE, Job

DONE, FAULT, REFUSED, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


@dataclass
class _Outcome:
    """Exit code of every job that ran, with the reason of those that failed."""

    codes: list[int] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def launch(
    config_name: str,
    job: Callable[[DictConfig, Job], Any],
    argv: Sequence[str],
    *,
    provided: Mapping[str, Collection[str]],
    settings: type,
    complete: Callable[[list[str]], list[str]] = lambda overrides: overrides,
) -> int:
    """Runs one job, or each job of a sweep.

    Args:
        config_name: primary configuration file.
        job: what to do with a checked configuration.
        argv: the command line without the program's name.
        provided: per node, arguments that the program passes itself.
        settings: class whose annotations are the types of the top-level values.
        complete: turns the given overrides into all of them (a resumed run brings its own).

    Returns:
        The exit code (see README): 0 done, 2 refused before the first step, 1 a fault later, 130 interrupted.
    """
    flags, overrides = _split(argv)
    try:
        if flags.help or flags.hydra_help or flags.shell_completion or "--version" in argv:
            return _hydra(config_name, lambda config: None, list(argv))
        completed = complete(overrides)
        jobs = expand_sweep(completed) if flags.multirun else [completed]
        config_dirs = [flags.config_dir] if flags.config_dir else []
        for one in jobs:
            compose_checked(config_name, one, provided=provided, settings=settings, config_dirs=config_dirs)
    except InputError as fault:
        return _refuse(str(fault))
    except HydraException as fault:
        return _refuse(f"The command line cannot be read: {str(fault).splitlines()[0]}")
    outcome = _Outcome()

    def guarded(config: DictConfig) -> None:
        current = Job.current()
        if current.sweep_dir is not None:
            os.environ.pop(RUN_DIR_VARIABLE, None)
        code, reason = _guarded(job, config, current)
        outcome.codes.append(code)
        if code != DONE:
            outcome.failed.append(f"job {current.number} ({' '.join(current.overrides)}): {reason}")
        if code == INTERRUPTED:
            raise KeyboardInterrupt

    arguments = [*(text for text in argv if text not in overrides), *completed]
    try:
        code = _hydra(config_name, guarded, arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    if flags.multirun and outcome.failed:
        print(f"\n{len(outcome.failed)} of {len(outcome.codes)} jobs failed:", file=sys.stderr)
        print("\n".join(f"  {line}" for line in outcome.failed), file=sys.stderr)
        return FAULT
    return max([code, *outcome.codes])


def _split(argv: Sequence[str]) -> tuple[Any, list[str]]:
    # Intermixed: flags may stand anywhere between the overrides.
    flags = get_args_parser().parse_intermixed_args(list(argv))
    return flags, list(flags.overrides)


def _refuse(message: str) -> int:
    print(message, file=sys.stderr)
    return REFUSED


def _guarded(job: Callable[[DictConfig, Job], Any], config: DictConfig, current: Job) -> tuple[int, str]:
    """Runs a job and turns what it raises into an exit code and one line of reason."""
    try:
        job(config, current)
        return DONE, ""
    except InputError as fault:
        print(f"Refused: {fault}", file=sys.stderr)
        return REFUSED, str(fault).splitlines()[0]
    except KeyboardInterrupt:
        print("Interrupted. The last checkpoint can be resumed: resume=RUN_FOLDER.", file=sys.stderr)
        return INTERRUPTED, "interrupted"
    except Terminated:
        print("Terminated. The last checkpoint can be resumed: resume=RUN_FOLDER.", file=sys.stderr)
        return TERMINATED, "terminated"
    except Exception as fault:
        traceback.print_exc()
        return FAULT, f"{type(fault).__name__}: {str(fault).splitlines()[0] if str(fault) else ''}"


def _hydra(config_name: str, task: Callable[[DictConfig], None], arguments: list[str]) -> int:
    """Hands over to Hydra: ``--cfg``, ``--help``, ``-m`` and launchers are its own."""
    register()
    program = sys.argv

    def as_given(config: DictConfig) -> None:
        # Lightning starts the other ranks by repeating sys.argv.
        sys.argv = program
        task(config)

    sys.argv = [program[0], *arguments]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config_name)(as_given)()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FAULT
    finally:
        sys.argv = program
    return DONE
