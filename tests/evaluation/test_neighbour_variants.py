"""The named settings of the papers, and what a user reaches by the command line."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from ssl_video.cli.parts import PROVIDED, EvaluateSettings
from ssl_video.evaluation.clips import ClipSpec
from ssl_video.evaluation.low_shot import LowShot
from ssl_video.utils.config import build, compose_checked

KNN = "ssl_video.evaluation.knn.KNN"
RETRIEVAL = "ssl_video.evaluation.retrieval.Retrieval"

# What the papers' code does; the temperature of the study of rho clips is that of its MoCo, SimCLR and SwAV.
VARIANTS: dict[str, dict[str, Any]] = {
    "retrieval_vcop": {
        "_target_": RETRIEVAL,
        "recall_at": [1, 5, 10, 20, 50],
        "num_clips": 10,
        "level": "video",
        "pooling": "conv5_max",
        "search": "exact",
    },
    "knn_rho_study": {"_target_": KNN, "k": 200, "temperature": 0.1, "cap_at_class_size": False, "level": "video"},
    "knn_svt": {"_target_": KNN, "k": 5, "temperature": 0.07, "cap_at_class_size": False, "level": "video"},
}


def composed(*overrides: str) -> Any:
    words = ["checkpoint=random", *overrides]
    return compose_checked("evaluate", words, provided=PROVIDED, settings=EvaluateSettings).evaluation


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_holds_what_its_paper_does(variant: str) -> None:
    node = composed(f"evaluation={variant}")
    values = OmegaConf.to_container(node)
    assert isinstance(values, dict)
    assert {key: values[key] for key in VARIANTS[variant]} == VARIANTS[variant]
    protocol = build(node)
    assert variant.startswith(f"{protocol.name}_")


def test_every_variant_has_its_table(repository: Path) -> None:
    files = {
        file.stem for pattern in ("knn_*", "retrieval_*") for file in (repository / "conf/evaluation").glob(pattern)
    }
    assert files == set(VARIANTS)


def test_vcop_asks_for_the_pooled_map_of_ten_clips() -> None:
    spec = build(composed("evaluation=retrieval_vcop")).clips("test")["normal"]
    assert spec == ClipSpec(num_clips=10, pooling="conv5_max")


def test_defaults_of_the_files_are_those_of_the_classes() -> None:
    for name in ("knn", "retrieval", "low_shot"):
        protocol = build(composed(f"evaluation={name}"))
        assert vars(protocol) == vars(type(protocol)()), name


def test_lists_of_labelled_videos_come_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "five.txt").write_text("class/v_01.avi*3\n")
    (tmp_path / "ten.txt").write_text("class/v_02.avi 120 3\n")
    files = f"[{tmp_path / 'five.txt'},{tmp_path / 'ten.txt'}]"
    low_shot = build(composed("evaluation=low_shot", f"evaluation.label_lists={files}", "evaluation.shots=[2]"))
    assert isinstance(low_shot, LowShot)
    assert low_shot.lists == {"top1_list_five": ["class/v_01.avi*3"], "top1_list_ten": ["class/v_02.avi 120 3"]}
    assert low_shot.shots == [2]
