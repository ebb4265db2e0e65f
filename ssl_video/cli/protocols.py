"""Which protocols an evaluation runs: the one that ``evaluation=`` names, or all of a scorecard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from ssl_video.evaluation.features import EvaluationProtocol
from ssl_video.evaluation.training import TrainingProtocol
from ssl_video.utils.config import build
from ssl_video.utils.errors import InputError
from ssl_video.utils.run import Job

DEFAULT_VARIANT = "default"
SHIFT = "shift"
# Protocols of a scorecard that take part only when they are asked for.
ON_REQUEST = {SHIFT, "finetune", "linear_probe_in_loop"}


@dataclass(frozen=True)
class Chosen:
    """A protocol with what the command line says of it.

    Attributes:
        protocol: ready to be called.
        variant: which published settings it has: the part of its file's name behind the protocol's.
        changed: its keys that the command line changed, so that it is no longer quite that variant.
    """

    protocol: EvaluationProtocol | TrainingProtocol
    variant: str
    changed: list[str]

    @property
    def trains(self) -> bool:
        """Whether it trains through the data, where the others ask stored features."""
        return not hasattr(self.protocol, "clips")


def is_scorecard(config: DictConfig) -> bool:
    """Whether ``evaluation=scorecard`` was asked for."""
    return "scorecard" in config


def choose_protocols(config: DictConfig, job: Job) -> dict[str, Chosen]:
    """The protocols to run, by their names in the result."""
    if not is_scorecard(config):
        chosen = _choose(config.evaluation, job, option=job.choices["evaluation"], prefix="evaluation.")
        return {chosen.protocol.name: chosen}
    nodes = config.scorecard.protocols
    left_out = {name for name in nodes if name not in _wanted(config)}
    return {
        str(name): _choose(
            node,
            job,
            option=job.choices[f"evaluation@scorecard.protocols.{name}"],
            prefix=f"scorecard.protocols.{name}.",
        )
        for name, node in nodes.items()
        if name not in left_out
    }


def _wanted(config: DictConfig) -> set[str]:
    """Names of the scorecard's protocols that this command runs."""
    names = {str(name) for name in config.scorecard.protocols}
    include = set(config.scorecard.include)
    if unknown := include - names:
        raise InputError(
            f"scorecard.include={sorted(include)} must hold protocols of the scorecard, "
            f"{', '.join(sorted(names))}; {', '.join(sorted(unknown))} is none."
        )
    return (names - ON_REQUEST) | include | ({SHIFT} if config.scorecard.shift else set())


def _choose(node: DictConfig, job: Job, *, option: str, prefix: str) -> Chosen:
    protocol: Any = build(node)
    changed = sorted(text.split("=")[0].removeprefix(prefix) for text in job.overrides if text.startswith(prefix))
    variant = option.removeprefix(protocol.name).removeprefix("_")
    return Chosen(protocol, variant or DEFAULT_VARIANT, changed)
