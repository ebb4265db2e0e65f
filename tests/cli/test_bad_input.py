"""Each kind of bad input: what is said, the exit code, and that nothing is lost."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_video.cli import evaluate, main, train
from ssl_video.utils.checkpoint import read_checkpoint
from support.folders import REPOSITORY, SMALL, labelled_folder, numbered_folder, read_metrics

pytestmark = pytest.mark.usefixtures("own_folder")

Printed = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("labelled"), videos=12)


def command(root: Path, *overrides: str) -> list[str]:
    return ["dataset=folder", f"dataset.root={root}", "trainer.max_steps=2", *SMALL, *overrides]


def refused(printed: Printed, *overrides: str) -> str:
    """Exit code 2, and what was said."""
    assert train.main(list(overrides)) == 2
    return printed.readouterr().err


def test_no_root(capsys: Printed) -> None:
    assert "dataset=folder needs dataset.root=DIR" in refused(capsys, "dataset=folder")


def test_missing_root(capsys: Printed) -> None:
    assert "dataset.root=/no/such/folder is not a folder" in refused(capsys, *command(Path("/no/such/folder")))


def test_folder_without_videos(tmp_path: Path, capsys: Printed) -> None:
    (tmp_path / "notes.txt").write_text("no video")
    message = refused(capsys, *command(tmp_path))
    assert "no video" in message
    assert tmp_path.name in message


def test_all_videos_unreadable(tmp_path: Path, capsys: Printed) -> None:
    root = tmp_path / "bad"
    root.mkdir()
    for number in range(5):
        (root / f"{number}.mp4").write_bytes(b"not a video" * 50)
    message = refused(capsys, *command(root))
    assert "5 of 5 videos" in message
    assert "dataset.max_unreadable_share=0.1" in message
    assert "0.mp4" in message


@pytest.mark.slow
def test_some_videos_unreadable_are_counted_and_named(tmp_path: Path, videos: Path, capsys: Printed) -> None:
    root = tmp_path / "mixed"
    shutil.copytree(videos, root)
    (root / "labels.csv").unlink()
    (root / "broken.mp4").write_bytes(b"not a video" * 50)
    assert train.main(command(root, "run_dir=a")) == 0
    assert "1 missing or unreadable, see unreadable_videos.tsv" in capsys.readouterr().out
    assert "broken.mp4" in Path("a/unreadable_videos.tsv").read_text()
    assert len(read_metrics(Path("a"))) == 2
    message = refused(capsys, *command(root, "dataset.max_unreadable_share=0.01", "run_dir=b"))
    assert "1 of 13 videos" in message
    assert not Path("b").exists()


@pytest.mark.slow
def test_videos_shorter_than_the_clip(tmp_path: Path, videos: Path, capsys: Printed) -> None:
    """The videos have 24 frames: 40 are repeated at the end, or the videos are left out under end_policy=error."""
    long = command(videos, "sampler.frame_stride=13")
    assert train.main([*long, "run_dir=a"]) == 0
    assert "12 shorter than 40 frames, end_policy=repeat_last" in capsys.readouterr().out
    short = numbered_folder(tmp_path / "short", videos=4, num_frames=8)
    shutil.copytree(videos, tmp_path / "both")
    for file in short.iterdir():
        shutil.copy(file, tmp_path / "both" / f"short_{file.name}")
    (tmp_path / "both" / "labels.csv").unlink()
    capsys.readouterr()
    assert (
        train.main(command(tmp_path / "both", "sampler.end_policy=error", "sampler.frame_stride=4", "run_dir=b")) == 0
    )
    assert "4 shorter than 13 frames, left out" in capsys.readouterr().out
    message = refused(capsys, *command(videos, "sampler.end_policy=error", "sampler.frame_stride=13"))
    assert "batch_size=4" in message
    assert "12 are shorter than the 40 frames" in message


def test_batch_larger_than_the_data(videos: Path, capsys: Printed) -> None:
    message = refused(capsys, *command(videos, "batch_size=64"))
    assert "batch_size=64" in message
    assert "larger than the 12 usable" in message


@pytest.mark.parametrize("method", ["simclr", "cvrl", "byol", "swav", "moco_v3", "opn", "moco"])
def test_a_batch_of_one_where_videos_are_compared(videos: Path, capsys: Printed, method: str) -> None:
    words = ("dataset=folder", f"dataset.root={videos}", "dataset.num_workers=0", f"method={method}", "run_dir=one")
    assert "batch_size=1 must be at least 2 videos on each device" in refused(capsys, *words, "batch_size=1")
    assert not Path("one").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("method=shuffle_and_learn", "backbone=c3d"), "num_frames=1 must be at least 8 for C3D"),
        (("method=shuffle_and_learn", "backbone=c3d"), "ShuffleAndLearn gives its backbone one frame at a time"),
        (("method=opn", "backbone=caffenet"), "227"),
        (("method=o3n", "method.num_branches=5", "method.fusion=sum_diff"), "must be even with method.fusion=sum_diff"),
        (("method=o3n", "method.num_branches=4"), "sampler.num_views=6"),
        (("method=opn", "sampler.missing_motion=error"), "ssl-video motion"),
        (("method=moco", "label_fraction=0.1"), "label_fraction"),
        (("method=tcl", "label_split_file=nothing.txt"), "label_split_file=nothing.txt is not a file"),
        (("method=supervised",), "needs labels of 2 classes or more"),
    ],
)
def test_what_does_not_fit_a_method(tmp_path: Path, capsys: Printed, words: tuple[str, ...], said: str) -> None:
    """Before the first step, without a traceback, and without a folder that looks like a run."""
    root = numbered_folder(tmp_path / "numbered", videos=4, num_frames=50)
    given = ("dataset=folder", f"dataset.root={root}", "dataset.num_workers=0", "batch_size=2", "run_dir=unfit")
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label\n" + "".join(f"video_{n:02d}.mp4,{n % 2}\n" for n in range(4)))
    labelled = (f"dataset.labels={labels}",) if "method=tcl" in words else ()
    message = refused(capsys, *given, *labelled, *words)
    assert said in message
    assert "Traceback" not in message
    assert not Path("unfit").exists()


def test_unknown_override_and_method(capsys: Printed) -> None:
    message = refused(capsys, "method=mocco", "traner.max_steps=3")
    assert "2 faults" in message
    assert "did you mean 'moco'?" in message
    assert "did you mean 'trainer.max_steps'?" in message


def test_experiment_refuses_another_method(capsys: Printed) -> None:
    message = refused(capsys, "experiment=vcop_r3d_ucf101", "method=moco")
    assert "experiment=vcop_r3d_ucf101 is a claim about method=vcop" in message


def test_folder_that_holds_a_run_is_not_written_over(videos: Path, capsys: Printed) -> None:
    assert train.main(command(videos, "run_dir=a")) == 0
    before = Path("a/metrics.csv").read_bytes()
    assert "run_dir=a holds a run already; go on with it by resume=a" in refused(capsys, *command(videos, "run_dir=a"))
    assert Path("a/metrics.csv").read_bytes() == before


def test_resume_of_nothing(videos: Path, capsys: Printed) -> None:
    assert "resume=nothing is neither a run's folder" in refused(capsys, *command(videos, "resume=nothing"))


def test_wrong_number_of_views(videos: Path, capsys: Printed) -> None:
    assert "sampler.num_views=1; MoCo compares 2 clips" in refused(capsys, *command(videos, "sampler.num_views=1"))


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(videos: Path) -> Path:
    assert train.main(command(videos, "run_dir=run")) == 0
    return Path("run")


def evaluation_refused(printed: Printed, checkpoint: Path, *overrides: str) -> str:
    printed.readouterr()
    assert evaluate.main([f"checkpoint={checkpoint}", *overrides]) == 2
    assert not list(Path().rglob("metrics.json"))
    return printed.readouterr().err


def test_missing_checkpoint(capsys: Printed) -> None:
    assert "checkpoint=no_run does not exist" in evaluation_refused(capsys, Path("no_run"))


def test_truncated_checkpoint(run: Path, capsys: Printed) -> None:
    path = run / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:-1000])
    assert "is truncated or not a checkpoint" in evaluation_refused(capsys, run)
    safetensors = run / "checkpoints" / "backbone.safetensors"
    safetensors.write_bytes(safetensors.read_bytes()[:-1000])
    assert "is truncated or not a safetensors file" in evaluation_refused(capsys, safetensors)


def test_changed_checkpoint(run: Path, capsys: Printed) -> None:
    path = run / "checkpoints" / "last.ckpt"
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    content = bytearray(path.read_bytes())
    content[largest.header_offset + 30 + len(largest.filename) + largest.file_size // 2] ^= 255
    path.write_bytes(content)
    assert "is damaged: the checksum of" in evaluation_refused(capsys, run)


def test_checkpoint_of_another_backbone(run: Path, capsys: Printed) -> None:
    message = evaluation_refused(capsys, run, "backbone=r3d")
    assert "checkpoint=run is of another backbone" in message


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch executed",)


def test_checkpoint_that_holds_more_than_data(run: Path, capsys: Printed) -> None:
    content = read_checkpoint(run / "checkpoints" / "last.ckpt")
    torch.save(content | {"surprise": Evil()}, "evil.ckpt")
    assert "holds more than tensors and plain data" in evaluation_refused(capsys, Path("evil.ckpt"))
    Path("pickled.ckpt").write_bytes(pickle.dumps(Evil()))
    assert "is truncated or not a checkpoint" in evaluation_refused(capsys, Path("pickled.ckpt"))
    assert not Path("executed").exists()


def test_checkpoint_whose_config_names_another_class(run: Path, capsys: Printed) -> None:
    content = read_checkpoint(run / "checkpoints" / "last.ckpt")
    content["backbone_config"]["backbone"]["_target_"] = "subprocess.getoutput"
    content["backbone_config"]["backbone"] |= {"cmd": "touch executed"}
    torch.save(content, "evil.ckpt")
    assert "in none of the trusted packages" in evaluation_refused(capsys, Path("evil.ckpt"))
    assert not Path("executed").exists()


def test_checkpoint_whose_config_uses_what_a_module_of_ours_imports(run: Path, capsys: Printed) -> None:
    """A trusted prefix is not enough: what a module imported or a function of it is no class of ours."""
    content = read_checkpoint(run / "checkpoints" / "last.ckpt")
    for payload in (
        {"_target_": "ssl_video.utils.run.Path", "_args_": ["x"]},
        {"_target_": "ssl_video.utils.run.write_text", "path": "executed", "text": "x"},
    ):
        content["backbone_config"]["input_transform"] = payload
        torch.save(content, "evil.ckpt")
        assert "in none of the trusted packages" in evaluation_refused(capsys, Path("evil.ckpt"))
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sampler.num_frames=0", "num_frames=0"),
        ("method.momentum=2", "momentum=2"),
        ("trainer.accelerator=gpuu", "gpuu"),
    ],
)
def test_a_value_that_a_class_refuses(videos: Path, capsys: Printed, override: str, said: str) -> None:
    message = refused(capsys, *command(videos, override))
    assert "refuses its arguments" in message
    assert said in message


def test_resume_on_changed_data_or_another_backbone(run: Path, videos: Path, tmp_path: Path, capsys: Printed) -> None:
    shutil.copytree(videos, tmp_path / "changed")
    (tmp_path / "changed" / "video_00.mp4").unlink()
    more = "trainer.max_steps=4"
    message = refused(capsys, "resume=run", more, f"dataset.root={tmp_path / 'changed'}", "batch_size=2")
    assert "have changed since the run began" in message
    assert "of another backbone or method" in refused(capsys, "resume=run", more, "backbone=mc3_18")
    assert train.main(["resume=run", more]) == 0


def test_resume_auto_of_a_run_without_a_checkpoint_starts_it_again(run: Path) -> None:
    for file in (run / "checkpoints").glob("*.ckpt"):
        file.unlink()
    assert train.main(["resume=run"]) == 0
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == 2


def test_every_checkpoint_loads_with_weights_only(run: Path) -> None:
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2


# --- what happens while it runs ---------------------------------------------------------------------------------------


def test_full_disk_keeps_the_checkpoint_before(videos: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed) -> None:
    from ssl_video.utils import checkpoint

    original = torch.save
    calls = []

    def full_from_the_second_on(content: Any, path: Path) -> None:
        calls.append(path)
        if len(calls) == 1:
            original(content, path)
        else:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full_from_the_second_on)
    arguments = command(videos, "checkpoint_every_steps=1", "trainer.max_steps=3", "run_dir=a")
    assert train.main(arguments) == 1  # the last checkpoint is the run's result, so failing to write it is a fault
    monkeypatch.setattr(checkpoint.torch, "save", original)
    assert len(calls) == 3
    assert "The checkpoint of step 2 could not be written" in capsys.readouterr().err
    assert read_checkpoint(Path("a/checkpoints/last.ckpt"))["global_step"] == 1
    assert not list(Path("a").rglob("*.partial"))
    assert train.main(["resume=a"]) == 0
    assert [int(row["step"]) for row in read_metrics(Path("a"))] == [0, 1, 2]


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_that_goes_on(videos: Path) -> None:
    arguments = command(videos, "checkpoint_every_steps=1", "run_dir=a")
    arguments = [text for text in arguments if not text.startswith("trainer.max_steps")]
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "train.py"), *arguments, "trainer.max_steps=100000"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    checkpoint = Path("a/checkpoints/last.ckpt")
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Interrupted. The last checkpoint can be resumed" in output
    done = read_checkpoint(checkpoint)["global_step"]
    assert done >= 1
    assert train.main(["resume=a", f"trainer.max_steps={done + 2}"]) == 0
    assert torch.load(checkpoint, weights_only=True)["global_step"] == done + 2


@pytest.mark.slow
def test_one_bad_job_of_a_sweep_lets_the_others_run(videos: Path, capsys: Printed) -> None:
    arguments = command(videos, "batch_size=2,64,4")
    arguments.remove("batch_size=4")
    assert train.main(["-m", *arguments]) == 1
    message = capsys.readouterr().err
    assert "1 of 3 jobs failed" in message
    assert "job 1" in message
    assert "batch_size=64" in message
    assert sorted(file.parent.name[0] for file in Path("outputs/sweeps").glob("*/*/checkpoints")) == ["0", "2"]


@pytest.mark.slow
def test_a_sweep_with_a_misspelt_choice_starts_nothing(videos: Path, capsys: Printed) -> None:
    assert train.main(["-m", *command(videos, "method=moco,mocco")]) == 2
    assert "there is no method=mocco" in capsys.readouterr().err
    assert not Path("outputs").exists()


def test_unknown_command(capsys: Printed) -> None:
    assert main.main(["trane"]) == 2
    assert "there is no command 'trane'" in capsys.readouterr().err
