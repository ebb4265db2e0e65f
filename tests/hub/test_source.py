"""Weights by a path or by a repository's name; the Hub is a prepared cache folder, and no network is used."""

import builtins
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ssl_video.hub.source import check_repository, find_weights
from ssl_video.utils.errors import InputError
from support.folders import REPOSITORY

constants = pytest.importorskip("huggingface_hub.constants")

COMMIT, OLDER = "a" * 40, "b" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache as `hf download` leaves it: a repository with a branch, and an older commit with a tag."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "hub" / "models--some-lab--r3d"
    for commit, name, text in ((COMMIT, "main", "newest"), (OLDER, "v1", "older")):
        (repository / "snapshots" / commit).mkdir(parents=True)
        (repository / "snapshots" / commit / "backbone.safetensors").write_text(text)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / name).write_text(commit)
    return tmp_path


def test_a_path_comes_before_a_repository(cache: Path) -> None:
    (cache / "some-lab" / "r3d").mkdir(parents=True)
    assert find_weights("some-lab/r3d") == Path("some-lab/r3d")


@pytest.mark.parametrize(
    ("name", "content"),
    [("some-lab/r3d", "newest"), ("some-lab/r3d@v1", "older"), (f"some-lab/r3d@{OLDER}", "older")],
)
def test_a_repository_is_found_by_name_and_revision(cache: Path, name: str, content: str) -> None:
    assert find_weights(name).read_text() == content


@pytest.mark.parametrize("name", ["some-lab/other", "some-lab/r3d@v2"])
def test_what_is_not_in_the_cache_is_refused_offline(cache: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is no file or folder here, and cannot be fetched") as fault:
        find_weights(name)
    assert "HF_HUB_OFFLINE=1" in str(fault.value)
    assert f"hf download {name.partition('@')[0]} backbone.safetensors" in str(fault.value)


@pytest.mark.parametrize("name", ["r3d", "/no/such/folder", "a/b/c", "outputs/a b"])
def test_what_is_neither_path_nor_repository_is_refused(cache: Path, name: str) -> None:
    with pytest.raises(InputError, match="is no file or folder here, and not the name of a repository"):
        find_weights(name)


def test_a_name_that_the_hub_does_not_allow_is_refused(cache: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be fetched from the Hub: .*--"):
        find_weights("some--lab/r3d")


def test_without_the_package_the_way_out_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.startswith("huggingface_hub"):
            raise ImportError(name)
        return original(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"huggingface_hub must be installed: pip install 'ssl_video\[hub\]'"):
        find_weights("some-lab/r3d")


@pytest.mark.parametrize("name", ["r3d", "some-lab/r3d@v1", "a/b/c", ""])
def test_only_owner_and_name_can_be_pushed_to(name: str) -> None:
    check_repository("some-lab/r3d")
    with pytest.raises(InputError, match="must be owner/name"):
        check_repository(name)


@pytest.mark.slow  # a process of its own, as the Hub's client reads the environment when it is imported
def test_the_environment_alone_says_where_the_cache_is(cache: Path) -> None:
    code = (
        "from ssl_video.hub.source import find_weights; print(find_weights('some-lab/r3d').read_text()); "
        "find_weights('some-lab/other')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache / "hub")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "newest\n" and done.returncode == 1
    assert "InputError: some-lab/other is no file or folder here" in done.stderr
