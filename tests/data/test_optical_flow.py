"""Motion is measured where and when it is, in the source's pixels, whatever the size the flow is computed at."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.models.optical_flow import raft_small

from ssl_video.data import optical_flow
from ssl_video.data.motion import Motion, MotionSettings
from ssl_video.data.optical_flow import Raft, compute_motion, farneback, frame_difference
from ssl_video.data.readers.pyav import PyAVReader
from ssl_video.utils.errors import InputError
from support.segments import segment
from support.videos import write_video


def shifted_texture(num_frames: int, *, size: int, step: tuple[int, int]) -> NDArray[np.uint8]:
    """A smooth texture that moves by whole pixels (down, right) per frame, as uint8 [T, size, size, 3]."""
    reach = size + num_frames * max(step)
    noise = np.random.default_rng(0).random((reach, reach)).astype(np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), 2.5)
    texture = (255 * (texture - texture.min()) / np.ptp(texture)).astype(np.uint8)
    tops, lefts = ([(num_frames - 1 - t) * pixels for t in range(num_frames)] for pixels in step)
    frames = [texture[top : top + size, left : left + size] for top, left in zip(tops, lefts, strict=True)]
    return np.repeat(np.stack(frames)[..., None], 3, axis=-1)


def square_in_the_corner(num_frames: int, *, size: int = 64) -> NDArray[np.uint8]:
    """A textured square moves to and fro in the lower right quarter in the second half of the time."""
    rng = np.random.default_rng(1)
    frames = np.full((num_frames, size, size, 3), 90, dtype=np.uint8)
    square = cv2.GaussianBlur(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8), (0, 0), 1.0)
    for t in range(num_frames):
        left = 36 + (2 * (t % 4) if t >= num_frames // 2 else 0)
        frames[t, 38:58, left : left + 20] = square
    return frames


def read_table(
    path: Path, num_frames: int, *, size: int = 64, first_frame: int = 0, settings: MotionSettings | None = None
) -> Motion:
    flow = frame_difference if settings and settings.flow == "frame_difference" else farneback
    own = replace(segment(num_frames), first_frame=first_frame, height=size, width=size)
    reader = PyAVReader(path)
    try:
        return compute_motion(reader, own, flow=flow, settings=settings)
    finally:
        reader.close()


def test_farneback_measures_a_shift() -> None:
    frames = shifted_texture(4, size=80, step=(1, 2))
    inner = farneback(frames)[:, 16:-16, 16:-16]
    assert inner.shape == (3, 48, 48)
    assert np.allclose(inner.mean(axis=(1, 2)), 5**0.5, rtol=0.05)


def test_frame_difference_is_that_of_the_grey_levels() -> None:
    frames = np.zeros((3, 2, 2, 3), dtype=np.uint8)
    frames[1, 0, 0] = 10
    frames[2, 0, 0] = 3
    frames[2, 1, 1] = 200
    expected = np.zeros((2, 2, 2))
    expected[0, 0, 0], expected[1, 0, 0], expected[1, 1, 1] = 10, 7, 200
    assert np.allclose(frame_difference(frames), expected)


def test_a_table_says_when_and_where(tmp_path: Path) -> None:
    path = write_video(tmp_path / "square.mp4", frames=square_in_the_corner(24))
    table = read_table(path, 24)
    assert table.magnitude.shape == (24,)
    assert table.grid.shape == (24, 16, 16)
    assert table.thumbnails.shape == (24, 64, 64)
    assert table.magnitude[:10].max() < 0.05 < 0.1 < table.magnitude[13:].min()
    assert table.magnitude[-1] == table.magnitude[-2]
    assert np.array_equal(table.grid[-1], table.grid[-2])
    late = table.grid[13:].astype(np.float32)
    assert late[:, 8:, 8:].sum() > 0.8 * late.sum()
    assert np.allclose(late.mean(axis=(1, 2)), table.magnitude[13:], rtol=0.01)


def test_thumbnails_are_the_frames_in_grey(tmp_path: Path) -> None:
    frames = square_in_the_corner(3)
    table = read_table(write_video(tmp_path / "square.mp4", frames=frames), 3)
    grey = frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    assert np.abs(table.thumbnails - grey).mean() < 3


@pytest.mark.parametrize("at_once", [1, 2, 7, 24])
def test_stretches_do_not_show(tmp_path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "square.mp4", frames=square_in_the_corner(24))
    whole = read_table(path, 24)
    monkeypatch.setattr(optical_flow, "FRAMES_AT_ONCE", at_once)
    parts = read_table(path, 24)
    for name in ("magnitude", "grid", "thumbnails"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name))


def test_a_segment_has_the_motion_of_its_own_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "square.mp4", frames=square_in_the_corner(24))
    whole, part = read_table(path, 24), read_table(path, 6, first_frame=11)
    assert np.array_equal(part.magnitude[:5], whole.magnitude[11:16])
    assert np.array_equal(part.thumbnails, whole.thumbnails[11:17])


def test_the_unit_is_pixels_of_the_source(tmp_path: Path) -> None:
    path = write_video(tmp_path / "shift.mp4", frames=shifted_texture(5, size=256, step=(4, 4)))
    small = read_table(path, 5, size=256, settings=MotionSettings(downscale=0.25))
    full = read_table(path, 5, size=256, settings=MotionSettings(downscale=1.0))
    assert np.median(small.grid) == pytest.approx(32**0.5, rel=0.1)
    assert np.median(full.grid) == pytest.approx(32**0.5, rel=0.1)


def test_grey_levels_are_not_scaled(tmp_path: Path) -> None:
    frames = np.full((3, 256, 256, 3), 100, dtype=np.uint8)
    frames[1:] = 120
    path = write_video(tmp_path / "brighter.mp4", frames=frames)
    table = read_table(path, 3, size=256, settings=MotionSettings(flow="frame_difference"))
    assert np.allclose(table.magnitude, [20, 0, 0], atol=1)


def test_a_single_frame_does_not_move(tmp_path: Path) -> None:
    table = read_table(write_video(tmp_path / "one.mp4", frames=square_in_the_corner(1)), 1)
    assert table.magnitude.tolist() == [0]
    assert not table.grid.any()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights: what RAFT would see in a video is not tested here, only that it is asked and scaled right."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("raft") / "raft_small.pt"
    torch.save(raft_small().state_dict(), path)
    return path


def test_raft_takes_frames_of_any_size(weights: Path) -> None:
    raft = Raft(weights, size="small", pairs_at_once=2)
    assert len(raft.sha256) == 64
    found = raft(shifted_texture(4, size=50, step=(1, 1))[:, :45])
    assert found.shape == (3, 45, 50)
    assert np.isfinite(found).all()
    assert raft(np.zeros((1, 45, 50, 3), dtype=np.uint8)).shape == (0, 45, 50)


@pytest.mark.gpu
def test_raft_on_a_gpu_sees_what_it_sees_on_a_cpu(weights: Path) -> None:
    frames = shifted_texture(4, size=128, step=(1, 2))
    on_cpu, on_gpu = (Raft(weights, size="small", device=device)(frames) for device in ("cpu", "cuda"))
    assert np.allclose(on_gpu, on_cpu, rtol=0.05, atol=0.05)


def test_rafts_flow_is_given_in_the_pixels_of_the_frames(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raft = Raft(weights, size="small", pairs_at_once=2)
    pairs = []

    def constant(before: torch.Tensor, after: torch.Tensor) -> list[torch.Tensor]:
        """3 pixels right and 4 down, of the frames that it gets."""
        pairs.append((before[:, 0, 0, 0], after[:, 0, 0, 0]))
        return [torch.tensor([3.0, 4.0]).view(1, 2, 1, 1).expand(len(before), 2, *before.shape[2:])]

    monkeypatch.setattr(raft, "_network", constant)
    levels = np.array([0, 50, 100, 150], dtype=np.uint8)
    found = raft(np.broadcast_to(levels[:, None, None, None], (4, 64, 32, 3)).copy())
    # 64 x 32 becomes 128 x 128: a pixel there is half a pixel down and a quarter right.
    assert np.allclose(found, np.hypot(3 / 4, 4 / 2))
    before, after = (torch.cat(side) for side in zip(*pairs, strict=True))
    assert torch.allclose((before + 1) * 127.5, torch.tensor([0.0, 50.0, 100.0]), atol=1e-3)
    assert torch.allclose((after + 1) * 127.5, torch.tensor([50.0, 100.0, 150.0]), atol=1e-3)


def test_weights_of_something_else_are_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no file"):
        Raft(tmp_path / "nothing.pt")
    with pytest.raises(InputError, match="are not those of torchvision's raft_large"):
        Raft(weights, size="large")
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(InputError, match="are not those of torchvision's raft_small"):
        Raft(tmp_path / "text.pt", size="small")
