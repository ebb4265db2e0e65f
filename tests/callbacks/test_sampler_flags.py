"""What samplers noted is counted over the whole run, also over a resume, and told once."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssl_video.callbacks.sampler_flags import SamplerFlags
from ssl_video.data.batch import ClipBatch


def give(callback: SamplerFlags, size: int, flags: dict[str, int]) -> None:
    rows = torch.arange(size)
    batch = ClipBatch(torch.zeros(size, 1, 3, 1, 2, 2), rows[:, None, None], rows, rows, rows, rows, flags=flags)
    nobody: Any = None
    callback.on_train_batch_end(nobody, nobody, None, batch, 0)


def end(callback: SamplerFlags, *, is_global_zero: bool = True) -> None:
    trainer: Any = SimpleNamespace(is_global_zero=is_global_zero)
    callback.on_train_end(trainer, None)  # type: ignore[arg-type]


def test_flags_are_counted_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    callback = SamplerFlags()
    give(callback, 4, {"no_motion_table": 3})
    give(callback, 4, {"no_motion_table": 1, "frames_too_similar": 2})
    end(callback, is_global_zero=False)
    assert capsys.readouterr().err == ""
    end(callback)
    assert "in 8 samples: no_motion_table 4, frames_too_similar 2." in capsys.readouterr().err


def test_nothing_is_told_where_all_went_well(capsys: pytest.CaptureFixture[str]) -> None:
    callback = SamplerFlags()
    give(callback, 4, {})
    end(callback)
    assert capsys.readouterr().err == ""


def test_a_resumed_run_goes_on_counting() -> None:
    first, second = SamplerFlags(), SamplerFlags()
    give(first, 4, {"no_motion_table": 3})
    second.load_state_dict(first.state_dict())
    give(second, 4, {"no_motion_table": 2})
    assert second.state_dict() == {"samples": 8, "counts": {"no_motion_table": 5}}
    assert first.state_dict() == {"samples": 4, "counts": {"no_motion_table": 3}}
