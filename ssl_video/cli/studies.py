"""``sweep=``: an Optuna study that is kept in a database and goes on where it was stopped.

Hydra's sweeper asks for new trials and tells their values; what it leaves out is done here: only as many trials as
are missing, another random state than that of the trials before, and what to do with trials that were running when the
study was killed.
"""

from __future__ import annotations

import csv
import fcntl
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ssl_video.callbacks.check_objective import CheckObjective
from ssl_video.cli.outcomes import Outcome, read_outcomes
from ssl_video.utils.config import plain
from ssl_video.utils.errors import InputError

if TYPE_CHECKING:
    import optuna

# What may differ between two starts of one study: it changes no trial.
_FREE = ("launcher", "sweep.trials", "sweep.parallel", "hydra")
_KILLED = "killed"  # attribute of a trial whose study ended before it


class StudySettings(BaseModel):
    """Types of the keys of ``sweep``."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    space: dict[str, str]
    objective: str
    direction: Literal["maximize", "minimize"]
    over_last: Annotated[int, Field(gt=0)]
    seed: int
    trials: Annotated[int, Field(gt=0)]
    parallel: Annotated[int, Field(gt=0)]

    @property
    def folder(self) -> Path:
        """Where the database and the trials of every start lie."""
        return Path("outputs") / "sweeps" / self.name

    @property
    def storage(self) -> str:
        """The database, as SQLAlchemy names it."""
        return f"sqlite:///{self.folder / 'study.db'}"


def study_settings(config: DictConfig) -> StudySettings | None:
    """The checked keys of ``sweep``, None where there is no study.

    Raises:
        InputError: lists every fault.
    """
    if not config.get("sweep"):
        return None
    try:
        settings = StudySettings(**plain(config.sweep))
    except ValidationError as fault:
        faults = [f"  sweep.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in fault.errors()]
        raise InputError("\n".join(["The study cannot be read:", *faults])) from None
    if settings.objective.startswith("val/knn") and "online_knn" not in (config.callbacks or {}):
        raise InputError(
            f"sweep.objective={settings.objective} is measured by callbacks=[online_knn], which this run has not; "
            "add it, or choose a loss: sweep.objective=train/loss sweep.direction=minimize."
        )
    return settings


def study_callbacks(config: DictConfig) -> list[CheckObjective]:
    """What a trial of a study has beside other runs' callbacks."""
    return [CheckObjective(config.sweep.objective)] if config.get("sweep") else []


def ends_of_space(overrides: Sequence[str], settings: StudySettings) -> list[list[str]]:
    """Two trials that any study could have, its lowest and its highest: what composes for them composes for all."""
    texts = {**settings.space, **dict(_key_and_value(override) for override in overrides)}
    parser = OverridesParser.create()
    ends: list[list[str]] = [[], []]
    for override in parser.parse_overrides([f"{key}={value}" for key, value in texts.items()]):
        if override.is_interval_sweep():
            interval: Any = override.value()
            values = [interval.start, interval.end]
        elif override.is_sweep_override():
            choices = list(override.sweep_string_iterator())
            values = [choices[0], choices[-1]]
        else:
            values = [override.get_value_element_as_str()] * 2
        for end, value in zip(ends, values, strict=True):
            end.append(f"{override.get_key_element()}={value}")
    return ends


