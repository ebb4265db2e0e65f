"""Finds out what a manifest says of a video file, by reading its packets and decoding its first and last frames.

Run as a program it answers one file after the other, so that a file that crashes the decoder ends only this process.
"""

from pathlib import Path
from typing import Any

from ssl_video.data.line_process import answer_lines
from ssl_video.data.readers.frames import FramesReader
from ssl_video.data.readers.pyav import PyAVReader, StreamEnded
from ssl_video.data.readers.rgb import quarter_turns
from ssl_video.data.readers.stream import NoVideoStream, StreamTable, scan
from ssl_video.data.stream_columns import stream_columns
from ssl_video.utils.errors import UnreadableVideo

OK = "ok"
UNREADABLE = "unreadable"
DAMAGED = "damaged"
NO_VIDEO_STREAM = "no_video_stream"


def probe_video(path: Path, *, decode_all: bool = False) -> dict[str, Any]:
    """Returns the manifest's columns that come from the file itself.

    `num_frames` counts what a reader can deliver. The packets are counted, not decoded, but the first frame and all
    frames from the last keyframe on are decoded as a check. If that fails the whole file is decoded and counted; it is
    `damaged` unless it merely ends, without a fault, before its packets do.

    Args:
        path: a video file, or a folder or zip of numbered images.
        decode_all: decode every frame as a check.

    Returns:
        num_frames, fps, width, height, rotation, codec, keyframe_spacing, status and, where it is not ok, reason; of
        streams that are sound also those of stream_columns.
    """
    try:
        if path.is_dir() or path.suffix.lower() == ".zip":
            return _probe_images(path)
        return _probe_stream(path, decode_all=decode_all)
    except NoVideoStream as error:
        return {"status": NO_VIDEO_STREAM, "reason": str(error)}
    except UnreadableVideo as error:
        return {"status": UNREADABLE, "reason": str(error)}


def _probe_images(path: Path) -> dict[str, Any]:
    reader = FramesReader(path)
    height, width = reader.read([0]).shape[1:3]
    reader.close()
    return {
        "num_frames": reader.num_frames,
        "fps": reader.fps,
        "width": width,
        "height": height,
        "rotation": 0,
        "codec": "images",
        "keyframe_spacing": 1,
        "status": OK,
    }


def _probe_stream(path: Path, *, decode_all: bool) -> dict[str, Any]:
    table = scan(path)
    reader = PyAVReader(path, table=table)
    try:
        first = next(reader.decode_to_end(0))
        turns = quarter_turns(first)
        found = {
            "num_frames": table.num_frames,
            "fps": table.fps,
            "width": first.height if turns % 2 else first.width,
            "height": first.width if turns % 2 else first.height,
            "rotation": -90 * turns % 360,  # clockwise
            "codec": table.codec,
            "keyframe_spacing": table.keyframe_spacing,
        }
        if _is_sound(reader, table, decode_all=decode_all or first.is_corrupt):
            return {**found, **stream_columns(table, found), "status": OK}
        count, fault = _count(reader)
        # The table counts frames that do not come: a reader has to find out for itself.
        found |= {"num_frames": count, "keyframes": [0]}
        return {**found, **({"status": DAMAGED, "reason": fault} if fault else {"status": OK})}
    finally:
        reader.close()


def _is_sound(reader: PyAVReader, table: StreamTable, *, decode_all: bool) -> bool:
    first = 0 if decode_all else int(table.keyframes[-1])
    try:
        return not any(frame.is_corrupt for frame in reader.decode_to_end(first))
    except UnreadableVideo:
        return False


def _count(reader: PyAVReader) -> tuple[int, str | None]:
    """How many frames decode from the start, and the fault that stops the next, if it is one."""
    count, is_corrupt = 0, False
    try:
        for frame in reader.decode_to_end(0):
            count += 1
            is_corrupt |= frame.is_corrupt
    except StreamEnded:
        pass  # placeholders at the end of packed streams: the frames that there are, are sound
    except UnreadableVideo as error:
        return count, str(error)
    return count, "the decoder reports corrupt frames" if is_corrupt else None


def main() -> None:
    """Answers JSON lines: of standard input `{"path": ..., "decode_all": ...}`, to standard output the columns."""
    answer_lines(_answer)


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    try:
        return probe_video(Path(question["path"]), decode_all=question["decode_all"])
    except Exception as error:  # one odd file must not end the index; it is named in the manifest
        return {"status": UNREADABLE, "reason": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    main()
