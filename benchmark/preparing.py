"""What `ssl-video prepare` costs and saves, and how its files are best made: keyframes, B-frames, tuning, quality.

Run it with ``python -m benchmark.preparing``; it takes some minutes.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from benchmark.blocks import Contender, Measure, interleaved
from benchmark.videos import FPS, STOCK_SIZE, stock_video
from ssl_video.data.prepare import PRESET, FileToPrepare, PrepareSettings, Stretch, prepare_file
from ssl_video.data.readers.pyav import PyAVReader
from ssl_video.data.readers.stream import StreamTable, scan

NUM_FRAMES, STRIDE = 16, 2
READS_OF_BLOCK = 40  # CPU time is counted in hundredths of a second
STOCK = "stock"
CPU: Measure = "cpu"

Pictures = NDArray[np.uint8]


@dataclass(frozen=True)
class Form:
    """A way to encode."""

    keyframe_every: int = 16
    b_frames: int = 0
    tune: str | None = "fastdecode"
    quality: int = 23

    def __str__(self) -> str:
        tune = self.tune or "none"
        return f"keyframe {self.keyframe_every}, B-frames {self.b_frames}, tune {tune}, CRF {self.quality}"


FORMS = (
    *(Form(keyframe_every=every, b_frames=number) for every, number in itertools.product((8, 16, 32), (0, 2))),
    Form(tune=None),
    *(Form(quality=quality) for quality in (18, 20)),
)


def measure(folder: Path, *, num_videos: int, rounds: int) -> str:
    """The tables, as Markdown."""
    sources = [stock_video(folder / STOCK / f"{seed}.mp4", seed) for seed in range(num_videos)]
    height, width = PrepareSettings().size(*STOCK_SIZE)
    files: dict[str, list[Path]] = {STOCK: sources}
    for number, form in enumerate(FORMS):
        files[str(form)] = [folder / str(number) / source.name for source in sources]
    for place, source in enumerate(sources):
        pictures = PyAVReader(source).read(range(scan(source).num_frames), size=(height, width))
        for form in FORMS:
            _encode(files[str(form)][place], pictures, form)
    return f"{_reading(files, rounds=rounds)}\n\n{_making(sources, folder / 'made', rounds=rounds)}"


def _encode(path: Path, pictures: Pictures, form: Form) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {
        "crf": str(form.quality),
        "preset": PRESET,
        "x264-params": f"scenecut=0:min-keyint={form.keyframe_every}:open-gop=0:mbtree=0",
        **({} if form.tune is None else {"tune": form.tune}),
    }
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.gop_size = form.keyframe_every
        stream.codec_context.max_b_frames = form.b_frames
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def _reading(files: Mapping[str, Sequence[Path]], *, rounds: int) -> str:
    """What sixteen frames at stride 2 cost, from a random start, with the file's table from the manifest."""
    contenders: dict[str, Contender] = {name: partial(_read, paths) for name, paths in files.items()}
    blocks = interleaved(contenders, rounds=rounds)
    lines = ["| file | ms of CPU per clip | stock / this | kB per file |", "|---|---|---|---|"]
    for name, paths in files.items():
        costs = [block.seconds_per_sample(CPU) for block in blocks[name]]
        stock = [block.seconds_per_sample(CPU) for block in blocks[STOCK]]
        ratio = float(np.median(np.array(stock) / costs))
        size = sum(path.stat().st_size for path in paths) / len(paths) / 1e3
        lines.append(f"| {name} | {1e3 * float(np.median(costs)):.2f} | {ratio:.1f} | {size:.0f} |")
    return "\n".join(lines)


def _read(paths: Sequence[Path], number: int) -> int:
    rng = np.random.default_rng(number)
    for _ in range(READS_OF_BLOCK):
        path = paths[int(rng.integers(len(paths)))]
        table = _table(path)
        start = int(rng.integers(table.num_frames - NUM_FRAMES * STRIDE))
        reader = PyAVReader(path, table=table)
        reader.read(start + STRIDE * np.arange(NUM_FRAMES))
        reader.close()
    return READS_OF_BLOCK


@cache
def _table(path: Path) -> StreamTable:
    return scan(path)


def _making(sources: Sequence[Path], folder: Path, *, rounds: int) -> str:
    """What making files costs, with and without motion tables."""
    settings = {"without motion": PrepareSettings(), "with --motion": PrepareSettings(motion="farneback")}
    contenders = {name: partial(_make, sources, folder, own) for name, own in settings.items()}
    blocks = interleaved(contenders, rounds=rounds)
    before = sum(source.stat().st_size for source in sources)
    after = sum((folder / source.name).stat().st_size for source in sources)
    lines = [f"{before / 1e6:.2f} MB become {after / 1e6:.2f} MB", "", "| | videos per second and core |", "|---|---|"]
    for name in settings:
        rate = 1 / float(np.median([block.seconds_per_sample(CPU) for block in blocks[name]]))
        lines.append(f"| {name} | {rate:.2f} |")
    return "\n".join(lines)


def _make(sources: Sequence[Path], folder: Path, settings: PrepareSettings, number: int) -> int:
    source = sources[number % len(sources)]
    table = scan(source)
    file = FileToPrepare(
        source=source,
        path=source.name,
        num_frames=table.num_frames,
        fps=table.fps,
        height=table.height,
        width=table.width,
        codec=table.codec,
        file_bytes=None,
        modified_ns=None,
        stretches=(Stretch(source.name, source.name, None, None),),
    )
    prepare_file(file, folder, settings, motion_folder=folder / "motion")
    return 1


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=12)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(measure(Path(folder), num_videos=given.videos, rounds=given.rounds))


if __name__ == "__main__":
    main()
