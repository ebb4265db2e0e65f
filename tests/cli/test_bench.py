"""Where a step's time goes: that each part is charged what it took, and that stubs are found out."""

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ssl_video.cli import bench, bench_prepared, bench_subject
from ssl_video.cli.bench import main
from ssl_video.cli.bench_clock import Limits, StepClock
from ssl_video.cli.bench_device import covered, matrix_flops_per_second
from ssl_video.cli.bench_prepared import chosen_rows, estimated, measured_or_estimated, short_side_for
from ssl_video.cli.bench_rounds import LOADER_PARTS, STEP_PARTS, Circumstances, Measured, Prepared, Round
from ssl_video.cli.bench_storage import bytes_read_so_far, read_cold
from ssl_video.cli.bench_subject import Subject, compose
from ssl_video.cli.parts import build_checked
from ssl_video.data.readers.base import Cut
from ssl_video.utils.errors import InputError, Terminated
from support.folders import SMALL, numbered_folder
from support.videos import write_video

pytestmark = pytest.mark.usefixtures("own_folder")

QUICK = ("--blocks", "1", "--steps", "2", "--seconds", "2")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered_folder(tmp_path_factory.mktemp("numbered"), videos=12)


def overrides(videos: Path, *more: str) -> list[str]:
    return ["dataset=folder", f"dataset.root={videos}", *SMALL, *more]


class Ledger:
    """A clock that stands still but for what is written into it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.spent: dict[str, float] = {}

    def spend(self, part: str, seconds: float) -> None:
        self.now += seconds
        self.spent[part] = self.spent.get(part, 0.0) + seconds

    def charging(self, part: str, seconds: float, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, made to take so long."""

        def slow(*args: Any, **keywords: Any) -> Any:
            self.spend(part, seconds)
            return function(*args, **keywords)

        return slow


