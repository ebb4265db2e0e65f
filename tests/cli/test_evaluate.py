"""Evaluation from the command line: what metrics.json holds, where it goes, and that it can be had again."""

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from ssl_video.cli import evaluate, train
from ssl_video.cli.baselines import build_backbones
from ssl_video.cli.parts import PROVIDED, EvaluateSettings
from ssl_video.hub.weights import read_weights
from ssl_video.utils.config import compose_checked
from support.folders import SMALL, labelled_folder

pytestmark = pytest.mark.usefixtures("own_folder")

Printed = pytest.CaptureFixture[str]

KEYS = [
    *("protocol", "protocol_version", "variant", "changed", "dataset", "label", "split", "manifest_hash", "videos"),
    *("missing", "undecodable", "checkpoint", "backbone", "settings", "metrics", "intervals", "baselines"),
    *("baseline_checkpoints", "baseline_intervals", "differences", "details", "baseline_details"),
    *("videos_per_class", "decoding", "seconds", "peak_memory_bytes"),
]
METRICS = {
    "knn": {"top1", "top5", "balanced_accuracy"},
    "linear_probe": {"top1", "top5", "balanced_accuracy"},
    "retrieval": {*(f"recall_at_{k}" for k in (1, 5, 10, 20, 50)), "mean_average_precision", "median_rank"},
}
VERSION = {"knn": 1, "linear_probe": 2, "retrieval": 1}
MAIN_METRIC = {"knn": "top1", "linear_probe": "top1", "retrieval": "recall_at_1"}
# Keys whose values differ from run to run.
MEASURED = ("seconds", "peak_memory_bytes")
# For checkpoint=random, what the checkpoint of the fixture brings.
RANDOM = ["checkpoint=random", "backbone=r3d_tiny", "input_transform.resize=32", "input_transform.crop=32"]
TINY = ["num_frames=4", "dataset.num_workers=0", "evaluation.num_clips=2"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("labelled"))


