"""`ssl-video doctor` over sound, broken and missing data."""

import json
from pathlib import Path

import pytest

from ssl_video.cli import doctor
from ssl_video.cli.checks.data import Sampled, check_length, check_quarantine, check_sample, check_status
from ssl_video.cli.checks.finding import Finding, format_findings
from ssl_video.data.decoding.quarantine import Quarantined, keep_in_quarantine, quarantine_file
from ssl_video.data.sources import folder
from support.folders import numbered_folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = numbered_folder(tmp_path_factory.mktemp("numbered"), videos=5)
    (root / "broken.mp4").write_bytes(b"no video")
    return root


def findings(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, dict[str, str]]]:
    code = doctor.main([*words, "--json", "--sample", "2"])
    return code, {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)}


def test_a_folder_with_a_broken_file(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["dataset=folder", f"dataset.root={videos}", f"cache_dir={tmp_path}", "dataset.max_unreadable_share=0.5"]
    code, found = findings(capsys, *words)
    assert code == 0
    assert found["videos"]["level"] == "note"
    assert "5 ok, 1 unreadable" in found["videos"]["told"] and "broken.mp4" in found["videos"]["told"]
    assert found["sample"]["told"].startswith("2 videos read as training reads them")
    assert found["labels"]["told"] == "none; 6 train"


def test_data_that_cannot_be_used_is_a_fault_and_the_rest_is_still_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = findings(capsys, "dataset=folder", f"dataset.root={tmp_path / 'nowhere'}", f"cache_dir={tmp_path}")
    assert code == 1
    assert found["data"]["level"] == "fault" and "nowhere" in found["data"]["told"]
    assert found["port"]["level"] == "ok"


def test_a_wrong_override_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["dataset.rot=/videos"]) == 2
    assert "dataset.root" in capsys.readouterr().err


def test_status_names_the_first_faults() -> None:
    bad = [f"{number}.mp4" for number in range(7)]
    finding = check_status([*bad, "good.mp4"], ["damaged"] * 7 + ["ok"], ["its end is missing"] * 7 + [None])
    assert finding.level == "note"
    assert "0.mp4: its end is missing" in finding.told and "and 2 more" in finding.told


def test_quarantined_videos_of_this_folder_are_named(tmp_path: Path) -> None:
    entry = Quarantined("a.mp4", 10, 20, "ended its decoder: SIGSEGV", 2, str(tmp_path), 0.0)
    finding = check_quarantine([entry], root=tmp_path)
    assert finding.level == "note"
    assert "a.mp4: ended its decoder: SIGSEGV" in finding.told
    assert check_quarantine([entry], root=tmp_path / "other").level == "ok"


@pytest.mark.parametrize(("failed", "level"), [(0, "ok"), (2, "note"), (6, "fault")])
def test_a_sample_that_mostly_fails_is_a_fault(failed: int, level: str) -> None:
    finding = check_sample(Sampled(10, [("a.mp4", "gave no answer in 60 s")] * failed, 1.0))
    assert finding.level == level
    assert "100 ms each" in finding.told


def test_short_videos() -> None:
    common = {"min_frames": 61, "end_policy": "error"}
    assert check_length(short=0, usable=9, **common).level == "ok"  # type: ignore[arg-type]
    assert check_length(short=3, usable=6, **common).level == "note"  # type: ignore[arg-type]
    assert check_length(short=9, usable=0, **common).level == "fault"  # type: ignore[arg-type]


def test_the_report_puts_what_to_do_behind_an_arrow_and_counts() -> None:
    text = format_findings(
        [
            Finding("ok", "cores", "8"),
            Finding("fault", "shared memory", "64 MiB " * 30, "make it larger"),
            Finding("note", "GPU", "none"),
        ]
    )
    lines = text.splitlines()
    assert max(map(len, lines)) <= 110
    assert lines[0] == "ok     cores          8"
    assert any(line.strip() == "→ make it larger" for line in lines)
    assert lines[-1] == "1 fault and 1 note; what to do stands behind each arrow."
    assert format_findings([Finding("ok", "cores", "8")]).endswith("Nothing to fix.")


def test_a_worker_that_makes_several_batches_of_an_opening_hands_over_as_many(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["dataset=folder", f"dataset.root={videos}", f"cache_dir={tmp_path}", "dataset.max_unreadable_share=0.5"]
    mib = []
    for number in (1, 4):
        _, found = findings(capsys, *words, "batch_size=64", f"dataset.clips_per_open={number}")
        size, unit = found["shared memory"]["told"].split()[:2]
        mib.append(float(size) * (1024 if unit == "GiB" else 1))
    assert mib[1] == pytest.approx(4 * mib[0], rel=0.1)


def test_a_quarantine_that_a_run_would_refuse_is_a_fault_among_the_others(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = folder(root=videos, labels=None, cache_dir=tmp_path)
    for row in range(len(manifest)):
        keep_in_quarantine(quarantine_file(tmp_path), manifest, row, "no frames")
    words = ["dataset=folder", f"dataset.root={videos}", f"cache_dir={tmp_path}", "dataset.max_unreadable_share=0.5"]
    code, found = findings(capsys, *words)
    assert code == 1
    assert found["data"]["level"] == "fault" and "in quarantine" in found["data"]["told"]
    assert found["port"]["level"] == "ok" and found["quarantine"]["level"] == "note"
