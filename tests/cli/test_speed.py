"""What makes a step faster changes neither its numbers nor the names in a state, and refuses what cannot work."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_video.cli.parts import build_backbone
from ssl_video.cli.speed import (
    build_optimizer,
    check_speed,
    describe_accumulation,
    is_fused,
    set_matmul_precision,
    speed_up,
)
from ssl_video.cli.train import main
from ssl_video.data.batch import ClipBatch
from ssl_video.methods.base import SSLMethod
from ssl_video.utils.checkpoint import read_backbone, read_checkpoint
from ssl_video.utils.errors import InputError
from support.folders import SMALL, numbered_folder, read_metrics
from support.methods import METHODS, attach, build_method, compose_train, method_class, random_batch

QUICK = (("cvrl", "recompute"), ("vcop", "recompute"), ("vcop", "backbone"))
SWITCHES = {
    "recompute": ["speed.checkpoint_activations=true"],
    "backbone": ["speed.compile=backbone", "speed.compiler=eager"],
    "step": ["speed.compile=step", "speed.compiler=aot_eager"],
}


@pytest.fixture(autouse=True)
def forget_compiled() -> Any:
    yield
    torch.compiler.reset()


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered_folder(tmp_path_factory.mktemp("numbered"), videos=12)


def losses_of(name: str, *overrides: str, steps: int = 2) -> tuple[list[float], dict[str, Tensor]]:
    """Losses of some optimizer steps, and the state after them."""
    method, config = build_method(name, *overrides)
    check_speed(config)
    speed_up(method, config)
    batch = random_batch(config)
    optimizer = torch.optim.SGD((p for p in method.parameters() if p.requires_grad), lr=0.01)
    losses = []
    for step in range(steps):
        attach(method, global_step=step)
        torch.manual_seed(step)
        loss = torch.stack(list(method.losses(batch).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, method.state_dict()


# Every method with every switch is slow; a few of them are not.
CASES = [
    pytest.param(name, switch, marks=[] if (name, switch) in QUICK else pytest.mark.slow)
    for name in METHODS
    for switch in SWITCHES
    if switch != "step" or method_class(name).compiles_whole
]


@pytest.mark.parametrize(("name", "switch"), CASES)
def test_numbers_and_names_are_those_of_the_plain_method(name: str, switch: str) -> None:
    losses, state = losses_of(name)
    ours, own = losses_of(name, *SWITCHES[switch])
    assert ours == pytest.approx(losses, rel=1e-4)
    assert list(own) == list(state)
    for key in state:
        torch.testing.assert_close(
            own[key], state[key], rtol=1e-3, atol=1e-4, msg=lambda told, key=key: f"{key}: {told}"
        )


@pytest.mark.slow
def test_a_compiler_recomputes_without_moving_statistics_twice() -> None:
    small = ["+backbone.blocks_per_stage=[1,1]", "backbone.widths=[4,8]"]
    losses, state = losses_of("byol", *small)
    ours, own = losses_of("byol", *small, "speed.compile=backbone", "speed.checkpoint_activations=true")
    assert ours == pytest.approx(losses, rel=1e-3)
    for key in state:
        torch.testing.assert_close(own[key], state[key], rtol=1e-2, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in METHODS if method_class(name).compiles_whole])
def test_a_step_that_compiles_whole_is_one_graph(name: str) -> None:
    """It is traced once, without a break, and not again in later steps."""
    method, config = build_method(name)
    graphs = []

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(method.losses, backend=count, fullgraph=True)
    for step in range(4):
        attach(method, global_step=step)
        method.observed.clear()
        compiled(random_batch(config))
    assert len(graphs) == 1


def refusal(*overrides: str) -> str:
    with pytest.raises(InputError) as fault:
        check_speed(compose_train(*overrides))
    return str(fault.value)


def test_switches_that_exclude_each_other_are_refused() -> None:
    assert "set trainer=gpu" in refusal("speed.cuda_graphs=true")
    assert "set speed.compile=backbone" in refusal("speed.cuda_graphs=true", "trainer=gpu")
    graphs = ("speed.cuda_graphs=true", "trainer=gpu", "speed.compile=backbone", "speed.compiler=eager")
    assert "set speed.compiler=inductor" in refusal(*graphs)
    assert "the step of MoCo is not one graph" in refusal("speed.compile=step")
    assert "speed.compiler='indcutor' is not known" in refusal("speed.compile=backbone", "speed.compiler=indcutor")
    recompute = ["speed.checkpoint_activations=true", "speed.compile=backbone"]
    assert "speed.compiler=eager" in refusal(*recompute, "speed.compiler=eager")
    check_speed(compose_train(*recompute))
    check_speed(compose_train("trainer=gpu", "speed.compile=backbone", "speed.cuda_graphs=true"))
    check_speed(compose_train("method=vcop", "speed.compile=step"))


@pytest.mark.parametrize(
    "override",
    ["speed.compile=all", "speed.memory_format=nhwc", "speed.cuda_graphs=2", "speed.matmul_precision=tf32"],
)
def test_values_are_checked(override: str) -> None:
    with pytest.raises(InputError, match=override.split("=")[0]):
        compose_train(override)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], False),
        (["trainer=gpu"], True),
        (["trainer=gpu", "speed.fused_optimizer=false"], False),
        (["speed.fused_optimizer=true"], True),
        (["speed.fused_optimizer=true", "optimizer=lars"], False),
        (["speed.fused_optimizer=true", "method=shuffle_and_learn", "optimizer=shuffle_and_learn"], True),
        (["trainer=gpu", "trainer.gradient_clip_val=1.0"], False),  # Lightning refuses both under mixed precision
        (["trainer=gpu", "trainer.gradient_clip_val=1.0", "trainer.precision=32-true"], True),
    ],
)
def test_fused_where_asked_for_and_possible(overrides: list[str], expected: bool) -> None:
    config = compose_train(*overrides)
    assert is_fused(config) == expected
    layer = nn.Linear(2, 2)
    optimizer = build_optimizer(config)([{"params": list(layer.parameters())}])
    assert bool(optimizer.defaults.get("fused")) == expected


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_fused_step_is_a_plain_one(optimizer: str) -> None:
    stepped = []
    for fused in (False, True):
        torch.manual_seed(0)
        layer = nn.Linear(5, 3)
        made = build_optimizer(compose_train(f"optimizer={optimizer}", f"speed.fused_optimizer={fused}"))
        own = made([{"params": list(layer.parameters())}])
        for _ in range(3):
            own.zero_grad()
            layer(torch.ones(2, 5)).square().sum().backward()
            own.step()
        stepped.append(layer.weight.detach())
    torch.testing.assert_close(*stepped)


@pytest.mark.parametrize(("memory_format", "last"), [("channels_last", True), ("contiguous", False)])
def test_memory_format_of_convolutions(memory_format: str, last: bool) -> None:
    for name, kind in (("r3d_tiny", torch.channels_last_3d), ("tsm_resnet_small", torch.channels_last)):
        backbone = build_backbone(compose_train(f"backbone={name}", f"speed.memory_format={memory_format}"))
        weight = next(layer.weight for layer in backbone.modules() if isinstance(layer, nn.Conv2d | nn.Conv3d))
        assert weight.is_contiguous(memory_format=kind) == last


def test_matmul_precision_follows_the_device() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        for overrides, expected in (
            (["trainer=gpu"], "high"),
            ([], "highest"),
            (["speed.matmul_precision=medium"], "medium"),
        ):
            set_matmul_precision(compose_train(*overrides))
            assert torch.get_float32_matmul_precision() == expected
    finally:
        torch.set_float32_matmul_precision(before)


# --- gradient accumulation --------------------------------------------------------------------------------------------


def gradients(method: SSLMethod[Any], batches: list[ClipBatch]) -> Tensor:
    """Of one optimizer step over some batches, as Lightning adds them up; the step's number stays."""
    method.zero_grad()
    for batch in batches:
        (torch.stack(list(method.losses(batch).values())).sum() / len(batches)).backward()
    return torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])


