"""Files are written whole or not at all, and read only if they are what was written."""

import json
import pickle
import resource
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ssl_video.utils.checkpoint import (
    AtomicCheckpointIO,
    file_digest,
    read_backbone,
    read_checkpoint,
    save_backbone,
)
from ssl_video.utils.errors import InputError
from ssl_video.utils.files import write_atomically

CONTENT: dict[str, Any] = {
    "global_step": 3,
    "state_dict": {"weight": torch.arange(100_000.0), "bias": torch.zeros(2, dtype=torch.float16)},
    "config": {"seed": 1, "names": ["a", None], "nested": {"lr": 0.1}},
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(CONTENT, path)
    return path


# --- writing ----------------------------------------------------------------------------------------------------------


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    for text in ("first", "second"):
        write_atomically(path, lambda temporary, text=text: _write(temporary, text))  # type: ignore[misc]
        assert path.read_text() == text
        assert [file.name for file in path.parent.iterdir()] == ["file"]


def _write(path: Path, text: str) -> None:
    path.write_text(text)


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("there_before", [True, False])
def test_a_fault_leaves_what_was_there_before(tmp_path: Path, there_before: bool, fault: BaseException) -> None:
    path = tmp_path / "file"
    if there_before:
        path.write_text("old")

    def half(temporary: Path) -> None:
        assert temporary.parent == path.parent, "a rename is atomic only within a file system"
        temporary.write_text("ne")
        raise fault

    with pytest.raises(type(fault)):
        write_atomically(path, half)
    assert [file.name for file in tmp_path.iterdir()] == (["file"] if there_before else [])
    if there_before:
        assert path.read_text() == "old"


def test_the_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        assert not path.exists()
        temporary.write_text("whole")

    write_atomically(path, write)
    assert path.read_text() == "whole"


def test_a_full_disk_is_noted_and_costs_nothing_that_was_there(checkpoint: Path) -> None:
    """With torch's own writer, whose fault for a full disk is of another kind than the system's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = AtomicCheckpointIO()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        writer.save_checkpoint(CONTENT | {"global_step": 4}, checkpoint)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.name for file in checkpoint.parent.iterdir()] == ["last.ckpt"]
    assert read_checkpoint(checkpoint)["global_step"] == 3
    writer.save_checkpoint(CONTENT | {"global_step": 5}, checkpoint)  # not before the fault was told
    assert read_checkpoint(checkpoint)["global_step"] == 3
    with pytest.raises(OSError, match=r"not all of it could be written; [0-9]+ MiB are free there"):
        writer.raise_fault()
    writer.raise_fault()
    writer.save_checkpoint(CONTENT | {"global_step": 5}, checkpoint)
    assert read_checkpoint(checkpoint)["global_step"] == 5


def test_what_cannot_be_written_at_all_is_no_full_disk(tmp_path: Path) -> None:
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        AtomicCheckpointIO().save_checkpoint({"state": lambda: 0}, tmp_path / "last.ckpt")
    assert not list(tmp_path.iterdir())


# --- a run's checkpoint -----------------------------------------------------------------------------------------------


def test_round_trip(checkpoint: Path) -> None:
    for content in (read_checkpoint(checkpoint), AtomicCheckpointIO().load_checkpoint(checkpoint)):
        assert content["config"] == CONTENT["config"]
        assert content["global_step"] == 3
        for name, tensor in CONTENT["state_dict"].items():
            assert content["state_dict"][name].dtype == tensor.dtype
            assert content["state_dict"][name].equal(tensor)


def test_it_loads_with_bare_torch(checkpoint: Path) -> None:
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 3


def test_it_can_be_removed_twice(checkpoint: Path) -> None:
    for _ in range(2):
        AtomicCheckpointIO().remove_checkpoint(checkpoint)
    assert not checkpoint.exists()


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as fault:
        read_checkpoint(path)
    assert str(path) in str(fault.value)
    return str(fault.value)


def test_missing(tmp_path: Path) -> None:
    assert "does not exist; give a run folder" in refusal(tmp_path / "none.ckpt")
    assert "is a folder; of a run, give its checkpoints/backbone.safetensors" in refusal(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_truncated(checkpoint: Path, share: float) -> None:
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(share * len(content))])
    assert "is truncated or not a checkpoint" in refusal(checkpoint)


def test_damaged(checkpoint: Path) -> None:
    """One bit of a tensor, which torch alone would load as another number."""
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(content)
    torch.load(checkpoint, weights_only=True)
    assert "is damaged: the checksum of" in refusal(checkpoint)


def flipped(checkpoint: Path, places: Iterable[int]) -> Iterator[dict[str, Any] | None]:
    """What is read with one byte changed, None where it is refused."""
    original = checkpoint.read_bytes()
    for place in places:
        content = bytearray(original)
        content[place] ^= 255
        checkpoint.write_bytes(content)
        try:
            yield read_checkpoint(checkpoint)
        except InputError:
            yield None
    checkpoint.write_bytes(original)


def test_any_changed_byte_of_a_record_is_noticed_or_without_effect(checkpoint: Path) -> None:
    with zipfile.ZipFile(checkpoint) as archive:
        end_of_records = archive.start_dir
    read = list(flipped(checkpoint, range(0, end_of_records, end_of_records // 150)))
    assert read.count(None) > 140
    for content in (content for content in read if content is not None):  # padding
        assert content["state_dict"]["weight"].equal(CONTENT["state_dict"]["weight"])
        assert content["config"] == CONTENT["config"]


def test_a_damaged_directory_of_the_archive_is_refused_not_a_fault(checkpoint: Path) -> None:
    """Readers of archives raise nearly anything; nothing but InputError may come out."""
    size = checkpoint.stat().st_size
    assert None in list(flipped(checkpoint, range(size - 600, size, 2)))


class _Evil:
    """Would write a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.write_text, (self.path, "code ran"))


