"""Loggers are closed at a run's end, and none of them keeps a job from being started again."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ssl_video.cli.loggers import close_loggers

Printed = pytest.CaptureFixture[str]


class Quick:
    codes: list[int]

    def __init__(self) -> None:
        self.codes = []

    def close(self, *, exit_code: int) -> None:
        self.codes.append(exit_code)


class Slow(Quick):
    """As one whose server does not answer."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = threading.Event()

    def close(self, *, exit_code: int) -> None:
        self.answer.wait(60)
        super().close(exit_code=exit_code)


class Broken(Quick):
    def close(self, *, exit_code: int) -> None:
        raise OSError("no space left")


def trainer(*loggers: Quick, finished: bool = False, rank: int = 0) -> Any:
    return SimpleNamespace(loggers=loggers, is_global_zero=rank == 0, state=SimpleNamespace(finished=finished))


def test_a_slow_one_is_left_behind_where_a_job_is_about_to_end(tmp_path: Path, capsys: Printed) -> None:
    slow, quick = Slow(), Quick()
    close_loggers(trainer(slow, quick), tmp_path, seconds=0.05)
    assert (slow.codes, quick.codes) == ([], [1])
    assert f"Slow was not closed within 0.05 s; what it has not sent lies in {tmp_path}" in capsys.readouterr().err
    slow.answer.set()


def test_a_finished_run_waits_for_all(tmp_path: Path, capsys: Printed) -> None:
    slow = Slow()
    threading.Timer(0.2, slow.answer.set).start()
    close_loggers(trainer(slow, finished=True), tmp_path)
    assert slow.codes == [0]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("seconds", [None, 5.0])
def test_a_fault_is_told_and_the_others_are_closed(tmp_path: Path, capsys: Printed, seconds: float | None) -> None:
    quick = Quick()
    close_loggers(trainer(Broken(), quick), tmp_path, seconds=seconds)
    assert "Broken could not be closed: OSError: no space left" in capsys.readouterr().err
    assert quick.codes == [1]


def test_other_processes_close_nothing(tmp_path: Path) -> None:
    quick = Quick()
    close_loggers(trainer(quick, rank=1), tmp_path)
    assert quick.codes == []
