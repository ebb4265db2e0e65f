"""Pictures of a run while it goes on: what its networks see, what they find alike, and what excites them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.seed import isolate_rng

from ssl_video.callbacks.each_step import EachStep
from ssl_video.utils.errors import InputError
from ssl_video.utils.pictures import Picture, ShowsPictures

Make = Callable[[pl.LightningModule, Any, int], Mapping[str, Picture]]
"""Makes named pictures of a method, its last batch, and the number of steps done."""


class Pictures(EachStep):
    """Makes pictures at the first step and every few epochs, and hands them to the loggers that can show them.

    In the first process only; the others wait for it at their next exchange. Whoever makes a picture leaves modes,
    buffers and gradients as they were; random states are put back here, so a run with pictures has the same weights as
    one without. A picture that cannot be made is told once and does not end the run.

    Args:
        at_start: makes those that need be shown once.
        regularly: makes the others.
        every_epochs: epochs between two of them; a share of one is allowed. The last step is always shown.
        others: takes pictures too, beside the trainer's loggers.
    """

    def __init__(
        self,
        *,
        at_start: Sequence[Make] = (),
        regularly: Sequence[Make] = (),
        every_epochs: float = 10.0,
        others: Sequence[ShowsPictures] = (),
    ) -> None:
        if every_epochs <= 0:
            raise InputError(f"every_epochs={every_epochs} must be above 0.")
        self.at_start = at_start
        self.regularly = regularly
        self.every_epochs = every_epochs
        self.others = others
        self._told: set[str] = set()

    def on_step_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, step: int) -> None:
        """Shows what is due after this step."""
        if not trainer.is_global_zero:
            return
        every = max(1, round(self.every_epochs * int(str(pl_module.steps_per_epoch))))
        makers = [*self.at_start] if step == 1 else []
        if step % every == 0 or step == pl_module.total_steps:
            makers += self.regularly
        for make in makers:
            self._show(make, trainer, pl_module, batch, step)

    def _show(self, make: Make, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, step: int) -> None:
        try:
            with isolate_rng():
                pictures = make(pl_module, batch, step)
        except (InputError, OSError, RuntimeError) as fault:  # also a device without memory for it
            reason = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
            if reason not in self._told:
                self._told.add(reason)
                print(f"step {step}: a picture could not be made: {reason}", file=sys.stderr)
            return
        shows = [logger for logger in trainer.loggers if isinstance(logger, ShowsPictures)]
        for name, picture in pictures.items():
            for show in (*shows, *self.others):
                show.show(f"pictures/{name}", picture, step=step - 1)
