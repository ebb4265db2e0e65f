"""Reading: every library against the others and against FFmpeg's own program, per core, on the same frames.

    python -m benchmark.reading            # all tables
    python -m benchmark.reading --rounds 9

Everything is read in this process by one thread, as a loading worker or its decoding child reads, and the contenders
take turns (``benchmark/blocks.py``). Readers are given the table of frames, as the data set gives it to them from the
manifest. FFmpeg's program decodes the same groups of pictures with one thread, cuts and scales the same boxes of the
same frames and writes them to nowhere: many clips in one call, since starting it takes as long as a clip. It comes from
the path or from the package imageio-ffmpeg; without it PyAV's bare loop over FFmpeg's libraries takes its place.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from av.filter import Graph
from numpy.typing import NDArray
from PIL import Image

from benchmark.blocks import Contender, Spread, interleaved, rate, speedup
from benchmark.figures import Figure
from ssl_video.data.decoding.decoder import DirectDecoder
from ssl_video.data.readers.base import Cut, FramePart, ReaderFactory, crop_frame, resize_frames
from ssl_video.data.readers.decord import DecordReader
from ssl_video.data.readers.pyav import PyAVReader
from ssl_video.data.readers.rgb import RGBConverter
from ssl_video.data.readers.stream import StreamTable, scan
from ssl_video.data.readers.torchcodec import TorchcodecReader
from ssl_video.utils.errors import InputError

SIZE = (112, 112)
NUM_FRAMES = 16
STRIDE = 2
LEAST_AREA = 0.2
REACH = 0.85
SCALING_ROUNDS = 15
FFMPEG_SCALE = "flags=bilinear"
# Of a block: enough for a second or so.
CLIPS = {"stock": 12, "prepared": 48}
WHOLE_VIDEOS = {"stock": 2, "prepared": 4}
LIBRARIES: dict[str, ReaderFactory] = {"pyav": PyAVReader, "decord": DecordReader, "torchcodec": TorchcodecReader}


@dataclass(frozen=True)
class Job:
    """One sample: the file, its table of frames, and what is wanted of it."""

    path: Path
    table: StreamTable
    cuts: tuple[Cut, ...]


Workload = Callable[[np.random.Generator, StreamTable], tuple[Cut, ...]]


def clip(rng: np.random.Generator, table: StreamTable) -> tuple[Cut, ...]:
    """A clip of whole frames."""
    start = int(rng.integers(0, table.num_frames - STRIDE * (NUM_FRAMES - 1)))
    return (Cut(start + STRIDE * np.arange(NUM_FRAMES)),)


def whole(rng: np.random.Generator, table: StreamTable) -> tuple[Cut, ...]:
    """Every frame, scaled."""
    return (Cut(np.arange(table.num_frames), FramePart(size=SIZE)),)


def small_clip(rng: np.random.Generator, table: StreamTable) -> tuple[Cut, ...]:
    """A clip, of whose frames a random box is cut and scaled."""
    share = np.sqrt(rng.uniform(LEAST_AREA, 1.0))
    height, width = int(table.height * share), int(table.width * share)
    top, left = (int(rng.integers(0, most + 1)) for most in (table.height - height, table.width - width))
    return (Cut(clip(rng, table)[0].indices, FramePart((top, left, height, width), SIZE)),)


def two_views(rng: np.random.Generator, table: StreamTable) -> tuple[Cut, ...]:
    """Two such clips of one video."""
    return small_clip(rng, table) + small_clip(rng, table)


WORKLOADS: dict[str, Workload] = {
    "16 frames, stride 2": clip,
    "crop and resize to 112": small_clip,
    "two views of it": two_views,
    "whole video at 112": whole,
}


@cache
def _table(path: Path) -> StreamTable:
    return scan(path)


def jobs(folder: Path, workload: Workload, *, number: int, block: int) -> list[Job]:
    """The samples of a block, which follow from its number alone."""
    rng = np.random.default_rng([block, number])
    files = sorted(folder.glob("*.mp4"))
    made = []
    for place in range(number):
        path = files[(block * number + place) % len(files)]
        made.append(Job(path, _table(path), workload(rng, _table(path))))
    return made


def by_reader(open_reader: ReaderFactory, given: Sequence[Job]) -> None:
    """Reads with one of our readers, as the data set does."""
    decoder = DirectDecoder(open_reader)
    for job in given:
        decoder.decode(job.path, job.cuts, table=job.table)


def by_ffmpeg(program: str, given: Sequence[Job]) -> None:
    """Reads with FFmpeg's program: it decodes from the keyframe before, and filters the frames asked for only."""
    inputs: list[str] = []
    outputs: list[str] = []
    asked = [(job, cut) for job in given for cut in job.cuts]
    for number, (job, cut) in enumerate(asked):
        first, last = int(cut.indices[0]), int(cut.indices[-1])
        # Half a frame earlier, so that rounding does not lose the first; -t ends the reading behind the last.
        start, length = max(0.0, (first - 0.5) / job.table.fps), (last - first + 1) / job.table.fps
        inputs += ["-threads", "1", "-ss", f"{start:.4f}", "-t", f"{length:.4f}", "-i", str(job.path)]
        chain = f"select='not(mod(n,{STRIDE}))',{_ffmpeg_chain(cut.part)}"
        outputs += ["-map", f"{number}:v", "-vf", chain, "-frames:v", str(len(cut.indices))]
        outputs += ["-fps_mode", "passthrough", "-f", "rawvideo", "/dev/null"]
    command = [program, "-v", "error", "-nostdin", "-y", "-filter_threads", "1", *inputs, *outputs]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def by_bare_loop(given: Sequence[Job]) -> None:
    """Reads with FFmpeg's libraries in the shortest loop that PyAV allows, every frame of the groups decoded."""
    for job in given:
        times = job.table.times
        with av.open(str(job.path)) as container:
            stream = container.streams[job.table.stream_index]
            assert isinstance(stream, av.VideoStream)
            stream.codec_context.thread_count = 1
            for cut in job.cuts:
                wanted, graph = set(times[cut.indices].tolist()), None
                container.seek(int(times[cut.indices[0]]), stream=stream)
                for frame in container.decode(stream):
                    if frame.pts in wanted:
                        graph = graph or _graph(frame, _ffmpeg_chain(cut.part))
                        graph.push(frame)
                        graph.pull()
                    if frame.pts is not None and frame.pts >= times[cut.indices[-1]]:
                        break


