"""Each batch's start is marked once."""

from typing import Any

import pytest
import torch

from ssl_video.callbacks.cuda_graphs import CudaGraphSteps


def test_each_batch_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    marks: list[int] = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: marks.append(1))
    callback: Any = CudaGraphSteps()
    for batch in range(3):
        callback.on_train_batch_start(None, None, None, batch)
    assert len(marks) == 3
