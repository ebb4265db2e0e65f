"""Pictures as files, for runs that no other logger shows."""

from __future__ import annotations

from pathlib import Path

from ssl_video.utils.files import write_atomically
from ssl_video.utils.pictures import ClipTable, Picture, clips_of, gif, png


class PictureFolder:
    """Writes ``<name>_step_<number>.png``, and beside a table's picture its clips as animations.

    Args:
        folder: made when there is something to write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def show(self, name: str, picture: Picture, *, step: int) -> None:
        """Writes a picture."""
        self.folder.mkdir(parents=True, exist_ok=True)
        stem = f"{name.rpartition('/')[2]}_step_{step:06d}"
        still = picture.still if isinstance(picture, ClipTable) else picture
        _write(self.folder / f"{stem}.png", png(still.image))
        if isinstance(picture, ClipTable):
            for number, frames in enumerate(clips_of(picture)):
                _write(self.folder / stem / f"{number:02d}.gif", gif(frames))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_atomically(path, write)
