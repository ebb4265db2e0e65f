import pytest

from ssl_video.cli.checks.installation import (
    CODECS,
    check_codecs,
    check_decord,
    check_gpu,
    check_installation,
    check_versions,
)

SOUND = {"torch": "2.15.0+cu130", "torchvision": "0.29.2", "av": "18.1.0"}


def test_this_installation_has_no_fault() -> None:
    """It runs these tests; notes (no GPU, no FFmpeg libraries) are no faults."""
    findings = list(check_installation())
    assert not [finding for finding in findings if finding.level == "fault"]
    assert {"versions", "torchvision", "decord", "codecs", "torchcodec", "GPU"} == {own.name for own in findings}


def test_sound_versions_are_told() -> None:
    finding = check_versions("3.12.1", SOUND)
    assert (finding.level, finding.fix) == ("ok", "")
    assert finding.told == "Python 3.12.1, torch 2.15.0+cu130, torchvision 0.29.2, av 18.1.0"


@pytest.mark.parametrize("python", ["3.10.4", "3.14.0"])
def test_another_python_is_a_fault(python: str) -> None:
    finding = check_versions(python, SOUND)
    assert finding.level == "fault"
    assert "3.11, 3.12 and 3.13" in finding.fix


def test_a_missing_package_is_a_fault_with_the_command() -> None:
    finding = check_versions("3.12.1", {**SOUND, "av": None})
    assert (finding.level, finding.fix) == ("fault", "pip install av")


def test_a_release_that_is_known_to_be_broken_is_a_fault() -> None:
    finding = check_versions("3.12.1", {**SOUND, "torch": "2.13.0+cpu"})
    assert finding.level == "fault"
    assert "torch 2.13.0: its torchvision does not import" in finding.fix


@pytest.mark.parametrize(
    ("described", "level"),
    [
        ("decord2 3.4.0", "ok"),
        ("decord 0.6.0", "fault"),
        ("nothing (pip install decord2)", "fault"),
        ("decord 0.6.0 and decord2 3.4.0 (they overwrite each other: uninstall both, then install decord2)", "fault"),
    ],
)
def test_decord_must_be_decord2_alone(described: str, level: str) -> None:
    finding = check_decord(described)
    assert finding.level == level
    assert ("pip install decord2" in finding.fix) == (level == "fault")


def test_a_missing_codec_is_named_with_what_it_is_for() -> None:
    [finding] = check_codecs({**dict.fromkeys(CODECS, True), "av1": False}, encodes_h264=True)
    assert finding.level == "note"
    assert "no av1 (YouTube since 2020)" in finding.told
    assert "av1," not in finding.told


def test_without_an_encoder_neither_demo_nor_prepare_work() -> None:
    found = list(check_codecs(dict.fromkeys(CODECS, True), encodes_h264=False))
    assert [finding.level for finding in found] == ["ok", "fault"]
    assert "libx264" in found[1].told


@pytest.mark.parametrize(
    ("names", "has_bf16", "level", "told"),
    [
        ([], False, "note", "none that torch sees (it is built for CUDA 13.0)"),
        (["H100", "H100"], True, "ok", "2 x H100"),
        (["H100", "A10"], True, "ok", "H100, A10"),
        (["T4"], False, "note", "1 x T4, without bf16"),
    ],
)
def test_gpus(names: list[str], has_bf16: bool, level: str, told: str) -> None:
    finding = check_gpu(built_for="13.0", names=names, has_bf16=has_bf16)
    assert (finding.level, finding.told) == (level, told)
