"""Every command and file that README.md and METHODS.md name is there and composes."""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssl_video.cli import evaluate, index, launch, main, train
from ssl_video.cli.parts import PROVIDED, EvaluateSettings, TrainSettings
from ssl_video.cli.resume import complete_overrides
from ssl_video.utils.conf_path import conf_dir
from ssl_video.utils.config import compose_checked, expand_sweep
from support.folders import REPOSITORY, labelled_folder, read_metrics

PAGES = ("README.md", "METHODS.md")
BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
SCRIPTS = {"python train.py": "train", "python evaluate.py": "evaluate"}


def text_of(page: str) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


def lines_of_code(page: str) -> list[str]:
    """Lines of code blocks, continued ones joined, and code within sentences."""
    text = text_of(page)
    blocks = "".join(BLOCK.findall(text)).replace("\\\n", " ")
    return [*blocks.splitlines(), *INLINE.findall(BLOCK.sub("", text))]


def commands(page: str) -> list[tuple[str, tuple[str, ...]]]:
    """(train | evaluate | index | demo, its words) of every command; those with an ellipsis are no commands yet."""
    found = []
    for line in lines_of_code(page):
        line = re.sub(r"^srun (--\S+ )*", "", line)
        for start, name in SCRIPTS.items():
            if line.startswith(f"{start} ") or line.rstrip() == start:
                found.append((name, tuple(shlex.split(line.removeprefix(start), comments=True))))
        if line.startswith("ssl-video "):
            words = shlex.split(line, comments=True)[1:]
            found.append((words[0], tuple(words[1:])))
    return [(name, words) for name, words in found if "…" not in " ".join(words)]


COMMANDS = [(page, name, words) for page in PAGES for name, words in commands(page)]


def test_number_of_commands() -> None:
    """A pattern that finds too little would make the next test pass on nothing."""
    assert len(COMMANDS) >= 15
    assert {name for _, name, _ in COMMANDS} >= {"train", "evaluate", "index"}
    assert {page for page, _, _ in COMMANDS} == set(PAGES)
    for page in PAGES:
        written = sum(text_of(page).count(start) for start in SCRIPTS)
        assert sum(name in SCRIPTS.values() for name, _ in commands(page)) == written, "every one of them is read"


@pytest.mark.parametrize(
    ("name", "words"),
    [(name, words) for _, name, words in COMMANDS],
    ids=[f"{page}: {name} {' '.join(words)}" for page, name, words in COMMANDS],
)
@pytest.mark.slow
@pytest.mark.usefixtures("own_method")
def test_every_command_composes(name: str, words: tuple[str, ...]) -> None:
    assert name in main.COMMANDS
    if name in ("train", "evaluate"):
        assert composed(name, words) >= 1
    elif name == "index":
        assert index._parser().parse_args(words).output


def composed(name: str, words: tuple[str, ...]) -> int:
    """Composes each job of a command as the command itself does before it starts; the number of jobs."""
    flags, overrides = launch._split(words)
    if name == "train":
        overrides = complete_overrides([text for text in overrides if not text.startswith("resume=")])  # of no run here
    else:
        overrides = ["checkpoint=random" if text == "checkpoint=RUN" else text for text in overrides]
    jobs = expand_sweep(overrides) if flags.multirun else [overrides]
    for job in jobs:
        compose_checked(
            name,
            job,
            provided=PROVIDED,
            settings=TrainSettings if name == "train" else EvaluateSettings,
            config_dirs=[flags.config_dir] if flags.config_dir else [],
        )
    return len(jobs)


def test_a_sweep_is_all_its_jobs() -> None:
    assert composed("train", ("-m", "method=moco,vcop", "seed=0,1,2")) == 6


# --- a method of one's own, as README says ----------------------------------------------------------------------------

METHOD = """
import torch
from ssl_video.methods.base import SSLMethod
from ssl_video.utils.errors import InputError


class Mine(SSLMethod):
    def __init__(self, *, weight: float = 1.0, **rest):
        super().__init__(**rest)
        self.weight = weight

    def check_batch(self, *, num_views, num_frames):
        if num_views != 2:
            raise InputError(f"sampler.num_views={num_views}; Mine needs 2.")

    def losses(self, batch):
        first, second = (self.backbone(clips) for clips in batch.clips.unbind(1))
        return {"distance": self.weight * (first - second).square().mean()}
"""


@pytest.fixture
def own_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A current folder with the two files of README's example."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_methods.py").write_text(METHOD)
    (tmp_path / "my_conf" / "method").mkdir(parents=True)
    (tmp_path / "my_conf" / "method" / "mine.yaml").write_text("_target_: my_methods.Mine\nweight: 0.5\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("my_methods", None)  # another test's
    yield
    sys.modules.pop("my_methods", None)


@pytest.mark.slow
@pytest.mark.usefixtures("own_method")
def test_a_method_of_ones_own_trains_and_is_measured_without_a_fork(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = labelled_folder(tmp_path / "videos", videos=12)
    data = ["dataset=folder", f"dataset.root={videos}", f"dataset.labels={videos / 'labels.csv'}"]
    sizes = ["batch_size=4", "dataset.num_workers=0", "sampler.num_frames=4", "trainer.max_steps=2"]
    words = ["--config-dir", "my_conf", "method=mine", *data, *sizes]
    assert train.main([*words, "run_dir=run"]) == 0
    rows = read_metrics(Path("run"))
    assert len(rows) == 2
    assert all(float(row["train/loss"]) == float(row["train/distance"]) > 0 for row in rows)
    assert evaluate.main(["checkpoint=run", "run_dir=result", "baselines=[]", "dataset.num_workers=0"]) == 0
    capsys.readouterr()
    assert train.main([*words, "method.wieght=1.0"]) == 2
    assert "did you mean 'method.weight'?" in capsys.readouterr().err
    assert train.main([*words, "sampler.num_views=3"]) == 2
    assert "Mine needs 2" in capsys.readouterr().err


# --- names ------------------------------------------------------------------------------------------------------------


def test_make_targets_exist() -> None:
    named = {
        target for page in PAGES for line in lines_of_code(page) for target in re.findall(r"\bmake ([a-z-]+)", line)
    }
    there = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    assert {"demo", "test"} <= named
    assert named <= there


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text_of(page)):
            if "://" not in target:
                assert (REPOSITORY / target).exists(), f"{page}: {target}"


def test_files_that_are_named_exist() -> None:
    paths = {
        word.rstrip(".,;:")
        for page in PAGES
        for line in lines_of_code(page)
        for word in line.split()
        if re.fullmatch(r"(tests|ssl_video|conf)/[\w/.]+", word)
    }
    assert len(paths) >= 8
    assert sorted(path for path in paths if not (REPOSITORY / path).exists()) == []


def test_choices_that_are_named_exist() -> None:
    """`method=moco`, alone or in a command: the group has such a file."""
    groups = {folder.name for folder in conf_dir().iterdir() if folder.is_dir()}
    named = {
        (group, choice)
        for page in PAGES
        for line in lines_of_code(page)
        for group, choice in re.findall(r"(?<![\w.])(\w+)=(\w+)(?![\w.=*])", line)
        if group in groups and choice != "mine"
    }
    assert len(named) >= 10
    missing = [f"{group}={choice}" for group, choice in named if not (conf_dir() / group / f"{choice}.yaml").is_file()]
    assert sorted(missing) == []


def test_results_are_filled_in(repository: Path) -> None:
    text = (repository / "README.md").read_text()
    assert "TABLES" not in text
    assert "| pre-trained" in text
