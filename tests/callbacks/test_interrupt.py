"""Ctrl-C waits for the end of the step, a second one doesn't, and the signal is given back."""

import os
import signal
from typing import Any

import pytest

from ssl_video.callbacks.interrupt import Interrupt

NONE: Any = None


def test_first_interrupt_waits_for_the_end_of_the_step() -> None:
    before = signal.getsignal(signal.SIGINT)
    callback = Interrupt()
    callback.on_train_start(NONE, NONE)
    callback.on_train_batch_end(NONE, NONE, None, None, 0)
    os.kill(os.getpid(), signal.SIGINT)  # in the middle of a step: nothing happens yet
    assert callback.requested
    with pytest.raises(KeyboardInterrupt):
        callback.on_train_batch_end(NONE, NONE, None, None, 1)
    callback.on_exception(NONE, NONE, KeyboardInterrupt())
    assert signal.getsignal(signal.SIGINT) is before


def test_second_interrupt_is_obeyed_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    callback = Interrupt()
    callback.on_train_start(NONE, NONE)
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    callback.on_train_end(NONE, NONE)
    assert signal.getsignal(signal.SIGINT) is before
