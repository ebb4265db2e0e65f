"""Training runs in processes of their own, forked from one that has imported everything, and killed where a test says.

A process costs 0.2 s so, instead of the seconds that importing torch takes. It is the program that a user starts, with
its own handlers and workers, and SIGKILL ends it as it would end that.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SECONDS = 240.0


def train(words: Sequence[str], *, folder: Path, kill: tuple[int, str] | None = None, shift: int = 0) -> int:
    """Runs train.py in ``folder``; returns its exit code, -9 where it was killed. Its output is in ``output.txt``.

    Args:
        words: the command line.
        folder: working directory.
        kill: SIGKILL in the step after so many, at a place: "step" (between the forward and the backward pass), "end"
            (when the step is done and its checkpoint, if one was due, is written) or "write" (in the middle of the
            checkpoint after so many steps, or the first one after it).
        shift: batches by which the position of a resume is made wrong.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ssl_video.cli.train", "support.killed"])
    process = context.Process(target=_train, args=(list(words), str(folder), kill, shift))
    process.start()
    process.join(SECONDS)
    if process.exitcode is None:
        process.kill()
        raise RuntimeError(f"train.py {' '.join(words)} has not ended after {SECONDS:g} s.")
    return process.exitcode


def _train(words: list[str], folder: str, kill: tuple[int, str] | None, shift: int) -> None:
    import torch

    from ssl_video.cli.train import main

    os.chdir(folder)
    with open("output.txt", "w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    torch.set_num_threads(1)
    if kill is not None:
        _kill_at(*kill)
    if shift:
        _shift_by(shift)
    sys.argv = ["train.py", *words]
    sys.exit(main())


def _kill_at(after: int, place: str) -> None:
    from ssl_video.callbacks.stop_signals import StopSignals
    from ssl_video.methods.base import SSLMethod
    from ssl_video.utils import checkpoint

    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    step, end, save = SSLMethod.training_step, StopSignals.on_train_batch_end, checkpoint._save

    def killed_in_step(self: Any, batch: Any, batch_idx: int) -> Any:
        loss = step(self, batch, batch_idx)
        return die() if self.global_step == after else loss

    def killed_at_the_end(self: Any, trainer: Any, *rest: Any) -> None:
        end(self, trainer, *rest)
        if trainer.global_step == after:
            die()

    def killed_while_writing(content: dict[str, Any], path: Path) -> None:
        if content["global_step"] < after:
            return save(content, path)
        save(content, path)
        os.truncate(path, path.stat().st_size // 2)
        return die()

    if place == "step":
        SSLMethod.training_step = killed_in_step  # type: ignore[method-assign]
    elif place == "end":
        StopSignals.on_train_batch_end = killed_at_the_end  # type: ignore[method-assign]
    else:
        checkpoint._save = killed_while_writing


def _shift_by(batches: int) -> None:
    from ssl_video.data.datamodule import VideoDataModule

    load = VideoDataModule.load_state_dict

    def shifted(self: VideoDataModule, state: dict[str, Any]) -> None:
        load(self, state | {"consumed_batches": state["consumed_batches"] + batches})

    VideoDataModule.load_state_dict = shifted  # type: ignore[method-assign]
