"""The import direction between the folders of ssl_video/, and the sizes that keep its files to one purpose.

The rules are those of the architecture: an arrow that is not in ``ALLOWED`` is refused. All imports are read from the
sources, also those inside functions, under TYPE_CHECKING, and by ``import_module`` of a literal name.
"""

import ast
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# What a folder may import of ssl_video besides itself: module names and all below them, relative to ssl_video.
ALLOWED: dict[str, tuple[str, ...]] = {
    "backbones": ("modules", "utils"),
    "callbacks": ("metrics", "modules", "backbones.base", "data.batch", "data.semi_batch", "utils"),
    "data": ("utils",),
    "evaluation": ("metrics", "modules", "losses", "optim", "backbones.base", "data.batch", "utils"),
    "loggers": ("utils",),
    "hub": ("backbones", "data", "utils"),
    "losses": ("utils.distributed",),
    "methods": (
        *("losses", "modules", "optim", "pretext", "semi", "backbones.base", "data.batch", "data.semi_batch", "utils"),
    ),
    "metrics": ("utils.distributed",),
    "modules": ("utils.distributed",),
    "optim": ("utils",),
    "pretext": (),
    "report": ("backbones.base", "data.batch", "utils"),
    "semi": ("losses", "utils.distributed"),
    "utils": (),
}
ANYTHING = "cli"
# The package itself has `ssl_video.load`, and nothing else.
ROOT, OF_ROOT = "__init__.py", ("hub",)
# Beside the standard library, which folders may use only these packages.
THIRD_PARTY = {"pretext": ("torch",)}
CONFIG_PACKAGES = ("hydra", "hydra_plugins", "omegaconf")
CONFIG_READERS = ("utils/config.py", "utils/run.py", "cli/")

MAX_LINES = {"methods/base.py": 120, "cli/train.py": 59, "cli/evaluate.py": 59}
MAX_LINES_METHOD = 150
MAX_LINES_ENTRY = 59


@dataclass(frozen=True)
class Import:
    """One imported module, by its full dotted name."""

    module: str
    line: int


def is_within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def is_module(name: str, root: Path) -> bool:
    path = root.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports_of(path: Path, root: Path) -> Iterator[Import]:
    """Yield what a file imports; ``from package import name`` counts as package.name where that is a module.

    Args:
        path: the source file.
        root: the folder that holds the package.
    """
    package = path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield Import(alias.name, node.lineno)
            case ast.ImportFrom(module=module, names=names, level=level):
                origin = package[: len(package) - level + 1] if level else ()
                base = ".".join((*origin, module) if module else origin)
                for alias in names:
                    name = f"{base}.{alias.name}"
                    yield Import(name if is_module(name, root) else base, node.lineno)
            case ast.Call(func=function, args=[ast.Constant(value=str(name)), *_]) if (
                isinstance(function, ast.Name) and function.id in ("__import__", "import_module")
            ) or (isinstance(function, ast.Attribute) and function.attr == "import_module"):
                yield Import(name, node.lineno)


def broken_rule(source: str, module: str, standard_library: frozenset[str]) -> str | None:
    """Say which rule an import breaks, or None.

    Args:
        source: the importing file, relative to the package, with slashes.
        module: full dotted name of what it imports.
        standard_library: the top-level modules that come with Python.
    """
    folder = source.split("/")[0] if "/" in source else ""
    top, _, target = module.partition(".")
    if top in CONFIG_PACKAGES and not source.startswith(CONFIG_READERS):
        return f"only {', '.join(CONFIG_READERS)} may import {top}"
    if top != "ssl_video":
        packages = THIRD_PARTY.get(folder)
        if packages is not None and top not in packages and top not in standard_library:
            return f"{folder}/ may import only {', '.join(packages)} and the standard library"
        return None
    if folder == ANYTHING:
        return None
    if source.startswith("methods/") and target.startswith("methods.") and not is_within(target, ("methods.base",)):
        return "a method never imports another method"
    if source == ROOT and is_within(target, OF_ROOT):
        return None
    if folder not in ALLOWED:
        return f"{folder or 'the package root'} has no rule for imports of ssl_video; add it to ALLOWED"
    if not is_within(target, (folder, *ALLOWED[folder])):
        return f"{folder}/ may import {', '.join(ALLOWED[folder]) or 'nothing'} of ssl_video, and itself"
    return None


def import_faults(root: Path, standard_library: frozenset[str]) -> list[str]:
    """Read all imports under root/ssl_video and return each forbidden one with file, line and rule."""
    package = root / "ssl_video"
    faults = []
    for path in sorted(package.rglob("*.py")):
        source = path.relative_to(package).as_posix()
        for found in imports_of(path, root):
            rule = broken_rule(source, found.module, standard_library)
            if rule is not None:
                faults.append(f"ssl_video/{source}:{found.line}: imports {found.module}: {rule}.")
    return faults


