"""Who starts the processes, how they share a run, and what that means for batch and learning rate."""

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from pytorch_lightning.strategies import DDPStrategy

from ssl_video.cli.parts import build_method
from ssl_video.cli.sharding import ShardedStrategy
from ssl_video.cli.strategies import (
    build_strategy,
    describe_batch,
    effective_batch,
    environment_plugins,
    learning_rate,
    num_processes,
)
from ssl_video.utils.errors import InputError
from ssl_video.utils.run import Job, new_run_dir, refuse_existing
from support.methods import compose_train

SLURM = {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "3", "SLURM_JOB_NAME": "train"}
STARTED = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", *SLURM)


@pytest.fixture(autouse=True)
def started_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in STARTED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("ssl_video.cli.strategies.watch_processes", lambda: None)  # this process has no others


def _set(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


# --- strategies -------------------------------------------------------------------------------------------------------


def test_ddp_leaves_buffers_alone_and_keeps_gradients_in_its_buckets() -> None:
    for name in ("ddp", "ddp_cpu"):
        strategy: Any = build_strategy(compose_train(f"strategy={name}", "trainer.devices=2"))
        assert isinstance(strategy, DDPStrategy)
        assert strategy._ddp_kwargs == {"broadcast_buffers": False, "gradient_as_bucket_view": True}
    assert strategy.process_group_backend == "gloo"
    assert build_strategy(compose_train()) == "auto"


def test_the_graph_is_static_only_where_a_method_says_so_and_nothing_is_accumulated() -> None:
    def kwargs(*overrides: str) -> dict[str, Any]:
        strategy: Any = build_strategy(compose_train("strategy=ddp_cpu", *overrides))
        return dict(strategy._ddp_kwargs)

    assert kwargs("method=cvrl")["static_graph"] is True
    assert "static_graph" not in kwargs("method=cvrl", "trainer.accumulate_grad_batches=2")
    assert "static_graph" not in kwargs("method=tcl")


def test_fsdp_refuses_what_would_not_compute_the_same() -> None:
    assert isinstance(build_strategy(compose_train("strategy=fsdp")), ShardedStrategy)
    with pytest.raises(InputError, match="TCL calls parts of its network on their own"):
        build_strategy(compose_train("strategy=fsdp", "method=tcl"))
    with pytest.raises(InputError, match="LARS has not been checked"):
        build_strategy(compose_train("strategy=fsdp", "optimizer=lars"))


# --- who starts the processes -----------------------------------------------------------------------------------------


def test_torchrun_says_how_many_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    assert num_processes(compose_train()) == 1
    _set(monkeypatch, LOCAL_RANK="1", RANK="5", WORLD_SIZE="8", LOCAL_WORLD_SIZE="4", GROUP_WORLD_SIZE="2")
    config = compose_train("strategy=ddp_cpu")
    assert (config.trainer.devices, config.trainer.num_nodes, num_processes(config)) == (4, 2, 8)
    build_strategy(config)


@pytest.mark.parametrize("variables", [{"LOCAL_RANK": "0", "WORLD_SIZE": "2"}, SLURM])
def test_another_number_of_processes_is_refused(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    _set(monkeypatch, **variables)
    with pytest.raises(InputError, match=r"[24] processes were started from outside.*trainer.devices=3"):
        build_strategy(compose_train("trainer.devices=3"))


def test_in_slurm_lightning_neither_requeues_nor_waits_for_tasks_that_are_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert environment_plugins() == []
    _set(monkeypatch, **SLURM)
    [several] = environment_plugins()
    assert type(several).__name__ == "SLURMEnvironment"
    assert getattr(several, "auto_requeue", None) is False
    _set(monkeypatch, SLURM_NTASKS="1")
    assert type(environment_plugins()[0]).__name__ == "LightningEnvironment"


@pytest.mark.parametrize("variables", [{"LOCAL_RANK": "0"}, SLURM, {"NODE_RANK": "1"}])
def test_no_process_chooses_a_folder_by_its_clock(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    job = Job(choices={"method": "a", "backbone": "b", "dataset": "c"}, overrides=[], sweep_dir=None, number=0)
    _set(monkeypatch, **variables)
    with pytest.raises(InputError, match="give run_dir=DIR"):
        new_run_dir(None, job)
    assert new_run_dir("here", job) == Path("here")


@pytest.mark.parametrize(
    "variables", [{"RANK": "1", "LOCAL_RANK": "1"}, SLURM, {"NODE_RANK": "1"}, {"LOCAL_RANK": "2"}]
)
def test_only_the_first_process_refuses_a_folder_that_is_in_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str]
) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match="holds a run already"):
        refuse_existing(tmp_path)
    _set(monkeypatch, **variables)
    refuse_existing(tmp_path)  # the first one has made it a moment ago


# --- batch and learning rate ------------------------------------------------------------------------------------------

WHOLE = ("batch_size=8", "trainer.devices=4", "trainer.num_nodes=2", "trainer.accumulate_grad_batches=3")


@pytest.mark.parametrize(("rule", "expected"), [("none", 0.4), ("linear", 0.4 * 192 / 512), ("sqrt", 0.4 * 0.61237244)])
def test_the_rule_scales_the_learning_rate(rule: str, expected: float) -> None:
    config = compose_train(*WHOLE, "optimizer=moco_paper", f"scale_lr={rule}", "scale_lr_reference=512")
    assert effective_batch(config) == 192
    assert learning_rate(config) == pytest.approx(expected, rel=1e-6)
    config = OmegaConf.merge(config, {"trainer": {"devices": 1}})
    method = build_method(config)  # type: ignore[arg-type]
    parameters = [{"params": [torch.nn.Parameter(torch.zeros(1))]}]
    scaled = learning_rate(config)  # type: ignore[arg-type]
    assert method.make_optimizer(parameters).param_groups[0]["lr"] == pytest.approx(scaled)


def test_the_first_lines_name_batch_rate_and_rule() -> None:
    parts = "effective batch 192 videos (8 x 4 device(s) x 2 node(s) x 3 accumulated)"
    plainly = compose_train(*WHOLE, "optimizer=moco_paper")
    assert describe_batch(plainly) == f"{parts}; learning rate 0.4 as given (scale_lr=none)"
    scaled = compose_train(*WHOLE, "optimizer=moco_paper", "scale_lr=linear", "scale_lr_reference=512")
    assert describe_batch(scaled) == f"{parts}; learning rate 0.15 = 0.4 x 192/512 (scale_lr=linear)"


def test_a_rule_without_a_reference_is_refused() -> None:
    with pytest.raises(InputError, match=r"scale_lr=linear, but nobody says for which global batch optimizer.lr=0.05"):
        learning_rate(compose_train("optimizer=sgd", "scale_lr=linear"))


def test_experiments_know_their_reference_and_ours_is_the_papers_at_its_own_size() -> None:
    """At the hardware of its command, a linear rule changes nothing of a paper's learning rate."""
    name = "experiment=moco_slow_r50_kinetics400"
    config = compose_train(name, "trainer.devices=8", "trainer.num_nodes=8", "scale_lr=linear")
    assert learning_rate(config) == config.optimizer.lr
    smaller = compose_train(name, "trainer.devices=8", "scale_lr=linear")
    assert learning_rate(smaller) == pytest.approx(config.optimizer.lr / 8)
