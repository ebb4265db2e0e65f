"""Broken video files, all made from a number: the same number makes the same file."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from support.videos import AV1, H264, H265, MPEG2, MPEG4_B, VP9, Encoding, write_video

SOUND = {
    "h264.mp4": H264,
    "hevc.mkv": H265,
    "mpeg4.avi": MPEG4_B,
    "mpeg2.ts": MPEG2,
    "vp9.webm": VP9,
    "av1.mkv": AV1,
    "open.mp4": Encoding("libx264", "yuv420p", {"qp": "20", "preset": "fast", "bf": "3", "x264-params": "open-gop=1"}),
}
NAMES = ("файл", "動画", "a b", "line\nbreak", "quo'te\"", "-dash", "ünï", "tab\t", "per%cent", "semi;colon", "$(name)")


@dataclass(frozen=True)
class Broken:
    """A file, and how it was broken."""

    path: Path
    kind: str


def sound_files(folder: Path) -> list[Path]:
    """One whole small video of each codec and container, 24 numbered frames."""
    return [
        write_video(folder / name, num_frames=24, height=40, width=48, encoding=encoding)
        for name, encoding in SOUND.items()
    ]


def break_file(number: int, sources: list[Path], folder: Path) -> Broken:
    """Writes the broken file of that number into a folder; every kind comes in turn, of a source drawn by it."""
    rng = np.random.default_rng([20261122, number])
    kinds = list(KINDS)
    kind = kinds[number % len(kinds)]
    source = sources[int(rng.integers(len(sources)))]
    name = NAMES[number % len(NAMES)] if number % 5 == 0 else "broken"
    path = folder / f"{number:05d} {name}{source.suffix}"
    path = KINDS[kind](source, path, rng) or path
    return Broken(path, kind)


def _truncated(source: Path, path: Path, rng: np.random.Generator) -> None:
    content = source.read_bytes()
    path.write_bytes(content[: int(rng.integers(1, len(content)))])


def _bits_flipped(source: Path, path: Path, rng: np.random.Generator) -> None:
    content = np.frombuffer(source.read_bytes(), dtype=np.uint8).copy()
    places = rng.integers(len(content), size=int(rng.integers(1, 1 + max(2, len(content) // 200))))
    content[places] ^= (1 << rng.integers(8, size=len(places))).astype(np.uint8)
    path.write_bytes(content.tobytes())


def _zeroed(source: Path, path: Path, rng: np.random.Generator) -> None:
    content = bytearray(source.read_bytes())
    start = int(rng.integers(len(content)))
    length = int(rng.integers(1, 1 + len(content) // 4))
    content[start : start + length] = bytes(len(content[start : start + length]))
    path.write_bytes(content)


def _header_damaged(source: Path, path: Path, rng: np.random.Generator) -> None:
    content = bytearray(source.read_bytes())
    for place in rng.integers(min(256, len(content)), size=8).tolist():
        content[place] = int(rng.integers(256))
    path.write_bytes(content)


def _span_repeated(source: Path, path: Path, rng: np.random.Generator) -> None:
    content = source.read_bytes()
    start, end = sorted(rng.integers(len(content), size=2).tolist())
    path.write_bytes(content[:end] + content[start:])


def _huge_sizes(source: Path, path: Path, rng: np.random.Generator) -> None:
    """Lengths of boxes and elements that claim far more than there is."""
    content = bytearray(source.read_bytes())
    for place in rng.integers(max(1, len(content) - 8), size=3).tolist():
        content[place : place + 4] = b"\x7f\xff\xff\xff"
    path.write_bytes(content)


def _no_frames_per_second(source: Path, path: Path, rng: np.random.Generator) -> None:
    """The MP4's time scales are zero; of other containers, the first bytes after the magic number."""
    content = bytearray(source.read_bytes())
    place = content.find(b"mvhd"), content.find(b"mdhd")
    for start in place:
        if start >= 0:
            content[start + 16 : start + 20] = bytes(4)
    if max(place) < 0:
        content[32:64] = bytes(len(content[32:64]))
    path.write_bytes(content)


def _wrong_ending(source: Path, path: Path, rng: np.random.Generator) -> Path:
    endings = [ending for ending in (".mp4", ".avi", ".webm", ".ts", ".mkv", ".mov", ".wmv") if ending != source.suffix]
    other = path.with_suffix(endings[int(rng.integers(len(endings)))])
    shutil.copyfile(source, other)
    return other


def _no_bytes(source: Path, path: Path, rng: np.random.Generator) -> None:
    path.write_bytes(b"")


def _noise(source: Path, path: Path, rng: np.random.Generator) -> None:
    path.write_bytes(rng.bytes(int(rng.integers(1, 5000))))


def _text(source: Path, path: Path, rng: np.random.Generator) -> None:
    path.write_text("<html><body>404 Not Found</body></html>\n" * int(rng.integers(1, 50)))


def _only_sound(source: Path, path: Path, rng: np.random.Generator) -> Path:
    target = path.with_suffix(".mp4")
    with av.open(str(target), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target


def _link_in_a_loop(source: Path, path: Path, rng: np.random.Generator) -> None:
    path.symlink_to(path.name)


def _dangling_link(source: Path, path: Path, rng: np.random.Generator) -> None:
    path.symlink_to("nowhere.mp4")


def _folder_in_a_loop(source: Path, path: Path, rng: np.random.Generator) -> Path:
    """A folder with a video and a link back to the folder."""
    folder = path.with_suffix("")
    folder.mkdir()
    os.symlink(".", folder / "again")
    inside = folder / f"inside{source.suffix}"
    _truncated(source, inside, rng)
    return inside


KINDS: dict[str, Callable[[Path, Path, np.random.Generator], Path | None]] = {
    "truncated": _truncated,
    "bits flipped": _bits_flipped,
    "zeroed": _zeroed,
    "header damaged": _header_damaged,
    "span repeated": _span_repeated,
    "huge sizes": _huge_sizes,
    "no frames per second": _no_frames_per_second,
    "wrong ending": _wrong_ending,
    "no bytes": _no_bytes,
    "noise": _noise,
    "text": _text,
    "only sound": _only_sound,
    "link in a loop": _link_in_a_loop,
    "dangling link": _dangling_link,
    "folder in a loop": _folder_in_a_loop,
}
