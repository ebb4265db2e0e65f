"""Checkpoints hold plain data, are written whole or not at all, and are verified when they are read.

A torch checkpoint is a zip archive that stores a CRC-32 of every record, so the checksum travels inside the one file
that is renamed: there is no second file that a kill could leave behind.
"""

from __future__ import annotations

import hashlib
import json
import pickle
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
    if not path.is_file():
        raise InputError(f"checkpoint={path} does not exist; give a run folder, a .ckpt, a .safetensors or `random`.")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as fault:  # a damaged archive can raise nearly anything
        raise InputError(
            f"checkpoint={path} is truncated or not a checkpoint ({fault}); take an earlier one."
        ) from None
    if damaged is not None:
        raise InputError(f"checkpoint={path} is damaged: the checksum of {damaged} is wrong; take an earlier one.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as fault:
        reason = str(fault).splitlines()[0]
        raise InputError(
            f"checkpoint={path} holds more than tensors and plain data, and loading it could run code; it is refused "
            f"({reason}). Export its weights as .safetensors where you trust it."
        ) from None
    except Exception as fault:
        raise InputError(f"checkpoint={path} is an archive, but not a checkpoint ({fault}).") from None
    if not isinstance(content, dict):
        raise InputError(f"checkpoint={path} holds a {type(content).__name__}, not a run's dictionary.")
    return content


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's way to files, by ``write_atomically`` and ``read_checkpoint``."""

    fault: OSError | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes ``checkpoint`` whole or not at all; a full disk is noted in ``fault``.

        Raising here would leave the other ranks at the barrier that follows.
        """
        self.fault = None
        try:
            write_atomically(Path(path), lambda temporary: torch.save(checkpoint, temporary))
        except OSError as fault:
            self.fault = fault

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads it onto the CPU; Lightning moves what it restores."""
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Deletes the file if it is there."""
        Path(path).unlink(missing_ok=True)


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
    if not path.is_file():
        raise InputError(f"checkpoint={path} does not exist; give a run folder, a .ckpt, a .safetensors or `random`.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as fault:
        raise InputError(f"checkpoint={path} is truncated or not a safetensors file ({fault}).") from None
    if "config" not in metadata:
        raise InputError(f"checkpoint={path} has no config in its metadata; it was not written by a run of ours.")
    try:
        config: dict[str, Any] = json.loads(metadata["config"])
    except json.JSONDecodeError as fault:
        raise InputError(f"checkpoint={path} has a config in its metadata that is no JSON ({fault}).") from None
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
