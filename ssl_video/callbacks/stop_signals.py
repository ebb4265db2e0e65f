"""A run that is asked to end does so between two steps, with a checkpoint of the last one."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytorch_lightning as pl

from ssl_video.utils.agreement import Agreement
from ssl_video.utils.signals import ENDINGS

TIME_LIMIT = "the time limit"
# What ends a run; where several come together, or come to several processes, the last of them counts. A cluster that
# takes a node away sends SIGTERM beside the signal that was asked for, and SIGTERM alone may be somebody's wish.
REASONS = (TIME_LIMIT, *ENDINGS)


class Stopped(Exception):
    """All processes have ended the run between the same two steps; ``StopSignals`` knows why."""


class StopSignals(pl.Callback):
    """Obeys SIGINT, SIGTERM, SIGUSR1, SIGUSR2 and a time limit at the end of the step, on all processes together.

    A handler only sets a flag: Python calls it wherever it happens to be, in the middle of a step, whose state would
    then be half of one and half of the next, or in a destructor, which swallows what it raises. A second Ctrl-C is
    obeyed at once.

    Args:
        save: writes the checkpoint of the step.
        time_limit_minutes: from ``installed``'s ``since`` on.

    Attributes:
        reason: what all processes ended for, one of ``REASONS``; None as long as they did not.
        previous: the handlers that were there before, by signal.
    """

    def __init__(
        self, save: Callable[[pl.Trainer, pl.LightningModule], object], *, time_limit_minutes: float | None = None
    ) -> None:
        self.save = save
        self.time_limit_minutes = time_limit_minutes
        self.reason: str | None = None
        self.previous: dict[signal.Signals, Any] = {}
        self._asked = 0  # 1 + place in REASONS
        self._asked_at: float | None = None
        self._since = time.monotonic()
        self._agreement: Agreement | None = None

    @contextmanager
    def installed(self, *, since: float) -> Iterator[None]:
        """Takes the signals over; what handled them before does so again afterwards.

        Args:
            since: when the job began, by ``time.monotonic``.
        """
        self._since = since
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread have handlers
            for name in REASONS[1:]:
                number = signal.Signals[name]
                self.previous[number] = signal.signal(number, self._request)
        try:
            yield
        finally:
            for number, handler in self.previous.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self._asked_at is None:
            self._asked_at = time.monotonic()
        self._asked = max(self._asked, 1 + REASONS.index(signal.Signals(number).name))
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    @property
    def seconds(self) -> float | None:
        """Since this process was asked to end; None where only another one was."""
        return None if self._asked_at is None else time.monotonic() - self._asked_at

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Keeps the trainer's own handlers out, which would end the run first, or write files that nobody reads.

        With them goes what the trainer does for them in each step of several processes: a broadcast that waits for the
        device.
        """
        internals: Any = trainer
        internals._signal_connector.register_signal_handlers = _do_nothing
        internals.fit_loop.epoch_loop._broadcast_sigterm_tensor = _do_nothing

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gets ready to agree."""
        self._agreement = Agreement()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ends the run if any process was asked to, unless this was the last step.

        Raises:
            Stopped: between two optimizer steps.
        """
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        self._look_at_the_clock()
        assert self._agreement is not None
        agreed = self._agreement.ask(self._asked)
        if not agreed or trainer.global_step >= int(str(pl_module.total_steps)):
            return
        self.reason = REASONS[agreed - 1]
        self.save(trainer, pl_module)
        raise Stopped(self.reason)

    def _look_at_the_clock(self) -> None:
        if self.time_limit_minutes is None or self._asked:
            return
        if time.monotonic() - self._since >= 60 * self.time_limit_minutes:
            self._asked, self._asked_at = 1 + REASONS.index(TIME_LIMIT), time.monotonic()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leaves nothing under way."""
        assert self._agreement is not None
        self._agreement.close()


def _do_nothing() -> None:
    pass
