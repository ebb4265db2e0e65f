"""What made-up measurements are said to mean."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from ssl_video.cli.bench_rounds import LOADER_PARTS, STEP_PARTS, Circumstances, Measured, Prepared, Round, ratio
from ssl_video.cli.bench_table import aligned, facts, heading, one_table, scaled, two_table
from ssl_video.cli.bench_verdict import (
    comparison,
    duration,
    expectation,
    factor,
    verdict,
    would_gain_by_preparing,
)

GPU = Circumstances(
    name="method=moco",
    videos=32,
    clips=64,
    num_workers=2,
    cores=16,
    compute_threads=0,
    device="a GPU",
    augment_on="worker",
    num_steps=10_000,
    startup_seconds=20.0,
)


def measured(
    loader: dict[str, float],
    step: dict[str, float],
    *,
    whole: float | Sequence[float] = 100.0,
    waited: float = 0.0,
    prepared: Prepared | None = None,
    **circumstances: Any,
) -> Measured:
    """As if measured; parts that are not named take no time."""
    parts = dict.fromkeys(STEP_PARTS, 0.0) | step
    wholes = [whole] if isinstance(whole, float) else whole
    rounds = [Round(dict.fromkeys(LOADER_PARTS, 0.0) | loader, parts, sum(parts.values()), w, waited) for w in wholes]
    return Measured(replace(GPU, **circumstances), rounds, prepared=prepared)


COMPUTING = {"forward": 100.0, "backward": 250.0, "optimizer": 50.0}


def test_decode_bound_names_the_workers_and_what_preparing_gives() -> None:
    own = measured({"decode": 5000.0, "transform": 600.0}, COMPUTING, prepared=Prepared(128, 9.2, 4))
    told = verdict(own)
    assert told.kind == "decode"
    # 5600 / 400 = 14; prepared 5000 / 9.2 + 600 = 1143, / 400 = 2.9.
    assert told.sentence == (
        "decode-bound: 14 workers needed, you have 2; or prepare at 128 px: about 9× faster (measured on 4 videos), "
        "3 workers then"
    )
    assert "÷ 2 workers = 2,800.0 ms" in told.arithmetic
    assert "5,600.0 / 400.0 = 14.0" in told.arithmetic
    assert would_gain_by_preparing(own)


def test_an_estimate_is_called_one_and_a_small_gain_is_no_advice() -> None:
    loader = {"decode": 5000.0}
    assert "(estimated)" in verdict(measured(loader, COMPUTING, prepared=Prepared(128, 6.0))).sentence
    assert "prepare" not in verdict(measured(loader, COMPUTING, prepared=Prepared(128, 1.1, 4))).sentence
    assert "prepare" not in verdict(measured(loader, COMPUTING)).sentence


def test_more_workers_than_cores_are_said_to_need_cores() -> None:
    told = verdict(measured({"decode": 5600.0}, COMPUTING, cores=4, num_workers=8))
    assert told.sentence == "decode-bound: 14 workers needed, you have 8 on 4 cores"
    assert "÷ 4 cores (8 workers share them) = 1,400.0 ms" in told.arithmetic


@pytest.mark.parametrize(
    ("loader", "circumstances", "kind", "advice"),
    [
        ({"storage": 900.0, "decode": 100.0}, {}, "storage", "a faster disk"),
        ({"transform": 900.0, "decode": 100.0}, {}, "transform", "augment_on=device"),
        ({"transform": 900.0, "decode": 100.0}, {"augment_on": "device"}, "transform", "a cheaper transform="),
        ({"transform": 9000.0}, {"compute_threads": 1}, "transform", "a cheaper transform="),
        ({"collate": 900.0, "decode": 100.0}, {}, "collate", "3 workers needed"),
    ],
)
def test_each_part_of_the_loader_can_be_the_bound(
    loader: dict[str, float], circumstances: dict[str, Any], kind: str, advice: str
) -> None:
    told = verdict(measured(loader, COMPUTING, **circumstances))
    assert told.kind == kind
    assert told.sentence.startswith(f"{kind}-bound: ")
    assert advice in told.sentence


def test_storage_is_told_with_its_rate() -> None:
    own = replace(measured({"storage": 1000.0, "decode": 10.0}, COMPUTING), bytes_per_video=2e6)
    assert "the files come at 64.0 MB/s" in verdict(own).sentence  # 32 videos of 2 MB in a second


def test_compute_bound_says_how_much_faster_the_loader_is() -> None:
    told = verdict(measured({"decode": 258.0}, COMPUTING))
    assert told.kind == "compute"
    assert told.sentence == "compute-bound: the loader delivers 3.1× what the step takes; 1 worker would do"
    assert not would_gain_by_preparing(measured({"decode": 258.0}, COMPUTING))


@pytest.mark.parametrize(
    ("step", "kind", "advice"),
    [
        (
            {"transfer": 300.0, "forward": 100.0},
            "transfer",
            "copying to the device is 75 % of a step; augment_on=device",
        ),
        ({"finish": 300.0, "forward": 100.0}, "augmentation", "augment_on=worker moves it to the workers"),
        ({"rest": 300.0, "forward": 100.0}, "overhead", "75 % of a step is neither copying nor network"),
    ],
)
def test_each_part_of_the_step_can_be_the_bound(step: dict[str, float], kind: str, advice: str) -> None:
    told = verdict(measured({"decode": 10.0}, step))
    assert told.kind == kind
    assert advice in told.sentence


def test_on_a_cpu_network_and_workers_share_the_cores() -> None:
    own = measured({"decode": 700.0, "transform": 100.0}, COMPUTING, compute_threads=1, cores=2)
    told = verdict(own)
    # 800 / 2 workers = 400 = a step, but all of it is 1200 ms of two cores.
    assert told.kind == "core"
    assert own.predicted_ms == 600.0
    assert "want 3.0 cores at the network's pace, you have 2" in told.sentence
    assert "33 % of the work is the step's, 58 % decode" in told.sentence
    assert "÷ 2 cores = 600.0 ms" in told.arithmetic
    assert verdict(replace(own, circumstances=replace(own.circumstances, cores=16))).kind != "core"


def test_a_slow_loader_is_the_bound_on_a_cpu_too() -> None:
    told = verdict(measured({"decode": 5600.0}, COMPUTING, compute_threads=1, cores=2))
    assert told.sentence == ("decode-bound: 14 workers needed, you have 2 on 2 cores that the network computes on too")


def test_without_workers_nothing_overlaps() -> None:
    own = measured({"decode": 300.0}, {"forward": 100.0}, num_workers=0, prepared=Prepared(128, 9.0, 4))
    told = verdict(own)
    assert own.predicted_ms == 400.0
    assert told.kind == "serial"
    assert "75 % of a step is loading" in told.sentence
    assert "dataset.num_workers=3 would load while the network computes" in told.sentence
    assert "prepare at 128 px: about 9× faster" in told.sentence
    alone = replace(own, circumstances=replace(own.circumstances, cores=1, compute_threads=1))
    assert "would load while" not in verdict(alone).sentence


def test_the_whole_run_is_said_with_what_it_rests_on() -> None:
    own = measured({"decode": 10.0}, COMPUTING, whole=720.0, startup_seconds=360.0)
    assert own.run_hours == pytest.approx(2.1)
    assert duration(own) == (
        "the whole run takes about 2.1 hours: 10,000 steps × 720.0 ms measured end to end + 360.0 s to start"
    )
    several = measured({"decode": 10.0}, COMPUTING, whole=50.0, num_steps=600, startup_seconds=3.0, num_devices=4)
    assert "0.6 minutes" in duration(several)
    assert "on 4 devices, of which one was measured" in duration(several)


def test_the_parts_are_held_against_the_whole() -> None:
    fits = expectation(measured({"decode": 10.0}, COMPUTING, whole=410.0, waited=3.0))
    assert (
        fits == "end to end 410.0 ms a step, of which 3.0 ms waiting for the loader; the parts alone predict 400.0 ms"
    )
    assert "1.5× as long" in expectation(measured({"decode": 10.0}, COMPUTING, whole=600.0))
    assert "0.50× as long" in expectation(measured({"decode": 10.0}, COMPUTING, whole=200.0))


# --- two configurations -----------------------------------------------------------------------------------------------


def test_a_slow_machine_does_not_decide_which_is_faster() -> None:
    """The machine is three times as slow in some blocks; B takes 0.8 of A's time in each pair."""
    busy = [1.0, 3.0, 1.2, 2.5, 1.0]
    found = ratio([100 * own for own in busy], [80 * own for own in busy])
    assert found is not None
    assert found.value == pytest.approx(1.25)
    assert found.is_clear


