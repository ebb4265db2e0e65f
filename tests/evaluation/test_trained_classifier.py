"""What fine-tuning and the linear probe in the loop share, tested on both."""

import json
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import SGD

from ssl_video.evaluation.features import ProtocolResult
from ssl_video.evaluation.finetune import Finetune
from ssl_video.evaluation.linear_probe_in_loop import LinearProbeInLoop
from ssl_video.evaluation.trained_classifier import TrainedClassifier, seconds_each
from ssl_video.optim.schedules import MultiStep
from ssl_video.utils.errors import InputError
from support.training import NUM_CLASSES, RECIPE, MadeClips, TinyNet

CPU = torch.device("cpu")
LABELS = [0, 1, 2] * 8
BOTH = pytest.mark.parametrize("protocol", [Finetune, LinearProbeInLoop])


def ask(protocol: TrainedClassifier, data: MadeClips, backbone: TinyNet | None = None) -> ProtocolResult:
    return protocol(backbone or TinyNet(), data, num_classes=NUM_CLASSES, device=CPU)


@BOTH
def test_separable_classes_are_all_right(protocol: type[TrainedClassifier]) -> None:
    result = ask(protocol(**RECIPE), MadeClips(LABELS, LABELS))
    assert result.metrics == {"top1": 1.0, "top5": 1.0, "balanced_accuracy": 1.0}
    assert result.predictions is not None
    assert result.predictions.tolist() == LABELS
    assert result.settings["steps"] == 24


@BOTH
def test_labels_without_meaning_stay_at_chance(protocol: type[TrainedClassifier]) -> None:
    rng = np.random.default_rng(0)
    train, test = (rng.integers(NUM_CLASSES, size=size).tolist() for size in (24, 300))
    top1 = ask(protocol(**RECIPE), MadeClips(train, test, meaning=False)).metrics["top1"]
    assert abs(top1 - 1 / 3) < 4 * np.sqrt(1 / 3 * 2 / 3 / 300)


@BOTH
@pytest.mark.parametrize("settings", [{}, {"select": "best_on_validation"}, {"dropout": 0.5}])
def test_same_seed_same_bytes(protocol: type[TrainedClassifier], settings: dict[str, Any]) -> None:
    def told(seed: int) -> str:
        torch.manual_seed(torch.seed())  # whatever the caller's generator has been through
        result = ask(protocol(**RECIPE, **settings, seed=seed), MadeClips(LABELS, LABELS, meaning=False))
        return json.dumps([result.metrics, result.settings, result.details])

    assert told(0) == told(0)
    assert told(0) != told(1)


@BOTH
def test_neither_the_given_backbone_nor_the_callers_generator_changes(protocol: type[TrainedClassifier]) -> None:
    backbone = TinyNet().eval()
    before = deepcopy(backbone.state_dict())
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    ask(protocol(**RECIPE), MadeClips(LABELS, LABELS), backbone)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    assert not backbone.training


@BOTH
def test_test_labels_have_no_part_in_the_choice(protocol: type[TrainedClassifier]) -> None:
    settings = RECIPE | {"select": "best_on_validation", "val_fraction": 0.25, "epochs": 4.0}
    results = [ask(protocol(**settings), MadeClips(LABELS, labels, meaning=False)) for labels in (LABELS, LABELS[::-1])]
    assert results[0].details == results[1].details
    assert results[0].predictions is not None
    assert results[1].predictions is not None
    assert results[0].predictions.tolist() == results[1].predictions.tolist()


