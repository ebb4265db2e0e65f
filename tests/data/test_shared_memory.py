import pickle
from typing import Any

import pytest
import torch

from ssl_video.data import shared_memory
from ssl_video.data.shared_memory import MOST_MEMORIES, Lent, lent, stacked


@pytest.fixture(autouse=True)
def in_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "get_worker_info", lambda: "this is one")
    monkeypatch.setattr(shared_memory, "_memories", {})


def tensors(count: int = 2, *, dtype: torch.dtype = torch.uint8, start: int = 0) -> list[torch.Tensor]:
    return [torch.arange(12).view(3, 4).to(dtype) + number + start for number in range(count)]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64])
def test_what_is_lent_comes_out_as_it_was_put_in(dtype: torch.dtype) -> None:
    given = stacked(tensors(dtype=dtype))
    sent = lent(given)
    assert isinstance(sent, Lent)
    assert sent.memory.is_shared()
    assert torch.equal(sent.take(), torch.stack(tensors(dtype=dtype)))


def test_a_permuted_tensor_keeps_its_layout() -> None:
    given = stacked(tensors()).permute(0, 2, 1)
    sent = lent(given)
    assert isinstance(sent, Lent)
    taken = sent.take()
    assert torch.equal(taken, torch.stack(tensors()).permute(0, 2, 1))
    assert taken.stride() == given.stride()


def test_memory_is_used_again_once_it_was_taken_and_not_before() -> None:
    first = stacked(tensors())
    second = stacked(tensors(start=50))
    assert first.data_ptr() != second.data_ptr()
    assert torch.equal(first, torch.stack(tensors()))
    taken = take(first)
    third = stacked(tensors(start=100))
    assert third.data_ptr() == first.data_ptr()
    assert torch.equal(taken, torch.stack(tensors()))  # its own, whatever became of the memory


def take(tensor: torch.Tensor) -> torch.Tensor:
    sent: Any = lent(tensor)
    return sent.take()


def test_a_smaller_tensor_fits_into_the_memory_of_a_larger_one() -> None:
    large = stacked(tensors(3))
    take(large)
    small = stacked(tensors(1))
    assert small.data_ptr() == large.data_ptr()
    assert torch.equal(take(small), torch.stack(tensors(1)))


def test_memory_that_has_become_too_small_is_given_up() -> None:
    take(stacked(tensors(1)))
    assert torch.equal(take(stacked(tensors(3))), torch.stack(tensors(3)))
    assert len(shared_memory._memories) == 1


def test_memory_that_nobody_takes_is_bounded() -> None:
    out = [stacked(tensors(start=number)) for number in range(MOST_MEMORIES + 3)]
    assert len(shared_memory._memories) == MOST_MEMORIES
    assert isinstance(lent(out[-1]), torch.Tensor)  # goes as any tensor does
    assert all(torch.equal(tensor, torch.stack(tensors(start=number))) for number, tensor in enumerate(out))


def test_a_tensor_from_elsewhere_is_sent_as_it_is() -> None:
    tensor = torch.zeros(3)
    assert lent(tensor) is tensor


def test_in_the_main_process_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "get_worker_info", lambda: None)
    assert not stacked(tensors()).is_shared()
    assert torch.equal(pickle.loads(pickle.dumps(lent(stacked(tensors())))), torch.stack(tensors()))
