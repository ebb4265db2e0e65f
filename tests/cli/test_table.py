"""The table of results: means over runs, random rows beside, missing cells empty."""

import json
from pathlib import Path

import pytest

from ssl_video.cli.main import main


def write(
    folder: Path, *, method: str, protocol: str, metrics: dict[str, float], random: dict[str, float], data: str = "a"
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"choices": {"method": method}}))
    result = folder / "evaluations" / f"{protocol}_folder"
    result.mkdir(parents=True)
    report = {
        "protocol": protocol,
        "dataset": "folder",
        "manifest_hash": data * 8,
        "label": "label",
        "metrics": metrics,
    }
    (result / "metrics.json").write_text(json.dumps(report | {"baselines": {"random": random}}))


def test_rows_are_means_over_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, (top1, chance) in enumerate([(0.5, 0.1), (0.7, 0.3)]):
        write(tmp_path / f"{seed}", method="moco", protocol="knn", metrics={"top1": top1}, random={"top1": chance})
    write(tmp_path / "v", method="vcop", protocol="retrieval", metrics={"recall_at_1": 1.0}, random={})
    assert main(["table", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| data (label) | method | runs | knn top1 | retrieval recall at 1 |"
    assert lines[2:] == [
        "| folder aaaaaa (label) | moco | 2 | 60.0 ± 14.1 |  |",
        "| folder aaaaaa (label) | moco, random | 2 | 20.0 ± 14.1 |  |",
        "| folder aaaaaa (label) | vcop | 1 |  | 100.0 |",
    ]


def test_nothing_to_show_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", str(tmp_path)]) == 2
    assert "There is no metrics.json below" in capsys.readouterr().out


def test_two_data_sets_of_one_name_are_not_pooled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for data in "ab":
        write(tmp_path / data, method="moco", protocol="knn", metrics={"top1": 0.5}, random={}, data=data)
    assert main(["table", str(tmp_path)]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == ["| folder aaaaaa (label)", "| folder bbbbbb (label)"]
