"""Batch norm over the batch of all ranks, on any device and backend (torch's own refuses CPU modules)."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_video.utils.distributed import sum_with_grad, world_size


class SyncBatchNorm(_BatchNorm):
    """Batch norm whose mean and variance are those of all ranks' rows together.

    In training, value, gradients and running statistics equal those of one process that holds all rows; ranks
    may hold different numbers of rows, but at least one each. In eval mode, and in one process, it is plain batch norm.
    Takes ``[N, C]`` or ``[N, C, ...]``; the arguments are those of ``torch.nn.BatchNorm1d``.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"The input has {input.ndim} dimension(s); batch norm takes [N, C] or [N, C, ...].")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``[N, C, ...]`` per channel; all ranks must call it together in training."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        count, mean, variance = _statistics_over_ranks(input)
        self._update_running_statistics(count, mean.detach(), variance.detach())
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            scale = scale * self.weight
        shift = -mean * scale
        if self.affine:
            shift = shift + self.bias
        per_channel = (1, -1) + (1,) * (input.ndim - 2)
        return (input * scale.view(per_channel) + shift.view(per_channel)).to(input.dtype)

    def _update_running_statistics(self, count: Tensor, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        weight = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        unbiased = variance * (count / (count - 1)).to(variance.dtype)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), weight)


def _statistics_over_ranks(input: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count (a scalar), mean ``[C]`` and biased variance ``[C]`` of ``[N, C, ...]`` over all ranks, differentiable.

    One sum over ranks carries count, sum and squared sum. It is done in double precision, because the variance
    is then a small difference of large numbers.
    """
    values = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
    other_dims = [dim for dim in range(input.ndim) if dim != 1]
    variance, mean = (moment.double() for moment in torch.var_mean(values, dim=other_dims, correction=0))
    count = mean.new_tensor([input.numel() // input.shape[1]])
    totals = sum_with_grad(torch.cat([count, count * mean, count * (variance + mean.square())]))
    count, total, squared_total = totals.split([1, len(mean), len(mean)])
    mean = total / count
    variance = squared_total / count - mean.square()
    return count.detach(), mean.to(values.dtype), variance.to(values.dtype)


def convert(module: nn.Module) -> nn.Module:
    """Replace every batch norm in ``module`` by a synchronised one with the same parameters and buffers.

    Returns:
        ``module`` itself, changed in place, or its replacement where ``module`` is a batch norm.
    """
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        return _synchronised(module)
    for name, child in module.named_children():
        setattr(module, name, convert(child))
    return module


def _synchronised(module: _BatchNorm) -> SyncBatchNorm:
    norm = SyncBatchNorm(module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats)
    # The very same tensors, so that an optimizer made before still holds the parameters.
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        setattr(norm, name, getattr(module, name))
    return norm.train(module.training)
