"""Features on disk, kept by what they were computed from.

An entry is a folder with ``features.npy`` (float32 ``[N, V, D]``) and ``entry.json``: what it was computed from, the
size and sha256 of the other file, and which videos could not be read. It is written whole or not at all, and used only
where all of that is as it should be.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from ssl_video.utils.checkpoint import file_digest
from ssl_video.utils.files import write_folder_atomically

FORMAT_VERSION = 1
FEATURES, ENTRY = "features.npy", "entry.json"
_PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class Entry:
    """Features of one backbone on one kind of clips.

    Attributes:
        features: ``[N, V, D]`` float32, mapped from the file.
        unreadable: reason by row of the videos that could not be read; the N others are in ascending order.
    """

    features: Tensor
    unreadable: dict[int, str]


class PartFile:
    """Raw features ``[n, V, D]`` of some videos, appended as they come.

    Attributes:
        path: the file; there is none before the first videos.
        shape: ``(V, D)``; None before the first videos.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shape: tuple[int, int] | None = None
        self._file: BinaryIO | None = None

    def append(self, features: Tensor) -> None:
        """Adds the next videos ``[b, V, D]``.

        Raises:
            ValueError: they have another V or D than those before.
        """
        shape = (features.shape[1], features.shape[2])
        if self._file is None:
            self._file, self.shape = self.path.open("wb"), shape
        if shape != self.shape:
            raise ValueError(f"features of {shape} must have the {self.shape} of those before: clips and dimensions.")
        self._file.write(features.to(torch.float32).contiguous().numpy().data)

    def close(self) -> None:
        """Ends the file."""
        if self._file is not None:
            self._file.close()


def entry_key(description: Mapping[str, Any]) -> str:
    """Name of the folder of what was computed so."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def read_entry(folder: Path, description: Mapping[str, Any]) -> Entry | None:
    """The entry in a folder; None where there is none, or where anything about it is not as it was written."""
    try:
        content = json.loads((folder / ENTRY).read_text())
        file = folder / FEATURES
        intact = (
            content["description"] == json.loads(json.dumps(description))
            and content["bytes"] == file.stat().st_size
            and content["sha256"] == file_digest(file)
        )
        return open_entry(folder) if intact else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def open_entry(folder: Path) -> Entry:
    """The entry in a folder, unchecked."""
    content = json.loads((folder / ENTRY).read_text())
    # "c": pages are shared with the file until somebody writes to them, and no write reaches it.
    mapped = np.load(folder / FEATURES, mmap_mode="c")
    return Entry(torch.from_numpy(mapped), {int(row): reason for row, reason in content["unreadable"]})


def write_entry(
    folder: Path,
    description: Mapping[str, Any],
    parts: Sequence[Path],
    *,
    shape: tuple[int, int, int],
    unreadable: Mapping[int, str],
) -> None:
    """Puts the parts together.

    Args:
        folder: of the entry; what is there goes.
        description: what the features were computed from, in plain values.
        parts: files of ``PartFile``, in the order of their videos.
        shape: ``(N, V, D)`` of the whole.
        unreadable: reason by row.

    Raises:
        RuntimeError: the parts hold more or fewer values than the shape says.
    """

    def write(temporary: Path) -> None:
        with (temporary / FEATURES).open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            start = file.tell()
            for part in parts:
                with part.open("rb") as opened:
                    shutil.copyfileobj(opened, file, 1 << 20)
            size, expected = file.tell() - start, 4 * int(np.prod(shape))
        if size != expected:
            raise RuntimeError(f"features of {size} bytes must have the {expected} of {shape}; a part is not whole.")
        content = {
            "description": dict(description),
            "bytes": (temporary / FEATURES).stat().st_size,
            "sha256": file_digest(temporary / FEATURES),
            "unreadable": sorted(unreadable.items()),
        }
        (temporary / ENTRY).write_text(json.dumps(content, indent=1))

    write_folder_atomically(folder, write)


def module_digest(module: nn.Module) -> str:
    """sha256 of all that decides what a network computes, but its code.

    These are the tensors, those too that its state leaves out, and of each of its modules the class and plain values.
    """
    digest = hashlib.sha256()
    for name, part in module.named_modules():
        kind = f"{type(part).__module__}.{type(part).__qualname__}"
        values = {key: value for key, value in sorted(vars(part).items()) if key != "training" and _is_plain(value)}
        digest.update(json.dumps([name, kind, values]).encode())
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _is_plain(value: object) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, tuple | list) and all(_is_plain(item) for item in value))


def files_digest(files: Sequence[Path]) -> str:
    """sha256 over the contents of files, in the order given."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
