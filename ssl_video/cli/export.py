"""``ssl-video export``: a backbone as a folder to give away, with its model card, and as graphs that run anywhere."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ssl_video.cli.model_card import model_card
from ssl_video.cli.parts import quiet
from ssl_video.hub.formats import FORMATS, Checked, ExportFailed, check_installed, export_graphs
from ssl_video.hub.pretrained import PretrainedBackbone, rebuild
from ssl_video.hub.source import INSTALL, check_repository
from ssl_video.hub.weights import BACKBONE_FILE, read_weights
from ssl_video.utils.checkpoint import save_backbone
from ssl_video.utils.errors import InputError
from ssl_video.utils.files import write_folder_atomically
from ssl_video.utils.run import read_config, read_record, write_config, write_text

SAFETENSORS = "safetensors"
# The video whose clips tell a graph sizes and scale: common, and of no data set.
HEIGHT, WIDTH = 240, 320


def main(argv: Sequence[str]) -> int:
    """Writes the folder; returns 0, 1 where a graph is wrong or the upload fails, 2 where the input is refused."""
    quiet()
    given = _parser().parse_args(argv)
    try:
        export(given)
        if given.push is not None:
            push(given.output, given.push, private=not given.public)
    except InputError as fault:
        print(f"ssl-video export: {fault}", file=sys.stderr)
        return 2
    except ExportFailed as fault:
        print(f"ssl-video export: {fault}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    return 0


def export(given: argparse.Namespace) -> None:
    """Writes all of the folder or nothing.

    Args:
        given: the command's options.

    Raises:
        InputError: a fault of the command line, or no backbone of ours.
        ExportFailed: a graph does not compute what the network does.
    """
    formats = _formats(given)
    weights = read_weights(given.checkpoint)
    model = rebuild(weights, source=given.checkpoint, trusted_packages=given.trust)
    # Where caches and data lay on this machine is nobody else's matter.
    config = without_paths({**(weights.config or {}), "cache_dir": None})
    record = without_paths(read_record(weights.folder)) if weights.folder is not None else {}
    run = without_paths(read_config(weights.folder)) if weights.folder is not None else None

    def write(folder: Path) -> None:
        save_backbone(folder / BACKBONE_FILE, model.backbone.state_dict(), config=config)
        write_config(folder / "config.yaml", {**config, "run": run})
        graphs = export_graphs(model.backbone, example_clips(model), names=formats, folder=folder) if formats else []
        card = model_card(
            weights, model, config=config, record=record, graphs=graphs, name=_name(given), licence=given.license
        )
        write_text(folder / "README.md", card)
        _tell(folder, graphs)

    write_folder_atomically(given.output, write)
    print(f"written: {given.output}; load it by ssl_video.load({str(given.output)!r})")


def example_clips(model: PretrainedBackbone) -> torch.Tensor:
    """Clips ``[3, C, T, h, w]`` of random pixels, as the input transform makes them."""
    random = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (3, model.num_frames, HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=random)
    return model.transform(frames)


def _tell(folder: Path, graphs: Sequence[Checked]) -> None:
    print(f"{BACKBONE_FILE}: {(folder / BACKBONE_FILE).stat().st_size / 2**20:.1f} MiB")
    for graph in graphs:
        print(graph)


def _name(given: argparse.Namespace) -> str:
    return str(given.push or given.output.name)


def _formats(given: argparse.Namespace) -> list[str]:
    """The graphs asked for; all that can be refused without computing is refused here."""
    asked = [name for name in given.formats.split(",") if name]
    known = [SAFETENSORS, *FORMATS]
    if wrong := [name for name in asked if name not in known]:
        raise InputError(f"--formats={given.formats}: there is no {wrong[0]}; there are: {', '.join(known)}.")
    if given.output.exists():
        raise InputError(f"--output={given.output} is there already; name another folder or move it away.")
    if given.checkpoint == "random":
        raise InputError("random weights are no backbone to give away; give a run's folder or a file of weights.")
    if given.push is not None:
        check_repository(given.push)
        _hub()
    formats = [name for name in FORMATS if name in asked]
    check_installed(formats)
    return formats


# An absolute path, of which the last name is kept. What follows a word, a dot or a colon is none: a/b, ../b, https://b.
_PATH = re.compile(r"(?<![\w.:/~…])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\,'\"\]]+[/\\])*(?=[^\s/\\,'\"\]])")


def without_paths(content: Any) -> Any:
    """The same with absolute paths shortened to their last names: they tell of a machine and of who works on it."""
    if isinstance(content, dict):
        return {key: without_paths(value) for key, value in content.items()}
    if isinstance(content, list):
        return [without_paths(value) for value in content]
    return _PATH.sub("…/", content) if isinstance(content, str) else content


# --- the Hub ----------------------------------------------------------------------------------------------------------


def push(folder: Path, repository: str, *, private: bool) -> None:
    """Uploads an exported folder.

    Args:
        folder: what was written.
        repository: ``owner/name``; it is made if it is not there.
        private: whether a new one is seen by its owner only.

    Raises:
        ExportFailed: the upload did not succeed; the folder stays.
    """
    try:
        hub = _hub()()
        hub.create_repo(repository, private=private, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=str(folder), commit_message="Upload backbone by ssl-video")
    except (OSError, ValueError) as fault:  # what the Hub's client raises is one of both
        reason = (str(fault).strip().splitlines() or [type(fault).__name__])[0]
        raise ExportFailed(
            f"{folder} is written, but was not uploaded to {repository}: {reason}. Log in by `hf auth login`, check "
            f"the name, then: hf upload {repository} {folder}"
        ) from None
    print(f"uploaded: {repository}; load it by ssl_video.load({repository!r})")


def _hub() -> Callable[[], Any]:
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise InputError(f"--push needs huggingface_hub: {INSTALL}; or leave --push out.") from None
    return HfApi


def _checkpoint(word: str) -> str:
    """As for evaluate.py too."""
    return word.removeprefix("checkpoint=")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ssl-video export", description=__doc__)
    parser.add_argument("checkpoint", type=_checkpoint, help="a run's folder, or a .ckpt or .safetensors of a run")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder, which must not be there yet")
    parser.add_argument(
        "--formats",
        default=SAFETENSORS,
        help=f"by commas: {', '.join((SAFETENSORS, *FORMATS))}; safetensors is always written",
    )
    parser.add_argument("--license", default="unknown", help="of the weights, as the Hub names it (default: unknown)")
    parser.add_argument("--push", metavar="OWNER/NAME", help="upload the folder to the Hugging Face Hub")
    parser.add_argument("--public", action="store_true", help="a repository made by --push is seen by everybody")
    parser.add_argument(
        "--trust", action="append", default=[], metavar="PACKAGE", help="whose classes the checkpoint may build too"
    )
    return parser
