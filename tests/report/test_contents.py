"""Which evaluations count together, and which are left out."""

import numpy as np

from ssl_video.report.contents import Evaluation, Predictions, Run, measured, preferred, results_of
from support.reports import made_up_predictions, protocol_object, scorecard


def test_a_single_protocol_and_a_scorecard_are_read_alike() -> None:
    single = protocol_object("knn", {"top1": 0.5})
    assert list(results_of(single)) == ["knn"]
    variant = protocol_object("retrieval", {"recall_at_1": 0.5}, variant="vcop")
    assert list(results_of(scorecard({"knn": single, "retrieval_vcop": variant}))) == ["knn", "retrieval (vcop)"]


def test_a_newer_result_of_a_protocol_takes_the_place_of_an_older_one() -> None:
    old = Evaluation(protocol_object("knn", {"top1": 0.1}))
    new = Evaluation(scorecard({"knn": protocol_object("knn", {"top1": 0.9})}))
    (group,) = measured([Run("a", evaluations=[old, new])]).values()
    assert group[0].results["knn"]["metrics"]["top1"] == 0.9
    assert group[0].older == 1
    assert group[0].report["skipped"] == {"shift": "not asked for"}
    assert "metrics" not in group[0].report


def test_results_of_another_checkpoint_or_other_videos_do_not_mix() -> None:
    before = Evaluation(protocol_object("retrieval", {"recall_at_1": 0.1}, checkpoint="last.ckpt sha256:old"))
    moved = Evaluation(protocol_object("linear_probe", {"top1": 0.1}, manifest_hash="c" * 64))
    now = Evaluation(protocol_object("knn", {"top1": 0.9}))
    (group,) = measured([Run("a", evaluations=[before, moved, now])]).values()
    assert list(group[0].results) == ["knn"]
    assert group[0].older == 2


def test_each_data_set_and_label_is_a_table_of_its_own() -> None:
    motion = Evaluation(protocol_object("knn", {"top1": 0.1}, label="motion"))
    looks = Evaluation(protocol_object("knn", {"top1": 0.9}, label="appearance"))
    groups = measured([Run("a", evaluations=[motion]), Run("b", evaluations=[motion, looks])])
    assert {where: [one.run for one in group] for where, group in groups.items()} == {
        ("folder", "motion"): ["a", "b"],
        ("folder", "appearance"): ["b"],
    }
    assert [one.number for one in groups["folder", "motion"]] == [0, 1]


def test_predictions_of_several_evaluations_stand_in_one_table() -> None:
    found = made_up_predictions(videos=6, classes=2, train=4)
    probe = Predictions(found.paths, found.labels, predicted={"linear_probe": ["class 0"] * 6})
    other = Predictions(["x.mp4"], ["class 0"], predicted={"finetune": ["class 0"]})
    evaluations = [
        Evaluation(protocol_object("finetune", {"top1": 1.0}), other, np.zeros((1, 3))),
        Evaluation(protocol_object("linear_probe", {"top1": 0.5}), probe, np.ones((6, 3))),
        Evaluation(protocol_object("knn", {"top1": 0.5}), found),
    ]
    (group,) = measured([Run("a", evaluations=evaluations)]).values()
    assert group[0].predictions is not None and group[0].features is not None
    assert set(group[0].predictions.predicted) == {"knn", "linear_probe"}
    assert set(group[0].predictions.neighbours) == {"retrieval"}
    assert len(group[0].features) == 6


def test_features_of_other_videos_are_not_shown_with_these_labels() -> None:
    found = made_up_predictions(videos=6, classes=2, train=4)
    (group,) = measured([Run("a", evaluations=[Evaluation(scorecard({}), found, np.zeros((5, 3)))])]).values()
    assert group[0].features is None and group[0].predictions is not None


def test_the_order_decides_and_else_the_first() -> None:
    assert preferred(["x", "knn", "linear_probe"], ("linear_probe", "knn")) == "linear_probe"
    assert preferred(["x", "y"], ("knn",)) == "x"
    assert preferred([], ("knn",)) is None
