import torch
from torch import nn

from ssl_video.optim.parameter_groups import decay_groups


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, 3, 1)
        self.norm = nn.BatchNorm3d(3)
        self.head_bias = nn.Parameter(torch.zeros(1, 4))
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.tied = self.conv


def names(module: nn.Module, parameters: list[nn.Parameter]) -> set[str]:
    return {name for name, parameter in module.named_parameters() if any(parameter is one for one in parameters)}


def test_biases_and_norms_do_not_decay_and_frozen_parameters_are_left_out():
    network = Network()
    decayed, others = decay_groups(network)
    assert "weight_decay" not in decayed
    assert others["weight_decay"] == 0.0
    assert names(network, decayed["params"]) == {"conv.weight"}
    assert names(network, others["params"]) == {"conv.bias", "norm.weight", "norm.bias", "head_bias"}


def test_a_step_shrinks_only_the_decayed():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    torch.optim.SGD(decay_groups(network), lr=0.1, weight_decay=0.5).step()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter, before[name] * (0.95 if name == "0.weight" else 1.0))


def test_empty_groups_are_left_out():
    assert ["weight_decay" in group for group in decay_groups(nn.Linear(2, 2, bias=False))] == [False]
    assert [group["weight_decay"] for group in decay_groups(nn.BatchNorm1d(2))] == [0.0]