def test_code_is_refused_and_not_run(tmp_path: Path) -> None:
    path, witness = tmp_path / "evil.ckpt", tmp_path / "witness"
    torch.save({"state_dict": {}, "extra": _Evil(witness)}, path)
    assert "holds more than tensors and plain data" in refusal(path)
    assert not witness.exists()


def test_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "foreign.ckpt"
    torch.save([torch.zeros(1)], path)
    assert "holds a list, not a run's dictionary" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "an archive of something else")
    assert "is an archive, but not a checkpoint" in refusal(path)
    path.write_bytes(pickle.dumps({"state_dict": {}}))
    assert "is truncated or not a checkpoint" in refusal(path)


# --- the backbone alone -----------------------------------------------------------------------------------------------


def test_backbone_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "backbone.safetensors"
    config = {"name": "r3d", "backbone": {"widths": [1, 2], "stem": None}, "num_frames": 8}
    state = {
        "weight": torch.randn(3, 4).T,  # not contiguous
        "count": torch.tensor(7),
        "shared": torch.zeros(2, requires_grad=True),
    }
    save_backbone(path, state, config=config)
    read, read_config = read_backbone(path)
    assert read_config == config
    assert read.keys() == state.keys()
    assert all(read[name].equal(state[name]) and read[name].dtype == state[name].dtype for name in state)
    assert [file.name for file in path.parent.iterdir()] == ["backbone.safetensors"]


def backbone_refusal(path: Path) -> str:
    with pytest.raises(InputError) as fault:
        read_backbone(path)
    assert str(path) in str(fault.value)
    return str(fault.value)


def test_backbone_files_that_are_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "backbone.safetensors"
    assert "does not exist" in backbone_refusal(path)
    save_backbone(path, {"weight": torch.zeros(100)}, config={})
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    assert "is truncated or not a safetensors file" in backbone_refusal(path)
    path.write_bytes(b"")
    assert "is truncated or not a safetensors file" in backbone_refusal(path)
    save_file({"weight": torch.zeros(2)}, path)
    assert "has no config in its metadata" in backbone_refusal(path)
    save_file({"weight": torch.zeros(2)}, path, metadata={"config": "{not json"})
    assert "is no JSON" in backbone_refusal(path)
    save_file({"weight": torch.zeros(2)}, path, metadata={"config": json.dumps({"name": "r3d"})})
    assert read_backbone(path)[1] == {"name": "r3d"}


def test_file_digest(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert file_digest(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