@pytest.fixture(scope="module")
def hard(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The same videos under a label that they do not show, so that no metric is 1 whatever the features."""
    root = relabelled(videos, tmp_path_factory.mktemp("hard") / "own", label=[f"class_{n % 3}" for n in range(20)])
    return [f"dataset.root={root}", f"dataset.labels={root / 'labels.csv'}"]


@pytest.fixture(scope="module")
def trained(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    data = ["dataset=folder", f"dataset.root={videos}", f"dataset.labels={videos / 'labels.csv'}"]
    assert train.main([*data, *SMALL, "trainer.max_steps=2", "seed=5", f"run_dir={run}"]) == 0
    return run


@pytest.fixture
def run(trained: Path) -> Path:
    """The trained run, in the test's own folder."""
    shutil.copytree(trained, "run")
    return Path("run")


def data(root: Path, labels: str | None = "labels.csv") -> list[str]:
    return [
        "dataset=folder",
        f"dataset.root={root}",
        *([f"dataset.labels={root / labels}"] if labels else []),
        "dataset.num_workers=0",
    ]


def evaluated(*overrides: str, run_dir: str = "result") -> dict[str, Any]:
    """Content of metrics.json."""
    assert evaluate.main([*TINY, *overrides, f"run_dir={run_dir}"]) == 0
    return read(Path(run_dir))


def read(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return content


def without_measured(content: Any) -> Any:
    if not isinstance(content, dict):
        return content
    return {key: without_measured(value) for key, value in content.items() if key not in MEASURED}


def refused(printed: Printed, *overrides: str) -> str:
    """Exit code 2, and what was said."""
    printed.readouterr()
    assert evaluate.main([*TINY, *overrides]) == 2
    return printed.readouterr().err


def relabelled(source: Path, target: Path, **columns: list[str]) -> Path:
    """The same videos with further or other columns in labels.csv."""
    shutil.copytree(source, target)
    with (target / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows = [row | {name: values[place] for name, values in columns.items()} for place, row in enumerate(rows)]
    with (target / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return target


# --- what metrics.json holds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", sorted(METRICS))
def test_metrics_json_has_the_promised_keys(run: Path, protocol: str, tmp_path: Path, videos: Path) -> None:
    result = evaluated(f"checkpoint={run}", f"evaluation={protocol}")
    assert list(result) == KEYS
    assert set(result["metrics"]) == METRICS[protocol]
    assert result["metrics"][MAIN_METRIC[protocol]] > 0.9
    assert set(result["baselines"]) == {"random"}
    assert set(result["baselines"]["random"]) == METRICS[protocol]
    assert set(result["intervals"]) == METRICS[protocol] - {"median_rank"}
    assert set(result["baseline_intervals"]["random"]) == set(result["intervals"])
    assert set(result["differences"]["random"]) == set(result["intervals"]) - {"balanced_accuracy"}
    assert result["changed"] == ["num_clips"]
    assert result["videos_per_class"] == {"bright": {"train": 6, "test": 4}, "dark": {"train": 6, "test": 4}}
    for name, (low, high) in result["intervals"].items():
        assert 0 <= low <= result["metrics"][name] <= high <= 1
    expected = {
        "protocol": protocol,
        "protocol_version": VERSION[protocol],
        "variant": "default",
        "dataset": "folder",
        "label": "label",
        "split": "test",
        "videos": 8,  # two of the five groups of four
        "missing": 0,
        "undecodable": 0,
        "backbone": "r3d_tiny",
    }
    assert {key: result[key] for key in expected} == expected
    assert result["manifest_hash"] == json.loads((run / "run.json").read_text())["manifest_hash"]
    assert {"num_clips": 2, "num_frames": 4, "frame_stride": 2, "classes": 2}.items() <= result["settings"].items()
    assert 0 < result["seconds"] < 300
    assert result["peak_memory_bytes"] > 10_000_000
    text = Path("result/metrics.json").read_text()
    assert str(tmp_path) not in text
    assert str(videos) not in text


@pytest.mark.slow
def test_each_form_of_a_checkpoint_gives_the_same_numbers(run: Path, videos: Path) -> None:
    forms = {
        "folder": [f"checkpoint={run}"],
        "ckpt": [f"checkpoint={run}/checkpoints/last.ckpt"],
        "safetensors": [f"checkpoint={run}/checkpoints/backbone.safetensors", *data(videos)],
    }
    results = {form: evaluated(*words, run_dir=form) for form, words in forms.items()}
    assert results["folder"]["checkpoint"].startswith("last.ckpt sha256:")
    assert results["safetensors"]["checkpoint"].startswith("backbone.safetensors sha256:")
    assert without_measured(results["folder"]) == without_measured(results["ckpt"])
    other = without_measured(results["safetensors"])
    assert {**other, "checkpoint": results["ckpt"]["checkpoint"]} == without_measured(results["ckpt"])


@pytest.mark.parametrize("seed", [0, 7])
def test_random_row_is_the_evaluation_of_the_random_checkpoint(run: Path, hard: list[str], seed: int) -> None:
    words = ["evaluation=retrieval", f"seed={seed}", *hard]
    result = evaluated(f"checkpoint={run}", *words, run_dir="a")
    row = result["baselines"]["random"]
    alone = evaluated(*RANDOM, "dataset=folder", *words, run_dir="b")
    assert row["mean_average_precision"] < 0.9
    assert row["mean_average_precision"] != result["metrics"]["mean_average_precision"]
    assert alone["metrics"] == row
    assert alone["baselines"] == {}
    assert alone["checkpoint"] == f"random seed:{seed}"
    assert alone["backbone"] == "r3d_tiny"


def test_the_random_backbone_follows_from_the_seed(videos: Path) -> None:
    stems = []
    for seed in (0, 0, 1):
        config = compose_checked(
            "evaluate", ["checkpoint=random", f"seed={seed}"], provided=PROVIDED, settings=EvaluateSettings
        )
        stems.append(next(build_backbones(config, read_weights("random"))["random"].parameters()))
    assert stems[0].equal(stems[1])
    assert not stems[0].equal(stems[2])


def test_no_baselines(run: Path) -> None:
    with_row = evaluated(f"checkpoint={run}", run_dir="a")
    without = evaluated(f"checkpoint={run}", "baselines=[]", run_dir="b")
    assert without["baselines"] == {}
    assert without["metrics"] == with_row["metrics"]


@pytest.mark.slow
def test_num_frames_and_stride_of_the_clip_win_over_the_checkpoint(run: Path) -> None:
    own = evaluated(f"checkpoint={run}", run_dir="a")["settings"]
    assert (own["num_frames"], own["frame_stride"]) == (4, 2)
    changed = evaluated(f"checkpoint={run}", "frame_stride=3", run_dir="b")["settings"]
    assert (changed["num_frames"], changed["frame_stride"]) == (4, 3)
    assert evaluate.main([f"checkpoint={run}", "num_frames=6", "evaluation.num_clips=2", "run_dir=c"]) == 0
    assert read(Path("c"))["settings"]["num_frames"] == 6
    assert read(Path("c"))["metrics"]["top1"] > 0.9


def test_clip_length_comes_from_the_checkpoint(run: Path) -> None:
    assert evaluate.main([f"checkpoint={run}", "evaluation.num_clips=1", "run_dir=a"]) == 0
    assert read(Path("a"))["settings"]["num_frames"] == 4  # evaluate.yaml says 8


# --- the same again ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "protocol", ["knn", *(pytest.param(name, marks=pytest.mark.slow) for name in ("linear_probe", "retrieval"))]
)
def test_the_same_command_gives_the_same_bytes(run: Path, hard: list[str], protocol: str) -> None:
    texts = []
    for run_dir in ("a", "b"):
        evaluated(f"checkpoint={run}", f"evaluation={protocol}", *hard, run_dir=run_dir)
        lines = Path(run_dir, "metrics.json").read_text().splitlines(keepends=True)
        measured = [line for line in lines if line.strip().startswith(tuple(f'"{key}"' for key in MEASURED))]
        assert len(measured) == len(MEASURED) + 1  # the seconds of decoding
        texts.append("".join(line for line in lines if line not in measured))
    assert texts[0] == texts[1]


def test_batch_size_and_workers_change_nothing(run: Path, hard: list[str]) -> None:
    words = [f"checkpoint={run}", *hard]
    changes = [["batch_size=16"], ["batch_size=3"], ["batch_size=1"], ["dataset.num_workers=2"]]
    results = [evaluated(*words, *change, run_dir=f"r{number}") for number, change in enumerate(changes)]
    for result in results[1:]:
        assert without_measured(result) == without_measured(results[0])


# --- where it goes ----------------------------------------------------------------------------------------------------


def test_results_go_into_the_run_and_are_numbered(run: Path, capsys: Printed) -> None:
    for _ in range(3):
        assert evaluate.main([*TINY, f"checkpoint={run}", "baselines=[]"]) == 0
    assert evaluate.main([*TINY, f"checkpoint={run}/checkpoints/last.ckpt", "evaluation=retrieval"]) == 0
    folders = sorted(file.parent.name for file in run.glob("evaluations/*/metrics.json"))
    assert folders == ["knn_folder", "knn_folder_2", "knn_folder_3", "retrieval_folder"]
    assert "Written to run/evaluations/knn_folder_2/metrics.json" in capsys.readouterr().out
    assert not Path("outputs").exists()


@pytest.mark.slow
def test_results_without_a_run_go_into_outputs(run: Path, videos: Path) -> None:
    shutil.copy(run / "checkpoints" / "last.ckpt", "mine.ckpt")
    for _ in range(2):
        assert evaluate.main([*TINY, *RANDOM, *data(videos)]) == 0
    assert evaluate.main([*TINY, "checkpoint=mine.ckpt", "baselines=[]"]) == 0
    folders = sorted(str(file.parent) for file in Path().glob("outputs/**/metrics.json"))
    names = ("mine_knn_folder", "random_knn_folder", "random_knn_folder_2")
    assert folders == [f"outputs/evaluations/{name}" for name in names]


def test_existing_metrics_are_not_written_over(run: Path, capsys: Printed) -> None:
    evaluated(f"checkpoint={run}", "baselines=[]", run_dir="a")
    before = Path("a/metrics.json").read_bytes()
    message = refused(capsys, f"checkpoint={run}", "run_dir=a")
    assert "run_dir=a holds a metrics.json already" in message
    assert Path("a/metrics.json").read_bytes() == before


@pytest.mark.slow
def test_a_sweep_over_protocols(run: Path) -> None:
    assert evaluate.main(["-m", *TINY, f"checkpoint={run}", "evaluation=knn,retrieval", "baselines=[]"]) == 0
    folders = sorted(file.parent.name for file in run.glob("evaluations/*/metrics.json"))
    assert folders == ["knn_folder", "retrieval_folder"]


@pytest.mark.parametrize("choice", ["run,random", "[run,random]", "choice(run,random)"])
def test_a_sweep_over_checkpoints_is_refused(run: Path, capsys: Printed, choice: str) -> None:
    message = refused(capsys, "-m", f"checkpoint={choice}")
    assert "run evaluate.py once per checkpoint" in message
    assert not list(Path().rglob("metrics.json"))


# --- data -------------------------------------------------------------------------------------------------------------


def test_data_without_labels_is_refused(run: Path, videos: Path, capsys: Printed) -> None:
    message = refused(capsys, f"checkpoint={run}", *data(videos, labels=None))
    assert "folder has no labels" in message
    assert "dataset.labels=FILE.csv" in message
    assert not list(Path().rglob("metrics.json"))


@pytest.mark.slow
def test_val_is_asked_where_there_is_no_test(videos: Path, tmp_path: Path, capsys: Printed) -> None:
    root = relabelled(videos, tmp_path / "own", split=["train"] * 12 + ["val"] * 8)
    result = evaluated(*RANDOM, *data(root), run_dir="a")
    assert "There is no test split: asking on val." in capsys.readouterr().out
    assert (result["split"], result["videos"]) == ("val", 8)
    root = relabelled(videos, tmp_path / "all", split=["train"] * 12 + ["val"] * 3 + ["test"] * 5)
    result = evaluated(*RANDOM, *data(root), run_dir="b")
    assert "asking on val" not in capsys.readouterr().out
    assert (result["split"], result["videos"]) == ("test", 5)


def test_data_with_nothing_to_ask_is_refused(videos: Path, tmp_path: Path, capsys: Printed) -> None:
    root = relabelled(videos, tmp_path / "own", split=["train"] * 20)
    assert "has neither test nor val videos" in refused(capsys, *RANDOM, *data(root))


@pytest.mark.slow
def test_label_picks_the_column(videos: Path, tmp_path: Path, capsys: Printed) -> None:
    root = relabelled(videos, tmp_path / "own", third=[f"class_{n % 3}" for n in range(20)])
    first = evaluated(*RANDOM, *data(root), run_dir="a")
    third = evaluated(*RANDOM, *data(root), "dataset.label=third", run_dir="b")
    assert (first["label"], first["settings"]["classes"]) == ("label", 2)
    assert (third["label"], third["settings"]["classes"]) == ("third", 3)
    assert first["metrics"]["top1"] > 0.9 > third["metrics"]["top1"]  # brightness says nothing of the third
    assert first["manifest_hash"] == third["manifest_hash"]
    message = refused(capsys, *RANDOM, *data(root), "dataset.label=fourth")
    assert "dataset.label='fourth' is not a label column" in message


@pytest.mark.slow
def test_label_of_the_command_line_wins_over_the_run(run: Path, videos: Path, tmp_path: Path) -> None:
    """`dataset.label=` alone changes a value of the run's data set, not the data set."""
    root = relabelled(videos, tmp_path / "own", third=[f"class_{n % 3}" for n in range(20)])
    where = [f"dataset.root={root}", f"dataset.labels={root / 'labels.csv'}"]
    assert evaluated(f"checkpoint={run}", *where, "dataset.label=third")["label"] == "third"


@pytest.mark.slow
def test_missing_and_undecodable_are_counted_in_the_split_asked(videos: Path, tmp_path: Path) -> None:
    """Of the test part one file is gone, one is no video, one breaks after it was indexed; of the train part one."""
    root = relabelled(videos, tmp_path / "own", split=["train"] * 10 + ["test"] * 10)
    (root / "video_12.mp4").unlink()
    for number in (2, 13):
        (root / f"video_{number:02d}.mp4").write_bytes(b"not a video" * 50)
    # Without the cache, which tells files apart by their size and time.
    words = [*RANDOM, *data(root), "dataset.max_unreadable_share=0.5", "baselines=[]", "feature_cache=false"]
    before = evaluated(*words, run_dir="a")
    assert [before[key] for key in ("videos", "missing", "undecodable")] == [8, 1, 1]
    later = root / "video_15.mp4"
    stat = later.stat()
    later.write_bytes(bytes(stat.st_size))  # of the same size and time, so that it isn't indexed again
    os.utime(later, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = evaluated(*words, run_dir="b")
    assert [after[key] for key in ("videos", "missing", "undecodable")] == [7, 1, 2]
    assert after["manifest_hash"] == before["manifest_hash"]
    assert after["metrics"]["top1"] > 0.9
