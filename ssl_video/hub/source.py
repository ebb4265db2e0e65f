"""Where weights are named by people: a path of this machine, or a repository of the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from ssl_video.hub.weights import BACKBONE_FILE
from ssl_video.utils.errors import InputError

REPOSITORY = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")

INSTALL = "pip install 'ssl_video[hub]'"


def find_weights(source: str | Path) -> Path:
    """The file or folder that ``source`` names; of a repository only ``backbone.safetensors`` is fetched.

    Args:
        source: a path, or ``owner/name`` or ``owner/name@revision`` where nothing here has that path.

    Raises:
        InputError: there is neither, or it cannot be fetched.
    """
    path = Path(source)
    if path.exists():
        return path
    found = REPOSITORY.fullmatch(str(source))
    if found is None:
        raise InputError(
            f"{source} is no file or folder here, and not the name of a repository of the Hugging Face Hub; give a "
            "run's folder, an exported folder, a .ckpt or .safetensors, or owner/name or owner/name@revision."
        )
    return _fetch(found["name"], found["revision"], source=str(source))


def check_repository(name: str) -> None:
    """Refuses what cannot be a repository's name.

    Raises:
        InputError: it is not ``owner/name``.
    """
    found = REPOSITORY.fullmatch(name)
    if found is None or found["revision"] is not None:
        raise InputError(f"--push={name} must be owner/name, a repository of the Hugging Face Hub.")


def _fetch(name: str, revision: str | None, *, source: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            GatedRepoError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError:
        raise InputError(
            f"{source} is no file or folder here, and to fetch it from the Hugging Face Hub huggingface_hub must be "
            f"installed: {INSTALL}."
        ) from None
    try:
        return Path(hf_hub_download(name, BACKBONE_FILE, revision=revision))
    except LocalEntryNotFoundError:
        why = "it is not in the cache, and the Hub cannot be reached (no network, or HF_HUB_OFFLINE=1)"
        way = f"fetch it once where there is a network (hf download {name} {BACKBONE_FILE}), or give a path"
    except GatedRepoError:
        why, way = "its owner lets only some people in", "ask on its page, then log in: hf auth login"
    except RepositoryNotFoundError:
        why, way = "the Hub has no such repository, or none that you may see", "check the name, or hf auth login"
    except RevisionNotFoundError:
        why, way = f"the repository has no revision {revision}", "leave it out, or take a branch, tag or commit of it"
    except EntryNotFoundError:
        why = f"the repository has no {BACKBONE_FILE}"
        way = "give one that `ssl-video export --push` filled; weights of others load by evaluate.py checkpoint=FILE"
    except (HFValidationError, OSError) as fault:  # what else the network and the file system say
        why, way = str(fault).splitlines()[0], "try again later, or give a path"
    raise InputError(f"{source} is no file or folder here, and cannot be fetched from the Hub: {why}; {way}.")
