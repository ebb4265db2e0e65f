"""Data sets become manifests on first use, are kept in the cache, and are indexed again only where files changed."""

import csv
import functools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from ssl_video.cli import train
from ssl_video.cli.parts import build_datamodule
from ssl_video.data import index, sources
from ssl_video.utils.config import build
from ssl_video.utils.errors import InputError
from support import archives
from support.archives import KINETICS_TRAIN, KINETICS_VAL
from support.folders import SMALL, numbered_folder, read_metrics
from support.methods import compose_train
from support.videos import MPEG4, write_video

TINY_SHAPES: dict[str, Any] = {"num_videos": 8, "size": 32, "num_frames": 12}  # eight are made without processes


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are looked into."""
    names: list[str] = []
    original = index.probe_all

    def recorded(paths: Any, **rest: Any) -> Any:
        names.extend(path.name for path in paths)
        return original(paths, **rest)

    monkeypatch.setattr(index, "probe_all", recorded)
    return names


# --- any folder -------------------------------------------------------------------------------------------------------


def test_only_what_changed_is_looked_into_again(tmp_path: Path, probed: list[str]) -> None:
    root, cache = numbered_folder(tmp_path / "videos", videos=4), tmp_path / "cache"
    load = functools.partial(sources.folder, root=root, labels=None, cache_dir=cache)
    first = load()
    assert sorted(probed) == [f"video_{number:02d}.mp4" for number in range(4)]
    probed.clear()
    assert load().table == first.table
    assert probed == []
    write_video(root / "video_01.mp4", num_frames=9)
    write_video(root / "video_99.mp4", num_frames=7)
    (root / "video_02.mp4").unlink()
    changed = load()
    assert sorted(probed) == ["video_01.mp4", "video_99.mp4"]
    assert changed.column("path") == ["video_00.mp4", "video_01.mp4", "video_03.mp4", "video_99.mp4"]
    assert changed.column("num_frames") == [30, 9, 30, 7]
    assert changed.content_hash() != first.content_hash()


def test_a_file_of_another_time_is_looked_into_again_and_the_hash_stays(tmp_path: Path, probed: list[str]) -> None:
    root = numbered_folder(tmp_path / "videos", videos=2)
    load = functools.partial(sources.folder, root=root, labels=None, cache_dir=tmp_path / "cache")
    before = load().content_hash()
    probed.clear()
    os.utime(root / "video_00.mp4", (1, 1))
    assert load().content_hash() == before
    assert probed == ["video_00.mp4"]


def test_the_manifest_lies_in_the_cache_and_the_data_is_left_alone(tmp_path: Path) -> None:
    root, cache = numbered_folder(tmp_path / "videos", videos=2), tmp_path / "cache"
    before = sorted(root.rglob("*"))
    sources.folder(root=root, labels=None, cache_dir=cache)
    assert sorted(root.rglob("*")) == before
    assert len(list((cache / "manifests").glob("*.parquet"))) == 1
    other = numbered_folder(tmp_path / "other", videos=1)
    assert len(sources.folder(root=other, labels=None, cache_dir=cache)) == 1
    assert len(sources.folder(root=root, labels=None, cache_dir=cache)) == 2


def test_changed_labels_are_seen(tmp_path: Path, probed: list[str]) -> None:
    root = numbered_folder(tmp_path / "videos", videos=2)
    labels = tmp_path / "labels.csv"
    load = functools.partial(sources.folder, root=root, labels=labels, cache_dir=tmp_path / "cache")
    labels.write_text("path,label\nvideo_00.mp4,a\nvideo_01.mp4,b\n")
    assert load().labels("label") == ["a", "b"]
    probed.clear()
    labels.write_text("path,label,split\nvideo_00.mp4,b,train\nvideo_01.mp4,a,test\n")
    changed = load()
    assert changed.labels("label") == ["b", "a"]
    assert changed.column("split") == ["train", "test"]
    assert probed == [], "the files are the same"


def test_folders_of_images_are_videos_where_asked(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "videos" / "clip"
    folder.mkdir(parents=True)
    for number in range(5):
        Image.fromarray(np.full((16, 16, 3), 40 * number, dtype=np.uint8)).save(folder / f"{number:03d}.png")
    arguments: dict[str, Any] = {"root": tmp_path / "videos", "labels": None, "cache_dir": tmp_path / "cache"}
    manifest = sources.folder(**arguments, images=True)
    assert (manifest.column("path"), manifest.column("num_frames")) == (["clip"], [5])
    with pytest.raises(InputError, match="holds no videos"):
        sources.folder(**arguments)


def test_a_root_is_needed(tmp_path: Path) -> None:
    for name in ("folder", "ucf101", "hmdb51", "something_something_v2", "jester", "diving48", "charades_ego"):
        load = getattr(sources, name)
        with pytest.raises(InputError, match=f"dataset={name} needs dataset.root=DIR"):
            load(root=None, labels=None, cache_dir=tmp_path)
        with pytest.raises(InputError, match="is not a folder"):
            load(root=tmp_path / "none", labels=None, cache_dir=tmp_path)


def test_a_root_is_needed_of_each_edition_of_kinetics(tmp_path: Path) -> None:
    for edition in (400, 600, 700):
        with pytest.raises(InputError, match=f"dataset=kinetics{edition} needs dataset.root=DIR"):
            sources.kinetics(root=None, labels=None, cache_dir=tmp_path, num_classes=edition)


@pytest.mark.parametrize("name", ["ucf101", "hmdb51", "moving_shapes", "kinetics100", "jester", "charades_ego"])
def test_data_sets_with_labels_of_their_own_refuse_a_csv(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} brings its own labels; use dataset=folder"):
        getattr(sources, name)(root=tmp_path, labels=tmp_path / "labels.csv", cache_dir=tmp_path)


# --- UCF101 and HMDB51, laid out as they are distributed --------------------------------------------------------------


def make_ucf101(root: Path) -> Path:
    """UCF-101/<Class>/v_<Class>_gXX_cYY.avi and ucfTrainTestlist/: three train and one test group of two classes."""
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    classes = ("ApplyEyeMakeup", "Archery")
    (lists / "classInd.txt").write_bytes(b"".join(f"{n} {c}\r\n".encode() for n, c in enumerate(classes, start=1)))
    for split in (1, 2, 3):
        train_lines, test_lines = [], []
        for number, name in enumerate(classes, start=1):
            for group in (1, 2, 3, 4):
                line = f"{name}/v_{name}_g{group:02d}_c01.avi"
                write_video(root / "UCF-101" / line, num_frames=24, height=40, width=48, encoding=MPEG4)
                if group == split:
                    test_lines.append(f"{line}\r\n")
                else:
                    train_lines.append(f"{line} {number}\r\n")
        (lists / f"trainlist{split:02d}.txt").write_bytes("".join(train_lines).encode())
        (lists / f"testlist{split:02d}.txt").write_bytes("".join(test_lines).encode())
    return root


def make_hmdb51(root: Path) -> Path:
    """hmdb51_org/<class>/*.avi and testTrainMulti_7030_splits/: four train, one test and one unused clip per class."""
    lists = root / "testTrainMulti_7030_splits"
    lists.mkdir(parents=True)
    for name in ("brush_hair", "wave"):
        lines = []
        for number, tag in enumerate((1, 1, 1, 1, 2, 0)):
            clip = f"Film_{number}_{name}_u_nm_np1_ba_goo_0.avi"
            write_video(root / "hmdb51_org" / name / clip, num_frames=24, height=40, width=48, encoding=MPEG4)
            lines.append(f"{clip} {tag} \n")
        for split in (1, 2, 3):
            (lists / f"{name}_test_split{split}.txt").write_text("".join(lines))
    return root


def split_counts(manifest: Any) -> dict[str, int]:
    values = manifest.column("split")
    return {split: values.count(split) for split in sorted(set(values))}


def test_ucf101(tmp_path: Path, probed: list[str]) -> None:
    root = make_ucf101(tmp_path / "UCF101")
    load = functools.partial(sources.ucf101, root=root, labels=None, cache_dir=tmp_path / "cache")
    manifest = load()
    assert manifest.status_counts() == {"ok": 8}
    assert split_counts(manifest) == {"test": 2, "train": 6}
    assert manifest.column("num_frames") == [24] * 8
    by_path = dict(zip(manifest.column("path"), manifest.labels("label"), strict=True))
    assert by_path["UCF-101/Archery/v_Archery_g01_c01.avi"] == "Archery"
    probed.clear()
    assert load().table == manifest.table
    assert probed == []
    second = load(split=2)
    tests = [p for p, s in zip(second.column("path"), second.column("split"), strict=True) if s == "test"]
    assert all("_g02_" in path for path in tests) and len(tests) == 2
    assert load().table == manifest.table, "each split has a manifest of its own"


def test_hmdb51(tmp_path: Path) -> None:
    root = make_hmdb51(tmp_path / "HMDB51")
    manifest = sources.hmdb51(root=root, labels=None, cache_dir=tmp_path / "cache")
    assert manifest.status_counts() == {"ok": 10}
    assert split_counts(manifest) == {"test": 2, "train": 8}
    assert sorted(set(manifest.labels("label"))) == ["brush_hair", "wave"]


@pytest.mark.parametrize(("name", "make", "used"), [("ucf101", make_ucf101, 6), ("hmdb51", make_hmdb51, 8)])
def test_they_train_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, make: Any, used: int
) -> None:
    monkeypatch.chdir(tmp_path)
    root = make(tmp_path / "data")
    words = [f"dataset={name}", f"dataset.root={root}", "trainer.max_steps=2", "run_dir=run", *SMALL]
    assert train.main(words) == 0
    rows = read_metrics(Path("run"))
    assert len(rows) == 2
    assert all(np.isfinite(float(row["train/loss"])) for row in rows)
    table = pq.read_table("run/videos.parquet")
    assert table.num_rows == used
    assert set(table["split"].to_pylist()) == {"train"}, "the test part is not trained on"


# --- data sets with annotation files of other kinds -------------------------------------------------------------------


def lists_of_kinetics100(folder: Path) -> list[str]:
    words = []
    for split, rows in (("train", KINETICS_TRAIN), ("val", KINETICS_VAL)):
        lines = [
            f"{split.capitalize()}/{label}/{name}_{start:06d}_{end:06d}.mp4*{label == 'abseiling':d}"
            for label, name, start, end in rows
        ]
        words.append(f"dataset.source.{split}_list={archives.write(folder / f'{split}.lst', chr(10).join(lines))}")
    return words


def lists_of_mini(folder: Path) -> list[str]:
    files = (
        archives.write(folder / "train.txt", "78687\n42326\n"),
        archives.write(folder / "val.txt", "74225\n116154\n"),
    )
    return [f"dataset.source.train_list={files[0]}", f"dataset.source.val_list={files[1]}"]


@pytest.mark.parametrize(
    ("name", "make", "more", "used"),
    [
        ("kinetics400", archives.make_kinetics, None, 4),
        ("kinetics600", archives.make_kinetics, None, 4),
        ("kinetics700", archives.make_kinetics, None, 4),
        ("kinetics100", archives.make_kinetics, lists_of_kinetics100, 4),
        ("something_something_v2", archives.make_something_something, None, 2),
        ("something_something_v2_mini", archives.make_something_something, lists_of_mini, 2),
        ("jester", archives.make_jester, None, 2),
        ("diving48", archives.make_diving48, None, 2),
        ("charades_ego", archives.make_charades_ego, None, 5),
    ],
)
def test_presets_give_batches(tmp_path: Path, name: str, make: Any, more: Any, used: int) -> None:
    """From the command line's words to pixels: reader, parser and layout fit each other."""
    root = make(tmp_path / "data")
    config = compose_train(
        f"dataset={name}",
        f"dataset.root={root}",
        f"cache_dir={tmp_path / 'cache'}",
        "batch_size=2",
        *(more(tmp_path) if more else []),
        *(word for word in SMALL if not word.startswith(("batch_size", "method"))),
    )
    datamodule = build_datamodule(config, sampler=build(config.sampler), transform=build(config.transform))
    assert len(datamodule.train_rows()) == used
    batch = next(iter(datamodule.training_loader(1)))
    assert batch.clips.shape == (2, 2, 3, 4, 32, 32)
    assert not batch.failures
    assert len(datamodule.class_names) >= 1


def test_annotations_make_manifests_of_their_own(tmp_path: Path, probed: list[str]) -> None:
    root = archives.make_charades_ego(tmp_path / "data")
    load = functools.partial(sources.charades_ego, root=root, labels=None, cache_dir=tmp_path / "cache")
    assert len(load()) == 6
    assert sorted(probed) == ["0A8CF.mp4", "0A8CFEGO.mp4", "T5ECUEGO.mp4", "YSKX3.mp4"], "each file once"
    assert len(load(whole_videos=True)) == 4
    probed.clear()
    assert len(load()) == 6
    assert probed == []


def test_missing_videos_of_a_list_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    root = make_ucf101(tmp_path / "data")
    (root / "UCF-101" / "Archery" / "v_Archery_g02_c01.avi").unlink()
    assert train.main(["dataset=ucf101", f"dataset.root={root}", "trainer.max_steps=2", *SMALL]) == 2
    message = capsys.readouterr().err
    assert "1 of 8 videos of ucf101 are missing or cannot be read" in message
    assert "UCF-101/Archery/v_Archery_g02_c01.avi: missing" in message


# --- the embedded data set --------------------------------------------------------------------------------------------


def test_moving_shapes_are_made_once_and_taken_from_the_cache(tmp_path: Path, probed: list[str]) -> None:
    load = functools.partial(sources.moving_shapes, root=None, labels=None, cache_dir=tmp_path, **TINY_SHAPES)
    first = load()
    made = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    assert len([file for file in made if file.suffix == ".mp4"]) == len(first) == 8
    assert first.label_columns == ["motion", "appearance"]
    assert first.column("num_frames") == [12] * 8
    assert first.column("path")[0].startswith("videos/")
    probed.clear()
    again = load()
    assert probed == []
    assert again.content_hash() == first.content_hash()
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()} == made


def test_other_arguments_make_another_data_set(tmp_path: Path) -> None:
    load = functools.partial(sources.moving_shapes, root=None, labels=None, cache_dir=tmp_path)
    first, second = load(**TINY_SHAPES), load(**TINY_SHAPES, seed=1)
    assert first.root != second.root
    assert len(list((tmp_path / "moving_shapes").iterdir())) == 2


def test_moving_shapes_may_lie_in_a_folder_of_the_users_choice(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    manifest = sources.moving_shapes(root=root, labels=None, cache_dir=tmp_path / "cache", **TINY_SHAPES)
    with (root / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert manifest.root == root
    assert manifest.labels("motion") == [row["motion"] for row in rows]
    assert manifest.column("split") == [row["split"] for row in rows]
