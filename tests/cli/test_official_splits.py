"""The mean over official splits: known answers on hand-made reports, and what is refused."""

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_video.cli import evaluate
from ssl_video.cli.official_splits import combine, evaluate_splits, seen_in_training
from ssl_video.cli.parts import PROVIDED, EvaluateSettings
from ssl_video.cli.scorecard import format_markdown, format_report
from ssl_video.hub.weights import Weights
from ssl_video.utils.config import compose_checked
from ssl_video.utils.errors import InputError
from ssl_video.utils.run import Job
from support.videos import MPEG4, write_video


def report(top1: float, *, random: float = 0.01, videos: int = 100, manifest: str = "a", **changes: Any) -> Any:
    return {
        "protocol": "knn",
        "protocol_version": 1,
        "variant": "default",
        "dataset": "ucf101",
        "label": "label",
        "split": "test",
        "manifest_hash": manifest,
        "videos": videos,
        "missing": 1,
        "undecodable": 0,
        "checkpoint": "last.ckpt sha256:00",
        "backbone": "r3d_18",
        "settings": {"k": 20, "strength": top1},
        "metrics": {"top1": top1, "median_rank": 10 * top1},
        "intervals": {"top1": [top1 - 0.1, top1 + 0.1]},
        "baselines": {"random": {"top1": random}},
        "baseline_intervals": {"random": {"top1": [0, 1]}},
        "videos_per_class": {"Archery": {"train": 10, "test": 3}},
        "decoding": {"seconds": 1.25},
        "seconds": 2.5,
        "peak_memory_bytes": videos,
        **changes,
    }


THREE = {
    "1": report(0.4, random=0.1, manifest="a"),
    "2": report(0.5, random=0.1, manifest="b", videos=110),
    "3": report(0.9, random=0.4, manifest="c"),
}


# --- combining --------------------------------------------------------------------------------------------------------


def test_means_and_deviations_of_hand_made_reports() -> None:
    combined = combine(THREE)
    # 0.4, 0.5, 0.9: mean 0.6, squared distances 0.04 + 0.01 + 0.09 over 2.
    assert combined["metrics"] == pytest.approx({"top1": 0.6, "median_rank": 6.0})
    assert combined["metrics_std"] == pytest.approx({"top1": 0.07**0.5, "median_rank": 7**0.5})
    assert combined["baselines"]["random"] == pytest.approx({"top1": 0.2})
    assert combined["baselines_std"]["random"] == pytest.approx({"top1": 0.03**0.5})


def test_what_is_counted_is_summed() -> None:
    combined = combine(THREE)
    assert (combined["videos"], combined["missing"], combined["undecodable"]) == (310, 3, 0)
    assert (combined["seconds"], combined["decoding"]["seconds"], combined["peak_memory_bytes"]) == (7.5, 3.75, 110)
    assert combined["videos_per_class"] == {"Archery": {"train": 30, "test": 9}}


def test_what_is_equal_stays_and_what_differs_is_left_to_the_splits() -> None:
    combined = combine(THREE)
    for key in ("protocol", "protocol_version", "variant", "dataset", "label", "split", "checkpoint", "backbone"):
        assert combined[key] == THREE["1"][key]
    assert combined["settings"] == {"k": 20}
    assert combined["intervals"] == combined["baseline_intervals"] == {}
    assert combined["splits"] == THREE
    assert combined["manifest_hash"] == hashlib.sha256(b"a b c").hexdigest()
    changed = {**THREE, "3": report(0.9, manifest="d")}
    assert combine(changed)["manifest_hash"] != combined["manifest_hash"]
    assert json.loads(json.dumps(combined)) == combined


def test_reports_are_not_changed_and_equal_splits_deviate_by_nothing() -> None:
    before = copy.deepcopy(THREE)
    combine(THREE)
    assert before == THREE
    same = combine({"1": report(0.5), "2": report(0.5)})
    assert same["metrics"]["top1"] == 0.5
    assert same["metrics_std"]["top1"] == 0


def test_a_metric_that_a_split_lacks_has_no_mean() -> None:
    reports = {"1": report(0.4), "2": report(0.5, metrics={"top1": 0.5, "top5": 1.0}, baselines={})}
    combined = combine(reports)
    assert set(combined["metrics"]) == {"top1"}
    assert combined["baselines"] == {}


def test_the_mean_is_that_of_numpy_whatever_the_order() -> None:
    values = np.random.default_rng(0).random(3)
    reports = {str(number): report(value) for number, value in enumerate(values, start=1)}
    combined = combine(reports)
    assert combined["metrics"]["top1"] == pytest.approx(values.mean())
    assert combined["metrics_std"]["top1"] == pytest.approx(values.std(ddof=1))
    turned = combine(dict(reversed(reports.items())))
    assert turned["metrics"] == pytest.approx(combined["metrics"])