def halves(batch: ClipBatch) -> list[ClipBatch]:
    names = ("clips", "indices", "labels", "rows", "videos", "positions")
    size = len(batch) // 2
    return [
        replace(batch, **{name: getattr(batch, name)[part] for name in names})
        for part in (slice(size), slice(size, None))
    ]


@pytest.mark.parametrize("name", ["o3n", "opn", "shuffle_and_learn", "vcop"])
def test_accumulated_equals_whole_for_order_methods_without_batch_statistics(name: str) -> None:
    method, config = build_method(name)
    method.eval()  # neither batch statistics nor dropout
    ask: Any = method
    batch = random_batch(config, batch_size=6)
    predict, seen = ask.predict, []
    ask.predict = lambda presented: seen.append(presented) or predict(presented)
    _, labels = ask.questions(batch)
    # The same questions for the same videos, however they are batched.
    ask.questions = lambda own: (predict(seen[0][own.rows]), labels[own.rows])
    whole, accumulated = gradients(method, [batch]), gradients(method, halves(batch))
    torch.testing.assert_close(accumulated, whole, rtol=1e-3, atol=1e-5 * float(whole.abs().max()))


def test_accumulated_equals_whole_for_a_queue_that_stands_still_within_a_step() -> None:
    method, config = build_method("moco", "method.batch_norm=none", "method.shuffle_bn=false")
    method.eval()
    moco: Any = method
    batch = random_batch(config, batch_size=6)
    pushed = int(moco.queue.pushed)
    whole = gradients(method, [batch])
    accumulated = gradients(method, halves(batch))  # of the same step, so the queue is seen as it was
    torch.testing.assert_close(accumulated, whole, rtol=1e-3, atol=1e-5 * float(whole.abs().max()))
    assert int(moco.queue.pushed) == pushed + 2 * 2 * len(batch)
    attach(method, global_step=1)
    assert not torch.allclose(gradients(method, [batch]), whole, rtol=1e-2, atol=1e-4 * float(whole.abs().max()))


