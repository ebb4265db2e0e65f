import pytest
import torch
from torch import Tensor, nn

from ssl_video.modules.sync_batch_norm import SyncBatchNorm, convert
from ssl_video.utils.distributed import rank
from support.gloo import run_in_two_processes

# One-process twin, shape of all rows together, rows of rank 0.
CASES = [
    (nn.BatchNorm1d, (8, 5), 4),
    (nn.BatchNorm1d, (7, 5), 2),
    (nn.BatchNorm1d, (6, 5, 3), 3),
    (nn.BatchNorm2d, (4, 5, 2, 3), 2),
    (nn.BatchNorm3d, (4, 5, 2, 3, 3), 2),
    (nn.BatchNorm3d, (4, 5, 2, 3, 3), 1),
]


def make_input(shape: tuple[int, ...]) -> Tensor:
    """Rows whose mean grows with the row, so that the ranks' own statistics differ."""
    generator = torch.Generator().manual_seed(5)
    rows = torch.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return torch.randn(shape, generator=generator) + rows


def train_two_steps(norm: nn.Module, input: Tensor) -> dict[str, Tensor]:
    """Output, input gradient, summed weight gradients and buffers, of a loss that is a sum over rows."""
    input = input.clone().requires_grad_()
    for _ in range(2):
        output = norm(input)
        torch.sin(output * input.detach()).sum().backward()
    gradients = {f"gradient of {name}": parameter.grad for name, parameter in norm.named_parameters()}
    return {"output": output.detach(), "input gradient": input.grad, **gradients, **norm.state_dict()}


def make_norm(kind: type[nn.Module], **settings: object) -> nn.Module:
    norm = kind(5, **settings)
    with torch.no_grad():
        for offset, parameter in enumerate(norm.parameters()):
            parameter.copy_(torch.linspace(-1.0, 2.0, 5) + offset)
    return norm


def own_part(input: Tensor, first_rows: int) -> Tensor:
    return input[:first_rows] if rank() == 0 else input[first_rows:]


def on_a_rank(kind: type[nn.Module], input: Tensor, first_rows: int, settings: dict[str, object]) -> dict[str, Tensor]:
    norm = convert(make_norm(kind, **settings))
    assert isinstance(norm, SyncBatchNorm)
    return train_two_steps(norm, own_part(input, first_rows))


def evaluate_on_a_rank(input: Tensor) -> Tensor:
    return SyncBatchNorm(5).eval()(input if rank() == 0 else input[:1])


def bfloat16_output(input: Tensor) -> Tensor:
    return SyncBatchNorm(5)(own_part(input, 4).bfloat16())


def compare(kind: type[nn.Module], input: Tensor, first_rows: int, **settings: object) -> None:
    expected = train_two_steps(make_norm(kind, **settings), input)
    results = run_in_two_processes(on_a_rank, kind, input, first_rows, settings)
    assert results[0].keys() == expected.keys()
    for name, value in expected.items():
        parts = [result[name] for result in results]
        if name in ("output", "input gradient"):
            parts = [torch.cat(parts)]
        elif name.startswith("gradient of"):
            parts = [parts[0] + parts[1]]
        for part in parts:
            torch.testing.assert_close(part, value, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(("kind", "shape", "first_rows"), CASES)
def test_two_ranks_equal_one_process(kind, shape, first_rows):
    compare(kind, make_input(shape), first_rows)


@pytest.mark.parametrize(
    "settings",
    [{"affine": False}, {"momentum": None}, {"track_running_stats": False}, {"eps": 0.1, "momentum": 0.7}],
    ids=str,
)
def test_settings_are_kept(settings):
    compare(nn.BatchNorm1d, make_input((8, 5)), 3, **settings)


def test_exact_in_double_precision():
    input = make_input((7, 5, 2, 2, 2)).double()
    expected = nn.BatchNorm3d(5).double()(input)
    parts = run_in_two_processes(double_output, input)
    torch.testing.assert_close(torch.cat(parts), expected, rtol=1e-12, atol=1e-12)


def double_output(input: Tensor) -> Tensor:
    return SyncBatchNorm(5).double()(own_part(input, 3)).detach()


def test_a_large_mean_does_not_cancel_the_variance():
    input = make_input((64, 5)) / 64 + 3000.0
    expected = nn.BatchNorm1d(5).double()(input.double()).float()
    parts = [result["output"] for result in run_in_two_processes(on_a_rank, nn.BatchNorm1d, input, 32, {})]
    spread = torch.linspace(-1.0, 2.0, 5)
    # float32 itself resolves only 2e-4 around 3000, here about 6e-4 standard deviations.
    torch.testing.assert_close(torch.cat(parts), expected * spread + spread + 1.0, rtol=0, atol=5e-3)


def test_half_precision_keeps_its_type_and_full_statistics():
    input = make_input((8, 5))
    parts = run_in_two_processes(bfloat16_output, input)
    assert parts[0].dtype == torch.bfloat16
    expected = nn.BatchNorm1d(5)(input.bfloat16().float())
    torch.testing.assert_close(torch.cat(parts).detach().float(), expected.detach(), rtol=1e-2, atol=1e-2)


def test_eval_mode_and_one_process_are_plain_batch_norm():
    input = make_input((6, 5))
    for result in run_in_two_processes(evaluate_on_a_rank, input):
        assert torch.equal(result, nn.BatchNorm1d(5).eval()(input)[: len(result)])
    for name, value in train_two_steps(SyncBatchNorm(5), input).items():
        assert torch.equal(value, train_two_steps(nn.BatchNorm1d(5), input)[name]), name


def test_convert_keeps_the_tensors_and_the_mode():
    network = nn.Sequential(nn.Conv3d(2, 3, 1), nn.Sequential(nn.BatchNorm3d(3, eps=0.5), nn.ReLU())).eval()
    norm = network[1][0]
    names = list(network.state_dict())
    assert convert(network) is network
    converted = network[1][0]
    assert isinstance(converted, SyncBatchNorm) and converted.eps == 0.5 and not converted.training
    assert converted.weight is norm.weight and converted.running_var is norm.running_var
    assert list(network.state_dict()) == names
    assert convert(network)[1][0] is converted  # a second time changes nothing


def test_a_vector_is_refused():
    with pytest.raises(ValueError, match="1 dimension"):
        SyncBatchNorm(5)(torch.zeros(5))