def _ffmpeg_chain(part: FramePart) -> str:
    assert part.box is not None and part.size is not None
    (top, left, height, width), size = part.box, part.size
    return f"crop={width}:{height}:{left}:{top}:exact=1,scale={size[1]}:{size[0]}:{FFMPEG_SCALE},format=rgb24"


def _graph(frame: av.VideoFrame, chain: str) -> Graph:
    graph = Graph()
    graph.threads = 1
    nodes = [graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)]
    nodes += [graph.add(*filter_.split("=", 1)) for filter_ in chain.split(",")]
    nodes.append(graph.add("buffersink"))
    graph.link_nodes(*nodes).configure()
    return graph


def find_ffmpeg() -> str | None:
    """FFmpeg's program: that of imageio-ffmpeg, or the system's."""
    try:
        import imageio_ffmpeg
    except ImportError:
        return shutil.which("ffmpeg")
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def reading(folders: Mapping[str, Path], *, rounds: int) -> list[Figure]:
    """Our fastest reader against FFmpeg, by kind of file and folder."""
    program = find_ffmpeg()
    rival = "ffmpeg -threads 1" if program else "PyAV's bare loop, as there is no ffmpeg program"
    figures = []
    for kind, folder in folders.items():
        contenders = {
            "ours": _block(partial(by_reader, PyAVReader), folder, small_clip, CLIPS[kind]),
            "bare": _block(by_bare_loop, folder, small_clip, CLIPS[kind]),
        }
        if program:
            contenders["ffmpeg"] = _block(partial(by_ffmpeg, program), folder, small_clip, CLIPS[kind])
        blocks = interleaved(contenders, rounds=rounds)
        theirs = blocks["ffmpeg" if program else "bare"]
        details: dict[str, Any] = {f"{name}, clips/s per core": rate(blocks[name], "cpu").median for name in blocks}
        details["ours against PyAV's bare loop"] = speedup(blocks["ours"], blocks["bare"], "cpu").median
        figures.append(
            Figure(
                what=f"decode, crop and resize of the frames asked, {kind} files",
                against=f"{rival}, the same groups of pictures",
                bound="least",
                reach=REACH,
                value=speedup(blocks["ours"], theirs, "cpu"),
                details=details,
            )
        )
    return figures


def _block(read: Callable[[Sequence[Job]], None], folder: Path, workload: Workload, number: int) -> Contender:
    def contender(block: int) -> int:
        given = jobs(folder, workload, number=number, block=block)
        read(given)
        return len(given)

    return contender


def library_table(folders: Mapping[str, Path], *, rounds: int) -> str:
    """Samples per second and core by library, workload and kind of file."""
    libraries = usable(next(next(iter(folders.values())).glob("*.mp4")))
    lines = ["| files | workload | " + " | ".join(libraries) + " |", "|---" * (2 + len(libraries)) + "|"]
    for kind, folder in folders.items():
        for name, workload in WORKLOADS.items():
            number = WHOLE_VIDEOS[kind] if workload is whole else CLIPS[kind]
            contenders = {
                library: _block(partial(by_reader, LIBRARIES[library]), folder, workload, number)
                for library in libraries
            }
            blocks = interleaved(contenders, rounds=rounds)
            rates = [_shown(rate(blocks[library], "cpu")) for library in libraries]
            lines.append(f"| {kind} | {name} | " + " | ".join(rates) + " |")
    return "\n".join(lines)


