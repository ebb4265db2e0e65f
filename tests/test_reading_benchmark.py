from pathlib import Path

import numpy as np
import pytest

from benchmark import reading, videos
from ssl_video.data.readers.pyav import PyAVReader
from ssl_video.data.readers.stream import scan


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    videos.prepared_video(folder / "0.mp4", 0, num_frames=40)
    return folder


def test_the_same_seed_gives_the_same_video(folder: Path, tmp_path: Path) -> None:
    again = videos.prepared_video(tmp_path / "0.mp4", 0, num_frames=40)
    other = videos.prepared_video(tmp_path / "1.mp4", 1, num_frames=40)
    assert again.read_bytes() == (folder / "0.mp4").read_bytes() != other.read_bytes()


def test_made_videos_are_like_those_of_data_sets(folder: Path, tmp_path: Path) -> None:
    prepared = scan(folder / "0.mp4")
    assert (prepared.height, prepared.width, prepared.keyframe_spacing) == (128, 170, 16)
    stock = scan(videos.stock_video(tmp_path / "stock.mp4", 0, num_frames=20))
    assert (stock.height, stock.width, stock.keyframe_spacing, stock.codec) == (256, 340, 20, "h264")
    bits_per_second = 8 * (tmp_path / "stock.mp4").stat().st_size / (20 / videos.FPS)
    assert 300_000 < bits_per_second < 3_000_000, "about a megabyte in ten seconds"


def test_a_block_follows_from_its_number(folder: Path) -> None:
    one, again, other = (reading.jobs(folder, reading.two_views, number=3, block=block) for block in (4, 4, 5))
    cuts = [[cut for job in block for cut in job.cuts] for block in (one, again, other)]
    assert all(np.array_equal(a.indices, b.indices) and a.part == b.part for a, b in zip(cuts[0], cuts[1], strict=True))
    assert any(a.part != b.part for a, b in zip(cuts[0], cuts[2], strict=True))


def test_the_rivals_give_the_same_frames(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pulled: list[np.ndarray] = []
    given = reading.jobs(folder, reading.small_clip, number=2, block=0)
    graph = reading._graph

    class Watched:
        def __init__(self, graph: object) -> None:
            self.graph = graph

        def push(self, frame: object) -> None:
            self.graph.push(frame)  # type: ignore[attr-defined]

        def pull(self) -> None:
            pulled.append(self.graph.pull().to_ndarray())  # type: ignore[attr-defined]

    monkeypatch.setattr(reading, "_graph", lambda frame, chain: Watched(graph(frame, chain)))
    reading.by_bare_loop(given)
    ours = [PyAVReader(job.path).read_cuts(job.cuts)[0] for job in given]
    assert len(pulled) == sum(map(len, ours))
    difference = np.abs(np.concatenate(ours).astype(int) - np.stack(pulled))
    assert difference.mean() < 4, "the same frames and boxes, scaled by another library"


def test_the_ways_of_scaling_agree(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SCALING_ROUNDS", 1)
    rows = [line.split(" | ") for line in reading.scaling_table({"prepared": folder}).splitlines()[2:]]
    off = {row[1]: float(row[3]) for row in rows}
    assert off["PyTorch, a clip at once (ours)"] < 0.2
    assert all(mean < 4 for mean in off.values())


@pytest.mark.slow
def test_the_figures_are_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "CLIPS", {"prepared": 1})
    [figure] = reading.reading({"prepared": folder}, rounds=1)
    assert (figure.bound, figure.reach) == ("least", 0.85)
