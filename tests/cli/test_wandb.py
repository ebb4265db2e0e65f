"""Loggers: W&B offline (no account, no network) and TensorBoard, read back from their own files."""

import hashlib
import io
import json
import struct
import zlib
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from ssl_video.cli.evaluate import main as evaluate
from ssl_video.cli.train import main as train
from ssl_video.loggers.wandb_run import WandbRun
from ssl_video.utils.wandb_file import next_step
from support.folders import SMALL, labelled_folder, read_metrics

HEADER = b":W&B"  # then two bytes of magic number and one of version
BLOCK = 32 * 1024
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)


def pieces(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and content of each piece of a log in blocks of 32 KiB, as LevelDB writes it."""
    place = 7
    while place + 7 <= len(content):
        left = BLOCK - place % BLOCK
        if left < 7:  # too little for a piece's header: zeros
            place += left
            continue
        checksum, length, kind = struct.unpack("<IHB", content[place : place + 7])
        piece = content[place + 7 : place + 7 + length]
        assert zlib.crc32(bytes([kind]) + piece) == checksum
        yield kind, piece
        place += 7 + length


def records(file: Path) -> Iterator[wandb_internal_pb2.Record]:
    """The messages of a .wandb file."""
    content = file.read_bytes()
    assert content.startswith(HEADER)
    joined = b""
    for kind, piece in pieces(content):
        joined = piece if kind in (FULL, FIRST) else joined + piece
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(joined)
            yield record


def of_kind(file: Path, kind: str) -> list[Any]:
    """The records of one kind."""
    return [getattr(record, kind) for record in records(file) if record.WhichOneof("record_type") == kind]


def as_dict(items: Any) -> dict[str, Any]:
    """Values by dotted key, of a history, summary or configuration."""
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def history(file: Path) -> list[dict[str, Any]]:
    """What was logged, one dictionary per call."""
    return [as_dict(row.item) for row in of_kind(file, "history")]


def num_frames(animation: bytes) -> int:
    with Image.open(io.BytesIO(animation)) as image:
        return int(getattr(image, "n_frames", 1))


@dataclass(frozen=True)
class Logged:
    """A training with all loggers, and its evaluation.

    Attributes:
        folder: the run's.
        output: what the training printed.
        training: the training's ``.wandb`` file.
        evaluation: that of the evaluation.
    """

    folder: Path
    output: str
    training: Path
    evaluation: Path


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    """Five steps with every logger, pictures and artifacts, and a kNN on top."""
    root = tmp_path_factory.mktemp("logged")
    videos, folder = labelled_folder(root / "videos", videos=24), root / "run"
    words = ["dataset=folder", f"dataset.root={videos}", f"dataset.labels={videos / 'labels.csv'}", *SMALL]
    words += ["trainer.max_steps=5", "trainer.log_every_n_steps=1", "logger=[csv,wandb,tensorboard]"]
    words += ["logger.wandb.artifacts=checkpoint", "logger.wandb.tags=[trial]"]
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.chdir(root)
        for name in ("WANDB_API_KEY", "WANDB_MODE"):
            patch.delenv(name, raising=False)
        patch.setenv("NETRC", str(root / "none"))
        assert train([*words, f"run_dir={folder}", "pictures.videos=8"]) == 0
        [training] = folder.glob("wandb/offline-run-*/*.wandb")
        assert evaluate([f"checkpoint={folder}", "evaluation=knn"]) == 0
        [evaluation] = set(folder.glob("wandb/offline-run-*/*.wandb")) - {training}
    return Logged(folder, printed.getvalue(), training, evaluation)


def test_offline_run_holds_what_metrics_csv_holds(tmp_path: Path) -> None:
    videos = labelled_folder(tmp_path / "videos", videos=12)
    words = ["dataset=folder", f"dataset.root={videos}", *SMALL, "trainer.max_steps=5", "trainer.log_every_n_steps=1"]
    assert train([*words, "logger=wandb", "logger.wandb.offline=true", "run_dir=run"]) == 0
    files = list(Path("run").glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 1
    assert files[0].parent.name.startswith("offline-run-")
    assert files[0].parent.parent == Path("run/wandb")
    logged = [row for row in history(files[0]) if "train/loss" in row]
    written = read_metrics(Path("run"))
    assert [row["trainer/global_step"] for row in logged] == [int(row["step"]) for row in written] == [0, 1, 2, 3, 4]
    for key in ("train/loss", "train/info_nce"):
        assert [row[key] for row in logged] == pytest.approx([float(row[key]) for row in written], rel=1e-6)
    assert len({row["train/loss"] for row in logged}) == 5


@pytest.mark.slow
def test_each_job_of_a_sweep_is_a_run_of_its_own(tmp_path: Path) -> None:
    videos = labelled_folder(tmp_path / "videos", videos=8)
    words = ["dataset=folder", f"dataset.root={videos}", *SMALL, "trainer.max_steps=2", "trainer.log_every_n_steps=1"]
    assert train(["-m", *words, "logger=wandb", "logger.wandb.offline=true", "seed=0,1"]) == 0
    runs = sorted(Path("outputs/sweeps").glob("*/[0-9]*/"))
    assert len(runs) == 2
    for folder in runs:
        (file,) = folder.glob("wandb/offline-run-*/*.wandb")
        losses = [row["train/loss"] for row in history(file) if "train/loss" in row]
        assert losses == pytest.approx([float(row["train/loss"]) for row in read_metrics(folder)], rel=1e-6)
        (run,) = of_kind(file, "run")
        assert run.run_group == folder.parent.name
        assert run.display_name == folder.name


def test_a_run_is_found_by_its_group_tags_name_and_id(logged: Logged) -> None:
    run = of_kind(logged.training, "run")[0]
    known = json.loads((logged.folder / "run.json").read_text())["loggers"]["wandb"]
    assert (run.project, run.job_type) == ("ssl_video", "train")
    assert run.run_id == known["id"]
    assert run.run_group == known["group"] == "moco_r3d_tiny_folder"
    assert run.display_name == known["name"] == "moco_r3d_tiny_folder run"
    assert list(run.tags) == ["moco", "r3d_tiny", "folder", "trial"]


def test_the_configuration_can_be_searched(logged: Logged) -> None:
    given: dict[str, Any] = {}
    for record in of_kind(logged.training, "config"):
        given |= as_dict(record.update)
    own = json.loads((logged.folder / "run.json").read_text())
    assert given["method"]["_target_"] == "ssl_video.methods.moco.MoCo"
    assert given["batch_size"] == 4
    assert given["choices"]["method"] == "moco"
    assert given["run"]["manifest_hash"] == own["manifest_hash"]
    assert given["run"]["used"] == own["used"]
    assert given["run"]["versions"]["torch"]
    assert given["run"]["git_revision"] == own["git_revision"]


def test_every_section_goes_over_the_optimizer_step(logged: Logged) -> None:
    metrics = {record.glob_name or record.name: record for record in of_kind(logged.training, "metric")}
    for section in ("train/*", "val/*", "health/*", "data/*", "time/*", "eval/*"):
        assert metrics[section].step_metric == "trainer/global_step"
    assert metrics["trainer/global_step"].options.hidden
    assert metrics["val/*"].summary.max
    assert metrics["val/*"].summary.min


def test_the_summary_is_the_last_step(logged: Logged) -> None:
    summary: dict[str, Any] = {}
    for record in of_kind(logged.training, "summary"):
        summary |= as_dict(record.update)
    assert summary["train/loss"] == pytest.approx(float(read_metrics(logged.folder)[-1]["train/loss"]), rel=1e-6)


def test_the_table_plays_what_enters_the_networks(logged: Logged) -> None:
    rows = history(logged.training)
    assert [row["_step"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[0]["pictures/clips._type"] == "table-file"
    files = logged.training.parent / "files"
    table = json.loads((files / rows[0]["pictures/clips.path"]).read_text())
    assert table["columns"] == ["video", "label", "network", "frames", "clip"]
    assert len(table["data"]) == 16  # 4 videos, 2 clips, query and key network
    labels = {row[0]: row[1] for row in table["data"]}
    assert {labels[name] for name in labels} <= {"dark", "bright"}
    assert all(("dark", "bright")[int(name[6:8]) % 2] == label for name, label in labels.items())
    assert {row[2] for row in table["data"]} == {"backbone", "key_encoder"}
    frames = [list(map(int, row[3].split())) for row in table["data"]]
    assert all(later == first + 2 * place for first, *rest in frames for place, later in enumerate(rest, start=1))
    playing = rows[0]["pictures/clips_playing.videos"]
    assert len(playing) == 16
    assert all(num_frames((files / video["path"]).read_bytes()) == 4 for video in playing)
    assert rows[0]["pictures/clips_playing.captions"][0].split(", ")[1] in ("dark", "bright")


def test_sheets_and_maps_are_of_the_last_step(logged: Logged) -> None:
    last = history(logged.training)[-1]
    for name in ("neighbours", "feature_map", "units"):
        with Image.open(logged.training.parent / "files" / last[f"pictures/{name}.path"]) as image:
            assert image.size == (last[f"pictures/{name}.width"], last[f"pictures/{name}.height"])
        assert (logged.folder / "pictures" / f"{name}_step_000004.png").is_file()
    assert (logged.folder / "pictures" / "clips_step_000000.png").is_file()
    assert len(list((logged.folder / "pictures" / "clips_step_000000").glob("*.gif"))) == 16


def test_artifacts_lead_from_the_manifest_to_the_evaluation(logged: Logged) -> None:
    record = json.loads((logged.folder / "run.json").read_text())
    trained = {artifact.type: artifact for artifact in of_kind(logged.training, "artifact")}
    measured = {artifact.type: artifact for artifact in of_kind(logged.evaluation, "artifact")}
    assert {"dataset", "model"} <= trained.keys()
    assert {"dataset", "evaluation"} <= measured.keys()
    assert trained["dataset"].digest == measured["dataset"].digest
    assert json.loads(trained["dataset"].metadata)["manifest_hash"] == record["manifest_hash"]
    model, result = json.loads(trained["model"].metadata), json.loads(measured["evaluation"].metadata)
    digest = hashlib.sha256((logged.folder / "checkpoints" / "last.ckpt").read_bytes()).hexdigest()
    assert model["sha256"]["last.ckpt"] == digest
    assert result["checkpoint"] == f"last.ckpt sha256:{digest}"
    assert model["run"] == result["run"] == record["loggers"]["wandb"]["id"]
    assert model["manifest_hash"] == result["manifest_hash"] == record["manifest_hash"]
    assert {entry.path for entry in trained["model"].manifest.contents} == {"backbone.safetensors", "last.ckpt"}


def test_an_evaluation_goes_on_with_the_run(logged: Logged) -> None:
    [run] = of_kind(logged.evaluation, "run")
    assert run.run_id == of_kind(logged.training, "run")[0].run_id
    [row] = history(logged.evaluation)
    assert (row["_step"], row["trainer/global_step"]) == (5, 5)
    report = json.loads((logged.folder / "evaluations" / "knn_folder" / "metrics.json").read_text())
    assert row["eval/folder/knn/top1"] == report["metrics"]["top1"]
    assert row["eval/folder/knn/top1_random"] == report["baselines"]["random"]["top1"]


def test_an_offline_run_says_how_to_upload_it(logged: Logged) -> None:
    run_id = of_kind(logged.training, "run")[0].run_id
    assert f"W&B: offline. To upload: wandb sync {logged.folder}/wandb/offline-run-*-{run_id}\n" in logged.output


def test_tensorboard_holds_the_same(logged: Logged) -> None:
    events = EventAccumulator(str(logged.folder / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    losses = [(event.step, event.value) for event in events.Scalars("train/loss")]
    written = [(int(row["step"]), float(row["train/loss"])) for row in read_metrics(logged.folder)]
    assert losses == [(step, pytest.approx(loss, rel=1e-6)) for step, loss in written]
    assert {"pictures/clips", "pictures/neighbours", "pictures/feature_map", "pictures/units"} <= set(tags["images"])
    [clip] = events.Images("pictures/clips_playing")
    assert num_frames(clip.encoded_image_string) == 4
    [score] = events.Scalars("eval/folder/knn/top1")
    report = json.loads((logged.folder / "evaluations" / "knn_folder" / "metrics.json").read_text())
    assert (score.step, score.value) == (5, pytest.approx(report["metrics"]["top1"], rel=1e-6))
    assert "config/text_summary" in tags["tensors"]
    assert any(tag.startswith("_hparams_/") for tag in events.summary_metadata)


def test_an_evaluation_beside_a_training_is_a_run_of_its_own_in_the_group(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_file = logged.folder / "run.json"
    before = record_file.read_text()
    record_file.write_text(json.dumps(json.loads(before) | {"finished": False}))
    try:
        assert evaluate([f"checkpoint={logged.folder}", "evaluation=retrieval", "logger=wandb"]) == 0
    finally:
        record_file.write_text(before)
    [file] = (logged.folder / "evaluations" / "retrieval_folder").glob("wandb/offline-run-*/*.wandb")
    run, trained = of_kind(file, "run")[0], of_kind(logged.training, "run")[0]
    assert run.run_id != trained.run_id
    assert (run.run_group, run.job_type) == (trained.run_group, "evaluate")
    assert run.display_name == f"{trained.display_name} retrieval_folder"


def test_a_step_stands_once_whatever_was_killed(tmp_path: Path) -> None:
    for steps in (range(6), range(3, 9)):  # the checkpoint was older than the last logged step
        logger = WandbRun(save_dir=str(tmp_path), run_id="abc12345", offline=True)
        for step in steps:
            logger.log_metrics({"train/loss": step / 7}, step=step)
            logger.save()
            logger.save()  # the trainer does so too, now and then
        logger.close(exit_code=0)
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert [[row["_step"] for row in history(file)] for file in files] == [[0, 1, 2, 3, 4, 5], [6, 7, 8]]
    assert next_step(tmp_path, "abc12345") == 9


def test_values_of_one_step_are_one_row(tmp_path: Path) -> None:
    logger = WandbRun(save_dir=str(tmp_path), run_id="abc12345", offline=True)
    logger.log_metrics({"train/learning_rate": 0.1}, step=0)  # as a callback of somebody else's does
    logger.log_metrics({"train/loss": 2.0}, step=0)
    logger.save()
    logger.close(exit_code=0)
    [file] = tmp_path.glob("wandb/offline-run-*/*.wandb")
    [row] = history(file)
    assert (row["train/learning_rate"], row["train/loss"], row["trainer/global_step"]) == (0.1, 2.0, 0)


def test_a_resume_goes_on_with_the_run(tmp_path: Path) -> None:
    videos = labelled_folder(tmp_path / "videos", videos=12)
    words = ["dataset=folder", f"dataset.root={videos}", *SMALL, "logger=[wandb,tensorboard]"]
    words += ["logger.wandb.offline=true", "pictures.show=false", "trainer.log_every_n_steps=1"]
    assert train([*words, "run_dir=run", "trainer.max_steps=2"]) == 0
    assert train(["resume=run", "trainer.max_steps=4"]) == 0
    files = sorted(Path("run").glob("wandb/offline-run-*/*.wandb"))
    assert [[row["_step"] for row in history(file)] for file in files] == [[0, 1], [2, 3]]
    assert len({of_kind(file, "run")[0].run_id for file in files}) == 1
    events = EventAccumulator("run/tensorboard")
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [0, 1, 2, 3]


def test_logger_none_of_an_evaluation_logs_nothing(logged: Logged) -> None:
    before = set(logged.folder.glob("wandb/offline-run-*/*.wandb"))
    words = [f"checkpoint={logged.folder}", "evaluation=knn", "logger=[csv]", "run_dir=elsewhere"]
    assert evaluate(words) == 0
    assert set(logged.folder.glob("wandb/offline-run-*/*.wandb")) == before
    assert not list(Path("elsewhere").rglob("*.wandb"))
