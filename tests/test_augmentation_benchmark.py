"""What the benchmark of the augmentation compares is the same work."""

import importlib.util

import pytest
import torch

from benchmark import augmentation


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "SIZE", 24)
    monkeypatch.setattr(augmentation, "FRAMES", 2)


@pytest.mark.parametrize("step", augmentation.our_steps())
def test_steps_are_torchvisions(step: str) -> None:
    clips = torch.rand(3, 3, 2, 24, 24)
    theirs = augmentation.torchvision_steps()[step](clips.clone())
    ours = augmentation.our_steps()[step](clips.clone())
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.skipif(importlib.util.find_spec("kornia") is None, reason="kornia is not installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("step", augmentation.our_steps())
def test_steps_of_kornia_are_the_same_within_its_weights_of_grey(step: str) -> None:
    clips = torch.rand(3, 3, 2, 24, 24)
    theirs = augmentation.kornia_steps(augmentation.kornia_or_none())[step](clips.clone())
    ours = augmentation.our_steps()[step](clips.clone())
    assert isinstance(theirs, torch.Tensor) and isinstance(ours, torch.Tensor)
    if step == "blur":
        theirs = theirs.unflatten(0, (3, 2)).transpose(1, 2)
    torch.testing.assert_close(theirs.reshape(ours.shape), ours, atol=2e-3, rtol=0)


@pytest.mark.filterwarnings("ignore")
def test_table_has_a_line_for_each_step() -> None:
    assert augmentation.largest_difference("cpu") < 1e-5
    costs = augmentation.measure(2, "cpu", rounds=1)
    assert list(costs) == [*augmentation.our_steps(), "all of MoCo v2"]
    assert all({"torchvision", "ours"} <= set(row) for row in costs.values())
    lines = augmentation.as_table(costs).splitlines()
    assert len(lines) == 1 + len(costs)
    assert all("(1.0x)" in line for line in lines[1:])
