"""The table of results: one value per network, means over runs, random rows beside, missing cells empty."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ssl_video.cli.main import main

Printed = pytest.CaptureFixture[str]


def result(top1: float | None = None, **changes: Any) -> dict[str, Any]:
    base = {
        "protocol": "knn",
        "protocol_version": 1,
        "variant": "default",
        "dataset": "folder",
        "manifest_hash": "a" * 64,
        "label": "label",
        "split": "test",
        "backbone": "r3d_tiny",
        "metrics": {} if top1 is None else {"top1": top1},
        "baselines": {},
    }
    return base | changes


def scorecard(*results: dict[str, Any]) -> dict[str, Any]:
    return result(protocol="scorecard", results={own["protocol"]: own for own in results})


def beside_random(seed: int, top1: float) -> dict[str, Any]:
    return {"baselines": {"random": {"top1": top1}}, "baseline_checkpoints": {"random": f"random seed:{seed}"}}


def write_run(folder: Path, method: str = "moco") -> Path:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"choices": {"method": method}}))
    return folder


def write(folder: Path, content: object, *, age: int = 0) -> Path:
    """Write a result that is so many seconds old."""
    folder.mkdir(parents=True)
    file = folder / "metrics.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    os.utime(file, (1_000_000 - age, 1_000_000 - age))
    return file


def rows(folder: Path, printed: Printed) -> tuple[dict[str, list[str]], str]:
    """What the table says below a folder, by method, and what is on stderr."""
    assert main(["table", str(folder)]) == 0
    told = printed.readouterr()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in told.out.splitlines()[2:]]
    assert len({tuple(row[:2]) for row in cells}) == len(cells)
    return {row[1]: row[2:] for row in cells}, told.err


def test_rows_are_means_over_runs(tmp_path: Path, capsys: Printed) -> None:
    for seed, (top1, chance) in enumerate([(0.5, 0.1), (0.7, 0.3)]):
        run = write_run(tmp_path / f"{seed}")
        write(run / "evaluations" / "knn_folder", result(top1, baselines={"random": {"top1": chance}}))
    run = write_run(tmp_path / "v", "vcop")
    write(run / "evaluations" / "retrieval_folder", result(protocol="retrieval", metrics={"recall_at_1": 1.0}))
    assert main(["table", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0] == "| data (label) | method | runs | knn top1 | retrieval recall at 1 |"
    assert lines[2:] == [
        "| folder aaaaaa (label) | moco | 2 | 60.0 ± 14.1 |  |",
        "| folder aaaaaa (label) | moco, random | 2 | 20.0 ± 14.1 |  |",
        "| folder aaaaaa (label) | vcop | 1 |  | 100.0 |",
    ]
    assert printed.err == ""


def test_two_data_sets_of_one_name_and_two_splits_are_not_pooled(tmp_path: Path, capsys: Printed) -> None:
    for data in "ab":
        run = write_run(tmp_path / data)
        write(run / "evaluations" / "knn_folder", result(0.5, manifest_hash=data * 64))
    write(run / "evaluations" / "knn_folder_2", result(0.5, manifest_hash="b" * 64, split="val"))
    assert main(["table", str(tmp_path)]) == 0
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [(line[0], line[2]) for line in lines] == [
        ("| folder aaaaaa (label)", "1"),
        ("| folder bbbbbb (label)", "1"),
        ("| folder bbbbbb (label, val)", "1"),
    ]


# --- methods ----------------------------------------------------------------------------------------------------------


def test_only_random_weights_are_the_random_row(tmp_path: Path, capsys: Printed) -> None:
    write(tmp_path / "random", result(0.1, checkpoint="random seed:0", **beside_random(0, 0.1)))
    write(tmp_path / "foreign", result(0.9, checkpoint="kinetics.pth sha256:" + "f" * 64))
    found, _ = rows(tmp_path, capsys)
    assert found == {"random": ["1", "10.0"], "kinetics.pth": ["1", "90.0"]}


def test_random_weights_below_a_run_are_not_its_method(tmp_path: Path, capsys: Printed) -> None:
    run = write_run(tmp_path / "run")
    write(run / "knn_random", result(0.1, checkpoint="random seed:0"))
    write(run / "evaluations" / "knn_folder", result(0.5, checkpoint="last.ckpt sha256:aa"))
    assert rows(tmp_path, capsys)[0] == {"moco": ["1", "50.0"], "random": ["1", "10.0"]}


def test_a_result_elsewhere_belongs_to_the_run_whose_file_it_names(tmp_path: Path, capsys: Printed) -> None:
    run = write_run(tmp_path / "run")
    write(run / "evaluations" / "knn_folder", result(0.5, checkpoint="last.ckpt sha256:aa"))
    retrieval = result(protocol="retrieval", metrics={"recall_at_1": 1.0}, checkpoint="last.ckpt sha256:aa")
    write(tmp_path / "elsewhere", retrieval)
    assert rows(tmp_path, capsys) == ({"moco": ["1", "50.0", "100.0"]}, "")


def test_files_of_one_name_are_not_pooled(tmp_path: Path, capsys: Printed) -> None:
    for digest, top1 in [("aaaaaaaa", 0.5), ("bbbbbbbb", 0.7)]:
        write(tmp_path / digest, result(top1, checkpoint=f"last.ckpt sha256:{digest}"))
    found, _ = rows(tmp_path, capsys)
    assert found == {"last.ckpt aaaaaa": ["1", "50.0"], "last.ckpt bbbbbb": ["1", "70.0"]}


def test_a_run_json_of_something_else_is_no_run(tmp_path: Path, capsys: Printed) -> None:
    run = write_run(tmp_path / "run")
    for name, content in [("list", "[]"), ("other", "{}"), ("broken", "{")]:
        folder = run / name
        write(folder, result(protocol=name, checkpoint=f"{name}.ckpt sha256:aa"))
        (folder / "run.json").write_text(content)
    write(run / "broken" / "knn", result(0.5, checkpoint="last.ckpt sha256:aa"))
    assert rows(tmp_path, capsys)[0] == {"moco": ["1", "50.0"]}


def test_the_run_is_found_from_within(tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run")
    write(run / "evaluations" / "knn_folder", result(0.5, checkpoint="last.ckpt sha256:aa"))
    monkeypatch.chdir(run / "evaluations")
    assert rows(Path("."), capsys)[0] == {"moco": ["1", "50.0"]}


# --- several results of one network -----------------------------------------------------------------------------------


def test_the_newest_of_a_runs_results_counts_once(tmp_path: Path, capsys: Printed) -> None:
    folder = write_run(tmp_path / "run") / "evaluations"
    own = {"checkpoint": "last.ckpt sha256:aa"}
    write(folder / "knn_folder", result(0.6, **own), age=5)
    write(folder / "knn_folder_2", result(0.5, **own), age=20)
    retrieval = result(protocol="retrieval", metrics={"recall_at_1": 0.3}, **own)
    write(folder / "scorecard_folder", scorecard(result(0.4, **own), retrieval), age=10)
    found, told = rows(tmp_path, capsys)
    assert found == {"moco": ["1", "60.0", "30.0"]}
    newer = f"{folder}/knn_folder/metrics.json is a newer result of the same network."
    assert told.splitlines() == [
        f"Warning: {folder}/knn_folder_2/metrics.json is left out (knn): {newer}",
        f"Warning: {folder}/scorecard_folder/metrics.json is left out (knn): {newer}",
    ]


def test_a_run_trained_further_is_one_run_and_so_is_a_copy(tmp_path: Path, capsys: Printed) -> None:
    run = write_run(tmp_path / "a")
    write(run / "knn_folder", result(0.5, checkpoint="last.ckpt sha256:aa"), age=9)
    write(run / "knn_folder_2", result(0.7, checkpoint="last.ckpt sha256:bb"))
    copy = write_run(tmp_path / "b")
    write(copy / "knn_folder", result(0.5, checkpoint="last.ckpt sha256:aa"), age=9)
    assert rows(tmp_path, capsys)[0] == {"moco": ["1", "70.0"]}


def test_a_foreign_file_counts_once(tmp_path: Path, capsys: Printed) -> None:
    for age, top1 in enumerate([0.5, 0.7]):
        write(tmp_path / f"{age}", result(top1, checkpoint="kinetics.pth sha256:aa"), age=age)
    found, told = rows(tmp_path, capsys)
    assert found == {"kinetics.pth": ["1", "50.0"]}
    assert "1/metrics.json is left out (knn)" in told


def test_variants_of_a_protocol_are_columns_of_their_own(tmp_path: Path, capsys: Printed) -> None:
    run = write_run(tmp_path / "run")
    for top1, variant in [(0.5, "default"), (0.7, "svt")]:
        write(run / variant, result(top1, variant=variant, checkpoint="last.ckpt sha256:aa"))
    assert rows(tmp_path, capsys) == ({"moco": ["1", "50.0", "70.0"]}, "")


def test_folders_named_twice_are_read_once(tmp_path: Path, capsys: Printed) -> None:
    write(write_run(tmp_path / "run") / "knn_folder", result(0.5))
    assert main(["table", str(tmp_path), str(tmp_path / "run")]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[2] == "| folder aaaaaa (label) | moco | 1 | 50.0 |"
    assert printed.err == ""


def test_random_rows_have_one_value_per_seed(tmp_path: Path, capsys: Printed) -> None:
    for number, seed in enumerate([0, 0, 1]):
        own = {"checkpoint": f"last.ckpt sha256:{number}{number}"}
        write(
            write_run(tmp_path / f"{number}") / "knn_folder", result(0.5, **own, **beside_random(seed, 0.1 + seed / 10))
        )
    found, told = rows(tmp_path, capsys)
    assert found == {"moco": ["3", "50.0 ± 0.0"], "moco, random": ["2", "15.0 ± 7.1"]}
    assert told == ""


def test_a_random_row_that_is_left_out_and_says_otherwise_is_told(tmp_path: Path, capsys: Printed) -> None:
    for age, top1 in enumerate([0.1, 0.3]):
        own = {"checkpoint": f"last.ckpt sha256:{age}{age}"}
        write(write_run(tmp_path / f"{age}") / "knn_folder", result(0.5, **own, **beside_random(0, top1)), age=age)
    found, told = rows(tmp_path, capsys)
    assert found["moco, random"] == ["1", "10.0"]
    assert f"the random row of {tmp_path}/1/knn_folder/metrics.json is left out (knn)" in told


def test_random_rows_of_other_backbones_are_other_networks(tmp_path: Path, capsys: Printed) -> None:
    for backbone, top1 in [("r3d_tiny", 0.1), ("r3d_18", 0.3)]:
        own = {"backbone": backbone, "checkpoint": f"last.ckpt sha256:{backbone}"}
        write(write_run(tmp_path / backbone) / "knn_folder", result(0.5, **own, **beside_random(0, top1)))
    assert rows(tmp_path, capsys)[0]["moco, random"] == ["2", "20.0 ± 14.1"]


def test_the_random_row_of_an_older_result_is_kept_where_the_newer_has_none(tmp_path: Path, capsys: Printed) -> None:
    run = write_run(tmp_path / "run")
    write(run / "knn_folder", result(0.5, **beside_random(0, 0.1)), age=9)
    write(run / "knn_folder_2", result(0.5))
    assert rows(tmp_path, capsys)[0] == {"moco": ["1", "50.0"], "moco, random": ["1", "10.0"]}


# --- faults -----------------------------------------------------------------------------------------------------------


def test_nothing_to_show_is_told(tmp_path: Path, capsys: Printed) -> None:
    assert main(["table", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert "There is no metrics.json of ours below" in printed.err
    assert printed.out == ""


def test_files_of_others_are_left_out_and_told(tmp_path: Path, capsys: Printed) -> None:
    contents = {"broken": '{"protocol": ', "list": [], "other": {"loss": 1.0}, "bare": {"protocol": "knn"}}
    for name, content in contents.items():
        write(tmp_path / name, content)
    (tmp_path / "folder" / "metrics.json").mkdir(parents=True)
    assert main(["table", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert all(f"{tmp_path / name}/metrics.json is left out: " in told for name in (*contents, "folder"))

    write(write_run(tmp_path / "run") / "knn_folder", result(0.5))
    found, told = rows(tmp_path, capsys)
    assert found == {"moco": ["1", "50.0"]}
    assert told.count("Warning: ") == len(told.splitlines()) == 5


def test_other_settings_of_results_that_count_are_warned_of(tmp_path: Path, capsys: Printed) -> None:
    for number in range(2):
        run = write_run(tmp_path / f"{number}")
        write(run / "knn_folder", result(0.5, settings={"k": 9}), age=9)
        write(run / "knn_folder_2", result(0.5, settings={"k": 5 + number, "num_clips": 2}))
    told = rows(tmp_path, capsys)[1].splitlines()
    assert sum("is left out (knn)" in line for line in told) == 2
    assert [line for line in told if "other settings" in line] == [
        f"Warning: {tmp_path}/1/knn_folder_2/metrics.json and {tmp_path}/0/knn_folder_2/metrics.json, knn: "
        "other settings: settings k=5 against k=6"
    ]