@cache
def usable(example: Path) -> tuple[str, ...]:
    """The libraries that can be used here, found out by opening a file."""
    found = []
    for name, open_reader in LIBRARIES.items():
        try:
            open_reader(example).close()
        except InputError:
            continue
        found.append(name)
    return tuple(found)


def _shown(spread: Spread) -> str:
    return f"**{spread.median:.3g}** ({spread.low:.3g} to {spread.high:.3g})"


def scaling_table(folders: Mapping[str, Path]) -> str:
    """Ways from decoded frames to a box of them at 112 x 112 in RGB: milliseconds, and how far from Pillow's."""
    lines = ["| files | way | ms per frame | mean levels off | most |", "|---|---|---|---|---|"]
    for kind, folder in folders.items():
        path = sorted(folder.glob("*.mp4"))[0]
        with av.open(str(path)) as container:
            frames = [frame for frame, _ in zip(container.decode(video=0), range(NUM_FRAMES), strict=False)]
        height, width = frames[0].height, frames[0].width
        part = FramePart((height // 16 * 2, width // 16 * 2, height * 3 // 8 * 2, width * 3 // 8 * 2), SIZE)
        ways = scaling_ways(part)
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for name in list(ways) * SCALING_ROUNDS:
            before = time.process_time()
            ways[name](frames)
            taken[name].append((time.process_time() - before) / len(frames) * 1000)
        expected = ways["Pillow"](frames).astype(int)
        for name, way in ways.items():
            off = np.abs(way(frames) - expected)
            lines.append(f"| {kind} | {name} | {np.median(taken[name]):.3f} | {off.mean():.2f} | {off.max()} |")
    return "\n".join(lines)


Way = Callable[[Sequence[av.VideoFrame]], NDArray[np.uint8]]


def scaling_ways(part: FramePart) -> dict[str, Way]:
    """By name; each sets up for a clip what it needs, as for a clip of a new file and another box."""
    converter, box, size = RGBConverter(), part.box, part.size
    assert box is not None and size is not None

    def converted(frames: Sequence[av.VideoFrame]) -> NDArray[np.uint8]:
        return np.stack([crop_frame(converter.convert(frame), box) for frame in frames])

    def pillow(cropped: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        return np.stack(
            [np.asarray(Image.fromarray(frame).resize(size[::-1], Image.Resampling.BILINEAR)) for frame in cropped]
        )

    def opencv(frames: Sequence[av.VideoFrame]) -> NDArray[np.uint8]:
        scaled = [cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA) for frame in converted(frames)]
        return np.asarray(scaled, dtype=np.uint8)

    def ffmpeg(frames: Sequence[av.VideoFrame], pixels: str, flags: str) -> NDArray[np.uint8]:
        chain = _ffmpeg_chain(part).replace("rgb24", pixels).replace(FFMPEG_SCALE, FFMPEG_SCALE + flags)
        graph, scaled = _graph(frames[0], chain), []
        for frame in frames:
            graph.push(frame)
            pulled = graph.pull()
            assert isinstance(pulled, av.VideoFrame)
            scaled.append(pulled.to_ndarray())
        return np.asarray(scaled, dtype=np.uint8)

    return {
        "Pillow": lambda frames: pillow(list(converted(frames))),
        "Pillow, conversion set up for each frame": lambda frames: pillow(
            [np.ascontiguousarray(crop_frame(frame.to_ndarray(format="rgb24"), box)) for frame in frames]
        ),
        "PyTorch, a clip at once (ours)": lambda frames: resize_frames(converted(frames), size),
        "PyTorch, frame by frame": lambda frames: np.stack(
            [resize_frames(frame[None], size)[0] for frame in converted(frames)]
        ),
        "OpenCV's areas": opencv,
        "FFmpeg before the conversion": lambda frames: ffmpeg(frames, "rgb24", ""),
        "the same with its exact flags": lambda frames: ffmpeg(frames, "rgb24", "+accurate_rnd+full_chroma_int"),
        "the same into planes": lambda frames: ffmpeg(frames, "gbrp", "+accurate_rnd+full_chroma_int"),
    }


def main() -> int:
    """Prints the tables; returns the exit code."""
    from benchmark.loading import make_files

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="blocks of each contender (default: 5)")
    parser.add_argument("--folder", type=Path, default=Path("outputs/data_path"), help="where the made videos are kept")
    given = parser.parse_args()
    made = make_files(given.folder)
    folders = {"stock": made.stock, "prepared": made.prepared}
    print("Samples per second and core, median and range:\n")
    print(library_table(folders, rounds=given.rounds), flush=True)
    print("\nFrom a decoded frame to a part of it at 112 x 112:\n")
    print(scaling_table(folders), flush=True)
    print("\nAgainst FFmpeg:\n")
    for figure in reading(folders, rounds=given.rounds):
        print(f"- {figure.what}: {_shown(figure.value)} of {figure.against}; {figure.details}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