def test_a_scorecard_is_combined_protocol_by_protocol() -> None:
    def scorecard(top1: float, **more: Any) -> Any:
        own = {"knn": report(top1), "retrieval": report(top1 / 2, protocol="retrieval"), **more}
        unlike = ("metrics", "intervals", "baselines", "baseline_intervals", "settings", "videos_per_class")
        head = {key: value for key, value in own["knn"].items() if key not in unlike}
        return {**head, "protocol": "scorecard", "results": own, "skipped": {}}

    with_finetune = scorecard(0.4, finetune=report(0.1))
    without = scorecard(0.6) | {"skipped": {"finetune": "no time"}}
    combined = combine({"1": with_finetune, "2": without})
    assert combined["protocol"] == "scorecard"
    assert list(combined["results"]) == ["knn", "retrieval"]
    assert combined["results"]["knn"]["metrics"]["top1"] == pytest.approx(0.5)
    assert combined["results"]["retrieval"]["metrics"]["top1"] == pytest.approx(0.25)
    assert combined["results"]["retrieval"]["metrics_std"]["top1"] == pytest.approx(0.1 / 2**0.5)
    assert combined["skipped"] == {"finetune": "split 2: no time"}
    assert combined["splits"]["1"] == with_finetune
    assert "splits" not in combined["results"]["knn"]
    rows = [line.split("  ") for line in format_report(combined).splitlines()]
    assert ["knn top1", "0.500 ± 0.141"] in [[cell for cell in row if cell][:2] for row in rows]
    assert "Left out: finetune: split 2: no time" in format_report(combined)


def test_other_protocols_are_not_averaged() -> None:
    with pytest.raises(ValueError, match="must be of one protocol"):
        combine({"1": report(0.5), "2": report(0.5, protocol="retrieval")})
    with pytest.raises(ValueError, match="must be of one protocol"):
        combine({})


def test_terminal_and_table_show_mean_and_deviation() -> None:
    combined = combine(THREE) | {"note": "It has seen some."}
    text = format_report(combined).splitlines()
    assert text[1].endswith("310 test videos, backbone r3d_18; mean ± deviation over splits 1, 2, 3")
    assert [" ".join(line.split()) for line in text[3:5]] == [
        "top1 0.600 ± 0.265 0.200 ± 0.173",
        "median_rank 6.000 ± 2.646",
    ]
    assert text[-1] == "It has seen some."
    assert "| top1 | 0.600 ± 0.265 | 0.200 ± 0.173 |" in format_markdown(combined)
    # One split has an interval instead.
    assert "| top1 | 0.400 (0.300 to 0.500) | 0.100 (0.000 to 1.000) |" in format_markdown(THREE["1"])


# --- evaluating each split --------------------------------------------------------------------------------------------


def composed(*overrides: str) -> Any:
    words = ["checkpoint=random", *overrides]
    return compose_checked("evaluate", words, provided=PROVIDED, settings=EvaluateSettings)


def job(dataset: str = "ucf101") -> Job:
    return Job(choices={"dataset": dataset}, overrides=[], sweep_dir=None, number=0)


def test_each_split_is_evaluated_once_in_the_order_given() -> None:
    config = composed("dataset=ucf101", "splits=[3,1]", "dataset.root=/data/ucf101")
    seen = []

    def evaluate_one(one: Any) -> Any:
        seen.append((one.dataset.source.split, one.splits, one.dataset.root))
        return THREE[str(one.dataset.source.split)]

    combined = evaluate_splits(config, job(), evaluate_one)
    assert seen == [(3, None, "/data/ucf101"), (1, None, "/data/ucf101")]
    assert combined is not None
    assert list(combined["splits"]) == ["3", "1"]
    assert combined["metrics"]["top1"] == pytest.approx(0.65)
    assert (config.dataset.source.split, config.splits) == (1, [3, 1])
    assert evaluate_splits(config, job(), lambda one: None) is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dataset=moving_shapes", "splits=[1,2]"], r"splits=\[1, 2\]: dataset=moving_shapes .* no official splits"),
        (["dataset=kinetics400", "splits=[1,2]"], "has no official splits"),
        (["dataset=hmdb51", "splits=[1,4]"], r"splits=\[1, 4\] must be different numbers .*, 1 to 3"),
        (["dataset=hmdb51", "splits=[2,2]"], "must be different numbers"),
        (["dataset=hmdb51", "splits=[2]"], r"for split 1 alone, dataset\.source\.split=1"),
        (["dataset=hmdb51", "splits=[]"], "must be two splits or more"),
        (["dataset=ucf101", "splits=[1,2]", "baselines=[supervised]"], r"evaluate each split by itself"),
    ],
)
def test_splits_that_there_are_not_are_refused(overrides: list[str], message: str) -> None:
    config = composed(*overrides)
    with pytest.raises(InputError, match=message):
        evaluate_splits(config, job(overrides[0].removeprefix("dataset=")), lambda one: THREE["1"])