def length_faults(root: Path) -> list[str]:
    """Return each file of root that is longer than its rule allows."""
    limits = {root / name: MAX_LINES_ENTRY for name in ("train.py", "evaluate.py")}
    limits |= dict.fromkeys((root / "ssl_video/methods").glob("*.py"), MAX_LINES_METHOD)
    limits |= {root / "ssl_video" / name: limit for name, limit in MAX_LINES.items()}
    faults = []
    for path, limit in sorted(limits.items()):
        lines = len(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else 0
        if lines > limit:
            faults.append(f"{path.relative_to(root).as_posix()} has {lines} lines; at most {limit} are allowed.")
    return faults


def named_by(path: Path, names: frozenset[str]) -> list[str]:
    """Return which of the names stand in a source as part of an import or as a whole string."""
    words: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Constant(value=str(word)):
                words.add(word)
            case ast.Import(names=aliases):
                words.update(part for alias in aliases for part in alias.name.split("."))
            case ast.ImportFrom(module=module, names=aliases):
                words.update([*(module or "").split("."), *(alias.name for alias in aliases)])
    return sorted(words & names)


@pytest.fixture(scope="session")
def standard_library() -> frozenset[str]:
    return frozenset(sys.stdlib_module_names)


# --- the repository ---------------------------------------------------------------------------------------------------


def test_every_import_follows_the_direction(repository: Path, standard_library: frozenset[str]) -> None:
    faults = import_faults(repository, standard_library)
    assert not faults, "\n" + "\n".join(faults)


def test_files_keep_to_their_length(repository: Path) -> None:
    faults = length_faults(repository)
    assert not faults, "\n" + "\n".join(faults)


def test_init_files_hold_no_code(repository: Path) -> None:
    with_code = [
        path.relative_to(repository).as_posix()
        for path in (repository / "ssl_video").rglob("__init__.py")
        if path.read_text(encoding="utf-8").strip() and path.parent.name != "ssl_video"
    ]
    assert not with_code, f"{with_code} hold code; __init__.py files are empty, one import path per name."


def test_importing_the_package_loads_nothing_heavy(repository: Path) -> None:
    code = "import sys; before = set(sys.modules); import ssl_video; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "ssl_video" in loaded and loaded <= {"ssl_video", "__future__", *sys.stdlib_module_names}


def test_every_folder_has_an_init_file(repository: Path) -> None:
    folders = {path.parent for path in (repository / "ssl_video").rglob("*.py")}
    assert len(folders) > 1
    without = sorted(folder.name for folder in folders if not (folder / "__init__.py").is_file())
    assert not without, f"{without} have no __init__.py; the wheel and mypy need it."


@pytest.mark.parametrize("entry", ["train.py", "evaluate.py", "ssl_video/cli/train.py", "ssl_video/cli/evaluate.py"])
def test_entries_name_no_method_and_no_dataset(repository: Path, entry: str) -> None:
    conf = repository / "conf"
    names = frozenset(path.stem for group in ("method", "dataset") for path in (conf / group).glob("*.yaml"))
    assert names, f"{conf} has no methods and datasets; this test would see nothing."
    assert named_by(repository / entry, names) == []


# --- the checker itself, on planted sources ---------------------------------------------------------------------------


def plant(root: Path, sources: dict[str, str]) -> Path:
    """Write a small package: file name relative to ssl_video -> source."""
    for folder in (*ALLOWED, ANYTHING):
        (root / "ssl_video" / folder).mkdir(parents=True, exist_ok=True)
    for name, source in sources.items():
        path = root / "ssl_video" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source), encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("source", "code", "rule"),
    [
        ("methods/moco.py", "from ssl_video.methods.cvrl import CVRL", "a method never imports another method"),
        ("methods/moco.py", "from . import cvrl", "a method never imports another method"),
        ("methods/base.py", "import ssl_video.methods.moco", "a method never imports another method"),
        ("methods/moco.py", "from ssl_video.backbones.r3d import R3D", "methods/ may import"),
        ("methods/moco.py", "from ssl_video.metrics.knn import knn_scores", "methods/ may import"),
        ("methods/moco.py", "from ssl_video.data import datamodule", "methods/ may import"),
        ("data/dataset.py", "from ssl_video.methods.base import SSLMethod", "data/ may import utils"),
        ("data/readers/pyav.py", "from ...modules.projector import Projector", "data/ may import utils"),
        ("losses/info_nce.py", "from ssl_video.modules.feature_queue import FeatureQueue", "losses/ may import"),
        ("losses/info_nce.py", "from ssl_video.utils.errors import InputError", "losses/ may import utils.distributed"),
        ("metrics/knn.py", "from ssl_video.losses.info_nce import info_nce_queue", "metrics/ may import"),
        ("evaluation/knn.py", "from ssl_video.data.dataset import VideoDataset", "evaluation/ may import"),
        ("callbacks/online_knn.py", "from ssl_video.evaluation.knn import KNN", "callbacks/ may import"),
        ("backbones/r3d.py", "from ssl_video.losses.info_nce import info_nce_queue", "backbones/ may import"),
        ("pretext/permutations.py", "from ssl_video.utils.distributed import rank", "pretext/ may import nothing"),
        ("pretext/permutations.py", "import numpy as np", "pretext/ may import only torch"),
        ("utils/run.py", "from ssl_video.data.manifest import Manifest", "utils/ may import nothing"),
        ("evaluation/knn.py", "from omegaconf import DictConfig", "may import omegaconf"),
        ("utils/checkpoint.py", "def read():\n    import hydra.utils", "may import hydra"),
        ("data/dataset.py", "if TYPE_CHECKING:\n    from ssl_video.optim import schedules", "data/ may import utils"),
        ("data/dataset.py", "importlib.import_module('ssl_video.methods.moco')", "data/ may import utils"),
        ("data/dataset.py", "import ssl_video", "data/ may import utils"),
        ("tools/show.py", "from ssl_video.utils.errors import InputError", "tools has no rule"),
        ("version.py", "from ssl_video.utils.errors import InputError", "the package root has no rule"),
        ("__init__.py", "def load():\n    from ssl_video.data import manifest", "the package root has no rule"),
    ],
)
def test_checker_names_a_forbidden_import(
    tmp_path: Path, standard_library: frozenset[str], source: str, code: str, rule: str
) -> None:
    modules = {f"{name}.py": "" for name in ("methods/cvrl", "methods/moco", "data/datamodule", "optim/schedules")}
    plant(tmp_path, modules | {source: f'"""Docstring."""\n{code}\n'})
    faults = import_faults(tmp_path, standard_library)
    assert len(faults) == 1
    line = 2 + code.count("\n")
    assert faults[0].startswith(f"ssl_video/{source}:{line}: imports ")
    assert rule in faults[0]


