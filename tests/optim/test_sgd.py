import torch
from torch import nn

from ssl_video.optim.parameter_groups import decay_groups
from ssl_video.optim.schedules import MultiStep
from ssl_video.optim.sgd import SGDWithBiasRate


def test_biases_step_twice_as_far_and_do_not_decay():
    layer = nn.Linear(3, 2)
    before = {name: parameter.detach().clone() for name, parameter in layer.named_parameters()}
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    SGDWithBiasRate(decay_groups(layer), lr=0.1, weight_decay=0.5, bias_lr_factor=2.0).step()
    torch.testing.assert_close(layer.weight.detach(), before["weight"] * 0.95 - 0.1)
    torch.testing.assert_close(layer.bias.detach(), before["bias"] - 0.2)


def test_schedule_keeps_the_ratio():
    layer = nn.Linear(3, 2)
    optimizer = SGDWithBiasRate(decay_groups(layer), lr=0.1, momentum=0.9, weight_decay=0.5)
    schedule = MultiStep(optimizer, total_steps=4, steps_per_epoch=1, milestones_steps=[1])
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.1 * 0.1, 0.2 * 0.1]
