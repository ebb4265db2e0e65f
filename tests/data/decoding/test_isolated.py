"""Reading through a child: the same pixels, and no file that hangs, crashes, bloats or lies gets further than it."""

import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import pytest

from ssl_video.data.decoding.decoder import DirectDecoder
from ssl_video.data.decoding.isolated import IsolatedDecoder, _clips
from ssl_video.data.decoding.process import ChildLost, DecodeProcess
from ssl_video.data.readers.base import Cut, FramePart, ReaderFactory
from ssl_video.data.readers.decord import DecordReader
from ssl_video.data.readers.stream import StreamTable, scan
from ssl_video.utils.errors import InputError, UnreadableVideo
from support.stub_readers import HEIGHT, WIDTH, OddReader
from support.videos import read_frame_numbers, write_video

DEADLINE = 0.5
CUTS = [Cut(np.array([4, 2, 2, 9])), Cut(np.arange(3))]
GOOD = Path("good.mp4")


def isolated(
    reader: ReaderFactory = OddReader, *, deadline: float = 60.0, recycle_above_mib: int = 300
) -> IsolatedDecoder:
    return IsolatedDecoder(reader, deadline_seconds=deadline, recycle_above_mib=recycle_above_mib)


@pytest.fixture(scope="module")
def shared() -> Iterator[IsolatedDecoder]:
    """A decoder that survives what the tests do to it, with a child that is up."""
    decoder = isolated()
    decoder.decode(GOOD, CUTS)
    yield decoder
    decoder.close()


@pytest.fixture
def decoder(shared: IsolatedDecoder) -> IsolatedDecoder:
    shared.deadline_seconds = 60.0
    shared.take_restarts()
    return shared


def num_open_files() -> int:
    gc.collect()  # what errors held, here and in earlier tests
    return len(os.listdir("/proc/self/fd"))


def process_of(decoder: IsolatedDecoder) -> int:
    child = decoder._own.child
    assert child is not None
    return child._process.pid


def is_right(clips: list[np.ndarray], cuts: list[Cut] = CUTS) -> bool:
    return all(
        clip.shape[0] == len(cut.indices) and (clip == cut.indices.reshape(-1, 1, 1, 1)).all()
        for clip, cut in zip(clips, cuts, strict=True)
    )


