"""A loop tells how far it is, without control characters where nobody sees a terminal."""

import pytest

from ssl_video.utils.progress import with_progress


def test_plain_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    items = with_progress(range(3), total=3, title="indexing", unit="video", seconds_between_lines=0.0)
    assert list(items) == [0, 1, 2]
    lines = capsys.readouterr().err
    assert lines == "indexing: 1 of 3 videos\nindexing: 2 of 3 videos\nindexing: 3 of 3 videos\n"


def test_a_short_loop_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(with_progress("ab", total=2, title="features", unit="batch")) == ["a", "b"]
    assert capsys.readouterr().err == ""
