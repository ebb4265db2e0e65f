"""Small data sets laid out as the real ones are distributed: their annotation files, and videos of numbered frames."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from support.videos import MPEG4, VP8, numbered_frame, write_video

SIZE = {"height": 40, "width": 48}


def write(file: Path, text: str) -> Path:
    """Writes a text file and the folders above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def write_json(file: Path, content: Any) -> Path:
    """Writes a JSON file and the folders above it."""
    return write(file, json.dumps(content))


# --- Kinetics ---------------------------------------------------------------------------------------------------------

KINETICS_TRAIN = [
    ("abseiling", "aaaaaaaaaaa", 10, 20),
    ("abseiling", "bb-bb_bbbbb", 0, 10),
    ("petting animal (not cat)", "ccccccccccc", 103, 113),
    ("petting animal (not cat)", "ccccccccccc", 120, 130),  # of the same YouTube video
]
KINETICS_VAL = [("abseiling", "ddddddddddd", 7, 17), ("petting animal (not cat)", "eeeeeeeeeee", 1, 11)]


def kinetics_csv(rows: Sequence[tuple[str, str, int, int]], *, split: str, last: str = "") -> str:
    """A CSV as the official ones."""
    lines = [f'"{label}",{name},{start},{end},{split}' for label, name, start, end in rows]
    return "\n".join(["label,youtube_id,time_start,time_end,split", *lines, *([last] if last else [])]) + "\n"


def make_kinetics(root: Path, *, layout: str = "{split}/{label}/{clip}.mp4", num_frames: int = 24) -> Path:
    """annotations/{train,val}.csv and videos by a layout of {split}, {label}, {clip} and {id}."""
    for split, rows in (("train", KINETICS_TRAIN), ("val", KINETICS_VAL)):
        write(root / "annotations" / f"{split}.csv", kinetics_csv(rows, split=split))
        for label, name, start, end in rows:
            path = layout.format(split=split, label=label, clip=f"{name}_{start:06d}_{end:06d}", id=name)
            write_video(root / path, num_frames=num_frames, encoding=MPEG4, **SIZE)
    return root


# --- Something-Something V2 -------------------------------------------------------------------------------------------

SOMETHING_CLASSES = {"Holding something next to something": "0", "Poking a stack of something so it falls": "1"}
SOMETHING = {
    "train": [
        ("78687", "Holding [something] next to [something]"),
        ("42326", "Poking a stack of [something] so it falls"),
    ],
    "validation": [
        ("74225", "Holding [something] next to [something]"),
        ("116154", "Holding [something] next to [something]"),
    ],
}
PREFIX = "something-something-v2-"


def make_something_something(root: Path, *, prefix: str = PREFIX, folder: str = "labels") -> Path:
    """20bn-something-something-v2/<id>.webm and the JSON files."""
    write_json(root / folder / f"{prefix}labels.json", SOMETHING_CLASSES)
    write_json(root / folder / f"{prefix}test.json", [{"id": "151225"}])
    for part, rows in SOMETHING.items():
        entries = [{"id": name, "label": "as told", "template": template} for name, template in rows]
        write_json(root / folder / f"{prefix}{part}.json", entries)
        for name, _ in rows:
            write_video(root / "20bn-something-something-v2" / f"{name}.webm", num_frames=24, encoding=VP8, **SIZE)
    return root


# --- Jester -----------------------------------------------------------------------------------------------------------

JESTER = {"train": [("34870", "Drumming Fingers"), ("56557", "No gesture")], "validation": [("9223", "No gesture")]}


def make_jester(root: Path, *, num_frames: int = 20) -> Path:
    """20bn-jester-v1/<id>/00001.jpg and so on, and the CSVs."""
    write(root / "jester-v1-labels.csv", "Drumming Fingers\nNo gesture\n")
    write(root / "jester-v1-test.csv", "56500\n")
    for part, rows in JESTER.items():
        write(root / f"jester-v1-{part}.csv", "".join(f"{name};{label}\n" for name, label in rows))
        for name, _ in rows:
            folder = root / "20bn-jester-v1" / name
            folder.mkdir(parents=True)
            for number in range(num_frames):
                Image.fromarray(numbered_frame(number, **SIZE)).save(folder / f"{number + 1:05d}.jpg", quality=95)
    return root


# --- Diving48 ---------------------------------------------------------------------------------------------------------

DIVING_CLASSES = [["Back", "15som", "05Twis", "FREE"], ["Forward", "25som", "NoTwis", "PIKE"]]
DIVING = {"train": [("8Vy_3dlHg2w_00000", 0), ("8Vy_3dlHg2w_00001", 1)], "test": [("-mBreTXGAFQ_00000", 1)]}


def make_diving48(root: Path) -> Path:
    """rgb/<name>.mp4 and the JSON files."""
    write_json(root / "Diving48_vocab.json", DIVING_CLASSES)
    for part, rows in DIVING.items():
        entries = [{"vid_name": name, "label": label, "start_frame": 0, "end_frame": 24} for name, label in rows]
        write_json(root / f"Diving48_V2_{part}.json", entries)
        for name, _ in rows:
            write_video(root / "rgb" / f"{name}.mp4", num_frames=24, encoding=MPEG4, **SIZE)
    return root


# --- Charades-Ego -----------------------------------------------------------------------------------------------------

CHARADES_CLASSES = "c000 Holding some clothes\nc092 Watching/looking outside of a window\nc106 Drinking from a cup\n"
CHARADES: Mapping[str, Sequence[tuple[str, str, str, str]]] = {
    "train": [
        ("0A8CF", "C2EN", "No", "c092 1.20 2.80;c106 1.20 4.00;c092 3.00 9.90"),
        ("0A8CFEGO", "C2EN", "Yes", "c106 0.00 2.00"),
        ("YSKX3", "CP6Y", "No", ""),
    ],
    "test": [("T5ECUEGO", "M7K8", "Yes", "c000 0.40 3.60")],
}


def charades_csv(rows: Sequence[tuple[str, str, str, str]]) -> str:
    """A CSV with the columns that are read, and one whose cells hold commas."""
    lines = [f'{name},{subject},"A person, sitting.",{actions},4.00,{ego}' for name, subject, ego, actions in rows]
    return "\n".join(["id,subject,script,actions,length,egocentric", *lines]) + "\n"


def make_charades_ego(root: Path) -> Path:
    """CharadesEgo_v1_480/<id>.mp4 of four seconds, and CharadesEgo/ with the CSVs."""
    write(root / "CharadesEgo" / "Charades_v1_classes.txt", CHARADES_CLASSES)
    for part, rows in CHARADES.items():
        write(root / "CharadesEgo" / f"CharadesEgo_v1_{part}.csv", charades_csv(rows))
        for name, *_ in rows:
            write_video(root / "CharadesEgo_v1_480" / f"{name}.mp4", num_frames=40, fps=10, encoding=MPEG4, **SIZE)
    return root