def state_of(process: int) -> str | None:
    """The letter of ps, None where there is no such process."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def wait_until(is_so: Callable[[], bool]) -> bool:
    """A wait that ends, for what happens soon but not at once."""
    for _ in range(400):
        if is_so():
            return True
        time.sleep(0.025)
    return False


# --- what comes back --------------------------------------------------------------------------------------------------


def test_gives_what_the_reader_gives(tmp_path: Path) -> None:
    file = write_video(tmp_path / "frames é\n.mp4", num_frames=40, height=48, width=64)
    cuts = [
        Cut(np.array([30, 3, 3, 12])),
        Cut(np.arange(0, 40, 5), FramePart(box=(8, 4, 30, 40), size=(20, 24), window=(2, 1, 16, 20))),
        Cut(np.array([39])),
    ]
    expected = DirectDecoder(DecordReader).decode(file, cuts)
    decoder = isolated(DecordReader)
    for table in (None, scan(file)):
        got = decoder.decode(file, cuts, table=table)
        assert all(np.array_equal(one, other) for one, other in zip(got, expected, strict=True))
    assert read_frame_numbers(got[0]) == [30, 3, 3, 12]
    loaded = Path(f"/proc/{process_of(decoder)}/maps").read_text()
    assert "libdecord" in loaded
    assert "torch" not in loaded and "nvidia" not in loaded, "each worker has a child: it stays small"
    decoder.close()


def test_clips_of_any_size_come_and_those_that_are_kept_stay(decoder: IsolatedDecoder) -> None:
    kept = [clip.copy() for clip in decoder.decode(GOOD, CUTS)]
    large = [Cut(np.arange(7), FramePart(box=(0, 0, 300, 500))), Cut(np.arange(2))]
    for _ in range(2):
        assert [clip.shape for clip in decoder.decode(GOOD, large)] == [(7, 300, 500, 3), (2, HEIGHT, WIDTH, 3)]
        assert is_right(decoder.decode(GOOD, large), large)
    assert is_right(decoder.decode(GOOD, CUTS))
    assert is_right(kept)


def test_clips_may_lie_anywhere_in_the_childs_memory(decoder: IsolatedDecoder) -> None:
    assert is_right(decoder.decode(Path("elsewhere.mp4"), CUTS))


def test_what_libraries_print_is_no_answer(decoder: IsolatedDecoder, capfd: pytest.CaptureFixture[str]) -> None:
    process = process_of(decoder)
    assert is_right(decoder.decode(Path("print.mp4"), CUTS))
    assert process_of(decoder) == process
    assert capfd.readouterr() == ("", "")


def test_a_request_may_be_larger_than_a_pipe(decoder: IsolatedDecoder) -> None:
    assert is_right(decoder.decode(GOOD, CUTS, table=table_of(500_000)))


def table_of(num_frames: int) -> StreamTable:
    return StreamTable(
        stream_index=0,
        codec="h264",
        width=WIDTH,
        height=HEIGHT,
        fps=25.0,
        times=np.arange(num_frames),
        num_frames=num_frames,
        keyframes=np.zeros(1, dtype=np.int64),
        is_plain=True,
    )


def test_a_system_without_nameless_memory_has_files_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    decoder = isolated()
    assert is_right(decoder.decode(GOOD, CUTS))
    decoder.close()


def test_it_travels_to_other_processes_without_its_child(decoder: IsolatedDecoder) -> None:
    copy = pickle.loads(pickle.dumps(decoder))
    assert (copy.open_reader, copy.deadline_seconds, copy.recycle_above_mib) == (OddReader, 60.0, 300)
    assert copy._own.child is None


# --- what is unreadable -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("few", "3 of 4 frames came"),
        ("missing", "1 of 2 clips came"),
        ("floats", r"a clip came as float32 \[4, 4, 6, 3\]"),
        ("raise", "KeyError: 'moov'"),
        ("unreadable", "^frame 3 does not decode$"),
        ("beyond", "frame 300 of beyond"),
    ],
)
def test_a_reader_that_fails_or_lies_costs_only_its_video(decoder: IsolatedDecoder, name: str, reason: str) -> None:
    process = process_of(decoder)
    for _ in range(2):
        with pytest.raises(UnreadableVideo, match=reason):
            decoder.decode(Path(f"{name}.mp4"), CUTS)
    assert is_right(decoder.decode(GOOD, CUTS))
    assert process_of(decoder) == process
    assert decoder.take_restarts() == {}


@pytest.mark.parametrize(
    ("name", "cause", "reason"),
    [
        ("segfault", "died", "ended its decoder: SIGSEGV"),
        ("abort", "died", "ended its decoder: SIGABRT"),
        ("exit", "died", "ended its decoder: exit code 3"),
        ("quit", "died", "ended its decoder: exit code 4"),
        ("scribble", "nonsense", "its decoder announced an answer of"),
        ("endless", "nonsense", "its decoder announced an answer of"),
    ],
)
def test_a_video_that_ends_its_child_costs_only_itself(
    decoder: IsolatedDecoder, name: str, cause: str, reason: str
) -> None:
    decoder.decode(GOOD, CUTS)
    with pytest.raises(UnreadableVideo, match=reason):
        decoder.decode(Path(f"{name}.mp4"), CUTS)
    # A child that has read other videos may have been harmed by them: only the second one says that it is this one.
    assert decoder.take_restarts() == {cause: 2 if cause == "died" else 1}
    assert is_right(decoder.decode(GOOD, CUTS))


def test_a_video_that_hangs_in_c_is_given_up_at_the_deadline(decoder: IsolatedDecoder) -> None:
    decoder.decode(GOOD, CUTS)
    process = process_of(decoder)
    decoder.deadline_seconds = DEADLINE
    with pytest.raises(UnreadableVideo, match=r"^gave no answer in 0\.5 s$"):
        decoder.decode(Path("hang.mp4"), CUTS)
    assert state_of(process) is None, "killed and waited for"
    assert decoder.take_restarts() == {"deadline": 1}
    with pytest.raises(UnreadableVideo, match=r"^gave no answer in 0\.5 s$"):
        decoder.decode(Path("hang.mp4"), CUTS)
    assert decoder.take_restarts() == {}, "the deadline is paid once"
    decoder.deadline_seconds = 60.0
    assert is_right(decoder.decode(GOOD, CUTS))


def test_a_child_that_does_not_listen_is_given_up_too(decoder: IsolatedDecoder) -> None:
    decoder.decode(GOOD, CUTS)
    os.kill(process_of(decoder), signal.SIGSTOP)
    decoder.deadline_seconds = DEADLINE
    with pytest.raises(UnreadableVideo, match="gave no answer"):
        decoder.decode(Path("good_2.mp4"), CUTS, table=table_of(500_000))


def test_a_child_that_closes_its_answers_is_given_up(decoder: IsolatedDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_video.data.decoding.process.SECONDS_TO_END", 0.2)
    with pytest.raises(UnreadableVideo, match="its decoder closed its answers"):
        decoder.decode(Path("shut.mp4"), CUTS)
    assert decoder.take_restarts() == {"nonsense": 1}


def test_a_video_is_not_blamed_for_what_an_earlier_one_did(decoder: IsolatedDecoder) -> None:
    decoder.decode(Path("harming.mp4"), CUTS)
    assert is_right(decoder.decode(Path("harmed.mp4"), CUTS))
    assert decoder.take_restarts() == {"died": 1}


def test_a_video_is_not_blamed_for_a_child_that_died_before_it(decoder: IsolatedDecoder) -> None:
    decoder.decode(GOOD, CUTS)
    os.kill(process_of(decoder), signal.SIGKILL)
    assert wait_until(lambda: state_of(process_of(decoder)) in ("Z", None))
    assert is_right(decoder.decode(Path("good_3.mp4"), CUTS))
    assert decoder.take_restarts() == {"died": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"indices": [[4, 2, 2, 8], [0, 1, 2]]},
        {"indices": None},
        {"starts": [0]},
        {"starts": [0, 10**9]},
        {"starts": [0, -64]},
        {"starts": ["here", "there"]},
        {"shapes": [[4, 4, 6, 3], [10**6, 4, 6, 3]]},
        {"shapes": 7},
    ],
)
def test_answers_that_cannot_be_are_refused(decoder: IsolatedDecoder, change: dict[str, Any]) -> None:
    decoder.decode(GOOD, CUTS)
    child = cast(DecodeProcess, decoder._own.child)
    answer = {"indices": [[4, 2, 2, 9], [0, 1, 2]], "starts": [0, 320], "shapes": [[4, 4, 6, 3], [3, 4, 6, 3]]}
    assert is_right(_clips(child, answer, CUTS))
    with pytest.raises(ChildLost, match="its decoder answered"):
        _clips(child, answer | change, CUTS)


# --- memory -----------------------------------------------------------------------------------------------------------


def test_a_child_that_leaks_is_replaced() -> None:
    decoder = isolated(recycle_above_mib=100)
    processes = set()
    for _ in range(6):
        assert is_right(decoder.decode(Path("leak.mp4"), CUTS))
        processes.add(process_of(decoder))
    assert decoder.take_restarts() == {"recycled": 3}, "64 MiB each: after every second read"
    assert len(processes) == 4
    for _ in range(4):
        with pytest.raises(UnreadableVideo, match="KeyError"):
            decoder.decode(Path("leaking.mp4"), CUTS)
    assert decoder.take_restarts() == {"recycled": 2}, "also while it fails"
    decoder.close()


def test_a_read_that_takes_all_memory_is_stopped(decoder: IsolatedDecoder) -> None:
    with pytest.raises(UnreadableVideo, match="MemoryError"):
        decoder.decode(Path("bloat.mp4"), CUTS)
    assert is_right(decoder.decode(GOOD, CUTS))


def test_a_bound_below_what_a_child_needs_is_refused() -> None:
    with pytest.raises(InputError, match=r"reader\.recycle_above_mib=1 must be above the \d+ MiB"):
        isolated(recycle_above_mib=1).decode(GOOD, CUTS)


# --- what is no video's fault -----------------------------------------------------------------------------------------


def test_a_library_that_is_missing_is_the_users_to_mend(decoder: IsolatedDecoder) -> None:
    with pytest.raises(InputError, match="the library is not installed; pip install it"):
        decoder.decode(Path("uninstalled.mp4"), CUTS)
    assert is_right(decoder.decode(GOOD, CUTS))


class NowhereReader(OddReader):
    """A reader that the child does not find."""


def test_a_child_that_does_not_start_is_no_videos_fault(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    nowhere = ModuleType("nowhere")
    nowhere.NowhereReader = NowhereReader  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nowhere", nowhere)
    monkeypatch.setattr(NowhereReader, "__module__", "nowhere")
    with pytest.raises(RuntimeError, match=r"does not start: it ended its decoder: exit code 1.*reader\.isolate=false"):
        isolated(NowhereReader).decode(GOOD, CUTS)
    assert "No module named 'nowhere'" in capfd.readouterr().err


# --- no traces --------------------------------------------------------------------------------------------------------


def test_closing_ends_the_child_and_reading_goes_on_afterwards() -> None:
    decoder = isolated()
    decoder.decode(GOOD, CUTS)
    process = process_of(decoder)
    decoder.close()
    assert state_of(process) is None
    decoder.close()
    assert is_right(decoder.decode(GOOD, CUTS))
    process = process_of(decoder)
    del decoder
    assert state_of(process) is None


@pytest.mark.parametrize("restarts", [4, pytest.param(200, marks=pytest.mark.slow)])
def test_restarts_leave_nothing_open(decoder: IsolatedDecoder, restarts: int) -> None:
    decoder.decode(GOOD, CUTS)
    before = num_open_files()
    for number in range(restarts):
        with pytest.raises(UnreadableVideo):
            decoder.decode(Path(f"endless_{number}.mp4"), CUTS)
        decoder.decode(GOOD, CUTS)
    assert num_open_files() == before
    assert decoder.take_restarts() == {"nonsense": restarts}


PARENT = """
import sys
from pathlib import Path
import numpy as np
from ssl_video.data.decoding.isolated import IsolatedDecoder
from ssl_video.data.readers.base import Cut
from support.stub_readers import OddReader
decoder = IsolatedDecoder(OddReader, deadline_seconds=60, recycle_above_mib=300)
decoder.decode(Path("good.mp4"), [Cut(np.arange(3))])
print(decoder._own.child._process.pid, flush=True)
decoder.decode(Path("hang.mp4"), [Cut(np.arange(3))])
"""


def test_a_child_that_hangs_does_not_outlive_a_parent_that_is_killed() -> None:
    path = os.pathsep.join(filter(None, sys.path))
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert state_of(child) is not None
        parent.kill()
    assert wait_until(lambda: state_of(child) in ("Z", None)), "whoever takes it over waits for it"


def _in_worker(decoder: IsolatedDecoder, answers: Any) -> None:
    clips = decoder.decode(GOOD, CUTS)
    answers.send((process_of(decoder), is_right(clips)))


def test_a_forked_process_gets_a_child_of_its_own_that_ends_with_it(decoder: IsolatedDecoder) -> None:
    decoder.decode(GOOD, CUTS)
    before = process_of(decoder)
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    worker = context.Process(target=_in_worker, args=(decoder, there), daemon=True)  # as loading workers are
    worker.start()
    child, was_right = here.recv()
    worker.join()
    assert was_right and child != before
    assert wait_until(lambda: state_of(child) is None)
    assert is_right(decoder.decode(GOOD, CUTS))
    assert process_of(decoder) == before


def test_each_thread_has_a_child_that_ends_with_it(decoder: IsolatedDecoder) -> None:
    decoder.decode(GOOD, CUTS)
    found: list[tuple[int, bool]] = []

    def read() -> None:
        was_right = is_right(decoder.decode(GOOD, CUTS))
        found.append((process_of(decoder), was_right))

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    [(child, was_right)] = found
    assert was_right and child != process_of(decoder)
    assert wait_until(lambda: state_of(child) is None)
    assert is_right(decoder.decode(GOOD, CUTS))


def test_a_child_ends_when_its_requests_do(decoder: IsolatedDecoder) -> None:
    decoder.decode(GOOD, CUTS)
    child = cast(DecodeProcess, decoder._own.child)
    assert child._process.stdin is not None
    child._process.stdin.close()
    assert child._process.wait(10) == 0
    assert is_right(decoder.decode(GOOD, CUTS))
