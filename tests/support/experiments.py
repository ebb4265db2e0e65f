"""What an experiment holds, to be compared with its paper's table."""

from collections.abc import Iterable

from omegaconf import OmegaConf

from support.methods import compose_train


def held(experiment: str, keys: Iterable[str]) -> dict[str, object]:
    """The experiment's values of some keys, lists as lists; a key that does not exist is None."""
    config = compose_train(f"experiment={experiment}")
    found = {key: OmegaConf.select(config, key) for key in keys}
    return {key: list(value) if OmegaConf.is_list(value) else value for key, value in found.items()}
