"""Features on disk: what is not exactly as it was written is not there."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ssl_video.evaluation.cache import (
    PartFile,
    entry_key,
    files_digest,
    module_digest,
    open_entry,
    read_entry,
    write_entry,
)

DESCRIPTION = {"clips": {"order": "normal", "sizes": (1, 2)}, "seed": None}
FEATURES = torch.arange(30, dtype=torch.float32).reshape(5, 2, 3)


def written(folder: Path) -> Path:
    """An entry of five videos, from two parts."""
    parts = []
    for number, some in enumerate((FEATURES[:3], FEATURES[3:])):
        part = PartFile(folder.parent / f"part.{number}")
        for video in some:
            part.append(video[None])
        part.close()
        assert part.shape == (2, 3)
        parts.append(part.path)
    write_entry(folder, DESCRIPTION, parts, shape=(5, 2, 3), unreadable={9: "broken", 4: "gone"})
    return folder


def test_parts_come_back_in_their_order(tmp_path: Path) -> None:
    folder = written(tmp_path / "entry")
    entry = read_entry(folder, DESCRIPTION)
    assert entry is not None
    assert entry.features.equal(FEATURES)
    assert entry.unreadable == {4: "gone", 9: "broken"}
    assert np.load(folder / "features.npy").dtype == np.float32, "any NumPy reads it"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["entry", "part.0", "part.1"], "nothing temporary stays"


def test_writing_to_what_was_opened_does_not_reach_the_file(tmp_path: Path) -> None:
    folder = written(tmp_path / "entry")
    open_entry(folder).features.zero_()
    assert open_entry(folder).features.equal(FEATURES)


def test_what_is_open_survives_its_file(tmp_path: Path) -> None:
    folder = written(tmp_path / "entry")
    features = open_entry(folder).features
    (folder / "features.npy").unlink()
    assert features.equal(FEATURES)


def truncate(folder: Path) -> None:
    file = folder / "features.npy"
    file.write_bytes(file.read_bytes()[:-4])


def flip_a_bit(folder: Path) -> None:
    file = folder / "features.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def describe_otherwise(folder: Path) -> None:
    file = folder / "entry.json"
    content = json.loads(file.read_text())
    content["description"]["seed"] = 1
    file.write_text(json.dumps(content))


def cut_the_description(folder: Path) -> None:
    (folder / "entry.json").write_text((folder / "entry.json").read_text()[:-20])


def forget_the_digest(folder: Path) -> None:
    (folder / "entry.json").write_text(json.dumps({"description": {}, "bytes": 1}))


def list_for_an_entry(folder: Path) -> None:
    (folder / "entry.json").write_text("[]")


@pytest.mark.parametrize(
    "harm",
    [
        *(truncate, flip_a_bit, describe_otherwise, cut_the_description, forget_the_digest, list_for_an_entry),
        lambda folder: (folder / "features.npy").unlink(),
        lambda folder: (folder / "entry.json").unlink(),
    ],
)
def test_a_harmed_entry_is_not_there_and_can_be_made_anew(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    folder = written(tmp_path / "entry")
    harm(folder)
    assert read_entry(folder, DESCRIPTION) is None
    assert read_entry(written(folder), DESCRIPTION) is not None


def test_a_part_that_is_not_whole_leaves_no_entry(tmp_path: Path) -> None:
    folder = written(tmp_path / "entry")
    parts = [tmp_path / "part.0"]
    with pytest.raises(RuntimeError, match="a part is not whole"):
        write_entry(folder, {"other": 1}, parts, shape=(5, 2, 3), unreadable={})
    assert read_entry(folder, DESCRIPTION) is not None, "what was there stays"


def test_no_videos_are_an_entry_too(tmp_path: Path) -> None:
    write_entry(tmp_path / "entry", {}, [], shape=(0, 2, 3), unreadable={0: "broken"})
    entry = read_entry(tmp_path / "entry", {})
    assert entry is not None
    assert entry.features.shape == (0, 2, 3)


def test_videos_of_another_shape_are_refused(tmp_path: Path) -> None:
    part = PartFile(tmp_path / "part")
    part.append(FEATURES)
    with pytest.raises(ValueError, match=r"features of \(2, 2\) must have the \(2, 3\)"):
        part.append(FEATURES[:, :, :2])
    part.close()


def test_the_key_follows_from_the_description_not_from_its_order() -> None:
    assert entry_key({"a": 1, "b": [1, None]}) == entry_key({"b": [1, None], "a": 1})
    assert entry_key({"a": 1}) != entry_key({"a": 2})


# --- digests ----------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """Weights, a number that no weight shows, and a buffer that its state leaves out."""

    def __init__(self, *, stride: int = 1, shift: float = 0.0) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, stride=stride)
        nn.init.constant_(self.layer.weight, 0.5)
        nn.init.zeros_(self.layer.bias)  # type: ignore[arg-type]
        self.norm = nn.BatchNorm2d(1)
        self.places = (1, 2)
        self.register_buffer("shift", torch.tensor(shift), persistent=False)


def test_equal_networks_have_one_digest() -> None:
    own = module_digest(Net())
    assert module_digest(Net()) == own
    assert module_digest(Net().eval()) == own
    channels_last = Net()
    channels_last.layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert module_digest(channels_last) == own


def change_a_weight(net: Net) -> None:
    with torch.no_grad():
        net.layer.weight[0, 0, 0, 0] += 1e-7


def change_statistics(net: Net) -> None:
    assert net.norm.running_mean is not None
    net.norm.running_mean += 1e-7


@pytest.mark.parametrize(
    "change",
    [
        *(change_a_weight, change_statistics, lambda net: net.half()),
        lambda net: setattr(net, "places", (2, 1)),
        lambda net: net.shift.add_(1.0),
        lambda net: setattr(net, "layer", nn.Identity()),
    ],
)
def test_whatever_changes_the_output_changes_the_digest(change: Callable[[Net], None]) -> None:
    net = Net()
    change(net)
    assert module_digest(net) != module_digest(Net())
    assert module_digest(Net(stride=2)) != module_digest(Net())


def test_digest_of_files_follows_from_their_contents(tmp_path: Path) -> None:
    for name, text in (("a", "1"), ("b", "2"), ("c", "12")):
        (tmp_path / name).write_text(text)
    a, b, c = (tmp_path / name for name in "abc")
    assert files_digest([a, b]) != files_digest([b, a])
    assert files_digest([a, b]) != files_digest([c])