def test_best_epoch_is_that_of_the_smallest_validation_loss() -> None:
    # After the second epoch the steps go uphill.
    uphill = partial(MultiStep, milestones_epochs=[2.0], factor=-1.0)
    settings = RECIPE | {"scheduler": uphill, "select": "best_on_validation", "val_fraction": 0.25, "epochs": 5.0}
    best = ask(LinearProbeInLoop(**settings), MadeClips(LABELS, LABELS))
    losses = best.details["validation_loss_per_epoch"]
    assert len(losses) == 5
    assert best.details["chosen_epoch"] == 1 + int(np.argmin(losses)) <= 2
    # The same two epochs alone, under the same schedule, end where the choice fell.
    short = ask(LinearProbeInLoop(**(settings | {"epochs": 2.0})), MadeClips(LABELS, LABELS))
    assert short.details["validation_loss_per_epoch"] == losses[:2]
    assert best.metrics == short.metrics


def test_groups_are_held_out_whole_and_never_trained_on() -> None:
    groups = [f"person_{row // 6}" for row in range(24)]
    data = MadeClips(LABELS, LABELS, groups=groups)
    settings = RECIPE | {"select": "best_on_validation", "validation_videos": 6, "batch_size": 6}
    result = ask(Finetune(**settings), data)
    assert result.settings["validation_videos"] == 6
    unseen = set(range(24)) - set(data.asked)
    assert len({groups[row] for row in unseen}) == 1
    assert len(unseen) == 6


def test_the_last_step_counts_on_all_videos_by_default() -> None:
    data = MadeClips(LABELS, LABELS)
    result = ask(Finetune(**RECIPE), data)
    assert result.settings["validation_videos"] == 0
    assert set(data.asked) == set(range(24))
    assert "chosen_epoch" not in result.details


def test_length_is_in_epochs_or_in_steps() -> None:
    settings = RECIPE | {"epochs": None, "steps": 7}
    data = MadeClips(LABELS, LABELS)
    result = ask(Finetune(**settings), data)
    assert (result.settings["steps"], len(data.asked)) == (7, 56)
    assert len(result.details["loss_per_epoch"]) == 3  # of 3, 3 and 1 steps
    with pytest.raises(ValueError, match="give one of them"):
        Finetune(**(RECIPE | {"steps": 7}))
    with pytest.raises(ValueError, match="give one of them"):
        Finetune(**(RECIPE | {"epochs": None}))


def test_a_class_that_is_not_in_train_is_never_named() -> None:
    result = ask(Finetune(**RECIPE), MadeClips([0, 2] * 8, [0, 1, 2]))
    assert result.per_video["top1"].tolist() == [1.0, 0.0, 1.0]
    assert result.per_video["top5"].tolist() == [1.0, 0.0, 1.0]


def test_views_of_the_test_do_not_change_the_training() -> None:
    results = [
        ask(Finetune(**(RECIPE | {"test_clips": clips, "test_crops": crops})), MadeClips(LABELS, LABELS))
        for clips, crops in ((1, "centre"), (2, "ten"))
    ]
    assert results[0].details == results[1].details


def test_gradients_are_clipped() -> None:
    settings = RECIPE | {"epochs": None, "steps": 1, "gradient_clip": 1e-8, "optimizer": partial(SGD, lr=1.0)}
    kept: list[torch.Tensor] = []

    class Looked(Finetune):
        def make_classifier(self, backbone: Any, *, num_classes: int) -> Any:
            classifier = super().make_classifier(backbone, num_classes=num_classes)
            kept.extend([classifier.linear.weight, classifier.linear.weight.detach().clone()])
            return classifier

    ask(Looked(**settings), MadeClips(LABELS, LABELS))
    assert 0 < float((kept[0].detach() - kept[1]).abs().max()) < 1e-7


def test_unreadable_videos_are_counted() -> None:
    result = ask(Finetune(**RECIPE), MadeClips(LABELS, LABELS, unreadable=[1003]))
    assert result.details["unreadable_rows"] == [1003]
    assert len(result.per_video["top1"]) == 23


def test_settings_hold_plain_values_only() -> None:
    settings = ask(Finetune(**RECIPE), MadeClips(LABELS, LABELS)).settings
    assert json.loads(json.dumps(settings)) == settings
    assert settings["optimizer"] == {"name": "SGD", "lr": 0.1, "momentum": 0.9}


