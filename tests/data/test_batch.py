"""How a batch travels from a loading worker to the main process."""

import pickle
from collections.abc import Sequence
from dataclasses import fields, replace

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from ssl_video.data.batch import ClipBatch, Failure, Sample, collate


def sample(number: int, *, dtype: torch.dtype = torch.uint8) -> Sample:
    """Two clips that stay channels-last in memory, as a reader's do, with what a transform drew for them."""
    generator = torch.Generator().manual_seed(number)
    pixels = torch.randint(0, 256, (2, 4, 6, 5, 3), generator=generator).to(dtype)
    return Sample(
        clips=pixels.permute(0, 4, 1, 2, 3),
        indices=torch.arange(8).view(2, 4) + number,
        label=number % 3,
        row=10 + number,
        video=20 + number,
        epoch=3,
        position=number,
        failures=(Failure(number, "is broken"),),
        flags=("odd",) if number % 2 else (),
        values={"mirrored": torch.tensor([True, False]), "factors": torch.rand(2, 4, generator=generator)},
        read_seconds=0.5,
    )


class Samples(Dataset[Sample]):
    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __len__(self) -> int:
        return 4

    def __getitem__(self, number: int) -> Sample:
        return sample(number, dtype=self.dtype)


def assert_same(batch: ClipBatch, expected: ClipBatch) -> None:
    for field in fields(ClipBatch):
        ours, theirs = getattr(batch, field.name), getattr(expected, field.name)
        if isinstance(ours, torch.Tensor):
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours, theirs)
        elif field.name == "values":
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        elif field.name != "collate_seconds":
            assert ours == theirs


def collated(numbers: Sequence[int], dtype: torch.dtype) -> ClipBatch:
    return collate([sample(number, dtype=dtype) for number in numbers])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_worker_s_batch_is_the_one_that_was_made(dtype: torch.dtype) -> None:
    [batch] = DataLoader(Samples(dtype), batch_size=4, num_workers=1, collate_fn=collate)
    assert_same(batch, collated(range(4), dtype))


def test_batches_that_are_kept_stay_as_they_were() -> None:
    """The worker's memory is used again and again; what came out of it is the main process's own."""
    order = [[number % 4, (number + 1) % 4] for number in range(40)]
    batches = list(DataLoader(Samples(torch.uint8), batch_sampler=order, num_workers=1, collate_fn=collate))
    for numbers, batch in zip(order, batches, strict=True):
        assert_same(batch, collated(numbers, torch.uint8))
        batch.indices.add_(1)  # what came by value may be changed, too


def addressed(samples: Sequence[Sample]) -> ClipBatch:
    batch = collate(samples)
    return replace(batch, flags={"address": batch.clips.data_ptr()})


def test_a_worker_uses_its_memory_again() -> None:
    order = [[number % 4] for number in range(40)]
    loader = DataLoader(Samples(torch.float32), batch_sampler=order, num_workers=1, collate_fn=addressed)
    assert len({batch.flags["address"] for batch in loader}) <= 4  # two fetched ahead, one sent, one being made


def test_pixels_stay_channels_last_in_memory() -> None:
    assert collated(range(3), torch.uint8).clips.permute(0, 1, 3, 4, 5, 2).is_contiguous()


def test_a_batch_survives_pickling() -> None:
    batch = collated(range(3), torch.uint8)
    assert_same(pickle.loads(pickle.dumps(batch)), batch)
    moved = replace(batch, indices=batch.indices.to("meta"))
    assert pickle.loads(pickle.dumps(moved)).indices.device.type == "meta"
