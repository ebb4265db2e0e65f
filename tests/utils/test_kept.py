"""The newest intact checkpoint is found whatever was damaged, and nothing that may still be needed is removed."""

from pathlib import Path

import pytest

from ssl_video.utils.checkpoint import AtomicCheckpointIO
from ssl_video.utils.errors import InputError
from ssl_video.utils.kept import by_step, checkpoints, keep_best, keep_newest, newest_intact, set_aside


def save(folder: Path, step: int, *, number: int = 2) -> None:
    """As the callback does it."""
    AtomicCheckpointIO().save_checkpoint({"global_step": step, "rest": list(range(1000))}, folder / "last.ckpt")
    (folder / "backbone.safetensors").unlink(missing_ok=True)
    (folder / "backbone.safetensors").write_text(str(step))
    keep_newest(folder, step, number=number)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-500])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for step in (2, 9, 10):  # 9 and 10: numbers, not words
        save(tmp_path, step, number=3)
    return tmp_path


def test_the_newest_come_first_and_a_file_of_two_names_once(folder: Path) -> None:
    assert list(by_step(folder)) == [10, 9, 2]
    assert [path.name for path in checkpoints(folder)] == ["last.ckpt", "step_9.ckpt", "step_2.ckpt"]
    (folder / "step_x.ckpt").touch()
    (folder / "unused_step_11.ckpt").touch()
    assert list(by_step(folder)) == [10, 9, 2]


def test_the_newest_intact_is_taken_and_the_damaged_are_named(folder: Path) -> None:
    found = newest_intact(folder)
    assert found is not None and found.path.name == "last.ckpt" and not found.damaged
    truncate(folder / "last.ckpt")  # and with it its other name, step_10
    found = newest_intact(folder)
    assert found is not None and found.path.name == "step_9.ckpt" and found.state["global_step"] == 9
    assert len(found.damaged) == 1 and found.damaged[0].startswith(f"{folder / 'last.ckpt'} is truncated")
    content = bytearray((folder / "step_9.ckpt").read_bytes())
    content[len(content) // 3] ^= 1
    (folder / "step_9.ckpt").write_bytes(content)
    found = newest_intact(folder)
    assert found is not None and found.state["global_step"] == 2
    assert [line.split(" ")[0].split("/")[-1] for line in found.damaged] == ["last.ckpt", "step_9.ckpt"]


def test_none_at_all_and_none_that_can_be_read(folder: Path, tmp_path: Path) -> None:
    assert newest_intact(tmp_path / "new") is None
    for name in ("last.ckpt", "step_9.ckpt", "step_2.ckpt"):
        truncate(folder / name)
    with pytest.raises(InputError, match="None of this run's checkpoints can be read") as fault:
        newest_intact(folder)
    assert str(fault.value).count("is truncated") == 3


def test_a_missing_last_one_is_no_loss(folder: Path) -> None:
    (folder / "last.ckpt").unlink()
    found = newest_intact(folder)
    assert found is not None and found.path.name == "step_10.ckpt"


def test_surplus_goes_with_its_backbone(folder: Path) -> None:
    save(folder, 12, number=2)
    assert list(by_step(folder)) == [12, 10]
    assert sorted(path.name for path in folder.glob("backbone_*")) == [
        "backbone_step_10.safetensors",
        "backbone_step_12.safetensors",
    ]
    assert (folder / "backbone_step_10.safetensors").read_text() == "10"


def test_the_best_one_stays_when_its_step_goes(folder: Path) -> None:
    keep_best(folder)
    for step in (11, 12, 13):
        save(folder, step)
    assert not (folder / "step_10.ckpt").exists()
    kept = newest_intact(folder)
    assert kept is not None and kept.state["global_step"] == 13
    assert (folder / "backbone_best.safetensors").read_text() == "10"
    assert not (folder / "best.ckpt").samefile(folder / "last.ckpt")


def test_set_aside_after_damage(folder: Path) -> None:
    truncate(folder / "last.ckpt")
    assert set_aside(folder, folder / "step_9.ckpt", step=9) == ["unused_step_10.ckpt"]
    assert (folder / "last.ckpt").samefile(folder / "step_9.ckpt")
    assert list(by_step(folder)) == [9, 2]
    assert (folder / "unused_backbone_step_10.safetensors").is_file()
    found = newest_intact(folder)
    assert found is not None and found.state["global_step"] == 9 and not found.damaged


def test_set_aside_keeps_a_last_one_that_has_no_other_name(tmp_path: Path) -> None:
    save(tmp_path, 3)
    save(tmp_path, 5, number=3)
    (tmp_path / "step_5.ckpt").unlink()
    assert set_aside(tmp_path, tmp_path / "step_3.ckpt", step=3) == ["unused_last.ckpt"]
    assert (tmp_path / "last.ckpt").samefile(tmp_path / "step_3.ckpt")


def test_set_aside_changes_nothing_where_the_newest_is_resumed(folder: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    assert set_aside(folder, folder / "last.ckpt", step=10) == []
    assert set_aside(folder, folder / "step_10.ckpt", step=10) == []
    assert sorted(path.name for path in folder.iterdir()) == before
