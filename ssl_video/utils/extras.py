"""Extras of the package that a command line asks for: whoever lacks one is told how to get it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from ssl_video.utils.errors import InputError

# What asks for an extra: (override, value that does not), its name, a module it brings.
_ASKED_BY = {
    "launcher": ("local", "slurm", "hydra_plugins.hydra_submitit_launcher"),
    "sweep": ("null", "sweep", "hydra_plugins.hydra_optuna_sweeper"),
}


def check_extras(overrides: Sequence[str]) -> None:
    """Refuses overrides whose extra is not installed.

    Raises:
        InputError: names the extra.
    """
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if key not in _ASKED_BY:
            continue
        harmless, extra, module = _ASKED_BY[key]
        if value != harmless and not _is_there(module):
            raise InputError(f"{override} needs the extra [{extra}]: pip install 'ssl_video[{extra}]'.")


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that holds it
        return False