class StubDecoder:
    """Gives black frames, after whatever it is told to do first."""

    def __init__(self, first: Callable[[], None]) -> None:
        self.first = first

    def decode(self, path: Path, cuts: Sequence[Cut], *, table: Any = None) -> list[Any]:
        self.first()
        return [np.zeros((len(cut.indices), *cut.part.output_size(40, 40), 3), np.uint8) for cut in cuts]

    def take_restarts(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        pass


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Ledger:
    own = Ledger()
    monkeypatch.setattr(time, "perf_counter", lambda: own.now)
    return own


@pytest.fixture
def subject(videos: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """A job whose parts take times that are known."""
    monkeypatch.setattr("ssl_video.data.datamodule.collate", _collate_taking(ledger, 0.016))
    words = overrides(videos, "method=vcop", "transform.resize=[36,36]", "transform.crop=32")
    own = Subject(compose(words), name="stub")
    own.datamodule.decoder = StubDecoder(lambda: ledger.spend("decode", 0.032))
    transform: Any = own.datamodule.transform
    transform.finish = ledger.charging("transform", 0.008, transform.finish)
    backbone: Any = own.method.backbone

    def forward(module: Any, given: Any, features: Tensor) -> None:
        ledger.spend("forward", 0.128)
        features.register_hook(lambda gradient: ledger.spend("backward", 0.25))

    backbone.register_forward_hook(forward)
    own.method.make_optimizer = _optimizer_taking(ledger, 0.004, own.method.make_optimizer)
    return own


def _collate_taking(ledger: Ledger, seconds: float) -> Callable[..., Any]:
    from ssl_video.data.batch import collate

    return ledger.charging("collate", seconds, collate)


def _optimizer_taking(ledger: Ledger, seconds: float, make: Any) -> Any:
    def made(groups: Any) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = make(groups)
        optimizer.register_step_post_hook(lambda *rest: ledger.spend("optimizer", seconds))
        return optimizer

    return made


# vcop's sizes are its own; those of SMALL that it lacks are left out.
@pytest.fixture(autouse=True)
def fitting_overrides(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "subject" in request.fixturenames:
        fitting = tuple(word for word in SMALL if not word.startswith(("method.", "transform.size", "input_transform")))
        monkeypatch.setattr(f"{__name__}.SMALL", fitting)


def test_every_part_is_charged_what_it_took(subject: Subject) -> None:
    loader = subject.measure_loader(steps=3, seconds=1e6)
    assert loader.parts["decode"] == pytest.approx(4 * 32)  # a batch is four videos
    assert loader.parts["transform"] == pytest.approx(4 * 8)
    assert loader.parts["collate"] == pytest.approx(16)
    assert loader.parts["storage"] == 0
    step = subject.measure_step(steps=3, seconds=1e6)
    assert step.num_steps == 3
    assert step.parts["forward"] == pytest.approx(128)
    assert step.parts["backward"] == pytest.approx(250)
    assert step.parts["optimizer"] == pytest.approx(4)
    assert step.parts["transfer"] == step.parts["finish"] == 0
    assert step.parts["rest"] == pytest.approx(0, abs=1e-6)


def test_the_parts_add_up_to_the_whole(subject: Subject) -> None:
    """In one process nothing overlaps: a step of the real run takes what its parts take one by one."""
    loader = subject.measure_loader(steps=2, seconds=1e6)
    step = subject.measure_step(steps=2, seconds=1e6)
    whole = subject.measure_whole(steps=4, seconds=1e6)
    assert whole.num_steps == 4
    assert whole.waited == pytest.approx(sum(loader.parts.values()))
    assert whole.whole == pytest.approx(sum(loader.parts.values()) + sum(step.parts.values()))
    assert step.whole == pytest.approx(sum(step.parts.values()))


def test_a_part_of_a_batch_is_taken_for_the_whole_when_time_is_short(subject: Subject) -> None:
    subject.datamodule.batch_size = 12
    loader = subject.measure_loader(steps=1, seconds=0.01)
    assert len(loader.batches[0]) == 12
    assert len(set(loader.batches[0].rows.tolist())) == 4
    assert loader.parts["decode"] == pytest.approx(12 * 32)
    assert loader.parts["collate"] == pytest.approx(16)


def test_steps_end_when_the_time_is_over(subject: Subject) -> None:
    subject.measure_loader(steps=1, seconds=1e6)
    assert subject.measure_step(steps=50, seconds=1.0).num_steps == 3  # of 0.382 s each


def test_the_optimizer_steps_once_for_all_accumulated_batches(subject: Subject) -> None:
    subject.config.trainer.accumulate_grad_batches = 2
    subject.measure_loader(steps=1, seconds=1e6)
    step = subject.measure_step(steps=3, seconds=1e6)
    assert step.num_steps == 4
    assert step.parts["optimizer"] == pytest.approx(2)


def test_clips_finished_on_the_device_are_charged_there(subject: Subject) -> None:
    subject.datamodule.augment_on = "device"
    assert subject.measure_loader(steps=1, seconds=1e6).parts["transform"] == 0
    assert subject.measure_step(steps=2, seconds=1e6).parts["finish"] == pytest.approx(8)


def test_repeats_share_their_opening(subject: Subject) -> None:
    subject.datamodule.clips_per_open = 2
    loader = subject.measure_loader(steps=4, seconds=1e6)
    assert loader.parts["decode"] == pytest.approx(4 * 32 / 2)
    assert loader.parts["transform"] == pytest.approx(4 * 8)
    whole = subject.measure_whole(steps=4, seconds=1e6)
    assert whole.waited == pytest.approx(sum(loader.parts.values()))


def test_what_was_made_ahead_is_not_measured(ledger: Ledger) -> None:
    """Eight batches are there, then a slow loader's come two at a time: only those tell its pace."""
    clock = StepClock(Limits(20, steps=2, seconds=0.0, burst=2), lambda: None, by_part=False)
    trainer: Any = SimpleNamespace(should_stop=False)
    for number in range(20):
        wait = 1.0 if number % 2 == 0 and (number == 0 or number >= 8) else 0.0
        ledger.now += wait
        clock.received(wait)
        ledger.now += 0.1
        clock.on_train_batch_end(trainer, trainer)
        if trainer.should_stop:
            break
    times = clock.times()
    assert times.num_steps == 2
    assert times.whole == pytest.approx((1.0 + 2 * 0.1) / 2 * 1000)
    assert times.waited == pytest.approx(500)


def test_a_fit_that_ends_early_is_no_measurement(ledger: Ledger) -> None:
    with pytest.raises(RuntimeError, match="before a step was measured"):
        StepClock(Limits(1, 1, 1.0), lambda: None, by_part=False).times()


def test_operations_are_counted(subject: Subject) -> None:
    subject.measure_loader(steps=1, seconds=1e6)
    flops = subject.count_flops()
    assert flops is not None
    forward = next(iter(subject._batches)).num_clips
    assert flops > 1e6 * forward


def test_measuring_does_not_move_the_run(subject: Subject) -> None:
    """The data module still begins where it did."""
    before = [key.row for key in next(iter(subject.datamodule.training_loader(1).openings.batch_sampler))]
    subject.measure_whole(steps=2, seconds=1e6)
    after = [key.row for key in next(iter(subject.datamodule.training_loader(1).openings.batch_sampler))]
    assert before == after


def test_workers_end_with_their_block(videos: Path) -> None:
    others = set(multiprocessing.active_children())  # that earlier tests keep
    subject = Subject(compose(overrides(videos, "dataset.num_workers=1", "reader.isolate=false")), name="one worker")
    subject.measure_loader(steps=1, seconds=0.1)
    subject.measure_whole(steps=1, seconds=0.1)
    left = set(multiprocessing.active_children()) - others
    assert not [own for own in left if not own.name.startswith("SyncManager")]


# --- through the command line -----------------------------------------------------------------------------------------


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_subject, "available_cores", lambda: 8)


def _bound(path: str = "bench.json") -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(path).read_text())
    return content


@pytest.mark.slow
@pytest.mark.usefixtures("eight_cores")
def test_a_slow_reader_is_found_out(
    videos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ssl_video.cli.parts.build_decoder", lambda config: StubDecoder(lambda: time.sleep(0.2)))
    monkeypatch.setattr(bench_subject, "measured_or_estimated", lambda *rest, **keywords: Prepared(128, 9.2, 4))
    assert main([*overrides(videos, "dataset.num_workers=1"), *QUICK]) == 0
    [told] = _bound()["configurations"]
    assert told["bound"] == "decode"
    assert told["medians"]["loader_ms_per_core"]["decode"] >= 4 * 200
    assert told["medians"]["waited_ms"] > 100
    printed = capsys.readouterr().out
    assert "decode-bound: " in printed
    assert "prepare at 128 px: about 9× faster (measured on 4 videos)" in printed


@pytest.mark.slow
@pytest.mark.usefixtures("eight_cores")
def test_a_slow_backbone_is_found_out(
    videos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def slow(config: Any) -> Any:
        method, datamodule = build_checked(config)
        datamodule.decoder = StubDecoder(lambda: None)
        method.backbone.register_forward_pre_hook(lambda *rest: time.sleep(0.2))
        return method, datamodule

    monkeypatch.setattr(bench_subject, "build_checked", slow)
    assert main([*overrides(videos, "dataset.num_workers=1"), *QUICK, "-o", "there/slow.png"]) == 0
    [told] = _bound("there/slow.json")["configurations"]
    assert told["bound"] == "compute"
    assert told["medians"]["step_ms"]["forward"] >= 200
    assert "the loader delivers" in capsys.readouterr().out
    assert sorted(path.name for path in Path("there").iterdir()) == ["slow.json", "slow.png"]
    assert not Path("outputs").exists()
    with Image.open("there/slow.png") as picture:
        assert picture.width > picture.height > 200


@pytest.mark.slow
def test_two_configurations_stand_side_by_side(
    videos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_subject, "measured_or_estimated", lambda *rest, **keywords: Prepared(128, 9.2, 4))
    words = [
        *overrides(videos, "reader.isolate=false"),
        "--blocks",
        "2",
        "--steps",
        "1",
        "--seconds",
        "1",
        "--against",
        "batch_size=8",
    ]
    assert main(words) == 0
    content = _bound()
    assert [own["circumstances"]["videos"] for own in content["configurations"]] == [4, 8]
    assert [len(own["rounds"]) for own in content["configurations"]] == [2, 2]
    printed = capsys.readouterr().out
    assert "A/B (95 % interval)" in printed
    assert content["comparison"] in printed
    assert "\x1b" not in printed


def test_a_second_configuration_is_given_whole_or_by_its_changes() -> None:
    assert bench._sides(["seed=1", "reader=pyav"], against="reader=decord trainer=cpu", after=None) == [
        ["seed=1", "reader=pyav"],
        ["seed=1", "reader=decord", "trainer=cpu"],
    ]
    assert bench._sides(["seed=1"], against=None, after=["seed=2"]) == [["seed=1"], ["seed=2"]]
    assert bench._sides(["seed=1"], against=None, after=None) == [["seed=1"]]


def test_the_second_is_named_by_what_differs() -> None:
    assert bench._names([["seed=1", "reader=pyav"], ["seed=1", "reader=decord"]]) == [
        "A: seed=1 reader=pyav",
        "B: as A, but reader=decord",
    ]
    assert bench._names([["seed=1"], []])[1] == "B: as A, but without seed=1"
    assert bench._names([[], []]) == ["A: the default configuration", "B: the same as A"]
    assert bench._names([["seed=1"]]) == ["seed=1"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--steps", "0"], "--steps=0 must be at least 1"),
        (["--blocks", "-1"], "--blocks=-1 must be at least 1"),
        (["--blocks", "0"], "--blocks=0 must be at least 1"),
        (["--against", "seed='1"], "cannot be read"),
        (["--seconds", "0"], "--seconds=0.0 must be above 0"),
        (["--fast"], "'--fast' is neither an option nor an override"),
        (["metod=moco"], "metod=moco"),
        (["--against", "reader=pyaw"], "reader=pyaw"),
        (["--against", ""], "changes nothing"),
        (["--against", "seed=1", "--", "seed=2"], "leave one of them out"),
        (["--", "seed"], "'seed' is neither"),
        pytest.param(["trainer=gpu"], "gpu", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU")),
    ],
)
def test_faults_are_refused(words: list[str], told: str, videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*overrides(videos), *words]) == 2
    assert told in capsys.readouterr().err
    assert not Path("bench.png").exists()


@pytest.mark.parametrize(("signal", "code"), [(KeyboardInterrupt(), 130), (Terminated(), 143)])
def test_an_interrupt_ends_it_quietly(
    signal: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*rest: Any) -> None:
        raise signal

    monkeypatch.setattr(bench, "measure", interrupted)
    assert main([]) == code
    assert "nothing was written" in capsys.readouterr().err


def test_ctrl_c_within_a_step_is_an_interrupt(subject: Subject) -> None:
    def pressed(*rest: Any) -> None:
        raise KeyboardInterrupt

    subject.measure_loader(steps=1, seconds=1e6)
    subject.method.backbone.register_forward_pre_hook(pressed)
    with pytest.raises(KeyboardInterrupt):
        subject.measure_step(steps=1, seconds=1e6)


def test_a_picture_that_cannot_be_written_is_refused(
    videos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--output=file/there\.png cannot be written"):
        bench.report([measured_once()], [], output=Path("file/there.png"))


def test_a_busy_machine_is_spoken_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (7.0, 1.0, 1.0))
    monkeypatch.setattr(bench, "available_cores", lambda: 2)
    assert "load 7.0 on 2 cores" in bench.machine_notes()[0]
    monkeypatch.setattr("os.getloadavg", lambda: (0.2, 1.0, 1.0))
    assert bench.machine_notes() == []


def measured_once() -> Measured:
    around = Circumstances("stub", 4, 8, 1, 8, 1, "CPU", "worker", 100, 1.0)
    loader, step = dict.fromkeys(LOADER_PARTS, 1.0), dict.fromkeys(STEP_PARTS, 1.0)
    return Measured(around, [Round(loader, step, 6.0, 7.0, 1.0)])


# --- storage, preparing, the device -----------------------------------------------------------------------------------


def test_files_and_folders_are_read_from_their_beginning(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.png").write_bytes(bytes(1000))
    assert read_cold(folder).num_bytes == 4000
    assert read_cold(folder, share=0.6).num_bytes == 2400
    assert read_cold(folder / "1.png").num_bytes == 1000


def test_bytes_that_are_read_are_counted(tmp_path: Path) -> None:
    before = bytes_read_so_far()
    if before is None:
        pytest.skip("the system does not count them")
    (tmp_path / "file").write_bytes(bytes(100_000))
    (tmp_path / "file").read_bytes()
    after = bytes_read_so_far()
    assert after is not None
    assert 100_000 <= after - before < 200_000


def test_short_sides_hold_the_crop() -> None:
    assert [short_side_for(crop) for crop in (64, 128, 129, 224, 1000)] == [128, 128, 160, 256, 320]


@pytest.fixture
def large_videos(tmp_path: Path) -> Path:
    """Six videos of 160 x 256 pixels with few keyframes."""
    for number in range(6):
        write_video(tmp_path / "large" / f"{number}.mp4", num_frames=40, height=256, width=320)
    return tmp_path / "large"


def test_preparing_is_estimated_from_sizes_and_keyframes(large_videos: Path) -> None:
    subject = Subject(compose(overrides(large_videos)), name="large")
    guess = estimated(subject.datamodule, crop=32)
    assert guess.num_videos == 0
    assert guess.short_side == 128
    assert guess.speed_up >= 4 * 0.99  # a quarter of the pixels


def test_what_would_take_long_is_not_re_encoded(large_videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(compose(overrides(large_videos)), name="large")
    assert len(chosen_rows(subject.datamodule)) == 4
    monkeypatch.setattr(bench_prepared, "MOST_PIXELS", 40 * 256 * 320 * 3)
    assert chosen_rows(subject.datamodule) == []
    assert measured_or_estimated(subject.datamodule, direct=subject._direct, crop=32, num_workers=1).num_videos == 0


@pytest.mark.slow
def test_preparing_is_measured_on_a_few_videos(large_videos: Path) -> None:
    subject = Subject(compose(overrides(large_videos)), name="large")
    found = measured_or_estimated(subject.datamodule, direct=subject._direct, crop=32, num_workers=2)
    assert found.num_videos == 4
    assert found.short_side == 128
    assert found.speed_up > 1.2


def test_kernels_that_overlap_count_once() -> None:
    assert covered([(5.0, 6.0), (0.0, 2.0), (1.0, 3.0), (1.5, 1.8)]) == 4.0
    assert covered([]) == 0


def test_the_matrix_rate_is_positive() -> None:
    assert matrix_flops_per_second(torch.device("cpu"), torch.float32) > 1e6


@pytest.mark.gpu
def test_on_a_gpu_its_busy_share_is_told(videos: Path) -> None:
    assert main([*overrides(videos, "trainer=gpu", "dataset.num_workers=2"), *QUICK]) == 0
    [told] = _bound()["configurations"]
    assert 0 < told["busy_share"] <= 1
    assert told["medians"]["step_ms"]["transfer"] > 0
    assert told["medians"]["step_ms"]["finish"] > 0
    assert told["circumstances"]["compute_threads"] == 0


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
