"""The benchmark's own arithmetic, and the proofs that CI runs: one law to learn and one control for each task."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmark.cells import all_cells, data_overrides
from benchmark.laws import SIZE, shown
from benchmark.probes import statistics
from benchmark.proofs import _shuffled, format_table, run_cell, verdict
from benchmark.table import read_cells, write_table
from benchmark.tasks import TASKS


@pytest.mark.parametrize(
    ("accuracy", "ceiling", "must_learn", "expected"),
    [
        (0.95, 1.0, True, "learnt"),
        (0.50, 1.0, True, "above chance"),
        (0.20, 1.0, True, "FAILS"),  # three deviations above chance are not five
        (0.70, 0.5, True, "FAILS"),  # above the ceiling something leaks
        (0.18, 1 / 6, False, "at chance"),
        (0.25, 1 / 6, False, "FAILS"),
        (0.08, 1 / 6, False, "FAILS"),  # far below chance is no chance either
        (0.45, 0.5, False, "below the ceiling"),
    ],
)
def test_verdict(accuracy: float, ceiling: float, must_learn: bool, expected: str) -> None:
    result = {"law": "A", "accuracy": accuracy, "chance": 1 / 6, "ceiling": ceiling, "sigma": 0.011}
    assert verdict(result, must_learn=must_learn) == expected


def test_three_deviations_above_a_ceiling_are_those_of_the_ceiling() -> None:
    """Of 2048 answers with a ceiling of 2/3, one deviation is 0.0104; with a chance of 1/12 it is 0.0061."""
    result = {"law": "B", "chance": 1 / 12, "ceiling": 2 / 3, "sigma": math.sqrt(11 / 144 / 2048)}
    assert verdict({**result, "accuracy": 2 / 3 + 0.030}, must_learn=True) == "learnt"
    assert verdict({**result, "accuracy": 2 / 3 + 0.033}, must_learn=True) == "FAILS"


def test_shuffled_labels_are_those_of_the_batch_before() -> None:
    labels = [torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([4, 5])]
    method = SimpleNamespace(questions=lambda batch: (torch.zeros(2, 6), labels[batch]))
    with _shuffled(method):
        assert [method.questions(number)[1].tolist() for number in range(3)] == [[1, 0], [0, 1], [2, 3]]


def test_a_network_taught_shuffled_labels_guesses_once_per_order() -> None:
    """One right order of 12 more or less is 1/12; of a thousand independent guesses it would be ten deviations."""
    result = {"accuracy": 2 / 12, "chance": 1 / 12, "ceiling": 1 / 12, "sigma": 0.008}
    assert verdict({"law": "F", **result}, must_learn=False) == "at chance"
    assert verdict({"law": "C", **result}, must_learn=False) == "FAILS"
    assert verdict({"law": "F", **result, "accuracy": 0.5}, must_learn=False) == "FAILS"


def test_every_task_has_what_must_be_learnt_and_what_must_not() -> None:
    for task in TASKS.values():
        assert task.ceilings["A"] == 1.0
        controls = {task.ceilings[law] for law in ("C", "D", "F") if law in task.ceilings}
        assert controls == {task.chance}
        assert all(task.chance <= ceiling <= 1 for ceiling in task.ceilings.values())


def test_a_shared_time_shows_a_shared_frame_only_where_the_law_says_so() -> None:
    times = np.array([[3, 9], [9, 12]])
    shared = shown("D_shared", times, np.random.default_rng(0), duration=64)
    assert np.array_equal(shared[0, 1], shared[1, 0])
    apart = shown("D", times, np.random.default_rng(0), duration=64)
    assert not np.array_equal(apart[0, 1], apart[1, 0])


def test_the_ramp_changes_the_light_only_and_the_jitter_hides_its_direction() -> None:
    times = np.arange(64)[None]
    light = shown("ramp", times, np.random.default_rng(1), duration=64).mean(axis=(0, 2, 3, 4))
    steps = np.diff(light)
    assert (steps >= 0).all() or (steps <= 0).all()
    jittered = shown("ramp_jittered", times, np.random.default_rng(1), duration=64).mean(axis=(0, 2, 3, 4))
    assert 0.3 < (np.diff(jittered) > 0).mean() < 0.7
    assert shown("ramp", times, np.random.default_rng(1), duration=64).shape == (1, 64, SIZE, SIZE, 3)


def test_files_of_the_held_out_part_are_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.laws.FILES", tmp_path)
    monkeypatch.setattr("benchmark.laws.NUM_FILES", 4)
    for part in (0, 1):
        for draw in range(6):
            frames = shown("C_h264", np.array([[0, 5]]), np.random.default_rng(draw), part=part, duration=64)
            assert frames.shape == (1, 2, SIZE, SIZE, 3)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "64_0000.mp4",
        "64_0001.mp4",
        "64_0002.mp4",
        "64_0003.mp4",
    ]


def test_all_methods_come_before_a_second_seed() -> None:
    cells = all_cells(["moving_shapes", "wagon"], ["a", "b"])
    assert [(cell.dataset, cell.method, cell.seed) for cell in cells[:5]] == [
        ("moving_shapes", "a", 0),
        ("moving_shapes", "b", 0),
        ("wagon", "a", 0),
        ("wagon", "b", 0),
        ("moving_shapes", "a", 1),
    ]
    assert len(cells) == 2 * 3 + 2
    assert len({cell.steps for cell in cells if cell.dataset == "wagon"}) == 1


def test_the_real_sets_are_split_by_group() -> None:
    assert "dataset.test_groups=[6,7,8,9,10]" in data_overrides("interactions", Path("x"))


def test_table_and_picture_are_made_of_the_result_files(tmp_path: Path) -> None:
    for seed, top1 in enumerate((0.5, 0.7)):
        cell = {"method": "moco", "backbone": "r3d_tiny", "steps": 3, "seconds": 2.0, "frames_per_second": 10.0}
        cell |= {"peak_memory_bytes": 2e9, "revision": "abcdef1234"}
        cell["scores"] = {"motion knn": {"checkpoint": {"top1": top1}, "random": {"top1": 0.25}}}
        file = tmp_path / "results" / "moving_shapes" / f"moco_{seed}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(cell))
    write_table(tmp_path / "results", tmp_path)
    text = (tmp_path / "RESULTS.md").read_text()
    assert "| moco | r3d_tiny | 2 | 3 | 60.0 ± 14.1 (25.0 ± 0.0) | 10 | 2.0 | 2 | abcdef1 |" in text
    assert (tmp_path / "moving_shapes.png").stat().st_size > 1000
    assert list(read_cells(tmp_path / "results" / "moving_shapes")) == ["moco"]


def test_a_cell_says_what_it_reached_and_the_table_shows_it() -> None:
    """Two steps teach nothing: the cell of a law that must be learnt says so."""
    torch.set_num_threads(1)
    result = run_cell(TASKS["vcop"], "A", steps=2, held_out=96)
    assert result["verdict"] == "FAILS"
    assert result["tuples"] == 96
    assert result["sigma"] == pytest.approx(math.sqrt(5 / 36 / 96), abs=1e-4)
    assert 0 <= result["pixel_rule"] <= 1
    table = format_table([{"task": "vcop", **result}])
    assert f"| vcop | A | **{result['accuracy']:.3f}** | 0.167 | 1.000 |" in table


def test_trivial_statistics_are_those_of_numpy() -> None:
    frames = torch.rand(2, 3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = statistics(frames)
    assert found.shape == (2, 3 * 12)
    one = frames[1, 2].double().numpy()
    grey = one.mean(axis=0)
    inner = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    steps = np.abs(np.diff(grey, axis=1))
    expected = [*one.mean(axis=(1, 2)), *one.std(axis=(1, 2), ddof=1), (inner**2).mean()]
    expected += [steps[:, 7::8].mean() / steps.mean()]
    expected += [grey[0].mean(), grey[-1].mean(), grey[:, 0].mean(), grey[:, -1].mean()]
    assert found[1, 24:].numpy() == pytest.approx(np.array(expected), abs=1e-5)
    assert statistics(torch.rand(2, 3, 8, 3, 16, 16)).shape == (2, 3 * 24)


@pytest.mark.slow
@pytest.mark.parametrize("law", ["A", "C"])
@pytest.mark.parametrize("task", ["shuffle_and_learn", "opn_position", "o3n", "vcop"])
def test_order_is_learnt_where_there_is_one_and_guessed_where_there_is_none(task: str, law: str) -> None:
    result = run_cell(TASKS[task], law)
    assert result["verdict"] in {"A": ("learnt", "above chance"), "C": ("at chance",)}[law], result
