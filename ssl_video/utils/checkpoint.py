"""Checkpoints hold plain data, are written whole or not at all, and are verified when they are read.

A torch checkpoint is a zip archive that stores a CRC-32 of every record, so the checksum travels inside the one file
that is renamed: there is no second file that a kill could leave behind.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from ssl_video.utils.errors import InputError
from ssl_video.utils.files import write_atomically


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint of ours onto the CPU, with nothing but plain data allowed in it.

    Raises:
        InputError: missing, truncated, changed, or with something in it that loading would have to execute.
    """
    content = read_plain(path, source=f"checkpoint={path}")
    if not isinstance(content, dict):
        raise InputError(f"checkpoint={path} holds a {type(content).__name__}, not a run's dictionary.")
    return content


def read_plain(path: Path, *, source: str) -> Any:
    """Reads what ``torch.save`` wrote, also before it wrote archives, onto the CPU, and runs nothing of it.

    Args:
        path: the file.
        source: how the command line calls it.

    Raises:
        InputError: missing, truncated, changed, or with something in it that loading would have to execute.
    """
    _check_file(path, source=source)
    is_archive = _is_archive(path, source=source)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as fault:
        # What torch says at length: how to load it all the same.
        named = re.search(r"GLOBAL ([\w.]+)", str(fault))
        if named is not None or is_archive:
            reason = f"it names {named[1]}" if named is not None else "torch reads no weights alone from it"
            raise InputError(
                f"{source} holds more than tensors and plain data, and loading it could run code; it is refused "
                f"({reason}). Where you trust it, export its weights alone, best as .safetensors."
            ) from None
        raise _truncated(source, "neither an archive nor a state dict") from None
    except Exception as fault:  # a damaged file can raise nearly anything
        reason = (str(fault).splitlines() or [type(fault).__name__])[0]
        if is_archive:
            raise InputError(f"{source} is an archive, but not a checkpoint ({reason}).") from None
        raise _truncated(source, reason) from None


def _is_archive(path: Path, *, source: str) -> bool:
    """Whether the file is a zip archive, of which torch does not look at the checksums.

    Raises:
        InputError: it is a damaged one, or a pickle of another kind than ``torch.save`` writes.
    """
    with path.open("rb") as file:
        start = file.read(2)
    if start[:1] == b"\x80" and start[1:] > b"\x02":  # torch.save writes protocol 2
        raise _truncated(source, "a bare pickle, which could run code and was not loaded")
    if start != b"PK":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as fault:  # a damaged archive can raise nearly anything
        raise _truncated(source, str(fault)) from None
    if damaged is not None:
        raise InputError(f"{source} is damaged: the checksum of {damaged} is wrong; take an earlier or another copy.")
    return True


def _truncated(source: str, reason: str) -> InputError:
    return InputError(f"{source} is truncated or not a checkpoint ({reason}); take an earlier or another copy.")


def _check_file(path: Path, *, source: str) -> None:
    if path.is_dir():
        raise InputError(f"{source} is a folder; of a run, give its checkpoints/backbone.safetensors.")
    if not path.is_file():
        raise InputError(
            f"{source} does not exist; give a run folder or a file of weights (.ckpt, .safetensors, .pth, .pyth, .bin)."
        )


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's way to files, by ``write_atomically`` and ``read_checkpoint``.

    Attributes:
        fault: what kept a checkpoint from being written, until it is raised; also what must be written before it. As
            long as there is one, none is written.
    """

    fault: OSError | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes ``checkpoint`` whole or not at all; a full disk is noted in ``fault``.

        Raising here would leave the other ranks at the barrier that follows.
        """
        if self.fault is not None:
            return
        try:
            write_atomically(Path(path), lambda temporary: _save(checkpoint, temporary))
        except OSError as fault:
            self.fault = fault

    def raise_fault(self) -> None:
        """Raises and forgets what kept the checkpoint from being written, once all ranks are past it."""
        fault, self.fault = self.fault, None
        if fault is not None:
            raise fault

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads it onto the CPU; Lightning moves what it restores."""
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Deletes the file if it is there."""
        Path(path).unlink(missing_ok=True)


def _save(checkpoint: dict[str, Any], path: Path) -> None:
    """Writes with torch, whose writer has an error of its own for a full disk.

    Raises:
        OSError: not all of it could be written.
    """
    try:
        torch.save(checkpoint, path)
    except RuntimeError as fault:
        if "inline_container" not in str(fault):
            raise
        free = shutil.disk_usage(path.parent).free // 2**20
        raise OSError(f"not all of it could be written; {free} MiB are free there") from fault


def save_backbone(path: Path, state: dict[str, Tensor], *, config: dict[str, Any]) -> None:
    """Writes a backbone's weights as safetensors, with the config that rebuilds it as JSON in the metadata."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    content = safetensors_bytes(tensors, metadata={"config": json.dumps(config)})
    write_atomically(path, lambda temporary: _write_bytes(temporary, content))


def read_backbone(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and config of a file that ``save_backbone`` wrote.

    Raises:
        InputError: missing, truncated, or without a config.
    """
    state, config = read_safetensors(path, source=f"checkpoint={path}")
    if config is None:
        raise InputError(f"checkpoint={path} has no config in its metadata; it was not written by a run of ours.")
    return state, config


def read_safetensors(path: Path, *, source: str) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Tensors of a .safetensors by name, and the config that ``save_backbone`` put beside them, None in other files.

    Raises:
        InputError: missing or truncated.
    """
    _check_file(path, source=source)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as fault:
        raise InputError(f"{source} is truncated or not a safetensors file ({fault}).") from None
    if "config" not in metadata:
        return state, None
    try:
        config: dict[str, Any] = json.loads(metadata["config"])
    except json.JSONDecodeError as fault:
        raise InputError(f"{source} has a config in its metadata that is no JSON ({fault}).") from None
    return state, config


def refuse_other_tensors(own: Mapping[str, Tensor], loaded: Mapping[str, Tensor], *, source: str) -> None:
    """Refuses weights of another network, as ``load_state_dict`` would, before anything is loaded.

    Raises:
        InputError: counts and names what differs.
    """
    wrong = sorted(
        {key for key in own.keys() | loaded.keys() if key not in own or key not in loaded}
        | {key for key in own.keys() & loaded.keys() if own[key].shape != loaded[key].shape}
    )
    if wrong:
        raise InputError(
            f"{source} is of another backbone or method: {len(wrong)} of {len(own)} tensors differ in name or shape "
            f"(first: {', '.join(wrong[:3])}). Leave out backbone= and method=; it brings its own."
        )


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
