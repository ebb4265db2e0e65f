"""Speed and waiting between two looks, on a clock of the test."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssl_video.callbacks import throughput
from ssl_video.callbacks.throughput import Throughput, gpu_values


def test_clips_and_waiting_since_the_last_look(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now[0])
    loader = SimpleNamespace(waited_seconds=3.0)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    trainer: Any = SimpleNamespace(train_dataloader=loader, world_size=2, strategy=strategy)
    watch = Throughput(trainer)
    watch.add(1000)
    watch.restart()
    watch.add(24)
    watch.add(16)
    now[0], loader.waited_seconds = 108.0, 5.0
    found = watch.look()
    assert (found["clips_per_second"], found["data_wait_share"]) == (10.0, 0.25)
    assert found["peak_memory_gib"] > 0.05
    now[0] = 110.0
    assert watch.look()["clips_per_second"] == 0


def test_a_gpu_tells_its_busy_share_where_its_driver_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**30)
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: 87)
    assert gpu_values(cuda) == {"peak_gpu_memory_gib": 3.0, "gpu_busy_share": 0.87}

    def missing(device: torch.device) -> int:
        raise ModuleNotFoundError("pynvml")

    monkeypatch.setattr(torch.cuda, "utilization", missing)
    assert gpu_values(cuda) == {"peak_gpu_memory_gib": 3.0}
    assert gpu_values(torch.device("cpu")) == {}
