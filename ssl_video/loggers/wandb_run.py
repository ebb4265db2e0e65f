"""Weights & Biases: one run per training, its evaluations included, online or in files of its own.

Facts of wandb 0.31 that this rests on, each tried against a stand-in for the server:

* an offline run that is started again gets a folder of its own with the same id. ``wandb sync`` given all of them
  sends them in the order of their start, each after the last row of the one before, whatever its steps: steps that
  were logged twice would stand twice. So a step that an earlier folder holds is not logged again.
* online, a step below the server's last one is dropped with a warning, so there too the first of two stays. A resume
  is exact, so both are the same.
* ``use_artifact`` refuses to work offline; there what a run used is logged with it and named in its configuration.
"""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
import wandb
from lightning_fabric.loggers.logger import rank_zero_experiment
from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.loggers import WandbLogger

from ssl_video.utils.errors import InputError
from ssl_video.utils.pictures import ClipTable, Picture, Pixels, gif
from ssl_video.utils.wandb_file import next_step, wait_for_free_name, wait_until_written

Offline = bool | Literal["auto"]
Artifacts = Literal["none", "backbone", "checkpoint"]

STEP = "trainer/global_step"  # Lightning's name: the optimizer step, from 0
# W&B makes a section of each; what a run table is sorted by, beside the last value.
SECTIONS: dict[str, str | None] = {
    "train/*": None,
    "val/*": "min,max,last",
    "health/*": None,
    "data/*": None,
    "time/*": None,
    "eval/*": None,
}
CONNECT_SECONDS = 30.0  # for the server's first answer
PUBLIC_SERVER = "https://api.wandb.ai"


class WandbRun(WandbLogger):
    """A W&B run whose dashboard needs no clicking: a section per kind of value, every value over the optimizer step.

    Args:
        save_dir: the run's folder.
        run_id: W&B's id of the run; the same one goes on with it.
        name: in W&B's list of runs.
        project: W&B's.
        entity: whose project it is; None: the account's own.
        group: runs that belong together.
        tags: to filter by.
        job_type: ``train`` or ``evaluate``.
        offline: ``auto``: as ``WANDB_MODE`` says, else offline unless there is an account (``WANDB_API_KEY``, or an
            entry of the server in a netrc file), and offline too where the server does not answer. Nothing is asked.
        artifacts: what is kept of a training beside its values: nothing, its backbone, or its last checkpoint too.

    Raises:
        InputError: ``offline=false`` without an account or, at its start, without an answer from the server.
    """

    def __init__(
        self,
        *,
        save_dir: str,
        run_id: str,
        name: str | None = None,
        project: str = "ssl_video",
        entity: str | None = None,
        group: str | None = None,
        tags: Sequence[str] = (),
        job_type: str = "train",
        offline: Offline = "auto",
        artifacts: Artifacts = "none",
    ) -> None:
        self.mode = choose_mode(offline)
        self._may_stay_here = offline == "auto"
        self.artifacts = artifacts
        self.run_id = run_id
        self.identity = {"id": run_id, "project": project, "entity": entity, "group": group, "name": name}
        self._folder = Path(save_dir)
        self._first_step = 0  # earlier ones lie in a file already
        self._row_is_open = False
        self._owns_data_dir = False
        super().__init__(
            name=name,
            save_dir=save_dir,
            id=run_id,
            project=project,
            entity=entity,
            group=group,
            tags=list(tags),
            job_type=job_type,
            mode=self.mode,
            # Offline its ten lines come down to the one that this program prints at the end.
            settings=wandb.Settings(quiet=True, silent=self.mode == "offline", init_timeout=CONNECT_SECONDS),
        )
        self._wandb_init.pop("anonymous")  # Lightning gives it, and the library warns that it means nothing any more

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run of the wandb library, started when it is first asked for."""
        if self._experiment is None:
            if self.mode == "online":
                self._go_online()
            if self.mode == "offline":
                self._first_step = next_step(self._folder, self.run_id)
                wait_for_free_name(self._folder, self.run_id)
                self._keep_data_here()
            run = super().experiment
            run.define_metric(STEP, hidden=True)
            for section, summary in SECTIONS.items():
                run.define_metric(section, step_metric=STEP, step_sync=True, summary=summary)
        return self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds values to a step's row; ``save`` ends the row."""
        self._log(metrics, step=step)

    def save(self) -> None:
        """Ends the row of the last step, so that it lies in the file when a checkpoint is written."""
        if self._row_is_open:
            self.experiment.log({}, commit=True)
            self._row_is_open = False

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Keeps the configuration: nested, which W&B shows, sorts and filters by dotted keys."""
        self.experiment.config.update(dict(params), allow_val_change=True)

    @rank_zero_only
    def show(self, name: str, picture: Picture, *, step: int) -> None:
        """Logs a picture, or a table that plays its clips."""
        if isinstance(picture, ClipTable):
            # The clips by themselves too: those of a table are an artifact, which an offline run holds by its path.
            self._log({name: _table(picture), f"{name}_playing": _videos(picture)}, step=step)
        else:
            self._log({name: wandb.Image(picture.image, caption=picture.caption, file_type="jpg")}, step=step)

    def _log(self, values: Mapping[str, Any], *, step: int | None) -> None:
        run = self.experiment
        if step is None:
            run.log(dict(values))
        elif step >= self._first_step:
            run.log({**values, STEP: step}, step=step)
            self._row_is_open = True

    @rank_zero_only
    def log_evaluation(self, values: Mapping[str, float], *, step: int) -> None:
        """Logs results of a checkpoint, after whatever the run has logged.

        Args:
            values: by name.
            step: the next step of the checkpoint.
        """
        run = self.experiment
        # Online, the library knows the row that comes next.
        place = {"step": max(self._first_step, step)} if self.mode == "offline" else {}
        run.log({**values, STEP: step}, **place)

    @rank_zero_only
    def keep(self, artifact: Any, *, aliases: Sequence[str] = ()) -> None:
        """Logs an artifact as this run's result."""
        self.experiment.log_artifact(artifact, aliases=["latest", *aliases])

    @rank_zero_only
    def use(self, artifact: Any) -> None:
        """Says what this run is made from, where W&B allows it: offline it is only logged beside."""
        if self.mode == "online":
            self.experiment.use_artifact(artifact)
        else:
            self.experiment.log_artifact(artifact)

    def sync_command(self) -> str | None:
        """What uploads an offline run."""
        if self.mode != "offline" or self._experiment is None:
            return None
        return f"wandb sync {self._folder / 'wandb'}/offline-run-*-{self.run_id}"

    def close(self, *, exit_code: int) -> None:
        """Ends the run: without it, the next job of a sweep would log into it."""
        if self._experiment is not None:
            self._experiment.finish(exit_code=exit_code)
            self._experiment = None
            if self.mode == "offline":
                wait_until_written(self._folder, self.run_id)
        if self._owns_data_dir:
            os.environ.pop("WANDB_DATA_DIR", None)

    def _go_online(self) -> None:
        """Starts the run on the server, or decides that it stays here."""
        try:
            _ = super().experiment
        except wandb.errors.CommError as fault:
            reason = f"{_server()} gave no answer within {CONNECT_SECONDS:.0f} s"
            if not self._may_stay_here:
                raise InputError(f"{reason}, and logger.wandb.offline=false; offline=auto would go on here.") from fault
            rank_zero_only(print)(f"W&B: {reason}; this run stays offline.")
            wandb.teardown()  # the library's own process still holds the id
            self.mode = "offline"
            self._wandb_init |= {"mode": "offline", "settings": wandb.Settings(quiet=True, silent=True)}

    def _keep_data_here(self) -> None:
        """Lets what waits for the upload lie in the run's folder, not in the home of whatever machine this is."""
        if "WANDB_DATA_DIR" not in os.environ:
            os.environ["WANDB_DATA_DIR"] = str(self._folder / "wandb" / "data")
            self._owns_data_dir = True


