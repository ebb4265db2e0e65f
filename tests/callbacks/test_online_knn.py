"""Online kNN: the number of the kNN protocol, and a run that does not notice."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ssl_video.callbacks.online_knn import OnlineKNN, evaluating
from ssl_video.data.batch import ClipBatch
from ssl_video.evaluation.features import FeatureSet
from ssl_video.evaluation.knn import KNN
from ssl_video.utils.errors import InputError
from support.gloo import run_in_two_processes
from support.training import TinyNet

NUM_CLASSES = 3
RNG = np.random.default_rng(0)
LABELS = np.arange(40) % NUM_CLASSES
CLIPS = torch.randn(40, 2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
for place, label in enumerate(LABELS.tolist()):
    CLIPS[place, :, label] += 0.35


class Videos:
    """Clips in memory: 28 that vote, 12 that are asked."""

    bank, queries, num_classes = np.arange(28), np.arange(28, 40), NUM_CLASSES

    def batches(self, rows: NDArray[np.int64]) -> Iterator[ClipBatch]:
        torch.rand(3)  # a loader draws the seeds of its workers
        for part in np.array_split(rows, 3) if len(rows) else []:
            own = torch.from_numpy(part)
            yield ClipBatch(
                CLIPS[own],
                torch.zeros(len(own), 2, 2, dtype=torch.int64),
                torch.from_numpy(LABELS[part]),
                own,
                own,
                own,
            )


def callback(**settings: Any) -> OnlineKNN:
    return OnlineKNN(videos=Videos(), make_random=lambda: TinyNet(seed=5), **{"every_steps": 2, "k": 5, **settings})


def fit(one: OnlineKNN, steps: int, *, net: TinyNet | None = None) -> list[dict[str, Any]]:
    """What a run of so many steps shows at the end of each."""
    device = SimpleNamespace(root_device=torch.device("cpu"))
    trainer: Any = SimpleNamespace(global_step=0, callback_metrics={}, strategy=device, is_global_zero=True)
    module: Any = SimpleNamespace(backbone=net or TinyNet(), steps_per_epoch=3, total_steps=steps)
    one.on_train_start(trainer, module)
    shown = []
    for step in range(1, steps + 1):
        trainer.global_step, trainer.callback_metrics = step, {}
        one.on_train_batch_end(trainer, module, None, None, 0)
        one.on_train_batch_end(trainer, module, None, None, 1)  # accumulated: the same step again
        shown.append(trainer.callback_metrics)
    return shown


def protocol_top1(net: TinyNet) -> float:
    net.eval()
    with torch.no_grad():
        features = net(CLIPS.flatten(0, 1)).unflatten(0, (40, 2))
    parts = [
        FeatureSet(features[rows], torch.from_numpy(LABELS[rows]), [str(row) for row in rows], [None] * len(rows))
        for rows in (Videos.bank, Videos.queries)
    ]
    return KNN(k=5)(*parts, num_classes=NUM_CLASSES).metrics["top1"]


def test_it_is_the_number_of_the_knn_protocol() -> None:
    [first, second, third] = fit(callback(), 3)
    assert first == {}
    expected = {"val/knn_top1": protocol_top1(TinyNet()), "val/knn_top1_random": protocol_top1(TinyNet(seed=5))}
    assert second == third == expected  # the third is the last
    assert 0 < expected["val/knn_top1"] < 1


def test_epochs_are_steps() -> None:
    measured = fit(callback(every_steps=None, every_epochs=1.0), 7)
    assert [step for step, shown in enumerate(measured, 1) if shown] == [3, 6, 7]
    measured = fit(callback(every_steps=None, every_epochs=0.1), 2)
    assert all(measured)


def test_modes_buffers_and_random_states_stay() -> None:
    net = TinyNet().train()
    net.layers[0][1].eval()  # type: ignore[index,union-attr]  # a batch norm that is kept as it is
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [part.training for part in net.modules()]
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    fit(callback(), 4, net=net)
    assert torch.equal(torch.rand(4), expected)
    assert [part.training for part in net.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_modes_come_back_after_a_fault() -> None:
    net = TinyNet().train()

    def interrupted() -> None:
        with evaluating(net):
            assert not net.training and not torch.is_grad_enabled()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert all(part.training for part in net.modules()) and torch.is_grad_enabled()


@pytest.mark.slow
def test_a_compiled_network_is_asked_as_it_is_written() -> None:
    """What is compiled for training is not compiled anew for other clips."""
    net: Any = TinyNet().train()
    calls = []

    def backend(graph: Any, inputs: Any) -> Any:
        calls.append(len(inputs))
        return graph.forward

    net.feature_map = torch.compile(net.feature_map, backend=backend)
    net(CLIPS[0])
    number = len(calls)
    assert number > 0
    fit(callback(), 2, net=net)
    assert len(calls) == number
    net(CLIPS[0])
    assert len(calls) == number
    torch._dynamo.reset()


def test_a_resumed_run_does_not_ask_the_untrained_network_again(monkeypatch: pytest.MonkeyPatch) -> None:
    one = callback()
    one.load_state_dict({"random_top1": 0.125})
    monkeypatch.setattr(one, "make_random", None)
    assert fit(one, 2)[1]["val/knn_top1_random"] == 0.125
    assert one.state_dict() == {"random_top1": 0.125}


@pytest.mark.parametrize("wrong", [{"every_steps": 0}, {"every_epochs": 0.0}, {"k": 0}, {"temperature": 0.0}])
def test_what_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        callback(**wrong)


def on_two_processes() -> list[dict[str, Any]]:
    return fit(callback(), 2)


@pytest.mark.slow
def test_two_processes_find_what_one_finds() -> None:
    first, second = run_in_two_processes(on_two_processes)
    assert first == second == fit(callback(), 2)