def _key_and_value(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return key, value


def fixed_overrides(overrides: Sequence[str]) -> list[str]:
    """Those of a study's overrides that every trial has."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [override.input_line or "" for override in parsed if not override.is_sweep_override()]


@contextmanager
def open_study(settings: StudySettings, overrides: Sequence[str]) -> Iterator[list[str] | None]:
    """Makes a study ready to go on.

    Yields:
        What Hydra is to be told beside the command line; None where all trials are finished.

    Raises:
        InputError: the study is running already, or was begun with another command.
    """
    import optuna

    optuna.logging.set_verbosity(logging.WARNING)
    settings.folder.mkdir(parents=True, exist_ok=True)
    with (settings.folder / "study.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"The study {settings.name} is running already; sweep.parallel= runs several of its trials at once, "
                "and sweep.name=NAME begins another study."
            ) from None
        study = optuna.create_study(
            study_name=settings.name, storage=settings.storage, direction=settings.direction, load_if_exists=True
        )
        _refuse_other_command(study, settings, overrides)
        _settle_killed(study, read_all_outcomes(settings.folder))
        trials = study.get_trials(deepcopy=False)
        ended = sum(trial.state.is_finished() and _KILLED not in trial.user_attrs for trial in trials)
        missing = settings.trials - ended
        if ended:
            print(f"The study {settings.name} has {ended} of {settings.trials} trials; {max(0, missing)} are missing.")
        # With the random state of the first start, the first trials would be drawn again.
        new_seed = settings.seed + 1000 * len(trials)
        yield [f"hydra.sweeper.n_trials={missing}", f"hydra.sweeper.sampler.seed={new_seed}"] if missing > 0 else None


def _refuse_other_command(study: optuna.Study, settings: StudySettings, overrides: Sequence[str]) -> None:
    """Values of runs with other settings say nothing of each other."""
    own = sorted(text for text in fixed_overrides(overrides) if not text.lstrip("+~").startswith(_FREE))
    told = {"overrides": own, "objective": settings.objective, "over_last": settings.over_last}
    before = study.user_attrs.get("command")
    if before is None:
        study.set_user_attr("command", told)
    elif before != told:
        changed = [f"{key}: {before[key]} before, {value} now" for key, value in told.items() if before[key] != value]
        raise InputError(
            f"The study {settings.name} was begun with another command ({'; '.join(changed)}); its trials cannot be "
            "compared with new ones. sweep.name=NAME begins another study."
        )


def read_all_outcomes(folder: Path) -> list[Outcome]:
    """Of the trials of every start of a study."""
    return [outcome for start in sorted(folder.iterdir()) if start.is_dir() for outcome in read_outcomes(start)]


def _settle_killed(study: optuna.Study, outcomes: Sequence[Outcome]) -> None:
    """Trials that ran when the study was killed: one that ended all the same is told, another is tried again."""
    import optuna

    for trial in study.get_trials(deepcopy=False):
        if trial.state != optuna.trial.TrialState.RUNNING:
            continue
        value = _value_of(trial, outcomes)
        if value is not None:
            study.tell(trial.number, value)
            continue
        study._storage.set_trial_user_attr(trial._trial_id, _KILLED, True)
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        if trial.params:
            with warnings.catch_warnings(action="ignore"):  # that it is experimental, in every version until today
                study.enqueue_trial(trial.params)


def _value_of(trial: optuna.trial.FrozenTrial, outcomes: Sequence[Outcome]) -> float | None:
    wanted = {f"{name}={value}" for name, value in trial.params.items()}
    found = [outcome.value for outcome in outcomes if wanted and wanted <= set(outcome.overrides)]
    return next((value for value in reversed(found) if value is not None), None)


def score(config: DictConfig, run_dir: Path) -> float | None:
    """A trial's value, out of its ``metrics.csv``; None for a run of no study.

    Raises:
        InputError: the run has no such value.
        RuntimeError: it is not finite.
    """
    settings = study_settings(config)
    if settings is None:
        return None
    with (run_dir / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    values = [float(row[settings.objective]) for row in rows if row.get(settings.objective)]
    if not values:
        there = ", ".join(rows[0]) if rows else "none"
        raise InputError(f"sweep.objective={settings.objective} is in no row of metrics.csv; there are {there}.")
    mean = sum(values[-settings.over_last :]) / len(values[-settings.over_last :])
    if not math.isfinite(mean):
        raise RuntimeError(f"{settings.objective} was {mean} in the end.")
    return mean


def describe_study(settings: StudySettings) -> str:
    """What a study has found so far."""
    import optuna

    study = optuna.load_study(study_name=settings.name, storage=settings.storage)
    finished = [trial for trial in study.get_trials(deepcopy=False) if trial.value is not None]
    told = f"Study {settings.name}: {len(finished)} trials in {settings.folder / 'study.db'}"
    if not finished:
        return told
    best = study.best_trial
    params = " ".join(f"{name}={value}" for name, value in best.params.items())
    return f"{told}; best {settings.objective} {best.value:.4g} with {params}"