@BOTH
@pytest.mark.parametrize(
    ("train", "test", "what"),
    [
        ([], LABELS, "the train part has no labelled videos"),
        (LABELS, [], "the test part has no labelled videos"),
        ([1] * 9, LABELS, "one class"),
        ([0, 1, 2], LABELS, "batch_size=8 is larger than the 3"),
    ],
)
def test_data_that_cannot_be_learnt_from_is_refused(
    protocol: type[TrainedClassifier], train: list[int], test: list[int], what: str
) -> None:
    with pytest.raises(InputError, match=what):
        ask(protocol(**RECIPE), MadeClips(train, test))
    with pytest.raises(InputError, match=what):
        protocol(**RECIPE).predict_seconds(TinyNet(), MadeClips(train, test), num_classes=NUM_CLASSES, device=CPU)


def test_nothing_to_choose_on_is_refused() -> None:
    settings = RECIPE | {"select": "best_on_validation", "batch_size": 1}
    with pytest.raises(InputError, match=r"none can be held out.*select=last"):
        ask(Finetune(**settings), MadeClips([0, 1, 2], LABELS))


def test_a_training_that_diverges_is_told() -> None:
    with pytest.raises(InputError, match="has diverged"):
        ask(Finetune(**(RECIPE | {"optimizer": partial(SGD, lr=1e30)})), MadeClips(LABELS, LABELS))


def test_clips_that_do_not_fit_the_backbone_are_refused() -> None:
    backbone = TinyNet()
    backbone.min_frames = 4
    with pytest.raises(InputError, match="num_frames=2 must be at least 4"):
        ask(Finetune(**RECIPE), MadeClips(LABELS, LABELS), backbone)


@pytest.mark.parametrize(
    "settings",
    [{"batch_size": 0}, {"epochs": 0.0}, {"test_clips": 0}, {"val_fraction": 0.6}, {"val_fraction": 0.0}],
)
def test_faulty_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        Finetune(**(RECIPE | settings))


def test_label_beyond_the_classes_is_a_fault_of_the_program() -> None:
    with pytest.raises(ValueError, match="must be below num_classes=3"):
        ask(Finetune(**RECIPE), MadeClips([0, 3] * 8, LABELS))


@BOTH
def test_predicted_seconds_count_all_steps_and_views(protocol: type[TrainedClassifier]) -> None:
    backbone = TinyNet()
    before = deepcopy(backbone.state_dict())
    data = MadeClips(LABELS, LABELS)
    seconds = protocol(**RECIPE).predict_seconds(backbone, data, num_classes=NUM_CLASSES, device=CPU)
    assert seconds.steps == 24
    assert seconds.per_step > 0
    assert seconds.total == pytest.approx(24 * seconds.per_step + seconds.testing)
    assert len(data.asked) <= 5 * 8
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())


def test_the_first_of_the_timed_steps_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 50.0, 52.0, 54.0, 56.0, 58.0])
    monkeypatch.setattr("ssl_video.evaluation.trained_classifier.time.monotonic", lambda: next(clock))
    assert seconds_each(range(1000)) == 2.0
    clock = iter([0.0, 3.0])
    assert seconds_each([1]) == 3.0


@pytest.mark.gpu
@BOTH
def test_classes_are_told_apart_on_a_gpu(protocol: type[TrainedClassifier]) -> None:
    settings = RECIPE | {"select": "best_on_validation", "dropout": 0.1, "epochs": 20.0}
    device = torch.device("cuda", torch.cuda.current_device())
    data = MadeClips(LABELS, LABELS)
    assert protocol(**settings).predict_seconds(TinyNet(), data, num_classes=NUM_CLASSES, device=device).per_step > 0
    result = protocol(**settings)(TinyNet(), data, num_classes=NUM_CLASSES, device=device)
    assert result.metrics["top1"] == 1.0
