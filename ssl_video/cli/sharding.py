"""FSDP: each process holds a part of every parameter, gradient and optimizer state, for networks too big for one."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from ssl_video.backbones.base import Backbone
from ssl_video.backbones.recompute import recomputed_parts
from ssl_video.methods.base import SSLMethod
from ssl_video.utils.config import locate
from ssl_video.utils.errors import InputError


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2 over all processes, by Lightning's strategy for it; its checkpoints are whole, as those of others.

    A parameter stays one by one what it was, with its name and dimensions, only that a process has some of its rows.
    So parameter groups, momentum copies and optimizers that treat each element alike compute what they always do. (The
    older FSDP flattens many parameters into one: weight decay would take all for biases, and a copy's parts would not
    lie where the network's do.)

    Args:
        process_group_backend: None takes torch's for the device.
    """

    def __init__(self, *, process_group_backend: str | None = None) -> None:
        super().__init__(save_distributed_checkpoint=False, process_group_backend=process_group_backend)

    @staticmethod
    def check(method: type[SSLMethod[Any]], optimizer: DictConfig) -> None:
        """Refuses what would not compute the same.

        Raises:
            InputError: says what, and what to use.
        """
        if not method.shards:
            raise InputError(
                f"strategy=fsdp: {method.__name__} calls parts of its network on their own, which are not whole there; "
                "use strategy=ddp."
            )
        kind: Any = locate(optimizer._target_)
        if not kind.__module__.startswith("torch.optim"):
            raise InputError(
                f"strategy=fsdp: {kind.__name__} has not been checked on parameters of which each process has a part; "
                "use strategy=ddp, or an optimizer of torch (optimizer=adamw, sgd and their kind)."
            )

    def setup_environment(self) -> None:
        """Joins the processes, and has the method sharded where Lightning asks the module to do so itself."""
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()
        module, mesh = self.lightning_module, self.device_mesh["data_parallel"]
        assert module is not None

        def configure_model() -> None:
            shard(module, mesh)

        module.configure_model = configure_model  # type: ignore[method-assign]

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads a checkpoint of any strategy, checksums and all, and takes this process's part of it."""
        content = self.checkpoint_io.load_checkpoint(checkpoint_path)
        assert self.model is not None
        whole = StateDictOptions(full_state_dict=True)
        # A dict of its own: torch puts this process's parts in the place of what it is given.
        set_model_state_dict(self.model, dict(content["state_dict"]), options=whole)
        for optimizer, saved in zip(self.optimizers, content["optimizer_states"], strict=True):
            set_optimizer_state_dict(self.model, optimizer, _by_name(saved, optimizer, self.model), options=whole)
        return content


def _by_name(saved: dict[str, Any], optimizer: Optimizer, model: nn.Module) -> dict[str, Any]:
    """A saved optimizer's state by the parameters' names; whatever their numbers, groups and places are the same."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    own = [[names[parameter] for parameter in group["params"]] for group in optimizer.param_groups]
    groups = [{**group, "params": there} for group, there in zip(saved["param_groups"], own, strict=True)]
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    name_of = dict(zip(numbers, [name for there in own for name in there], strict=True))
    return {"state": {name_of[number]: state for number, state in saved["state"].items()}, "param_groups": groups}


def shard(method: nn.Module, mesh: DeviceMesh) -> None:
    """Divides a method's parameters over the processes of a mesh, in place.

    What is brought together at once: a block of a backbone (a momentum copy's too), what else a backbone has, and what
    else each part of the method has. All are parted again after their forward pass, as a momentum copy follows the
    parts.

    Raises:
        InputError: a parameter lies outside of them.
    """
    for parameter in method.parameters():  # it takes no other layout, whatever speed.memory_format says
        parameter.data = parameter.data.contiguous()
    backbones = [module for module in method.modules() if isinstance(module, Backbone)]
    blocks = [block for backbone in backbones for block in recomputed_parts(backbone)]
    parts = [child for child in method.children() if child not in backbones and any(True for _ in child.parameters())]
    for unit in (*blocks, *backbones, *parts):
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)
    whole = [name for name, parameter in method.named_parameters() if not isinstance(parameter, DTensor)]
    if whole:
        raise InputError(f"strategy=fsdp: {whole[0]} is a parameter of the method itself; use strategy=ddp.")
