"""The demo: the commands it runs, its table and its picture; training and evaluation are stand-ins here."""

import csv
import json
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest

from ssl_video.cli import demo, main

Printed = pytest.CaptureFixture[str]

TABLE = {
    "random": {"motion knn": [0.125, 0.25], "appearance knn": [0.5, 0.5]},
    "pre-trained": {"motion knn": [0.5, 0.75], "appearance knn": [1.0, 0.5]},
}


def values(command: list[str]) -> dict[str, str]:
    return dict(text.split("=", 1) for text in command)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, dict[str, str]]]:
    """Commands in the order in which they were run; each leaves the file that the demo reads."""
    monkeypatch.chdir(tmp_path)
    commands: list[tuple[str, dict[str, str]]] = []

    def train(command: list[str]) -> int:
        given = values(command)
        commands.append(("train", given))
        folder = Path(given["run_dir"])
        folder.mkdir(parents=True)
        with (folder / "metrics.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([["epoch", "step", "train/loss"], *([0, step, 3 / (step + 1)] for step in range(5))])
        return 0

    def evaluate(command: list[str]) -> int:
        given = values(command)
        commands.append(("evaluate", given))
        folder = Path(given["run_dir"])
        folder.mkdir(parents=True)
        result: dict[str, Any] = {
            "label": given["dataset.label"],
            "protocol": given["evaluation"],
            "metrics": {"top1": 0.5 + 0.25 * int(given["seed"])},
            "baselines": {"random": {"top1": 0.125}},
        }
        (folder / "metrics.json").write_text(json.dumps(result))
        return 0

    monkeypatch.setattr(demo.train, "main", train)
    monkeypatch.setattr(demo.evaluate, "main", evaluate)
    return commands


def check_picture(path: Path) -> None:
    """A picture of some size with more than one colour in each half."""
    picture = matplotlib.image.imread(path)
    height, width = picture.shape[:2]
    assert height > 300 and width > 900
    for half in (picture[:, : width // 2], picture[:, width // 2 :]):
        assert half.std() > 0.05


def test_commands_table_and_picture(ran: list[tuple[str, dict[str, str]]], capsys: Printed) -> None:
    assert demo.main(["--seeds", "2", "--folder", "here", "trainer.max_steps=5"]) == 0
    assert [name for name, _ in ran] == (["train"] + ["evaluate"] * 4) * 2
    assert ran[0][1] == {"seed": "0", "run_dir": "here/seed_0", "trainer.max_steps": "5"}
    asked = [(given["dataset.label"], given["evaluation"], given["seed"]) for name, given in ran if name == "evaluate"]
    assert asked == [
        (label, protocol, seed)
        for seed in ("0", "1")
        for label in ("motion", "appearance")
        for protocol in ("knn", "linear_probe")
    ]
    assert {given["checkpoint"] for name, given in ran if name == "evaluate"} == {"here/seed_0", "here/seed_1"}
    assert all("trainer.max_steps" not in given for name, given in ran if name == "evaluate")
    table = json.loads(Path("here/table.json").read_text())
    assert table["seeds"] == 2
    assert table["top1"]["pre-trained"]["motion knn"] == [0.5, 0.75]
    assert table["top1"]["random"]["appearance linear_probe"] == [0.125, 0.125]
    printed = capsys.readouterr().out
    assert "$ python train.py seed=0 run_dir=here/seed_0 trainer.max_steps=5" in printed
    assert demo.format_table(table["top1"], seeds=2) in printed
    assert "Picture:    here/demo.png" in printed
    check_picture(Path("here/demo.png"))


def test_default_folder_is_named_by_the_time(ran: list[tuple[str, dict[str, str]]]) -> None:
    assert main.main(["demo"]) == 0
    assert len(ran) == 5
    (folder,) = Path("outputs/demo").iterdir()
    assert {"seed_0", "table.json", "demo.png"} == {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(("failing", "commands"), [("train", 0), ("evaluate", 1)])
def test_a_command_that_fails_ends_the_demo_with_its_code(
    ran: list[tuple[str, dict[str, str]]], monkeypatch: pytest.MonkeyPatch, failing: str, commands: int
) -> None:
    monkeypatch.setattr(getattr(demo, failing), "main", lambda command: 2)
    assert demo.main(["--folder", "here"]) == 2
    assert len(ran) == commands
    assert not Path("here/demo.png").exists()


def test_table_of_one_seed_and_of_several() -> None:
    one = {row: {column: cell[:1] for column, cell in cells.items()} for row, cells in TABLE.items()}
    assert demo.format_table(one, seeds=1).splitlines() == [
        "top-1 accuracy on held-out videos, %, 1 seed",
        "backbone          motion knn  appearance knn",
        "random                  12.5            50.0",
        "pre-trained             50.0           100.0",
    ]
    lines = demo.format_table(TABLE, seeds=2).splitlines()
    assert lines[0].endswith("2 seeds")
    assert lines[2].split()[1:] == ["18.8", "±", "8.8", "50.0", "±", "0.0"]
    assert lines[3].split()[1:] == ["62.5", "±", "17.7", "75.0", "±", "35.4"]


def test_picture_from_made_up_numbers(tmp_path: Path) -> None:
    curves = []
    for seed in range(2):
        curves.append(tmp_path / f"{seed}.csv")
        rows = "".join(f"0,{step},{1 / (step + 1 + seed)}\n" for step in range(20))
        curves[-1].write_text(f"epoch,step,train/loss\n{rows}")
    demo._draw(tmp_path / "folder" / "demo.png", TABLE, curves)
    check_picture(tmp_path / "folder" / "demo.png")