def test_noise_is_no_difference() -> None:
    first = measured({}, COMPUTING, whole=[100.0, 120.0, 90.0, 110.0])
    second = measured({}, COMPUTING, whole=[110.0, 100.0, 105.0, 100.0])
    assert comparison(first, second).startswith("no difference beyond noise: A takes ")


def test_the_faster_one_is_named() -> None:
    slow = measured({}, COMPUTING, whole=[200.0, 210.0, 190.0])
    fast = measured({}, COMPUTING, whole=[100.0, 104.0, 96.0])
    assert comparison(slow, fast).startswith("B is faster: A takes 2.00 times as long (95 % interval ")
    assert comparison(fast, slow).startswith("A is faster: it takes 0.50 of B's time")


def test_one_pair_decides_nothing() -> None:
    one = measured({}, COMPUTING, whole=100.0)
    other = measured({}, COMPUTING, whole=10.0)
    assert "one pair of blocks tells nothing of the noise" in comparison(one, other)
    assert ratio([0.0, 1.0], [1.0, 1.0]) is None
    assert comparison(measured({}, {}, whole=0.0), one) == "no comparison: a block took no time"


# --- text -------------------------------------------------------------------------------------------------------------


def test_the_table_adds_up() -> None:
    text = one_table(measured({"decode": 300.0, "transform": 100.0}, COMPUTING, whole=[420.0, 440.0, 430.0]))
    rows = {line.split("  ")[0].strip(): line.split() for line in text.splitlines()}
    assert rows["loader"][1:] == ["400.0", "200.0", "100", "%"]
    assert rows["decode"][1:] == ["300.0", "150.0", "75", "%"]
    assert rows["step alone"][2:] == ["400.0", "100", "%"]
    assert rows["end to end"][3:] == ["430.0", "420.0–440.0"]
    assert len({len(line) for line in text.splitlines() if line.endswith("%")}) == 1


