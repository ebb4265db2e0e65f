"""``ssl-video report``: from real folders to the page, what is refused, and what is left out with a reason."""

import csv
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_video.cli import evaluate, train
from ssl_video.cli.main import main as ssl_video
from ssl_video.cli.report import main, write_report
from ssl_video.cli.report_inputs import read_runs
from ssl_video.cli.report_videos import _thumbnail_frames, split_overrides
from ssl_video.data.manifest import Segment
from ssl_video.report.page import MARK
from ssl_video.utils.errors import InputError
from support.folders import SMALL, labelled_folder
from support.reports import made_up_run, write_evaluation

pytestmark = pytest.mark.usefixtures("own_folder")

Printed = pytest.CaptureFixture[str]
TINY = ["num_frames=4", "dataset.num_workers=0", "evaluation.num_clips=2"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("labelled") / "videos")


def words_of(videos: Path) -> list[str]:
    return ["dataset=folder", f"dataset.root={videos}", f"dataset.labels={videos / 'labels.csv'}"]


@pytest.fixture(scope="module")
def trained(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps with what knn and retrieval say of it."""
    run = tmp_path_factory.mktemp("trained") / "lr=0.1,seed=5"  # as a sweep names its folders
    assert train.main([*words_of(videos), *SMALL, "trainer.max_steps=2", "seed=5", f"run_dir='{run}'"]) == 0
    for protocol in ("knn", "retrieval"):
        assert evaluate.main([f"checkpoint='{run}'", f"evaluation={protocol}", *TINY]) == 0
    return run


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "copied"))


def left_out(page: str) -> str:
    """What the page says it leaves out, in its last section."""
    found = re.search(r'<section id="notes">.*?</section>', page, flags=re.DOTALL)
    return "" if found is None else found[0]


def data_of(page: str) -> dict[str, dict[str, object]]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.DOTALL)
    assert found is not None
    content: dict[str, dict[str, object]] = json.loads(found[1])
    return content


# --- from real folders ------------------------------------------------------------------------------------------------


def test_a_run_becomes_a_page_with_its_videos(trained: Path, tmp_path: Path, capsys: Printed) -> None:
    target = tmp_path / "pages" / "report.html"
    assert ssl_video(["report", str(trained), "-o", str(target)]) == 0
    assert str(target) in capsys.readouterr().out
    page = target.read_text(encoding="utf-8")
    assert left_out(page) == ""
    report = json.loads(next((trained / "evaluations").glob("knn*/metrics.json")).read_text())
    assert report["manifest_hash"] in page and report["checkpoint"] in page
    assert f"{100 * report['metrics']['top1']:.1f} %" in page
    assert f"{100 * report['baselines']['random']['top1']:.1f} %" in page
    # Dark and bright are told apart by any features.
    assert page.count('<figure class="video hit">') > page.count('<figure class="video miss">')
    assert '<div class="absent"' not in page
    assert len(data_of(page)["pictures"]) >= report["videos"]
    assert "the last feature map" in page and re.search(r"frames? × \d+ × \d+ px", page)
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]


@pytest.mark.slow
def test_the_same_folders_give_the_same_page(trained: Path, tmp_path: Path) -> None:
    pages = [write_report([trained], output=tmp_path / f"{name}.html").read_bytes() for name in "ab"]
    assert pages[0] == pages[1]


@pytest.mark.slow
def test_an_evaluation_alone_finds_its_run_around_it(trained: Path, tmp_path: Path) -> None:
    (folder,) = (trained / "evaluations").glob("knn*")
    page = write_report([folder], output=tmp_path / "report.html").read_text()
    assert left_out(page) == ""
    assert '<span class="run"><i style="background: #0072B2"></i>moco</span>' in page
    assert "Left out: there is no metrics.csv" in page
    assert "unit " in page


@pytest.mark.slow
def test_layers_are_chosen_by_name(trained: Path, tmp_path: Path, capsys: Printed) -> None:
    words = [str(trained), "-o", str(tmp_path / "report.html")]
    assert main([*words, "--layers", "stem.0"]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "<h4>stem.0</h4>" in page and "the last feature map" not in page
    assert main([*words, "--force", "--layers", "nose"]) == 2
    assert "--layers=nose is no layer of R3D; take feature_map or" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--layers", "none"], ["--videos", "0"]])
def test_units_can_be_left_out(trained: Path, tmp_path: Path, words: list[str]) -> None:
    assert main([str(trained), "-o", str(tmp_path / "report.html"), *words]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "Left out: this needs a checkpoint" in page
    assert data_of(page)["pictures"]


def test_without_pictures_no_video_is_opened(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "ssl_video.cli.report_videos.build_datamodule", lambda *_, **__: pytest.fail("data were opened")
    )
    assert main([str(trained), "-o", str(tmp_path / "report.html"), "--no-pictures"]) == 0
    assert data_of((tmp_path / "report.html").read_text())["pictures"] == {}


# --- missing pieces ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_videos_that_have_moved_are_found_again_by_an_override(copied: Path, videos: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    Path(shutil.copytree(videos, elsewhere))
    moved = replace_root(copied, old=videos, new=tmp_path / "gone")
    page = write_report([moved], output=tmp_path / "first.html").read_text()
    assert "no thumbnails:" in left_out(page) and "no units:" in left_out(page)
    assert data_of(page)["pictures"] == {} and '<div class="absent"' in page
    again = write_report([moved], output=tmp_path / "second.html", overrides=words_of(elsewhere)).read_text()
    assert left_out(again).count("<li>") == 1  # the checkpoint was written anew, which is told
    assert "the training has gone on since" in left_out(again)
    assert data_of(again)["pictures"] and "unit " in again


def replace_root(run: Path, *, old: Path, new: Path) -> Path:
    """The run as if its videos had been under another folder."""
    file = run / "checkpoints" / "last.ckpt"
    content = torch.load(file, weights_only=True)
    dataset = content["config"]["dataset"]
    assert dataset["root"] == str(old)
    dataset |= {"root": str(new), "labels": str(new / "labels.csv")}
    torch.save(content, file)
    return run


@pytest.mark.slow
def test_other_videos_under_the_same_name_are_not_shown(copied: Path, tmp_path: Path) -> None:
    for file in (copied / "evaluations").glob("*/metrics.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"manifest_hash": "0" * 64}))
    page = write_report([copied], output=tmp_path / "report.html", layers="none").read_text()
    assert "is another data set now than the one that was measured" in left_out(page)
    assert data_of(page)["pictures"] == {}


def test_a_run_without_a_checkpoint_and_with_broken_files_still_has_a_page(copied: Path, tmp_path: Path) -> None:
    shutil.rmtree(copied / "checkpoints")
    (folder,) = (copied / "evaluations").glob("knn*")
    (folder / "predictions.parquet").write_bytes(b"no table")
    (folder / "features.safetensors").write_bytes(b"no tensors")
    (retrieval,) = (copied / "evaluations").glob("retrieval*")
    (retrieval / "metrics.json").write_text("{")
    with (copied / "metrics.csv").open("a") as file:
        file.write("0,2")  # cut off in the middle of a line
    page = write_report([copied], output=tmp_path / "report.html").read_text()
    notes = left_out(page)
    for text in ("predictions.parquet cannot be read", "features.safetensors cannot be read", "metrics.json cannot be"):
        assert text in notes
    assert "no units: no checkpoint lies beside these results." in notes
    with (copied / "metrics.csv").open() as file:
        values = [name for name in next(csv.reader(file)) if name not in ("epoch", "step")]
    assert len(data_of(page)["figures"]) == len(values)  # a curve each


def test_made_up_evaluations_without_a_run_are_shown_side_by_side(tmp_path: Path) -> None:
    folders = [
        write_evaluation(tmp_path / name / "scorecard", made_up_run(name, seed=number).evaluations[0])
        for number, name in enumerate(("first", "second"))
    ]
    page = write_report(folders).read_text()  # here, as there are several
    assert Path("report.html").is_file()
    assert "scorecard (scorecard)" in page and "scorecard (scorecard) 2" in page
    assert "no thumbnails:" in left_out(page)


# --- names ------------------------------------------------------------------------------------------------------------


def test_runs_of_one_method_are_told_apart_by_their_folders(copied: Path, trained: Path) -> None:
    assert [run.name for run in read_runs([copied, trained])] == ["moco (copied)", "moco (lr=0.1,seed=5)"]
    assert [run.name for run in read_runs([copied])] == ["moco"]


def test_overrides_that_say_nothing_of_videos_or_network_are_left_aside() -> None:
    given = [
        *("evaluation=scorecard", "run_dir=x", "checkpoint='a b.pth'", "dataset=folder", "dataset.root=/v", "seed=1"),
        *("backbone=from_checkpoint", "scorecard.shift=true", "+dataset.new=1", "datasets=no"),
    ]
    assert split_overrides(given) == ("a b.pth", ["dataset=folder", "dataset.root=/v", "seed=1", "+dataset.new=1"])


@pytest.mark.parametrize(
    ("segments", "frames", "milliseconds"),
    [
        ([(0, 48)], np.arange(12) * 4, 160),  # all of it, at its own speed
        ([(0, 5)], np.arange(5), 40),
        ([(0, 1000)], 462 + np.arange(12) * 75 // 12, 250),  # three seconds from the middle
        ([(10, 10), (30, 20)], 10 + np.arange(12) * 40 // 12, 133),  # from the first segment to the last
    ],
)
def test_a_thumbnail_shows_the_middle_at_its_own_speed(
    segments: Sequence[tuple[int, int]], frames: np.ndarray, milliseconds: int
) -> None:
    listed = [
        Segment(row, str(row), "v", "v.mp4", first, number, 25.0, 64, 64)
        for row, (first, number) in enumerate(segments)
    ]
    found, shown = _thumbnail_frames(listed)
    assert found.tolist() == frames.tolist()
    assert shown == milliseconds


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_what_is_no_result_is_refused(tmp_path: Path, trained: Path, capsys: Printed) -> None:
    (tmp_path / "empty").mkdir()
    cases = {
        (str(tmp_path / "nowhere"),): "is no folder; give the folder of a training run or of an evaluation",
        (str(tmp_path / "empty"),): "holds no result: neither run.json of a training run nor metrics.json",
        (str(trained.parent),): f"Below it there are {trained}",
        (str(trained), str(trained)): "is given twice",
        (str(trained), "--videos", "-1"): "--videos=-1 must be at least 0",
        ("dataset.root=/somewhere",): "no RUN is given",
        (str(trained), str(trained.parent), "checkpoint=x.pth"): "Below it there are",
    }
    for words, message in cases.items():
        assert main([*words, "-o", "page.html"]) == 2
        assert message in capsys.readouterr().err
    assert not Path("page.html").exists()


def test_a_run_that_has_nothing_yet_is_refused(copied: Path, capsys: Printed) -> None:
    shutil.rmtree(copied / "evaluations")
    (copied / "metrics.csv").unlink()
    assert main([str(copied)]) == 2
    assert "holds no result yet: neither metrics.csv" in capsys.readouterr().err


def test_one_checkpoint_cannot_be_that_of_several_runs(trained: Path, copied: Path) -> None:
    with pytest.raises(InputError, match=r"checkpoint=x\.pth cannot be that of 2 runs"):
        write_report([trained, copied], overrides=["checkpoint=x.pth"])


def test_a_page_is_written_over_only_by_force_and_another_file_never(trained: Path, capsys: Printed) -> None:
    words = [str(trained), "-o", "page.html", "--no-pictures"]
    assert main(words) == 0
    before = Path("page.html").read_bytes()
    assert main(words) == 2
    assert "exists; name another file, or say --force" in capsys.readouterr().err
    assert main([*words, "--force"]) == 0
    assert Path("page.html").read_bytes() == before and MARK.encode() in before
    Path("notes.html").write_text("my own notes")
    Path("folder").mkdir()
    for target, message in (("notes.html", "is no page of ours, so it stays"), ("folder", "is no file; name a file")):
        assert main([str(trained), "-o", target, "--no-pictures", "--force"]) == 2
        assert message in capsys.readouterr().err
    assert Path("notes.html").read_text() == "my own notes"


def test_new_results_get_a_new_page_where_an_older_one_lies(tmp_path: Path) -> None:
    run = made_up_run("run")
    folder = write_evaluation(tmp_path / "knn", run.evaluations[0])
    page = write_report([folder], with_pictures=False)
    before = page.read_bytes()
    (folder / "metrics.json").rename(tmp_path / "metrics.json")
    with pytest.raises(InputError, match="holds no result"):
        write_report([folder], with_pictures=False, force=True)
    assert page.read_bytes() == before
    (folder / "metrics.json").write_text(json.dumps(dict(run.evaluations[0].report) | {"checkpoint": "another one"}))
    with pytest.raises(InputError, match="say --force to write over it"):
        write_report([folder], with_pictures=False)
    assert page.read_bytes() == before
    assert write_report([folder], with_pictures=False, force=True) == page
    assert "another one" in page.read_text() and b"another one" not in before
    page.write_text(f"What tells a page is {MARK}\n{MARK}\n")
    with pytest.raises(InputError, match="is no page of ours, so it stays; move it, or name another file"):
        write_report([folder], with_pictures=False, force=True)
    assert page.read_text().startswith("What tells")


def test_a_page_that_cannot_be_written_is_refused(trained: Path, capsys: Printed) -> None:
    Path("file").write_text("")
    assert main([str(trained), "-o", "file/page.html", "--no-pictures"]) == 2
    assert "cannot be written" in capsys.readouterr().err