def test_checker_accepts_each_allowed_import(tmp_path: Path, standard_library: frozenset[str]) -> None:
    sources = {
        f"{folder}/one.py": "".join(f"import ssl_video.{target}\n" for target in (f"{folder}.base", *targets))
        for folder, targets in ALLOWED.items()
    }
    sources |= {
        "cli/train.py": "import hydra\nfrom ssl_video.methods import moco\nimport ssl_video.data.dataset\n",
        "utils/config.py": "from hydra.utils import instantiate\nfrom omegaconf import OmegaConf\n",
        "utils/run.py": "from omegaconf import OmegaConf\n",
        "methods/moco.py": "from ssl_video.data import batch\nfrom .base import SSLMethod\n",
        "methods/base.py": "",
        "data/batch.py": "from __future__ import annotations\n",
        "pretext/tuples.py": "import math\nimport torch\nfrom torch import Tensor\nfrom . import permutations\n",
        "pretext/permutations.py": "",
    }
    assert import_faults(plant(tmp_path, sources), standard_library) == []


def test_checker_does_not_take_a_prefix_for_a_package(tmp_path: Path, standard_library: frozenset[str]) -> None:
    plant(tmp_path, {"methods/moco.py": "import ssl_video.backbones.base_old\nimport ssl_video.lossesother\n"})
    assert len(import_faults(tmp_path, standard_library)) == 2


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("ssl_video/methods/moco.py", 150),
        ("ssl_video/methods/base.py", 120),
        ("train.py", 59),
        ("evaluate.py", 59),
        ("ssl_video/cli/train.py", 59),
        ("ssl_video/cli/evaluate.py", 59),
    ],
)
def test_checker_measures_length(tmp_path: Path, name: str, limit: int) -> None:
    plant(tmp_path, {})
    (tmp_path / name).write_text("x = 1\n" * limit, encoding="utf-8")
    assert length_faults(tmp_path) == []
    (tmp_path / name).write_text("x = 1\n" * (limit + 1), encoding="utf-8")
    assert length_faults(tmp_path) == [f"{name} has {limit + 1} lines; at most {limit} are allowed."]


@pytest.mark.parametrize(
    "code",
    [
        "from ssl_video.methods.moco import MoCo",
        "method = 'moco'",
        "from ssl_video.methods import moco",
        "import ssl_video.methods.moco",
    ],
)
def test_checker_sees_a_named_method(tmp_path: Path, code: str) -> None:
    path = tmp_path / "train.py"
    path.write_text(f'"""For instance method=moco."""\n{code}\n', encoding="utf-8")
    assert named_by(path, frozenset({"moco", "vcop"})) == ["moco"]
    path.write_text('"""moco is no whole word of a string here: method=moco."""\nrun(method)\n', encoding="utf-8")
    assert named_by(path, frozenset({"moco", "vcop"})) == []