def choose_mode(offline: Offline) -> Literal["online", "offline", "disabled"]:
    """Whether a run is uploaded while it runs.

    Raises:
        InputError: that is asked for without an account.
    """
    if offline == "auto" and os.environ.get("WANDB_MODE") in ("online", "offline", "disabled"):
        return os.environ["WANDB_MODE"]  # type: ignore[return-value]
    if offline is False and not has_account():
        raise InputError(
            f"logger.wandb.offline=false needs an account on {_server()}, and there is neither WANDB_API_KEY nor an "
            "entry in a netrc file; run `wandb login`, or leave offline=auto and upload later by `wandb sync`."
        )
    if offline is True:
        return "offline"
    return "online" if has_account() else "offline"


def has_account() -> bool:
    """Whether W&B's library will find a key without asking for one."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(_server()).hostname or ""
    named = os.environ.get("NETRC")
    files = [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]
    return any(_knows(file.expanduser(), host) for file in files)


def _server() -> str:
    return os.environ.get("WANDB_BASE_URL") or PUBLIC_SERVER


def _knows(file: Path, host: str) -> bool:
    try:
        return host in netrc.netrc(file).hosts
    except (OSError, netrc.NetrcParseError):
        return False


def _table(picture: ClipTable) -> Any:
    rows: Any = [[_video(value) if isinstance(value, np.ndarray) else value for value in row] for row in picture.rows]
    return wandb.Table(columns=list(picture.columns), data=rows)


def _videos(picture: ClipTable) -> list[Any]:
    """Each clip with the rest of its row beneath."""
    return [
        _video(value, caption=", ".join(str(other) for other in row if not isinstance(other, np.ndarray)))
        for row in picture.rows
        for value in row
        if isinstance(value, np.ndarray)
    ]


def _video(frames: Pixels, caption: str | None = None) -> Any:
    # As a file: W&B makes one of an array only with moviepy and a program beside it.
    return wandb.Video(BytesIO(gif(frames)), format="gif", caption=caption)
