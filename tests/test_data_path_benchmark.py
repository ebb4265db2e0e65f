"""The benchmark of the data path: that all loaders deliver the same frames, and what becomes of its figures."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark import data_path, peers
from benchmark.blocks import Block, Spread, interleaved, process_tree, speedup, timed
from benchmark.figures import Figure, format_table
from benchmark.loading import BATCH_SIZE, SIZE, Files, LoaderBlocks, make_files, our_data, per_core
from benchmark.peers import UsualLoader, Videos, VJEPA2Loader
from benchmark.worker_memory import worker_memory
from ssl_video.data.batch import ClipBatch
from ssl_video.data.order import SampleKey
from support.folders import numbered_folder
from support.videos import read_frame_numbers, write_video

# Whole frames without a change of colour: then what is delivered can be compared.
PLAIN = [
    "transform.min_area=1.0",
    "+transform.min_aspect=1.0",
    "+transform.max_aspect=1.0",
    "transform.jitter_probability=0",
    "transform.gray_probability=0",
    "transform.blur_probability=0",
]


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered_folder(tmp_path_factory.mktemp("numbered") / "videos", videos=BATCH_SIZE, num_frames=60)


@pytest.fixture
def plain_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JITTER_PROBABILITY", "GRAY_PROBABILITY", "BLUR_PROBABILITY"):
        monkeypatch.setattr(peers, name, 0.0)
    monkeypatch.setattr(peers, "AREA", (1.0, 1.0))
    monkeypatch.setattr(peers, "ASPECT", (1.0, 1.0))


def unmirrored(clips: Tensor) -> list[np.ndarray]:
    """Pixels [T, h, w, 3] of clips [V, C, T, h, w], turned back where a clip was flipped, by the marks they show."""
    upright = []
    for clip in clips.permute(0, 2, 3, 4, 1).numpy():
        try:
            read_frame_numbers(clip)
            upright.append(clip)
        except ValueError:
            upright.append(clip[:, :, ::-1])
    return upright


@pytest.mark.usefixtures("plain_peers")
@pytest.mark.parametrize("blur", ["torchvision", "pil"])
def test_the_other_loaders_deliver_the_frames_of_ours(numbered: Path, blur: peers.Blur) -> None:
    ours = our_data(numbered, augment_on="device", num_workers=0, overrides=[*PLAIN, "reader.isolate=false"])
    asked = Videos(ours.manifest, ours.sampler, ours.seed)
    usual, v_jepa = UsualLoader(asked, size=SIZE, blur=blur), VJEPA2Loader(asked, size=SIZE)
    batch = next(iter(ours.training_loader(1)))
    for clips, indices, row, position in zip(
        batch.clips, batch.indices, batch.rows.tolist(), batch.positions.tolist(), strict=True
    ):
        key = SampleKey(batch.epoch, position, row)
        assert [read_frame_numbers(clip) for clip in unmirrored(clips)] == indices.tolist()
        std, mean = (torch.tensor(values).view(3, 1, 1, 1) for values in (peers.STD, peers.MEAN))
        as_usual = unmirrored((usual[key] * std + mean) * 255)
        as_v_jepa = unmirrored(v_jepa[key])
        in_time = np.argsort(indices[:, 0], kind="stable")
        for our, their in zip(unmirrored(clips), as_usual, strict=True):
            assert np.abs(our - their).max() < 3  # Pillow's rounding against torch's
        for place, their in zip(in_time, as_v_jepa, strict=True):
            assert np.abs(unmirrored(clips)[place].astype(int) - their).max() < 3


@pytest.mark.parametrize("blur", ["torchvision", "pil"])
def test_the_usual_loader_changes_all_frames_of_a_clip_alike(tmp_path: Path, blur: peers.Blur) -> None:
    still = np.random.default_rng(0).integers(0, 256, (1, 40, 40, 3), dtype=np.uint8).repeat(40, axis=0)
    write_video(tmp_path / "videos/still.mp4", frames=still)
    ours = our_data(tmp_path / "videos", augment_on="device", num_workers=0)
    usual = UsualLoader(Videos(ours.manifest, ours.sampler, ours.seed), size=SIZE, blur=blur)
    for position in range(4):
        clips = usual[SampleKey(0, position, 0)]
        assert clips.shape == (2, 3, 16, SIZE, SIZE)
        assert clips.dtype == torch.float32
        assert torch.equal(clips, clips[:, :, :1].expand_as(clips))
        assert not torch.equal(clips[0], clips[1])


def test_a_block_gives_the_same_samples_again_and_the_next_block_others(numbered: Path) -> None:
    data = our_data(numbered, augment_on="device", num_workers=0, overrides=["reader.isolate=false"])
    loader = data.training_loader(100)
    seen: list[ClipBatch] = []

    class Kept:
        def __iter__(self):
            for batch in loader:
                seen.append(batch)
                yield batch

    blocks = LoaderBlocks(Kept(), loader.openings.batch_sampler, num_batches=2)
    assert [blocks(number) for number in (0, 1, 0)] == [2 * BATCH_SIZE] * 3
    first, second, again = seen[:2], seen[2:4], seen[4:]
    assert [batch.epoch for batch in first + second] == [0, 1, 2, 3]
    assert all(torch.equal(one.indices, other.indices) for one, other in zip(first, again, strict=True))
    assert not torch.equal(first[0].indices, second[0].indices)


def test_work_of_another_process_counts_as_cpu_time_and_waiting_does_not() -> None:
    busy = [sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"]

    def work(number: int) -> int:
        if number == 0:
            subprocess.run(busy, check=True)
        else:
            time.sleep(0.2)
        return 10

    assert timed(work, 0).cpu_seconds > 0.25
    waited = timed(work, 1)
    assert waited.cpu_seconds < 0.15
    assert waited.wall_seconds >= 0.2
    assert waited.seconds_per_sample("wall") == waited.wall_seconds / 10


def test_a_child_s_child_belongs_to_the_tree() -> None:
    program = "import subprocess, sys; print(subprocess.Popen(['sleep', '5']).pid, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1, text=True) as child:
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
        assert process_tree(child.pid) == [child.pid, grandchild]
        subprocess.run(["kill", str(grandchild)], check=True)
        child.terminate()


def test_contenders_take_turns_and_each_round_begins_with_another() -> None:
    turns: list[tuple[str, int]] = []

    def contender(name: str):
        def work(number: int) -> int:
            turns.append((name, number))
            return 1

        return work

    blocks = interleaved({name: contender(name) for name in "ab"}, rounds=2)
    assert turns == [("a", 0), ("b", 0), ("a", 0), ("b", 0), ("b", 1), ("a", 1)]
    assert [len(own) for own in blocks.values()] == [2, 2]


def test_speedup_is_taken_within_a_round() -> None:
    ours = [Block(10, 1.0, 2.0), Block(10, 3.0, 2.0), Block(20, 1.0, 2.0)]
    theirs = [Block(10, 2.0, 2.0), Block(10, 9.0, 4.0), Block(10, 4.0, 8.0)]
    assert speedup(ours, theirs, "cpu") == Spread(median=3.0, low=2.0, high=8.0)
    assert speedup(ours, theirs, "wall") == Spread(median=2.0, low=1.0, high=8.0)


def figure(what: str, bound: str = "least", median: float = 2.0) -> Figure:
    return Figure(what, "theirs", bound, 2.5, Spread(median, 1.5, 2.7), details={"samples per second": 3.14159})


def test_a_figure_is_reached_by_its_median_and_survives_its_file() -> None:
    assert not figure("loader").is_reached
    assert figure("memory", "most").is_reached
    assert figure("loader", median=2.5).is_reached
    for wall in (None, Spread(1.0, 0.9, 1.1)):
        kept = Figure("loader", "theirs", "least", 2.5, Spread(2.0, 1.5, 2.7), wall=wall, details={"a": 1})
        assert Figure.of_json(json.loads(json.dumps(kept.as_json()))) == kept
    assert "| ≥ 2.5 | **2** | 1.500 to 2.7 |" in format_table([figure("loader")])


@pytest.mark.slow
def test_every_part_stands_in_the_results_and_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = (*data_path.PARTS, *data_path.LONGER_PARTS)
    assert set(data_path.measurements(Files(tmp_path, tmp_path), rounds=1)) == set(parts)
    medians = dict.fromkeys(parts, 2.0)
    monkeypatch.setattr(data_path, "make_files", lambda folder: Files(tmp_path, tmp_path))
    monkeypatch.setattr(
        data_path,
        "measurements",
        lambda files, *, rounds: {
            part: lambda part=part: [figure(f"the {part}", median=medians[part])] for part in parts
        },
    )
    monkeypatch.setattr(sys, "argv", ["data_path", "--memory", "--manifest", "--output", str(tmp_path)])
    assert data_path.main() == 0
    results = json.loads((tmp_path / "results/data_path.json").read_text())
    page = (tmp_path / "DATA_PATH.md").read_text()
    assert list(results) == list(parts)
    assert all(f"the {part}" in page for part in parts)
    assert all({"command", "git_revision", "device", "cores", "figures"} <= set(part) for part in results.values())
    medians["loading"] = 3.0
    monkeypatch.setattr(sys, "argv", ["data_path", "--only", "loading", "--output", str(tmp_path)])
    assert data_path.main() == 0
    results = json.loads((tmp_path / "results/data_path.json").read_text())
    assert list(results) == list(parts)
    assert [results[part]["figures"][0]["value"]["median"] for part in parts][:2] == [3.0, 2.0]


@pytest.mark.slow
def test_loaders_are_timed_against_each_other(tmp_path: Path) -> None:
    files = make_files(tmp_path, num_frames=40)
    assert make_files(tmp_path, num_frames=40) == files
    figures = per_core(files, rounds=1, stock_batches=1)
    assert {(figure.what, figure.against) for figure in figures} >= {
        ("loader, per core: ours for the device, stock", "usual, stock"),
        ("loader, per core: ours for the device, prepared", "usual, stock"),
        ("loader, per core: ours for the device, stock", "V-JEPA 2's, stock"),
        ("loader, per core: ours for the device, prepared", "V-JEPA 2's, prepared"),
    }
    assert all(figure.value.median > 0 for figure in figures)
    memory = worker_memory(files.prepared, early=32, late=160)
    assert 0.5 < memory.value.median < 2
    assert len(memory.details) == 4  # the worker and its decoding child, each twice
