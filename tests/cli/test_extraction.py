"""Features of an evaluation: the same whatever shares the work, and computed once."""

import dataclasses
import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from ssl_video.backbones.base import Backbone
from ssl_video.cli import extraction
from ssl_video.cli.baselines import build_backbones
from ssl_video.cli.extraction import _check_count, extract_rows
from ssl_video.cli.features import build_evaluation_data, extract, feature_set
from ssl_video.cli.parts import PROVIDED, EvaluateSettings
from ssl_video.cli.processes import join_processes
from ssl_video.cli.views import make_view
from ssl_video.data.datamodule import VideoDataModule
from ssl_video.data.decoding.decoder import Decoder
from ssl_video.data.readers.base import Cut
from ssl_video.evaluation.clips import NORMAL, ClipSpec
from ssl_video.evaluation.extract import Extracted, Pass, frame_permutation
from ssl_video.hub.weights import read_weights
from ssl_video.utils.config import compose_checked
from ssl_video.utils.errors import InputError
from support.folders import REPOSITORY, labelled_folder, run_command

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes"),
    pytest.mark.usefixtures("own_folder"),
]

CLIPS = ClipSpec(num_clips=2)
# One of each way in which a spec differs; those of the first line share their pixels.
SPECS = [
    *(CLIPS, dataclasses.replace(CLIPS, order="shuffled"), dataclasses.replace(CLIPS, pooling="conv5_max")),
    dataclasses.replace(CLIPS, order="reversed", stride_factor=2),
    dataclasses.replace(CLIPS, corruption="gaussian_noise", severity=3),
    dataclasses.replace(CLIPS, crops="three", num_frames=2),
]
# Of networks and frames so small, this one's last bits follow the batch and the number of threads.
SETTINGS = ("backbone=slow_r50_small", "num_frames=4", "dataset.num_workers=0", "batch_size=4")
INPUT = ("input_transform.resize=72", "input_transform.crop=64")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("labelled"), videos=9)


def words(videos: Path, *overrides: str) -> list[str]:
    data = ["dataset=folder", f"dataset.root={videos}", f"dataset.labels={videos / 'labels.csv'}"]
    return ["checkpoint=random", *SETTINGS, *INPUT, *data, "cache_dir=cache", *overrides]


@functools.cache
def base() -> DictConfig:
    return compose_checked("evaluate", words(Path("videos")), provided=PROVIDED, settings=EvaluateSettings)


def composed(videos: Path, *overrides: str) -> DictConfig:
    """As the command line composes it, but once for all tests: it takes most of a second."""
    config = base().copy()
    for key, value in (word.split("=") for word in [*words(videos)[-4:], *overrides]):
        if key != "dataset":
            OmegaConf.update(config, key, OmegaConf.create(f"value: {value}").value)
    return config


@dataclasses.dataclass
class Evaluation:
    """What an evaluation extracts with."""

    config: DictConfig
    datamodule: VideoDataModule
    backbones: dict[str, Backbone]

    def features(self, specs: Sequence[ClipSpec] = SPECS, *, videos: int | None = None) -> Extracted:
        """Of the first so many videos."""
        rows = np.arange(len(self.datamodule.manifest))[:videos]
        return extract_rows(self.config, self.datamodule, self.backbones, specs, rows, title="features")


def evaluation(videos: Path, *overrides: str) -> Evaluation:
    config = composed(videos, *overrides)
    return Evaluation(config, build_evaluation_data(config), build_backbones(config, read_weights("random")))


def same(a: Extracted, b: Extracted) -> bool:
    assert a.features.keys() == b.features.keys()
    return a.rows.equal(b.rows) and all(a.features[key].equal(b.features[key]) for key in a.features)