@pytest.mark.parametrize("name", ["cvrl", "simclr"])
def test_accumulated_differs_from_whole_for_nt_xent_as_declared(name: str) -> None:
    method, config = build_method(name)
    method.eval()
    batch = random_batch(config, batch_size=6)
    whole, accumulated = gradients(method, [batch]), gradients(method, halves(batch))
    assert method.compares_videos
    assert float((accumulated - whole).norm() / whole.norm()) > 0.1


def test_start_says_what_accumulation_means() -> None:
    accumulate = ["trainer.accumulate_grad_batches=4", "batch_size=8"]
    assert describe_accumulation(compose_train()) is None
    told = describe_accumulation(compose_train("method=cvrl", *accumulate))
    assert told is not None and "4 batches of 8 videos" in told and "within one batch only" in told
    told = describe_accumulation(compose_train("method=vcop", *accumulate))
    assert told is not None and "but for batch norm" in told


def test_every_in_batch_method_is_declared() -> None:
    assert {name for name in METHODS if method_class(name).compares_videos} == {
        "cvrl",
        "moco_v3",
        "simclr",
        "swav",
        "tcl",
    }


# --- whole runs -------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    return ["dataset=folder", f"dataset.root={videos}", "checkpoint_every_steps=1", *SMALL, "trainer.max_steps=3"]


def state_of(run_dir: str) -> dict[str, Any]:
    content: dict[str, Any] = read_checkpoint(Path(run_dir) / "checkpoints" / "last.ckpt")
    return content["state_dict"]


def test_momentum_encoder_and_queue_keep_their_cadence_under_accumulation(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "trainer.accumulate_grad_batches=2", "run_dir=a"]) == 0
    assert "gradients of 2 batches of 4 videos" in capsys.readouterr().out
    state = state_of("a")
    assert int(state["key_encoder.last_step"]) == 2  # three steps, from 0
    assert int(state["queue.pushed"]) == 3 * 2 * 4 * 2
    assert [int(row["step"]) for row in read_metrics(Path("a"))] == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("switch", ["recompute", "backbone"])
def test_a_run_with_a_switch_resumes_exactly_and_its_files_have_plain_names(command: list[str], switch: str) -> None:
    assert main([*command, "run_dir=plain"]) == 0
    assert main([*command, "run_dir=whole", *SWITCHES[switch]]) == 0
    assert list(state_of("whole")) == list(state_of("plain"))
    backbones = [read_backbone(Path(run) / "checkpoints" / "backbone.safetensors")[0] for run in ("whole", "plain")]
    assert list(backbones[0]) == list(backbones[1])
    # Nothing here knows how long the run is, so that a shorter one is the same run cut off.
    steady = [*command[:-1], "scheduler=constant", "method.momentum_schedule=constant", *SWITCHES[switch]]
    # But for the health that is measured at the last step.
    steady.append("callbacks=none")
    assert main([*steady, "trainer.max_steps=4", "run_dir=long"]) == 0
    assert main([*steady, "trainer.max_steps=2", "run_dir=part"]) == 0
    assert main(["resume=part", "trainer.max_steps=4"]) == 0
    assert read_metrics(Path("part")) == read_metrics(Path("long"))
    part, long = state_of("part"), state_of("long")
    assert all(torch.equal(part[name], long[name]) for name in long)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["speed.compile=backbone"],
        ["speed.compile=backbone", "speed.cuda_graphs=true"],
        ["speed.checkpoint_activations=true"],
        ["method=cvrl", "speed.compile=step"],
    ],
)
def test_a_gpu_run_with_each_switch(command: list[str], overrides: list[str]) -> None:
    own = [text for text in command if "method=cvrl" not in overrides or not text.startswith(("method.", "transform."))]
    assert main([*own, "trainer=gpu", "run_dir=a", *overrides]) == 0
    assert [int(row["step"]) for row in read_metrics(Path("a"))] == [0, 1, 2]
    assert not any("_orig_mod" in name for name in state_of("a"))