def test_two_columns_have_their_ratios() -> None:
    first = measured({"decode": 300.0, "collate": 0.01}, COMPUTING, whole=[200.0, 200.0])
    second = measured({"decode": 100.0, "collate": 0.02}, COMPUTING, whole=[100.0, 100.0])
    rows = {line.split("  ")[0].strip(): line.split("  ")[-1].strip() for line in two_table(first, second).splitlines()}
    assert rows["decode"] == "3.00 (3.00–3.00)"
    assert rows["end to end"] == "2.00 (2.00–2.00)"
    assert rows["collate"] == "–"  # a ratio of nothings


def test_facts_are_lines_with_units() -> None:
    own = measured({"decode": 640.0}, COMPUTING, whole=500.0)
    own = replace(own, bytes_per_video=1.5e6, cold_share=0.5, flops=10**12, matrix_flops_per_second=8e12)
    own = replace(own, busy_share=0.803, failures=2)
    text = "\n".join(facts(own))
    assert "a worker makes 50.0 videos/s (100.0 clips/s) on its core; the step takes 80.0, end to end 64.0" in text
    assert "1.50 MB read of each video, 50 % of them cold" in text
    assert "1.0 TFLOP a step (forward and backward): 2.0 TFLOP/s end to end, 25.0 % of the 8.0 TFLOP/s" in text
    assert "the GPU is busy 80.3 % of the time" in text
    assert "2 videos could not be read" in text
    assert heading(own) == "method=moco: a step is 32 videos, 64 clips; a GPU, 2 workers, 16 cores; medians of 1 block"


def test_small_texts() -> None:
    assert [factor(value) for value in (9.2, 14.6, 3.14, 0.417)] == ["9×", "15×", "3.1×", "0.42×"]
    assert [scaled(value) for value in (2e15, 3.1e12, 4e9, 5e5)] == ["2.0 P", "3.1 T", "4.0 G", "0.5 M"]
    assert aligned([("a", "b"), (), ("long", "1.0")]) == "a       b\n---------\nlong  1.0"


def test_the_json_holds_what_follows() -> None:
    content = measured({"decode": 300.0}, COMPUTING, whole=430.0, waited=5.0).as_json()
    assert content["medians"]["loader_delivery_ms"] == 150.0
    assert content["medians"]["whole_ms"] == 430.0
    assert content["rounds"][0]["waited"] == 5.0
    assert content["circumstances"]["num_workers"] == 2