@pytest.fixture(scope="module")
def expected(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Extracted:
    return evaluation(videos, f"cache_dir={tmp_path_factory.mktemp('expected')}").features()


# --- the same whatever shares the work --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("change", ["batch_size=1", "batch_size=30", "dataset.num_workers=2"])
def test_neither_batch_nor_workers_change_a_bit(videos: Path, expected: Extracted, change: str) -> None:
    assert same(evaluation(videos, change, "feature_cache=false").features(), expected)


@pytest.mark.slow
def test_the_number_of_threads_changes_no_bit(videos: Path, expected: Extracted) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert same(evaluation(videos, "feature_cache=false").features(), expected)
    finally:
        torch.set_num_threads(before)


def test_what_else_is_wanted_changes_no_bit(videos: Path, expected: Extracted) -> None:
    own = evaluation(videos, "feature_cache=false")
    for spec in SPECS:
        alone = own.features([spec], videos=4)
        assert alone.features["random", spec].equal(expected.features["random", spec][:4]), spec


class Ranks:
    """Stand-ins for ``utils.distributed``: each thread of this process is a rank."""

    def __init__(self, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.number = number
        self.own = threading.local()
        self.barrier = threading.Barrier(number)
        self.values: list[Any] = [None] * number
        for name in ("rank", "world_size", "gather_objects"):
            monkeypatch.setattr(extraction, name, getattr(self, name))

    def rank(self) -> int:
        rank: int = self.own.rank
        return rank

    def world_size(self) -> int:
        return self.number

    def gather_objects(self, value: Any) -> list[Any]:
        self.values[self.own.rank] = value
        self.barrier.wait(30)
        values = list(self.values)
        self.barrier.wait(30)
        return values

    def run(self, function: Callable[[], Any]) -> list[Any]:
        """What each rank gives; a fault on one ends the wait of the others."""

        def of(rank: int) -> Any:
            self.own.rank = rank
            try:
                return function()
            except BaseException:
                self.barrier.abort()
                raise

        with ThreadPoolExecutor(self.number) as pool:
            return list(pool.map(of, range(self.number)))


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_share_the_videos_and_give_every_bit(
    videos: Path,
    expected: Extracted,
    opened: list[str],
    monkeypatch: pytest.MonkeyPatch,
    processes: int,
    use_cache: bool,
) -> None:
    """Nine videos: with two processes one has five, the other four, and no batch is whole."""
    own = evaluation(videos, f"feature_cache={use_cache}", "batch_size=2")
    ranks = Ranks(processes, monkeypatch)
    # Without noise: threads of one process share the generator that it is drawn from.
    specs = [spec for spec in SPECS if spec.corruption is None]
    results = ranks.run(lambda: own.features(specs))
    assert sorted(opened) == sorted({f"video_{number:02d}.mp4" for number in range(9)}), "each video once"
    for result in results:
        assert all(values.equal(expected.features[key]) for key, values in result.features.items())
        assert not result.cached
    assert len(list(Path("cache/features").iterdir())) == (len(specs) if use_cache else 0), "nothing temporary stays"
    assert [result.cached for result in ranks.run(lambda: own.features(specs))] == [use_cache] * processes


def test_more_processes_than_videos(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = evaluation(videos)
    for result in Ranks(3, monkeypatch).run(lambda: own.features([CLIPS], videos=1)):
        assert result.rows.tolist() == [0]
        assert result.features["random", CLIPS].shape == (1, 2, 384)


def test_a_cache_folder_that_not_all_machines_see_is_refused(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = evaluation(videos)
    ranks = Ranks(2, monkeypatch)
    part_file = extraction.PartFile
    monkeypatch.setattr(
        extraction,
        "PartFile",
        lambda path: part_file(path.with_name(f"elsewhere.{path.name}") if ranks.rank() else path),
    )
    with pytest.raises(InputError, match=r"cache_dir=cache is not the same folder on all machines: 1 parts"):
        ranks.run(lambda: own.features([CLIPS]))


@pytest.mark.parametrize(
    "passes",
    [
        [Pass([0, 1], {}, 0.0), Pass([1, 2], {}, 0.0)],  # one came twice, as padding would give
        [Pass([0, 1], {}, 0.0), Pass([], {}, 0.0)],  # one was dropped
        [Pass([2], {}, 0.0), Pass([0, 1], {}, 0.0)],  # another order
        [Pass([0, 1, 2], {5: "broken"}, 0.0)],  # one that nobody asked for
    ],
)
def test_wrong_counts_end_the_evaluation(passes: list[Pass]) -> None:
    with pytest.raises(RuntimeError, match="are not the 3 asked for"):
        _check_count(np.arange(3), passes)


def test_unreadable_videos_count_too() -> None:
    assert _check_count(np.arange(3), [Pass([0], {1: "broken"}, 0.0), Pass([2], {}, 0.0)]) == {1: "broken"}


def test_another_number_of_processes_started_from_outside_is_refused(
    videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"2 processes were started from outside .*trainer\.devices=1"):
        join_processes(composed(videos))


def unmeasured(value: Any) -> Any:
    """A result without what differs from run to run."""
    if not isinstance(value, dict):
        return value
    return {key: unmeasured(own) for key, own in value.items() if key not in ("seconds", "peak_memory_bytes")}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["lightning", "torchrun"])
def test_two_processes_give_the_bytes_of_one(videos: Path, launcher: str) -> None:
    """As a user starts them."""
    arguments = words(videos, "evaluation=linear_probe", "evaluation.num_clips=2")
    code, printed = run_command("evaluate.py", [*arguments, "run_dir=one"], folder=Path())
    assert code == 0, printed
    shared = [*arguments, "run_dir=two", "cache_dir=other", "trainer.devices=2", "strategy=ddp_cpu", "batch_size=3"]
    if launcher == "lightning":
        code, printed = run_command("evaluate.py", shared, folder=Path())
    else:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
        done = subprocess.run(
            [*torchrun, str(REPOSITORY / "evaluate.py"), *shared],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        code, printed = done.returncode, done.stdout + done.stderr
    assert code == 0, printed
    assert printed.count("Written to") == 1, "one process writes"
    one, two = (unmeasured(json.loads(Path(name, "metrics.json").read_text())) for name in ("one", "two"))
    assert one == two
    for file in sorted(Path("one").glob("*.*")):
        if file.name != "metrics.json":
            assert file.read_bytes() == (Path("two") / file.name).read_bytes(), file.name
    files = sorted(Path("cache", "features").glob("*/features.npy"))
    assert len(files) == 2
    for file in files:
        assert file.read_bytes() == (Path("other") / file.relative_to("cache")).read_bytes()


# --- computed once ----------------------------------------------------------------------------------------------------


class Counting:
    """A decoder that notes the files it reads."""

    def __init__(self, decoder: Decoder, names: list[str]) -> None:
        self.decoder = decoder
        self.names = names

    def decode(self, path: Path, *rest: Any, **more: Any) -> list[np.ndarray]:
        self.names.append(path.name)
        return self.decoder.decode(path, *rest, **more)

    def take_restarts(self) -> Mapping[str, int]:
        return self.decoder.take_restarts()

    def close(self) -> None:
        self.decoder.close()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are opened for their frames."""
    names: list[str] = []
    setup = VideoDataModule.setup

    def counted(self: VideoDataModule, stage: str | None = None) -> None:
        setup(self, stage)
        self.decoder = Counting(self.decoder, names)

    monkeypatch.setattr(VideoDataModule, "setup", counted)
    # Each call of setup would count once more.
    monkeypatch.setattr(VideoDataModule, "manifest", property(lambda self: self._manifest))
    return names


def test_all_clips_take_one_decode_of_each_video_and_then_none(videos: Path, opened: list[str]) -> None:
    first = evaluation(videos).features()
    assert len(opened) == len(set(opened)) == 9
    assert (first.cached, first.decode_seconds > 0) == (False, True)
    second = evaluation(videos).features()
    assert len(opened) == 9
    assert (second.cached, second.decode_seconds) == (True, 0.0)
    assert same(first, second)


def test_only_what_is_missing_is_computed(videos: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation(videos).features(SPECS[:2])
    opened.clear()
    made: list[ClipSpec] = []

    def noted(spec: ClipSpec, **rest: Any) -> Any:
        made.append(spec)
        return make_view(spec, **rest)

    monkeypatch.setattr(extraction, "make_view", noted)
    evaluation(videos).features([*SPECS[:2], SPECS[4]])
    assert [(spec.corruption, spec.order) for spec in made] == [("gaussian_noise", "normal")]
    assert len(opened) == 9
    evaluation(videos).features([SPECS[1], SPECS[4]])
    assert len(opened) == 9


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        "seed=1",
        "frame_stride=1",
        "num_frames=3",
        "input_transform.crop=70",
        "reader._target_=ssl_video.data.readers.pyav.PyAVReader",
        "backbone.base_width=8",
    ],
)
def test_what_changes_features_is_another_entry(videos: Path, opened: list[str], change: str) -> None:
    assert not evaluation(videos).features([CLIPS]).cached
    assert not evaluation(videos, change).features([CLIPS]).cached


def test_the_seed_of_the_draws_matters_only_where_something_is_drawn(videos: Path) -> None:
    first = evaluation(videos)
    first.features()
    first.datamodule.seed = 7
    kept = first.features([SPECS[0], SPECS[2], SPECS[3], SPECS[5]])
    assert kept.cached
    drawn = [first.features([SPECS[1]]), first.features([SPECS[4]])]
    assert [some.cached for some in drawn] == [False, False]


@pytest.mark.slow
def test_other_labels_of_the_same_videos_take_their_features(videos: Path) -> None:
    evaluation(videos).features([CLIPS])
    shutil.copy(videos / "labels.csv", "own.csv")
    text = Path("own.csv").read_text().replace("bright", "light")
    Path("own.csv").write_text(text)
    other = evaluation(videos, "dataset.labels=own.csv")
    assert other.datamodule.class_names == ["dark", "light"]
    assert other.features([CLIPS]).cached


def test_a_changed_video_is_decoded_again(videos: Path) -> None:
    shutil.copytree(videos, "own")
    evaluation(Path("own").absolute()).features([CLIPS])
    file = Path("own/video_02.mp4")
    os.utime(file, ns=(0, 0))
    assert not evaluation(Path("own").absolute()).features([CLIPS]).cached


def test_a_harmed_entry_is_made_anew(videos: Path, opened: list[str]) -> None:
    first = evaluation(videos).features([CLIPS])
    expected = {key: features.clone() for key, features in first.features.items()}
    (file,) = Path("cache/features").glob("*/features.npy")
    file.write_bytes(file.read_bytes()[:-1])
    opened.clear()
    again = evaluation(videos).features([CLIPS])
    assert len(opened) == 9
    assert all(again.features[key].equal(features) for key, features in expected.items())
    assert evaluation(videos).features([CLIPS]).cached


@pytest.mark.slow
def test_without_the_cache_nothing_is_taken_and_nothing_stays(videos: Path, opened: list[str]) -> None:
    evaluation(videos, "feature_cache=false").features([CLIPS])
    assert list(Path("cache/features").iterdir()) == []
    evaluation(videos).features([CLIPS])
    opened.clear()
    assert not evaluation(videos, "feature_cache=false").features([CLIPS]).cached
    assert len(opened) == 9


def harmed(videos: Path, *numbers: int) -> Path:
    """The same videos, of which some cannot be decoded any more; size and time tell nothing of it."""
    target = Path("harmed").absolute()
    if not target.exists():
        shutil.copytree(videos, target)
        build_evaluation_data(composed(target))  # indexed while all of them could be read
    for number in numbers:
        file = target / f"video_{number:02d}.mp4"
        stat = file.stat()
        file.write_bytes(bytes(stat.st_size))
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    return target


def test_unreadable_videos_are_kept_in_mind(videos: Path) -> None:
    root = harmed(videos, 3, 7)
    for cached in (False, True):
        got = evaluation(root).features([CLIPS])
        assert got.cached is cached
        assert got.rows.tolist() == [0, 1, 2, 4, 5, 6, 8]
        assert list(got.unreadable) == [3, 7]
        assert all("video" not in reason and reason for reason in got.unreadable.values())
        assert got.features["random", CLIPS].shape == (7, 2, 384)


def test_clips_extracted_before_and_after_a_video_broke_speak_of_the_same_videos(
    videos: Path, expected: Extracted
) -> None:
    evaluation(harmed(videos)).features(SPECS[:1])
    got = evaluation(harmed(videos, 3)).features(SPECS)
    kept = [0, 1, 2, 4, 5, 6, 7, 8]
    assert got.rows.tolist() == kept
    assert {len(short) for short in got.too_short.values()} == {8}
    assert len(got.labels) == len(got.video_ids) == len(got.groups) == len(got.paths) == 8
    for key, features in got.features.items():
        assert features.equal(expected.features[key][kept])


def test_no_readable_video_at_all_gives_empty_features(videos: Path) -> None:
    got = evaluation(harmed(videos, *range(9))).features([CLIPS, SPECS[2]])
    assert len(got.unreadable) == 9
    assert [len(features) for features in got.features.values()] == [0, 0]


# --- what protocols are given -----------------------------------------------------------------------------------------


def test_features_are_those_of_the_clips(videos: Path, expected: Extracted) -> None:
    """By hand: the frames of each video, transformed, in their order, through the backbone."""
    own = evaluation(videos)
    backbone = own.backbones["random"].eval()
    sampler = make_view(dataclasses.replace(CLIPS, num_frames=4), frame_stride=2, transform=own.datamodule.transform)
    for row in (0, 5):
        segment = own.datamodule.manifest.segment(row)
        indices = sampler.sampler(segment, np.random.default_rng()).indices
        cuts = [Cut(clip) for clip in indices]
        frames = own.datamodule.decoder.decode(own.datamodule.manifest.file(row), cuts)
        shown = own.datamodule.transform(torch.from_numpy(np.stack(frames)))
        orders = [frame_permutation(4, seed=0, row=row, clip=clip) for clip in range(2)]
        shuffled = torch.stack([clip[:, order] for clip, order in zip(shown, orders, strict=True)])
        with torch.inference_mode():
            assert expected.features["random", SPECS[0]][row].equal(backbone(shown))
            assert expected.features["random", SPECS[1]][row].equal(backbone(shuffled))


def test_clips_differ_from_one_another(expected: Extracted) -> None:
    """What is drawn or spoilt has an effect; else every drop of a protocol would be 0."""
    means = [expected.features["random", spec].mean(dim=1) for spec in SPECS if spec.pooling == "mean"]
    for a, b in itertools.combinations(means, 2):
        assert not torch.allclose(a, b, atol=1e-6)


def test_shapes_are_videos_views_dimensions(expected: Extracted) -> None:
    assert expected.features["random", CLIPS].shape == (9, 2, 384)
    assert expected.features["random", SPECS[5]].shape == (9, 6, 384)
    assert expected.labels.tolist() == [1, 0, 1, 0, 1, 0, 1, 0, 1]
    assert expected.paths == expected.video_ids == [f"video_{number:02d}.mp4" for number in range(9)]


def test_videos_shorter_than_a_clip_are_counted(videos: Path) -> None:
    """All have 24 frames: 4 with stride 6 span 19, with twice the stride 37."""
    fast = dataclasses.replace(CLIPS, stride_factor=2)
    got = evaluation(videos, "frame_stride=6").features([CLIPS, fast])
    assert {spec: int(short.sum()) for spec, short in got.too_short.items()} == {CLIPS: 0, fast: 9}


def test_parts_and_sets_of_a_protocol(videos: Path) -> None:
    shutil.copytree(videos, "own")
    file = Path("own/labels.csv")
    lines = file.read_text().splitlines()
    rows = [f"{line},{'test' if number < 4 else 'train'}" for number, line in enumerate(lines[1:])]
    rows[5] = rows[5].replace("dark", "").replace("bright", "")
    file.write_text("\n".join([f"{lines[0]},split", *rows]) + "\n")
    own = evaluation(Path("own").absolute())
    reverse = dataclasses.replace(CLIPS, order="reversed")
    parts = extract(
        own.config, own.datamodule, own.backbones, {"train": [CLIPS], "test": [CLIPS, reverse]}, split="test"
    )
    train = feature_set(parts["train"], "random", {NORMAL: CLIPS})
    test = feature_set(parts["test"], "random", {NORMAL: CLIPS, "backwards": reverse})
    assert (len(train), len(test)) == (4, 4)
    assert "video_05.mp4" not in train.video_ids
    assert list(test.altered) == ["backwards"]
    assert test.altered["backwards"].equal(parts["test"].features["random", reverse])
    assert test.paths == ["video_00.mp4", "video_01.mp4", "video_02.mp4", "video_03.mp4"]
    everything = feature_set(parts["train"], "random", {NORMAL: CLIPS}, labelled_only=False)
    assert (len(everything), everything.labels.tolist()[1]) == (5, -1)
    assert everything.features.data_ptr() == parts["train"].features["random", CLIPS].data_ptr(), "no copy"


class OneCrop:
    """An input transform of the user's own."""

    def __call__(self, clips: torch.Tensor) -> torch.Tensor:
        return clips.float()


def test_several_crops_of_a_transform_that_gives_one_are_refused() -> None:
    spec = dataclasses.replace(CLIPS, crops="three", num_frames=4)
    with pytest.raises(InputError, match=r"crops=three .* OneCrop, which gives one"):
        make_view(spec, frame_stride=1, transform=OneCrop())


# --- memory -----------------------------------------------------------------------------------------------------------

MEASURE = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from cli_test_extraction import CLIPS, evaluation
got = evaluation(Path(sys.argv[1])).features([CLIPS])
print(len(got.rows), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_is_flat_in_the_number_of_videos(tmp_path: Path) -> None:
    """Eight times as many videos: their clips alone, if they were kept, would take 131 MiB more."""
    few = labelled_folder(tmp_path / "few", videos=50, num_frames=12)
    many = labelled_folder(tmp_path / "many", videos=400, num_frames=12)
    shutil.copy(__file__, tmp_path / "cli_test_extraction.py")
    peaks = []
    for root, number in ((few, 50), (many, 400)):
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, str(root), str(tmp_path)],
            env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        videos, kilobytes = map(int, done.stdout.split())
        assert videos == number
        peaks.append(kilobytes / 1024)
    assert peaks[1] - peaks[0] < 12, f"{peaks} MiB"
