"""TCL's phases, what each of them learns from, its control without unlabelled videos, and two ranks as one."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssl_video.data.semi_batch import SemiBatch
from ssl_video.methods.tcl import TCL
from ssl_video.utils.distributed import rank, world_size
from ssl_video.utils.errors import InputError
from support.gloo import run_in_two_processes
from support.methods import NUM_CLASSES, attach, build_method, random_batch

# Of a run of 80 steps with the phases at 1/8 and 7/8.
SUPERVISED, CONTRAST, FINETUNE = 0, 10, 70
UNLABELED = {CONTRAST: {"instance", "group"}, FINETUNE: {"pseudo"}}


def build_tcl(*overrides: str, step: int = SUPERVISED) -> tuple[TCL, SemiBatch]:
    method, config = build_method("tcl", *overrides, total_steps=80)
    assert isinstance(method, TCL)
    attach(method, total_steps=80, global_step=step)
    batch = random_batch(config)
    _tell_apart(method, batch)
    return method, batch


@torch.no_grad()
def _tell_apart(method: TCL, batch: SemiBatch) -> None:
    """Makes predictions in eval mode differ: as it starts, the classifier says the same of everything."""
    linear: Any = method.classifier[1]
    linear.weight.normal_()
    method.eval()
    logits = method.predict(batch.unlabeled["fast"].clips[:, 0])
    linear.weight.mul_(1.5 / logits.std(dim=0)[:, None])
    linear.bias.copy_(-1.5 * logits.mean(dim=0) / logits.std(dim=0))
    method.train()


def gradients(method: TCL, batch: SemiBatch) -> list[Tensor]:
    """Of the total loss, with the same dropout for every method."""
    torch.manual_seed(3)
    total = torch.stack(list(method.losses(batch).values())).sum()
    return list(torch.autograd.grad(total, list(method.parameters())))


# --- phases -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "on", "passes"),
    [
        (0, {"sup"}, 1),
        (9, {"sup"}, 1),
        (10, {"sup", "instance", "group"}, 3),
        (69, {"sup", "instance", "group"}, 3),
        (70, {"sup", "pseudo"}, 2),
        (79, {"sup", "pseudo"}, 2),
    ],
)
def test_phases(step: int, on: set[str], passes: int) -> None:
    """What is off is 0; every part of the batch is a forward pass of its own, so batch norm sees it apart."""
    method, batch = build_tcl("method.threshold=0.0", step=step)
    losses = method.losses(batch)
    assert list(losses) == ["sup", "instance", "group", "pseudo"]
    assert {name for name, value in losses.items() if value != 0} == on
    norms = [module for module in method.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert {int(norm.num_batches_tracked) for norm in norms} == {passes}  # type: ignore[arg-type]


def test_phases_in_epochs() -> None:
    """The stand-in trainer has 10 steps an epoch."""
    settings = ("method.phases_in=epochs", "method.supervised_until=2", "method.finetune_from=5")
    for step, on in ((19, {"sup"}), (20, {"sup", "instance", "group"}), (50, {"sup", "pseudo"})):
        method, batch = build_tcl(*settings, "method.threshold=0.0", step=step)
        assert {name for name, value in method.losses(batch).items() if value != 0} == on


def test_learning_rate_restarts_with_the_fine_tuning() -> None:
    method, _ = build_tcl()
    schedule = method.configure_optimizers()["lr_scheduler"]["scheduler"]
    assert schedule.restart_step == FINETUNE
    assert schedule.factor_at(FINETUNE) == pytest.approx(0.1)


# --- what is computed -------------------------------------------------------------------------------------------------


def test_losses_of_the_contrast_against_arrays() -> None:
    """Cross-entropy, γ = 9 times the instance contrast, β = 1 times the group contrast, from the logits."""
    method, batch = build_tcl(step=CONTRAST)
    method.eval()
    with torch.no_grad():
        losses = {name: value.item() for name, value in method.losses(batch).items()}
        labeled = method.predict(batch.labeled.clips[:, 0])
        views = [method.predict(batch.unlabeled[name].clips[:, 0]) for name in ("fast", "slow")]
    fast, slow = (view.double().softmax(dim=1).numpy() for view in views)
    assert losses["sup"] == pytest.approx(cross_entropy(labeled, batch.labeled.labels).item(), rel=1e-5)
    assert losses["instance"] == pytest.approx(9 * contrast(fast, slow), rel=1e-4)
    common = sorted(set(fast.argmax(axis=1)) & set(slow.argmax(axis=1)))
    assert len(common) > 1
    groups = [np.stack([view[view.argmax(axis=1) == label].mean(axis=0) for label in common]) for view in (fast, slow)]
    assert losses["group"] == pytest.approx(contrast(*groups), rel=1e-4)


def contrast(fast: np.ndarray, slow: np.ndarray, temperature: float = 0.5) -> float:
    vectors = np.concatenate([fast, slow])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    powers = np.exp(vectors @ vectors.T / temperature)
    np.fill_diagonal(powers, 0)
    count = len(fast)
    positives = [powers[place, (place + count) % (2 * count)] for place in range(2 * count)]
    return float(np.mean(-np.log(positives / powers.sum(axis=1))))


def test_loss_of_the_fine_tuning_against_arrays() -> None:
    """Sure predictions of the fast view are its labels; the sum is divided by all unlabelled videos."""
    method, batch = build_tcl("method.threshold=0.5", step=FINETUNE)
    method.eval()
    with torch.no_grad():
        loss = method.losses(batch)["pseudo"].item()
        probs = method.predict(batch.unlabeled["fast"].clips[:, 0]).double().softmax(dim=1).numpy()
    sure = probs.max(axis=1) >= 0.5
    assert 0 < sure.sum() < len(sure)
    assert loss == pytest.approx(-np.log(probs.max(axis=1)[sure]).sum() / len(sure), rel=1e-4)
    assert method.observed["util_ratio"].item() == pytest.approx(sure.mean())


def test_logits_are_averaged_over_frames_after_dropout_of_each() -> None:
    method, batch = build_tcl()
    clips = batch.labeled.clips[:, 0]
    method.eval()
    frames = method.backbone.frame_features(clips)  # type: ignore[operator]
    assert frames.shape[:2] == (4, 8)
    expected = torch.stack([method.classifier[1](frame) for frame in frames.unbind(1)]).mean(dim=0)
    torch.testing.assert_close(method.predict(clips), expected)
    zeros: list[Tensor] = []
    method.classifier[1].register_forward_hook(lambda module, inputs, output: zeros.append(inputs[0] == 0))
    method.classifier.train()
    method.predict(clips)
    assert zeros[0].shape == (4, 8, method.backbone.feature_dim)
    assert not torch.equal(zeros[0][:, 0], zeros[0][:, 1])


def test_any_backbone_with_a_map_will_do() -> None:
    method, batch = build_tcl("backbone=r3d_tiny", step=CONTRAST)
    assert all(torch.isfinite(value) for value in method.losses(batch).values())


# --- where the gradient flows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "overrides", "learns_from"),
    [
        (CONTRAST, [], {"labeled", "slow"}),
        (CONTRAST, ["+method.stop_gradient=false"], {"labeled", "slow", "fast"}),
        (FINETUNE, [], {"labeled", "fast"}),
    ],
)
def test_what_learns(step: int, overrides: list[str], learns_from: set[str]) -> None:
    method, batch = build_tcl("method.threshold=0.0", *overrides, step=step)
    outputs: list[Tensor] = []
    predict = method.predict

    def watched(clips: Tensor) -> Tensor:
        outputs.append(predict(clips))
        outputs[-1].retain_grad()
        return outputs[-1]

    method.predict = watched  # type: ignore[method-assign]
    torch.stack(list(method.losses(batch).values())).sum().backward()
    names = ["labeled", "fast", "slow"]
    got = {name for name, output in zip(names, outputs, strict=False) if output.grad is not None}
    assert got == learns_from


# --- contracts of every semi-supervised method ------------------------------------------------------------------------


@pytest.mark.parametrize("step", [CONTRAST, FINETUNE])
def test_without_weight_it_is_supervised(step: int) -> None:
    """The control: the same loss, gradient and batch statistics as with labels alone."""
    supervised, batch = build_tcl(step=SUPERVISED)
    weights = ["method.instance_weight=0.0", "method.group_weight=0.0", "method.pseudo_weight=0.0"]
    without, _ = build_tcl(*weights, step=step)
    without.load_state_dict(supervised.state_dict())
    for own, expected in zip(gradients(without, batch), gradients(supervised, batch), strict=True):
        assert torch.equal(own, expected)
    for own, expected in zip(without.buffers(), supervised.buffers(), strict=True):
        assert torch.equal(own, expected)


def test_nothing_selected_is_finite_and_propagates() -> None:
    method, batch = build_tcl("method.threshold=1.5", step=FINETUNE)
    assert method.losses(batch)["pseudo"] == 0
    assert all(torch.isfinite(gradient).all() for gradient in gradients(method, batch))
    assert method.observed["util_ratio"] == 0


@pytest.mark.parametrize("step", [CONTRAST, FINETUNE])
def test_order_of_the_unlabelled_videos_does_not_matter(step: int) -> None:
    method, batch = build_tcl("method.threshold=0.5", step=step)
    method.eval()
    assert step == CONTRAST or method.losses(batch)["pseudo"] > 0
    order = torch.randperm(len(batch.hidden_labels))
    views = {
        name: replace(view, clips=view.clips[order], videos=view.videos[order])
        for name, view in batch.unlabeled.items()
    }
    mixed = SemiBatch(batch.labeled, views, batch.hidden_labels[order])
    for own, expected in zip(gradients(method, mixed), gradients(method, batch), strict=True):
        torch.testing.assert_close(own, expected, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("step", [SUPERVISED, CONTRAST, FINETUNE])
def test_labels_of_unlabelled_videos_never_enter_the_loss(step: int) -> None:
    method, batch = build_tcl("method.threshold=0.5", step=step)
    hidden = (batch.hidden_labels + 1) % NUM_CLASSES
    views = {name: replace(view, labels=hidden) for name, view in batch.unlabeled.items()}
    told = SemiBatch(batch.labeled, views, hidden)
    assert all(torch.equal(*pair) for pair in zip(gradients(method, told), gradients(method, batch), strict=True))
    labels = (batch.labeled.labels + 1) % NUM_CLASSES
    relabeled = replace(batch, labeled=replace(batch.labeled, labels=labels))
    pairs = zip(gradients(method, relabeled), gradients(method, batch), strict=True)
    assert not all(torch.equal(*pair) for pair in pairs)


def test_accuracy_of_pseudo_labels_is_observed() -> None:
    method, batch = build_tcl("method.threshold=0.0", step=FINETUNE)
    method.eval()
    with torch.no_grad():
        guesses = method.predict(batch.unlabeled["fast"].clips[:, 0]).argmax(dim=1)
        method.losses(replace(batch, hidden_labels=guesses))
        assert method.observed["pseudo_acc"] == 1
        method.losses(replace(batch, hidden_labels=(guesses + 1) % NUM_CLASSES))
        assert method.observed["pseudo_acc"] == 0
        assert set(method.observed) == {"accuracy", "util_ratio", "mean_conf", "pseudo_acc"}


# --- two ranks --------------------------------------------------------------------------------------------------------


def _share(step: int) -> tuple[float, list[Tensor]]:
    """Loss and gradient of this rank's part of a batch, batch norm at rest."""
    method, batch = build_tcl("method.threshold=0.5", step=step)
    method.eval()

    def own(part: Any) -> Any:
        count = len(part.clips) // world_size()
        mine = slice(rank() * count, (rank() + 1) * count)
        names = ("clips", "indices", "labels", "rows", "videos", "positions")
        return replace(part, **{name: getattr(part, name)[mine] for name in names})

    views = {name: own(view) for name, view in batch.unlabeled.items()}
    part = SemiBatch(own(batch.labeled), views, batch.hidden_labels[: len(views["fast"])])
    total = torch.stack(list(method.losses(part).values())).sum()
    return total.item(), list(torch.autograd.grad(total, list(method.parameters())))