def test_wrong_types_are_refused_beforehand() -> None:
    with pytest.raises(InputError, match="splits="):
        composed("dataset=ucf101", "splits=[0,1]")
    with pytest.raises(InputError, match="splits="):
        composed("dataset=ucf101", "splits=all")


def trained_on(name: str, **source: Any) -> Weights:
    return Weights({}, {}, {"name": name, "source": source}, "last.ckpt", None)


def test_test_videos_that_were_seen_in_training_are_told() -> None:
    config = composed("dataset=ucf101", "splits=[1,2,3]")
    told = seen_in_training(config, trained_on("ucf101", split=2))
    assert told is not None
    assert "train part of ucf101's split 2, in which there are test videos of split 1 and 3" in told
    assert seen_in_training(config, trained_on("kinetics400")) is None
    assert seen_in_training(config, trained_on("hmdb51", split=1)) is None
    assert seen_in_training(config, Weights(None, None, None, "random", None)) is None
    weights = trained_on("ucf101", split=2)
    noted = evaluate_splits(config, job(), lambda one: THREE[str(one.dataset.source.split)], weights=weights)
    assert noted is not None
    assert noted["note"] == told
    unknown = Weights(None, None, None, "random", None)
    other = evaluate_splits(config, job(), lambda one: THREE[str(one.dataset.source.split)], weights=unknown)
    assert other is not None
    assert "note" not in other


# --- from the command line --------------------------------------------------------------------------------------------

TINY = ("num_frames=4", "dataset.num_workers=0", "evaluation.num_clips=2", "evaluation=retrieval")


@pytest.fixture
def ucf101(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three classes with four groups each of noise; the official lists turn the groups round."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "ucf101"
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    names = ("Archery", "Bowling", "Diving")
    (lists / "classInd.txt").write_text("".join(f"{number} {name}\n" for number, name in enumerate(names, start=1)))
    rng = np.random.default_rng(1)
    videos = [(f"{name}/v_{name}_g{group:02d}_c01.avi", group) for name in names for group in range(1, 5)]
    for path, _ in videos:
        frames = rng.integers(256, size=(12, 1, 1, 3)).repeat(40, 1).repeat(40, 2).astype(np.uint8)
        write_video(root / path, frames=frames, encoding=MPEG4)
    for split in (1, 2, 3):
        for part, inside in (("train", False), ("test", True)):
            chosen = [path for path, group in videos if (group in (split, split + 1)) == inside]
            (lists / f"{part}list{split:02d}.txt").write_text("".join(f"{path} 1\n" for path in chosen))
    return root


def evaluated(*overrides: str) -> Any:
    run_dir = f"result_{len(list(Path().glob('result_*')))}"
    assert evaluate.main(["checkpoint=random", *TINY, *overrides, f"run_dir={run_dir}"]) == 0
    content = json.loads(Path(run_dir, "metrics.json").read_text())
    return {key: value for key, value in content.items() if key not in ("seconds", "peak_memory_bytes", "decoding")}


@pytest.mark.slow
def test_one_command_is_the_mean_of_three(ucf101: Path) -> None:
    words = ["dataset=ucf101", f"dataset.root={ucf101}"]
    single = [evaluated(*words, f"dataset.source.split={split}") for split in (1, 2, 3)]
    values = [one["metrics"]["mean_average_precision"] for one in single]
    assert len(set(values)) > 1
    together = evaluated(*words, "splits=[1,2,3]")
    assert together["metrics"]["mean_average_precision"] == pytest.approx(np.mean(values))
    assert together["metrics_std"]["mean_average_precision"] == pytest.approx(np.std(values, ddof=1))
    assert together["videos"] == 3 * 6
    for split, one in zip("123", single, strict=True):
        given = {key: together["splits"][split][key] for key in one}
        assert given == one


def test_data_without_splits_is_refused_on_the_command_line(tmp_path: Path, capsys: Any) -> None:
    words = ["checkpoint=random", "dataset=folder", f"dataset.root={tmp_path}", "splits=[1,2,3]"]
    assert evaluate.main([*words, f"run_dir={tmp_path / 'result'}"]) == 2
    assert "dataset=folder (folder) has no official splits" in capsys.readouterr().err
    assert not (tmp_path / "result").exists()
