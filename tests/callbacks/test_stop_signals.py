"""Signals and the time limit wait for the end of the step, save it, and are given back to whoever had them."""

import os
import signal
import time
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from ssl_video.callbacks.stop_signals import TIME_LIMIT, Stopped, StopSignals
from ssl_video.utils.distributed import rank
from support.gloo import run_in_two_processes

TOTAL_STEPS = 10
SIGNALS = ["SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"]


class Run:
    """A stand-in for trainer and method that counts steps, and what was saved."""

    def __init__(self, *, accumulate: int = 1, **arguments: Any) -> None:
        self.trainer: Any = SimpleNamespace(global_step=0, accumulate_grad_batches=accumulate)
        self.module: Any = SimpleNamespace(total_steps=TOTAL_STEPS)
        self.saved: list[int] = []
        self.callback = StopSignals(lambda trainer, module: self.saved.append(trainer.global_step), **arguments)
        self.callback.on_train_start(self.trainer, self.module)
        self.batches = 0

    def batch(self) -> None:
        self.batches += 1
        self.trainer.global_step = self.batches // self.trainer.accumulate_grad_batches
        self.callback.on_train_batch_end(self.trainer, self.module, None, None, self.batches - 1)


def send(name: str) -> None:
    os.kill(os.getpid(), signal.Signals[name])


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_waits_for_the_end_of_the_step_and_saves_it(name: str) -> None:
    number = signal.Signals[name]
    before = signal.getsignal(number)
    run = Run()
    with run.callback.installed(since=time.monotonic()):
        run.batch()
        send(name)  # in the middle of a step: nothing happens yet
        assert not run.saved
        with pytest.raises(Stopped):
            run.batch()
        assert run.callback.reason == name
        assert run.saved == [2]
        assert run.callback.seconds is not None and run.callback.seconds >= 0
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_is_obeyed_at_once() -> None:
    run = Run()
    with run.callback.installed(since=time.monotonic()):
        send("SIGINT")
        with pytest.raises(KeyboardInterrupt):
            send("SIGINT")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_signals_may_come_twice() -> None:
    run = Run()
    with run.callback.installed(since=time.monotonic()):
        send("SIGTERM")
        send("SIGTERM")
        with pytest.raises(Stopped):
            run.batch()


def test_the_notice_of_a_cluster_counts_more_than_the_sigterm_beside_it() -> None:
    for order in (("SIGUSR2", "SIGTERM"), ("SIGTERM", "SIGUSR2")):
        run = Run()
        with run.callback.installed(since=time.monotonic()):
            for name in order:
                send(name)
            with pytest.raises(Stopped):
                run.batch()
        assert run.callback.reason == "SIGUSR2"


def test_accumulated_gradients_are_not_cut_in_two() -> None:
    run = Run(accumulate=2)
    with run.callback.installed(since=time.monotonic()):
        send("SIGTERM")
        run.batch()
        with pytest.raises(Stopped):
            run.batch()
    assert run.saved == [1]


def test_a_run_that_is_done_ends_as_done() -> None:
    run = Run()
    with run.callback.installed(since=time.monotonic()):
        for _ in range(TOTAL_STEPS - 1):
            run.batch()
        send("SIGTERM")
        run.batch()
    assert run.callback.reason is None and not run.saved


def test_the_time_limit_counts_from_the_start_of_the_job() -> None:
    run = Run(time_limit_minutes=1.0)
    with run.callback.installed(since=time.monotonic()):
        run.batch()
    with run.callback.installed(since=time.monotonic() - 61), pytest.raises(Stopped):
        run.batch()
    assert run.callback.reason == TIME_LIMIT
    assert run.saved == [2]


def test_the_handlers_that_were_there_are_remembered_and_given_back() -> None:
    calls = []
    own = signal.signal(signal.SIGUSR2, lambda *_: calls.append("theirs"))
    theirs = signal.getsignal(signal.SIGUSR2)
    try:
        run = Run()
        with run.callback.installed(since=time.monotonic()):
            assert run.callback.previous[signal.SIGUSR2] is theirs
            send("SIGUSR2")
        assert not calls
        assert signal.getsignal(signal.SIGUSR2) is theirs
    finally:
        signal.signal(signal.SIGUSR2, own)


class Tiny(pl.LightningModule):
    total_steps = 4

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.layer(batch).sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_the_trainers_own_handlers_stay_out(tmp_path: Any) -> None:
    """Lightning's would raise before ours saves, and broadcast from within the handler."""
    saved = []
    callback = StopSignals(lambda trainer, module: saved.append(trainer.global_step))
    seen = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            seen.append(signal.getsignal(signal.SIGTERM))
            if len(seen) == 2:
                send("SIGTERM")

    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=4,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Watch(), callback],
        default_root_dir=tmp_path,
    )
    with callback.installed(since=time.monotonic()), pytest.raises(Stopped):
        trainer.fit(Tiny(), DataLoader(torch.ones(8, 1)))  # type: ignore[arg-type]
    assert saved == [2]
    assert seen == [callback._request] * 2
    assert not trainer.received_sigterm


def stopped_at(asked: int) -> tuple[int | None, str | None, list[int]]:
    """The step at which a rank ends, where only the second one is asked to, in step ``asked``."""
    run = Run()
    with run.callback.installed(since=time.monotonic()):
        for step in range(TOTAL_STEPS):
            if step == asked and rank() == 1:
                send("SIGTERM")
            try:
                run.batch()
            except Stopped:
                return step, run.callback.reason, run.saved
    run.callback.on_train_end(run.trainer, run.module)
    return None, run.callback.reason, run.saved


@pytest.mark.slow
def test_all_processes_end_at_the_same_step() -> None:
    one, other = run_in_two_processes(stopped_at, 2)
    assert one == other == (3, "SIGTERM", [4])  # agreed while the next step computes
    assert run_in_two_processes(stopped_at, TOTAL_STEPS - 1) == [(None, None, [])] * 2
