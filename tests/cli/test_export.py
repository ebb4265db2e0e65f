"""``ssl-video export``: the folder of a real run, its card, its graphs, and what is refused; the Hub is a stand-in."""

import inspect
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml

import ssl_video
from ssl_video.cli import evaluate, export, train
from ssl_video.cli.export import without_paths
from ssl_video.cli.main import main
from ssl_video.hub import formats
from support.folders import SMALL, labelled_folder

pytestmark = pytest.mark.usefixtures("own_folder")

Printed = pytest.CaptureFixture[str]
TINY = ["num_frames=4", "dataset.num_workers=0"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("labelled") / "videos")


@pytest.fixture(scope="module")
def trained(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps that kNN was asked about."""
    run = tmp_path_factory.mktemp("trained") / "run"
    words = ["dataset=folder", f"dataset.root={videos}", f"dataset.labels={videos / 'labels.csv'}"]
    assert train.main([*words, *SMALL, "trainer.max_steps=2", "seed=5", f"run_dir={run}"]) == 0
    assert evaluate.main([f"checkpoint={run}", "evaluation=knn", *TINY]) == 0
    return run


def front_matter(card: str) -> dict[str, Any]:
    _, matter, _ = card.split("---\n", maxsplit=2)
    content: dict[str, Any] = yaml.safe_load(matter)
    return content


def rows_of(card: str, heading: str) -> list[list[str]]:
    """Cells of the table below a heading, without its own."""
    section = card.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


# --- the folder -------------------------------------------------------------------------------------------------------


def test_a_run_becomes_a_folder_that_loads(trained: Path, videos: Path, capsys: Printed) -> None:
    assert main(["export", str(trained), "-o", "given"]) == 0
    assert sorted(file.name for file in Path("given").iterdir()) == ["README.md", "backbone.safetensors", "config.yaml"]
    assert "load it by ssl_video.load('given')" in capsys.readouterr().out
    given, run = ssl_video.load("given"), ssl_video.load(trained)
    for name, tensor in run.state_dict().items():
        assert torch.equal(given.state_dict()[name], tensor)
    words = [f"checkpoint={trained}", "dataset.num_workers=0", "-o", "all.parquet"]
    assert main(["embed", *words]) == 0
    written = pq.read_table("all.parquet").to_pydict()
    for path, features in list(zip(written["path"], written["features"], strict=True))[:3]:
        for model in (given, run):
            torch.testing.assert_close(model.embed_file(videos / path), torch.tensor(features), rtol=0, atol=0)


def test_the_card_says_what_is_known(trained: Path, videos: Path) -> None:
    assert main(["export", f"checkpoint={trained}", "-o", "given", "--license", "apache-2.0"]) == 0
    card = Path("given/README.md").read_text()
    assert front_matter(card) == {
        "license": "apache-2.0",
        "library_name": "ssl_video",
        "tags": ["video", "self-supervised-learning", "feature-extraction", "moco", "r3d_tiny"],
        "datasets": ["folder"],
    }
    assert 'ssl_video.load("given")' in card and "model(model.transform(frames))" in card
    taken = dict(rows_of(card, "What it takes"))
    assert taken["layout"].startswith("`[N, C, T, H, W]` = `[N, 3, 4, 32, 32]`, float32")
    assert (taken["frames in a clip, T"], taken["mean"]) == ("4", "`[0.45, 0.45, 0.45]`")
    record = json.loads((trained / "run.json").read_text())
    training = dict(rows_of(card, "How it was trained"))
    assert training["manifest hash"] == f"`{record['manifest_hash']}`"
    assert (training["method"], training["optimizer steps"], training["seed"]) == ("moco", "2", "5")
    assert f"torch {record['versions']['torch']}" in training["versions"]
    assert training["backbone"].endswith("505,764 parameters")


def test_the_scorecard_has_both_columns_and_says_what_is_missing(trained: Path) -> None:
    assert main(["export", str(trained), "-o", "given"]) == 0
    rows = rows_of(Path("given/README.md").read_text(), "Scorecard")
    report = json.loads((trained / "evaluations" / "knn_folder" / "metrics.json").read_text())
    top1, (low, high) = 100 * report["metrics"]["top1"], report["intervals"]["top1"]
    random, (random_low, random_high) = (
        100 * report["baselines"]["random"]["top1"],
        report["baseline_intervals"]["random"]["top1"],
    )
    assert rows[0] == [
        "knn",
        "folder (label, test)",
        "top1",
        f"{top1:.1f} [{100 * low:.1f}, {100 * high:.1f}]",
        f"{random:.1f} [{100 * random_low:.1f}, {100 * random_high:.1f}]",
    ]
    assert ["linear_probe", "", "", "not measured", "not measured"] in rows
    assert not any(row[0] == "knn" and "not measured" in row for row in rows)


def test_only_results_of_these_weights_count(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "copied"))
    assert main(["export", str(run / "checkpoints" / "backbone.safetensors"), "-o", "same"]) == 0
    assert rows_of(Path("same/README.md").read_text(), "Scorecard")[0][0] == "knn"  # measured by last.ckpt's name
    file = run / "evaluations" / "knn_folder" / "metrics.json"
    report = json.loads(file.read_text())
    file.write_text(json.dumps(report | {"checkpoint": "last.ckpt sha256:" + "0" * 64}))
    assert main(["export", str(run), "-o", "later"]) == 0
    card = Path("later/README.md").read_text()
    assert "1 evaluations of other weights" in card
    assert {row[3] for row in rows_of(card, "Scorecard")} == {"not measured"}


def test_nothing_tells_of_this_machine(trained: Path, videos: Path) -> None:
    assert main(["export", str(trained), "-o", "given"]) == 0
    for file in Path("given").iterdir():
        content = file.read_bytes()
        for path in (videos.parent, trained.parent, Path.cwd(), Path.home()):
            assert str(path).encode() not in content, file.name
    config = yaml.safe_load(Path("given/config.yaml").read_text())
    assert config["run"]["dataset"]["root"] == f"…/{videos.name}"
    assert config["cache_dir"] is None


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("train.py dataset.root=/home/me/videos seed=1", "train.py dataset.root=…/videos seed=1"),
        ("dataset.root=[/a/b,'/c/d e']", "dataset.root=[…/b,'…/d e']"),
        ("~/runs/one/", "…/one/"),
        (
            "outputs/moco/last ../b/c https://x.org/y/z 1/2 a / b",
            "outputs/moco/last ../b/c https://x.org/y/z 1/2 a / b",
        ),
        ("r3d_tiny", "r3d_tiny"),
    ],
)
def test_paths_are_shortened_to_their_last_name(text: str, without: str) -> None:
    assert without_paths({"key": [text, 1, None]}) == {"key": [without, 1, None]}


def test_weights_without_a_run_say_that_nothing_is_recorded(trained: Path) -> None:
    shutil.copy(trained / "checkpoints" / "backbone.safetensors", "alone.safetensors")
    assert main(["export", "alone.safetensors", "-o", "given"]) == 0
    card = Path("given/README.md").read_text()
    training = dict(rows_of(card, "How it was trained"))
    assert {training[key] for key in ("method", "data set", "manifest hash", "command")} == {"not recorded"}
    assert "How it was trained is not recorded" in card and "datasets" not in front_matter(card)
    assert yaml.safe_load(Path("given/config.yaml").read_text())["run"] is None


# --- graphs -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow  # two graphs; tests/hub/test_formats.py has quick ones
def test_graphs_are_written_checked_and_told(trained: Path, capsys: Printed) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    assert main(["export", str(trained), "-o", "given", "--formats", "safetensors,torch_export,onnx"]) == 0
    out, card = capsys.readouterr().out, Path("given/README.md").read_text()
    files = {row[0]: row for row in rows_of(card, "Files")}
    model = ssl_video.load("given")
    clips = model.transform(np.random.default_rng(0).integers(0, 256, (2, 4, 60, 80, 3), dtype=np.uint8))
    with torch.inference_mode():
        features = model(clips)
    session = onnxruntime.InferenceSession("given/backbone.onnx")
    assert [one.name for one in session.get_inputs()] == ["clips"]
    assert session.get_inputs()[0].shape == ["batch", 3, "frames", "height", "width"]
    graph = torch.export.load("given/backbone.pt2").module()
    torch.testing.assert_close(graph(clips), features, rtol=1e-4, atol=1e-5)
    [by_onnx] = session.run(None, {"clips": clips.numpy()})
    torch.testing.assert_close(torch.from_numpy(by_onnx), features, rtol=1e-4, atol=1e-5)
    for name in ("backbone.pt2", "backbone.onnx"):
        difference = files[f"`{name}`"][3]
        assert re.search(rf"{re.escape(name)}: .* at most {re.escape(difference)} of the largest feature", out)
        assert float(difference) <= formats.TOLERANCE


def test_a_graph_that_differs_leaves_nothing(trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed) -> None:
    def write_and_refuse(*arguments: object, folder: Path, **more: object) -> None:
        (folder / "backbone.pt2").write_text("wrong")
        raise formats.ExportFailed("backbone.pt2 was not written")

    monkeypatch.setattr(export, "export_graphs", write_and_refuse)
    assert main(["export", str(trained), "-o", "given", "--formats", "torch_export"]) == 1
    assert "backbone.pt2 was not written" in capsys.readouterr().err
    assert list(Path.cwd().iterdir()) == []


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["random", "-o", "given"], "random weights are no backbone to give away"),
        (["missing", "-o", "given"], "checkpoint=missing does not exist"),
        (["RUN", "-o", "there"], "--output=there is there already"),
        (
            ["RUN", "-o", "given", "--formats", "safetensors,onx"],
            "there is no onx; there are: safetensors, torch_export",
        ),
        (["RUN", "-o", "given", "--push", "r3d"], "--push=r3d must be owner/name"),
    ],
)
def test_faults_are_refused_before_anything_is_written(
    trained: Path, words: list[str], message: str, capsys: Printed
) -> None:
    Path("there").mkdir()
    assert main(["export", *[str(trained) if word == "RUN" else word for word in words]]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in Path.cwd().iterdir()] == ["there"]


# --- the Hub ----------------------------------------------------------------------------------------------------------


class FakeHub:
    """What is asked of the Hub's client; nothing leaves this machine."""

    calls: list[tuple[str, dict[str, Any]]]

    def __call__(self) -> "FakeHub":
        return self

    def __init__(self, fault: Exception | None = None) -> None:
        self.calls, self.fault = [], fault

    def create_repo(self, repo_id: str, **settings: Any) -> None:
        self.calls.append(("create_repo", {"repo_id": repo_id, **settings}))

    def upload_folder(self, **settings: Any) -> None:
        if self.fault is not None:
            raise self.fault
        files = sorted(file.name for file in Path(settings["folder_path"]).iterdir())
        self.calls.append(("upload_folder", {"repo_id": settings["repo_id"], "files": files}))


@pytest.mark.parametrize("words", [[], ["--public"]])
def test_push_uploads_the_folder(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed, words: list[str]
) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    hub = FakeHub()
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    assert main(["export", str(trained), "-o", "given", "--push", "some-lab/r3d", *words]) == 0
    files = ["README.md", "backbone.safetensors", "config.yaml"]
    assert hub.calls == [
        ("create_repo", {"repo_id": "some-lab/r3d", "private": not words, "exist_ok": True}),
        ("upload_folder", {"repo_id": "some-lab/r3d", "files": files}),
    ]
    assert 'ssl_video.load("some-lab/r3d")' in Path("given/README.md").read_text()
    assert "uploaded: some-lab/r3d" in capsys.readouterr().out


def test_without_the_hubs_client_nothing_is_written(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert main(["export", str(trained), "-o", "given", "--push", "some-lab/r3d"]) == 2
    assert "--push needs huggingface_hub" in capsys.readouterr().err
    assert not Path("given").exists()


def test_an_upload_that_fails_keeps_the_folder(trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHub(OSError("401 Unauthorized")))
    assert main(["export", str(trained), "-o", "given", "--push", "some-lab/r3d"]) == 1
    told = capsys.readouterr().err
    assert "given is written, but was not uploaded to some-lab/r3d: 401 Unauthorized" in told
    assert "hf upload some-lab/r3d given" in told
    assert ssl_video.load("given").feature_dim == 96


def test_the_fake_has_the_clients_signatures() -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    api = huggingface_hub.HfApi
    assert {"repo_id", "private", "exist_ok"} <= inspect.signature(api.create_repo).parameters.keys()
    assert {"repo_id", "folder_path", "commit_message"} <= inspect.signature(api.upload_folder).parameters.keys()
