"""The scorecard: all protocols in one command, each as on its own, with what the data does not allow left out."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from ssl_video.cli import evaluate, train
from ssl_video.cli.scorecard import SHOWN
from support.folders import SMALL, labelled_folder

Printed = pytest.CaptureFixture[str]
BASE = ("knn", "retrieval", "linear_probe", "low_shot", "temporal_probes", "features")
MEASURED = ("seconds", "peak_memory_bytes")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("labelled"))


@pytest.fixture(scope="module")
def run(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    data = ["dataset=folder", f"dataset.root={videos}", f"dataset.labels={videos / 'labels.csv'}"]
    assert train.main([*data, *SMALL, "trainer.max_steps=2", f"run_dir={folder}"]) == 0
    return folder


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SSL_VIDEO_RUN_DIR", raising=False)


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


@pytest.mark.parametrize("protocol", ["knn", "features"])
def test_each_object_is_the_one_of_the_protocol_alone(run: Path, protocol: str) -> None:
    card = scorecard(run)
    words = [f"checkpoint={run}", f"evaluation={protocol}", "dataset.num_workers=0", "run_dir=alone"]
    assert evaluate.main(words) == 0
    assert without_measured(card["results"][protocol]) == without_measured(read("alone"))


def test_the_same_command_gives_the_same_bytes_with_and_without_stored_features(run: Path) -> None:
    cards = [
        without_measured(scorecard(run, f"cache_dir={folder}", run_dir=name))
        for folder, name in [("one", "a"), ("one", "b"), ("two", "c")]
    ]
    assert cards[0] == cards[1] == cards[2]


def test_what_each_video_was_taken_for_is_written(run: Path) -> None:
    card = scorecard(run)
    table = pq.read_table("card/predictions.parquet").to_pydict()
    assert len(table["path"]) == card["videos"] == len(load_file("card/features.safetensors")["features"])
    for name in ("knn", "linear_probe"):
        right = [own == label for own, label in zip(table[f"{name}_prediction"], table["label"], strict=True)]
        assert sum(right) / len(right) == pytest.approx(card["results"][name]["metrics"]["top1"])
    nearest = [labels[0] for labels in table["retrieval_neighbour_labels"]]
    share = sum(own == label for own, label in zip(nearest, table["label"], strict=True)) / len(nearest)
    assert share == pytest.approx(card["results"]["retrieval"]["metrics"]["recall_at_1"])
    assert not set(table["path"]) & {path for paths in table["knn_neighbours"] for path in paths}


def test_shift_and_changed_settings(run: Path) -> None:
    words = ["scorecard.shift=true", "scorecard.protocols.knn.k=3", "baselines=[]"]
    card = scorecard(run, *words, "evaluation@scorecard.protocols.retrieval=retrieval_vcop")
    assert "shift" in card["results"]
    assert (card["results"]["knn"]["changed"], card["results"]["knn"]["settings"]["k_asked"]) == (["k"], 3)
    assert card["results"]["retrieval"]["variant"] == "vcop"
    assert card["results"]["knn"]["baselines"] == {}


def test_without_labels_what_needs_none_is_measured(run: Path, videos: Path, capsys: Printed) -> None:
    card = scorecard(run, "dataset=folder", f"dataset.root={videos}", "dataset.labels=null")
    assert tuple(card["results"]) == ("temporal_probes", "features")
    assert set(card["skipped"]) == {"knn", "retrieval", "linear_probe", "low_shot"}
    assert "has no labels" in card["skipped"]["knn"]
    assert card["label"] is None
    printed = capsys.readouterr().out
    assert "Left out: knn: folder has no labels" in printed
    assert "videos are drawn as a test part" in printed


def test_data_that_no_protocol_can_use_is_refused(run: Path, videos: Path, capsys: Printed) -> None:
    words = [f"checkpoint={run}", "evaluation=knn", "dataset=folder", f"dataset.root={videos}", "dataset.labels=null"]
    assert evaluate.main([*words, "run_dir=none"]) == 2
    assert "has no labels" in capsys.readouterr().err
    assert not Path("none").exists()


def test_videos_of_several_classes_are_refused_by_name(run: Path, videos: Path, capsys: Printed) -> None:
    rows = [line.split(",") for line in (videos / "labels.csv").read_text().splitlines()]
    place = rows[0].index("label")
    rows[0][place] = "label[]"
    Path("lists.csv").write_text("\n".join(",".join(row) for row in rows))
    words = [f"checkpoint={run}", "evaluation=knn", "dataset=folder", f"dataset.root={videos}"]
    assert evaluate.main([*words, f"dataset.labels={Path('lists.csv').absolute()}", "run_dir=none"]) == 2
    assert "several classes at once" in capsys.readouterr().err


@pytest.mark.slow
def test_training_protocols_are_included_on_request_and_the_page_is_written(run: Path) -> None:
    small = [f"scorecard.protocols.finetune.{key}" for key in ("batch_size=4", "epochs=1")]
    card = scorecard(run, "scorecard.include=[finetune]", "scorecard.report=true", "baselines=[]", *small)
    assert "finetune" in card["results"]
    assert Path("card/report.html").stat().st_size > 100_000


def test_an_unknown_protocol_is_refused(run: Path, capsys: Printed) -> None:
    assert evaluate.main([f"checkpoint={run}", "evaluation=scorecard", "scorecard.include=[knnn]"]) == 2
    assert "scorecard.include" in capsys.readouterr().err
