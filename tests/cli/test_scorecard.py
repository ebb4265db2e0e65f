"""The scorecard: all protocols in one command, each as on its own, with what the data does not allow left out."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from ssl_video.cli import evaluate, train
from ssl_video.cli.scorecard import SHOWN
from support.folders import SMALL, labelled_folder

pytestmark = pytest.mark.usefixtures("own_folder")

Printed = pytest.CaptureFixture[str]
BASE = ("knn", "retrieval", "linear_probe", "low_shot", "temporal_probes", "features")
MEASURED = ("seconds", "peak_memory_bytes")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("labelled"))


@pytest.fixture(scope="module")
def hard(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The same videos under a label that they do not show, so that no metric is 1 whatever the features."""
    file = tmp_path_factory.mktemp("hard") / "labels.csv"
    with (videos / "labels.csv").open(newline="") as source:
        rows = list(csv.DictReader(source))
    with file.open("w", newline="") as target:
        writer = csv.DictWriter(target, rows[0])
        writer.writeheader()
        writer.writerows(row | {"label": f"class_{place * place % 7 % 3}"} for place, row in enumerate(rows))
    return [f"dataset.labels={file}"]


@pytest.fixture(scope="module")
def run(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    data = ["dataset=folder", f"dataset.root={videos}", f"dataset.labels={videos / 'labels.csv'}"]
    assert train.main([*data, *SMALL, "trainer.max_steps=2", f"run_dir={folder}"]) == 0
    return folder


def scorecard(run: Path, *overrides: str, run_dir: str = "card") -> dict[str, Any]:
    words = [f"checkpoint={run}", "evaluation=scorecard", "dataset.num_workers=0", "scorecard.report=false"]
    assert evaluate.main([*words, *overrides, f"run_dir={run_dir}"]) == 0
    return read(run_dir)


def read(folder: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(folder, "metrics.json").read_text())
    return content


def without_measured(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_measured(own) for key, own in value.items() if key not in MEASURED}
    return value


def test_every_frozen_protocol_is_there_with_the_random_row(run: Path, capsys: Printed) -> None:
    card = scorecard(run)
    assert (card["protocol"], card["protocol_version"], tuple(card["results"])) == ("scorecard", 1, BASE)
    assert (card["videos"], card["skipped"]) == (8, {})
    for name, own in card["results"].items():
        assert set(own["baselines"]["random"]) == set(own["metrics"]), name
        assert set(SHOWN[name]) & set(own["metrics"]), name
        assert set(own["differences"]["random"]) == set(own["intervals"]) - {"balanced_accuracy"}, name
    table = Path("card/table.md").read_text()
    assert "| knn top1 |" in table
    assert "scorecard of last.ckpt on folder (label, 2 classes): 8 test videos" in capsys.readouterr().out


@pytest.mark.slow
def test_each_object_is_the_one_of_the_protocol_alone(run: Path, hard: list[str]) -> None:
    card = scorecard(run, *hard)
    for protocol in BASE:
        words = [f"checkpoint={run}", f"evaluation={protocol}", "dataset.num_workers=0", *hard]
        assert evaluate.main([*words, f"run_dir={protocol}"]) == 0
        assert without_measured(card["results"][protocol]) == without_measured(read(protocol)), protocol
    assert card["results"]["knn"]["metrics"]["top1"] < 1


@pytest.mark.slow
def test_the_same_command_gives_the_same_bytes_with_and_without_stored_features(run: Path, hard: list[str]) -> None:
    folders = []
    for cache, name in [("one", "a"), ("one", "b"), ("two", "c")]:
        scorecard(run, f"cache_dir={cache}", *hard, run_dir=name)
        folders.append(Path(name))
    lines = [(folder / "metrics.json").read_text().splitlines() for folder in folders]
    assert len({len(own) for own in lines}) == 1
    for own in zip(*lines, strict=True):
        assert len(set(own)) == 1 or own[0].strip().startswith(tuple(f'"{key}"' for key in MEASURED)), own
    for file in ("table.md", "predictions.parquet", "features.safetensors"):
        assert len({(folder / file).read_bytes() for folder in folders}) == 1, file


@pytest.mark.slow
def test_what_each_video_was_taken_for_is_written(run: Path, hard: list[str]) -> None:
    card = scorecard(run, *hard)
    table = pq.read_table("card/predictions.parquet").to_pydict()
    assert len(table["path"]) == card["videos"] == len(load_file("card/features.safetensors")["features"])
    for name in ("knn", "linear_probe"):
        right = [own == label for own, label in zip(table[f"{name}_prediction"], table["label"], strict=True)]
        assert sum(right) / len(right) == pytest.approx(card["results"][name]["metrics"]["top1"])
    nearest = [labels[0] for labels in table["retrieval_neighbour_labels"]]
    share = sum(own == label for own, label in zip(nearest, table["label"], strict=True)) / len(nearest)
    assert share == pytest.approx(card["results"]["retrieval"]["metrics"]["recall_at_1"])
    assert not set(table["path"]) & {path for paths in table["knn_neighbours"] for path in paths}
    with Path(hard[0].split("=")[1]).open(newline="") as file:
        truth = {row["path"]: row["label"] for row in csv.DictReader(file)}
    assert [truth[path] for path in table["path"]] == table["label"]
    for paths, labels in zip(table["knn_neighbours"], table["knn_neighbour_labels"], strict=True):
        assert [truth[path] for path in paths] == labels


@pytest.mark.slow
def test_shift_and_changed_settings(run: Path) -> None:
    words = ["scorecard.shift=true", "scorecard.protocols.knn.k=3", "baselines=[]"]
    card = scorecard(run, *words, "evaluation@scorecard.protocols.retrieval=retrieval_vcop")
    assert "shift" in card["results"]
    assert (card["results"]["knn"]["changed"], card["results"]["knn"]["settings"]["k_asked"]) == (["k"], 3)
    assert card["results"]["retrieval"]["variant"] == "vcop"
    assert card["results"]["knn"]["baselines"] == {}


@pytest.mark.slow
def test_without_labels_what_needs_none_is_measured(run: Path, videos: Path, capsys: Printed) -> None:
    card = scorecard(run, "dataset=folder", f"dataset.root={videos}", "dataset.labels=null")
    assert tuple(card["results"]) == ("temporal_probes", "features")
    assert set(card["skipped"]) == {"knn", "retrieval", "linear_probe", "low_shot"}
    assert "has no labels" in card["skipped"]["knn"]
    assert card["label"] is None
    printed = capsys.readouterr().out
    assert "videos are drawn as a test part" in printed


def test_data_that_no_protocol_can_use_is_refused(run: Path, videos: Path, capsys: Printed) -> None:
    words = [f"checkpoint={run}", "evaluation=knn", "dataset=folder", f"dataset.root={videos}", "dataset.labels=null"]
    assert evaluate.main([*words, "run_dir=none"]) == 2
    assert "has no labels" in capsys.readouterr().err
    assert not Path("none").exists()


def several_classes(videos: Path) -> list[str]:
    rows = [line.split(",") for line in (videos / "labels.csv").read_text().splitlines()]
    rows[0][rows[0].index("label")] = "label[]"
    Path("lists.csv").write_text("\n".join(",".join(row) for row in rows))
    return ["dataset=folder", f"dataset.root={videos}", f"dataset.labels={Path('lists.csv').absolute()}"]


@pytest.mark.slow
def test_videos_of_several_classes_are_refused_by_name(run: Path, videos: Path, capsys: Printed) -> None:
    words = [*several_classes(videos), "dataset.test_groups=[3,4]", "dataset.num_workers=0"]
    assert evaluate.main([f"checkpoint={run}", "evaluation=knn", *words, "run_dir=none"]) == 2
    assert "several classes at once" in capsys.readouterr().err
    assert evaluate.main([f"checkpoint={run}", "evaluation=features", *words, "run_dir=some"]) == 0


def test_a_test_part_without_labels_is_told(run: Path, videos: Path, capsys: Printed) -> None:
    rows = [line.split(",") for line in (videos / "labels.csv").read_text().splitlines()]
    label, group = rows[0].index("label"), rows[0].index("group")
    for row in rows[1:]:
        row[label] = "" if row[group] == "4" else row[label]
    Path("some.csv").write_text("\n".join(",".join(row) for row in rows))
    words = ["dataset=folder", f"dataset.root={videos}", f"dataset.labels={Path('some.csv').absolute()}"]
    assert evaluate.main([f"checkpoint={run}", "evaluation=knn", *words, "dataset.test_groups=[4]"]) == 2
    assert "none of the 4 test videos of folder has a label in dataset.label=label" in capsys.readouterr().err


@pytest.mark.slow
def test_what_was_done_otherwise_than_asked_is_told(run: Path, capsys: Printed) -> None:
    words = ["scorecard.include=[finetune]", "scorecard.protocols.knn.k=5000", "baselines=[]"]
    card = scorecard(run, *words)
    printed = capsys.readouterr().out
    assert "knn: 6 neighbours vote, not the 5000 asked for" in printed
    assert "low_shot: 1 % of the labels are 2 of 12 train videos here, 17 %, as every class keeps one." in printed
    assert "low_shot: 10 shots are left out: the smallest class has fewer train videos." in printed
    assert "scorecard.protocols.finetune.batch_size=16 is larger than" in card["skipped"]["finetune"]


@pytest.mark.slow
def test_equal_reasons_are_told_once(run: Path, videos: Path, capsys: Printed) -> None:
    scorecard(run, "dataset=folder", f"dataset.root={videos}", "dataset.labels=null", "baselines=[]")
    assert "Left out: knn, retrieval, linear_probe, low_shot: folder has no labels" in capsys.readouterr().out


@pytest.mark.slow
def test_an_old_page_is_written_over_and_another_file_kept(run: Path, capsys: Printed) -> None:
    Path("card").mkdir()
    Path("card/report.html").write_text("somebody's own")
    scorecard(run, "scorecard.report=true", "baselines=[]")
    assert "The page was not written" in capsys.readouterr().err
    assert Path("card/report.html").read_text() == "somebody's own"


@pytest.mark.slow
def test_training_protocols_are_included_on_request_and_the_page_is_written(run: Path) -> None:
    small = [f"scorecard.protocols.finetune.{key}" for key in ("batch_size=4", "epochs=1")]
    card = scorecard(run, "scorecard.include=[finetune]", "scorecard.report=true", "baselines=[]", *small)
    assert "finetune" in card["results"]
    assert Path("card/report.html").stat().st_size > 100_000


def test_an_unknown_protocol_is_refused(run: Path, capsys: Printed) -> None:
    assert evaluate.main([f"checkpoint={run}", "evaluation=scorecard", "scorecard.include=[knnn]"]) == 2
    assert "scorecard.include" in capsys.readouterr().err
