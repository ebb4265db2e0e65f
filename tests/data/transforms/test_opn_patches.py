"""OPN's transform is the released code's, draw for draw, and shares what a tuple must share."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_video.data.transforms.opn_patches import OPNPatches

PLAIN: dict[str, Any] = {"jitter": 0, "channel_split": False}


def patches(num_frames: int = 4, *, num_tuples: int = 1, size: int = 100, same: bool = False) -> Tensor:
    """Tuples uint8 [V, T, size, size, 3] of random pixels; `same` frames in a tuple."""
    drawn = torch.randint(0, 256, (num_tuples, 1 if same else num_frames, size, size, 3), dtype=torch.uint8)
    return drawn.expand(-1, num_frames, -1, -1, -1).contiguous()


def released(
    tuple_: np.ndarray, *, flip: bool, corner: np.ndarray, moves: np.ndarray, channels: np.ndarray
) -> np.ndarray:
    """What the released code makes of a tuple [T, 100, 100, 3] with given draws: [3, T, 80, 80]."""
    out = []
    for frame, move, channel in zip(tuple_[:, :, ::-1] if flip else tuple_, moves, channels, strict=True):
        start = [int(c) for c in corner]
        for axis in range(2):
            moved = start[axis] + int(move[axis])
            if moved > 0 and moved + 80 < 100:
                start[axis] = moved
        cut = frame[start[0] : start[0] + 80, start[1] : start[1] + 80, channel].astype(np.float32) - 96.5
        out.append(np.stack([cut] * 3))
    return np.stack(out, axis=1)


@pytest.mark.parametrize("seed", range(6))
def test_it_is_the_released_code(seed: int) -> None:
    clips = patches()
    torch.manual_seed(seed)
    got = OPNPatches()(clips)
    torch.manual_seed(seed)
    flip = bool(torch.rand(()) < 0.5)
    corner = torch.randint(21, (2,)).numpy()
    moves, channels = torch.randint(-5, 6, (4, 2)).numpy(), torch.randint(3, (4,)).numpy()
    expected = released(clips[0].numpy(), flip=flip, corner=corner, moves=moves, channels=channels)
    assert got.shape == (1, 3, 4, 80, 80)
    assert np.array_equal(got[0].numpy(), expected)


def test_equal_frames_differ_with_the_defences_and_not_without() -> None:
    clips = patches(same=True, num_tuples=40)
    for defence in ({"jitter": 0}, {"channel_split": False}, {}):
        out = OPNPatches(**defence)(clips)  # type: ignore[arg-type]
        differ = [len({frame.numpy().tobytes() for frame in tuple_.unbind(1)}) > 1 for tuple_ in out]
        assert np.mean(differ) > 0.8, defence  # one tuple in 27 shows the same channel four times
    out = OPNPatches(**PLAIN)(clips)
    assert torch.equal(out, out[:, :, :1].expand_as(out))


def coordinates(num_tuples: int, *, size: int = 100) -> Tensor:
    """Frames whose red is their row, green their column, blue the number 7."""
    frame = torch.full((size, size, 3), 7, dtype=torch.uint8)
    frame[..., 0] = torch.arange(size)[:, None]
    frame[..., 1] = torch.arange(size)[None, :]
    return frame.expand(num_tuples, 4, size, size, 3).contiguous()


def corners_of(out: Tensor) -> Tensor:
    """[V, T, 2] top and left of tuples that were not mirrored."""
    return out[:, :2, :, 0, 0].transpose(1, 2) + 96.5


def test_jitter_moves_frames_by_themselves_and_stays_inside() -> None:
    transform = OPNPatches(channel_split=False, flip_probability=0.0)
    corners = corners_of(transform(coordinates(500)))
    assert corners.min() == 0  # only where the tuple's own corner is at the edge, and the frame was not moved
    assert corners.max() == 20
    assert (corners.amax(1) - corners.amin(1)).max() == 10
    moved = corners[:, 0] != corners[:, 1]
    assert moved.float().mean() > 0.6
    still = corners_of(OPNPatches(**PLAIN, flip_probability=0.0)(coordinates(500)))
    assert torch.equal(still, still[:, :1].expand_as(still))
    assert set(still.flatten().tolist()) == set(range(21))


def test_a_moved_frame_keeps_off_both_edges() -> None:
    transform = OPNPatches()
    for value in (0, 1, 19, 20):
        shaken = torch.cat([transform._shaken(torch.tensor([value, value]), num_frames=50) for _ in range(20)])
        assert set(shaken[(shaken == 0) | (shaken == 20)].tolist()) <= {value}
        assert shaken.min() >= 0
        assert shaken.max() <= 20
        assert (shaken - value).abs().max() == 5


def test_the_mirror_is_shared_by_the_tuple() -> None:
    out = OPNPatches(**PLAIN)(coordinates(200))
    rises = (out[:, 1, :, 0, 1] > out[:, 1, :, 0, 0]).float().mean(dim=1)
    assert set(rises.tolist()) == {0.0, 1.0}
    assert 0.35 < rises.mean() < 0.65


def test_each_frame_shows_one_channel_three_times() -> None:
    levels = torch.tensor([10, 20, 30], dtype=torch.uint8)
    out = OPNPatches()(levels.expand(400, 4, 100, 100, 3).contiguous()) + 96.5
    assert torch.equal(out, out[:, :1].expand_as(out))
    shown = out[:, 0, :, 0, 0]
    assert [round(float((shown == level).float().mean()), 1) for level in (10, 20, 30)] == [0.3, 0.3, 0.3]
    assert (shown != shown[:, :1]).any(dim=1).float().mean() > 0.9


def test_tuples_of_a_sample_are_drawn_by_themselves() -> None:
    out = OPNPatches()(patches(same=True, num_tuples=1).expand(2, -1, -1, -1, -1))
    assert not torch.equal(out[0], out[1])


def test_patches_of_another_size_are_scaled() -> None:
    transform = OPNPatches(patch_size=40, size=32, jitter=2, mean=114.75, std=57.375)
    out = transform(torch.full((1, 4, 38, 38, 3), 200, dtype=torch.uint8))
    assert out.shape == (1, 3, 4, 32, 32)
    assert torch.allclose(out, torch.tensor((200 - 114.75) / 57.375))
    (parts,) = transform.draw([(38, 38)], num_frames=4).parts
    assert isinstance(parts, list) and len(parts) == 4
    assert {part.size for part in parts} == {(40, 40)}
    assert {part.window[2:] for part in parts} == {(32, 32)}


def test_it_draws_from_the_global_generator_only() -> None:
    clips = patches()
    first, second = ((torch.manual_seed(5), OPNPatches()(clips))[1] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    "arguments", [{"size": 120}, {"jitter": -1}, {"std": 0.0}, {"flip_probability": 2.0}, {"size": 0}]
)
def test_faulty_arguments_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="crop" if "size" in arguments else next(iter(arguments))):
        OPNPatches(**arguments)