@pytest.mark.parametrize("step", [CONTRAST, FINETUNE])
def test_two_processes_equal_one_in_value_and_gradient(step: int) -> None:
    loss, expected = _share(step)
    first, second = run_in_two_processes(_share, step)
    assert (first[0] + second[0]) / 2 == pytest.approx(loss, rel=1e-4)
    for one, two, whole in zip(first[1], second[1], expected, strict=True):
        torch.testing.assert_close((one + two) / 2, whole, atol=1e-4, rtol=1e-3)


# --- the stage before the labels, and what is refused -----------------------------------------------------------------


def test_pretraining_is_the_instance_contrast_alone() -> None:
    method, batch = build_tcl("method.stage=pretrain", step=FINETUNE)
    losses = method.losses(batch)
    assert set(losses) == {"instance"}
    assert method.observed == {}
    losses["instance"].backward()
    assert all(parameter.grad is not None for parameter in method.parameters())
    assert method.predict(batch.labeled.clips[:, 0]).shape == (4, 128)


def parts(method: TCL) -> dict[str, Any]:
    return {"backbone": method.backbone, "optimizer": method.make_optimizer, "scheduler": method.make_scheduler}


def test_what_does_not_fit_is_refused() -> None:
    method, _ = build_tcl()
    assert TCL(**parts(method), num_classes=0, stage="pretrain").classifier[1].out_features == 128
    with pytest.raises(InputError, match="learns from labels, and the data has 0 classes"):
        TCL(**parts(method), num_classes=0)
    with pytest.raises(InputError, match=r"method.supervised_until=3.* must be 0 to finetune_from=2"):
        TCL(**parts(method), num_classes=4, supervised_until=3.0, finetune_from=2.0)


def test_classifier_starts_small_and_learns_faster() -> None:
    method, config = build_method("tcl")
    weight, bias = method.classifier[1].weight, method.classifier[1].bias
    assert isinstance(weight, Tensor) and isinstance(bias, Tensor)
    assert weight.shape[0] == NUM_CLASSES
    assert weight.std().item() == pytest.approx(0.001, rel=0.2)
    assert not bias.any()
    groups = method.configure_optimizers()["optimizer"].param_groups
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    lr = config.optimizer.lr
    assert rates[id(weight)] == pytest.approx(5 * lr)
    assert rates[id(bias)] == pytest.approx(10 * lr)
    assert all(rates[id(p)] == pytest.approx(lr) for p in method.backbone.parameters())  # norms' biases too
