"""What a user gets who installs the package: the built archives, and an install of the wheel away from the checkout."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from ssl_video.utils import conf_path
from ssl_video.utils.errors import InputError


def run(*command: str | Path, cwd: Path, pythonpath: Path | None = None) -> str:
    """Run a command of this Python and return what it printed; the checkout is not on its path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if pythonpath is not None:
        environment["PYTHONPATH"] = str(pythonpath)
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, f"exit code {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def sdist(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive of the checkout."""
    folder = tmp_path_factory.mktemp("sdist")
    run("-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=repository)
    (archive,) = folder.glob("*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source archive: so that archive is complete too."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    run("-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=source)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed; the dependencies come from the environment of the tests."""
    folder = tmp_path_factory.mktemp("install")
    run("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", folder, wheel, cwd=folder)
    return folder


def config_files(repository: Path) -> set[str]:
    return {path.relative_to(repository).as_posix() for path in (repository / "conf").rglob("*.yaml")}


@pytest.mark.slow
def test_source_archive_is_complete(repository: Path, sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert config_files(repository) - names == set()
    assert {"LICENSE", "README.md", "constraints.txt", "train.py", "evaluate.py", "tests/conftest.py"} - names == set()


@pytest.mark.slow
def test_wheel_carries_configuration_and_types(repository: Path, wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"ssl_video/{name}" for name in config_files(repository)}
    assert len(expected) > 10
    assert expected - names == set()
    assert "ssl_video/py.typed" in names
    sources = {path.relative_to(repository).as_posix() for path in (repository / "ssl_video").rglob("*.py")}
    assert sources - names == set()
    templates = {path.relative_to(repository).as_posix() for path in (repository / "ssl_video").rglob("templates/*")}
    assert len(templates) == 3 and templates - names == set()
    others = {name for name in names if not name.startswith(("ssl_video/", "ssl_video-"))}
    plugins = {"hydra_plugins/ssl_video_slurm.py"}  # Hydra looks for launchers in no other package
    assert others == plugins, f"the wheel would install {sorted(others - plugins)} beside the package."


@pytest.mark.slow
def test_wheel_declares_licence_and_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
        commands = archive.read(metadata.replace("METADATA", "entry_points.txt")).decode()
    assert "License-Expression: Apache-2.0\n" in text
    assert "Requires-Python: <3.14,>=3.11\n" in text
    assert "ssl-video = ssl_video.cli.main:main" in commands


@pytest.mark.slow
def test_installed_package_finds_its_own_configuration(install: Path, tmp_path: Path) -> None:
    code = "from ssl_video.utils.conf_path import conf_dir; print(conf_dir())"
    printed = run("-c", code, cwd=tmp_path, pythonpath=install)
    assert Path(printed.strip()) == install / "ssl_video" / "conf"


@pytest.mark.slow
def test_installed_command_composes_a_configuration(install: Path, tmp_path: Path) -> None:
    printed = run("-m", "ssl_video.cli.main", "train", "--cfg", "job", cwd=tmp_path, pythonpath=install)
    assert {"seed", "batch_size", "method", "backbone", "dataset", "trainer"} - yaml.safe_load(printed).keys() == set()
    assert list(tmp_path.iterdir()) == [], "printing a configuration must not write anything."


def test_checkout_finds_the_configuration_beside_the_package(repository: Path) -> None:
    assert conf_path.conf_dir() == repository / "conf"


def test_configuration_inside_the_package_comes_first(tmp_path: Path) -> None:
    package = tmp_path / "ssl_video"
    for folder in (tmp_path / "conf", package / "conf"):
        folder.mkdir(parents=True)
        (folder / "train.yaml").touch()
    assert conf_path.conf_dir(package) == package / "conf"


def test_foreign_conf_folder_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    with pytest.raises(InputError, match=r"No conf/train\.yaml in .*ssl_video.* Install it again"):
        conf_path.conf_dir(tmp_path / "ssl_video")
