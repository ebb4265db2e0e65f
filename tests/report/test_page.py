"""The page as a whole: everything escaped, nothing loaded, pieces left out with a note, bounded in size and time."""

import html
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_video.cli.compare import differences
from ssl_video.cli.official_splits import combine
from ssl_video.report.activations import ActiveClip, Unit
from ssl_video.report.contents import Evaluation, Measured, Predictions, Run
from ssl_video.report.page import MARK, Activations, FiringClip, Layer, build_page, is_page
from ssl_video.report.pictures import animated_webp
from support.browser import dump_dom, screenshot
from support.reports import made_up_run, protocol_object, scorecard

EVIL = "<script>window.hacked=1</script><img src=http://evil.example/x onerror=alert(1)>&\"'</td>"


def noise(seed: int, *, size: int = 48) -> bytes:
    return animated_webp(np.random.default_rng(seed).integers(0, 255, (4, size, size, 3)).astype(np.uint8))


def pictures(one: Measured, paths: Sequence[str]) -> Mapping[str, bytes]:
    return {path: noise(len(path) + int(re.sub(r"\D", "", path) or 0)) for path in paths}


def no_pictures(one: Measured, paths: Sequence[str]) -> Mapping[str, bytes]:
    return {}


def activations(*, path: str = "test.mp4", label: str = "class 1") -> Activations:
    clip = ActiveClip(0, 2.5, (0, 1, 1), (0, 2, 4, 12, 0, 8), torch.zeros(3, 4, 16, 16))
    firing = FiringClip(noise(1), path, label, 2.5, clip.box)
    return Activations(5, "test", (4, 16, 16), [Layer("layers.0", [(Unit(7, 0.5, [clip]), [firing])])])


def page_of(
    runs: Sequence[Run],
    *,
    load_pictures: Callable[[Measured, Sequence[str]], Mapping[str, bytes]] = pictures,
    found: Mapping[str, Activations] | None = None,
    notes: Sequence[str] = (),
) -> str:
    return build_page(
        runs, differences=differences, load_pictures=load_pictures, activations=found or {}, more_notes=lambda: notes
    )


class Page(HTMLParser):
    """Tags with their attributes, and the text of scripts by type."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[str, str]] = []
        self.styles = self.text = ""
        self._inside: str | None = None
        self._type = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside, self._type = tag, dict(attrs).get("type") or "script"
        if tag == "script":
            self.scripts.append((self._type, ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] = (self._type, self.scripts[-1][1] + data)
        elif self._inside == "style":
            self.styles += data
        else:
            self.text += data

    @property
    def data(self) -> dict[str, dict[str, object]]:
        (text,) = (text for kind, text in self.scripts if kind == "application/json")
        found: dict[str, dict[str, object]] = json.loads(text)
        return found


def words(page: Page) -> str:
    return re.sub(r"\s+", " ", page.text)


# --- contents ---------------------------------------------------------------------------------------------------------


def test_every_section_is_there_for_several_runs() -> None:
    runs = [made_up_run("first", seed=0), made_up_run("second", seed=1)]
    page = Page(page_of(runs, found={"first": activations()}))
    ids = {attributes["id"] for _, attributes in page.tags if attributes.get("id")}
    sections = {f"folder-label-{name}" for name in ("scores", "classes", "retrieval", "map", "settings")}
    assert sections | {"runs", "training", "units"} <= ids
    targets = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    assert targets and {str(target).removeprefix("#") for target in targets} <= ids
    text = words(page)
    assert "50.0 %" in text and "40.0 to 60.0" in text and "25.0 %" in text  # value, interval, random
    assert "a" * 64 in text and "last.ckpt sha256:" in text
    assert "unit 7" in text and "2 frames × 8 × 8 px" in text
    # One loss curve, two confusion matrices, two maps; each has a place.
    assert len(page.data["figures"]) == 5
    assert set(page.data["figures"]) <= ids


def test_hits_and_misses_are_marked_by_colour_and_by_sign() -> None:
    page = page_of([made_up_run("run")])
    for kind, sign in (("hit", "✓"), ("miss", "✗")):
        marked = re.findall(rf'<figure class="video {kind}">.*?</figure>', page, flags=re.DOTALL)
        assert marked
        assert all(sign in figure for figure in marked)
    assert len(re.findall('<div class="query">', page)) == 24


def test_a_picture_is_in_the_page_once_however_often_it_is_shown() -> None:
    page = Page(page_of([made_up_run("run")], load_pictures=lambda one, paths: dict.fromkeys(paths, noise(0))))
    shown = [
        attributes["data-picture"] for tag, attributes in page.tags if tag == "img" and "data-picture" in attributes
    ]
    assert len(shown) > 100 and set(shown) == {"p1"}
    assert list(page.data["pictures"]) == ["p1"]


def test_results_that_may_not_be_compared_are_warned_of() -> None:
    first, second = made_up_run("first"), made_up_run("second")
    report = dict(second.evaluations[0].report) | {"manifest_hash": "c" * 64, "split": "val"}
    second = replace(second, evaluations=[replace(second.evaluations[0], report=report)])
    text = words(Page(page_of([first, second])))
    assert "Compare with care: second (result 2) against first (result 1)" in text
    assert "split test against val" in text
    assert "Compare with care" not in words(Page(page_of([first, made_up_run("third", seed=3)])))


def test_runs_that_were_measured_on_other_labels_are_named() -> None:
    other = Run("second", evaluations=[Evaluation(protocol_object("knn", {"top1": 0.5}, label="other"))])
    text = words(Page(page_of([made_up_run("first"), other])))
    assert "The runs were not all measured on the same." in text
    assert "folder · other: measured for second only" in text


def test_means_over_official_splits_are_shown_as_such_with_what_the_evaluation_says_of_them() -> None:
    splits = {name: protocol_object("knn", {"top1": value}) for name, value in (("1", 0.4), ("2", 0.6))}
    note = "The checkpoint was trained on split 1 <b>"
    text = page_of([Run("run", evaluations=[Evaluation(combine(splits) | {"note": note})])])
    assert '<p class="warning">run: The checkpoint was trained on split 1 &lt;b&gt;</p>' in text
    shown = words(Page(text))
    assert "± 14.1 over splits" in shown and "± 7.1 over splits" in shown
    assert "means over the official splits 1 and 2" in shown and "bootstrap" not in shown
    assert "its deviation over them" in shown
    assert "over splits" not in words(Page(page_of([made_up_run("run")])))


def test_an_interval_without_a_width_is_explained_once() -> None:
    def explained(**intervals: list[float]) -> tuple[int, int]:
        """How often in all, and how often before the first table."""
        result = protocol_object("knn", dict.fromkeys(intervals, 1.0), intervals=intervals, baselines={})
        text = page_of([Run("run", evaluations=[Evaluation(result)])])
        sentence = "An interval without a width (100.0 to 100.0)"
        return text.count(sentence), text.partition('<table class="scores">')[0].count(sentence)

    assert explained(top1=[1.0, 1.0], top5=[1.0, 1.0]) == (1, 1)
    assert explained(top1=[0.8, 1.0], top5=[1.0, 1.0]) == (1, 0)  # the table of all metrics only
    assert explained(top1=[0.8, 1.0]) == (0, 0)


# --- nothing from outside ---------------------------------------------------------------------------------------------


def test_whatever_names_hold_stays_text() -> None:
    run = made_up_run(EVIL, label_name=EVIL)
    evaluation = run.evaluations[0]
    assert evaluation.predictions is not None
    found = replace(evaluation.predictions, paths=[f"{EVIL}/{path}" for path in evaluation.predictions.paths])
    report = dict(evaluation.report) | {"label": EVIL, "dataset": EVIL, "checkpoint": EVIL, "skipped": {EVIL: EVIL}}
    curves = dict(run.curves) | {f"train/{EVIL}": run.curves["train/loss"]}
    run = replace(
        run,
        evaluations=[replace(evaluation, predictions=found, report=report)],
        curves=curves,
        notes=[EVIL],
        record=dict(run.record) | {"command": EVIL},
    )
    text = page_of([run], found={EVIL: activations(path=EVIL, label=EVIL)}, notes=[EVIL])
    page = Page(text)
    assert [kind for kind, _ in page.scripts] == ["application/json", "script", "script"]
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert not any("evil.example" in (attributes.get("src") or "") for _, attributes in page.tags)
    assert page.text.count("window.hacked=1") > 10  # it is shown, as text
    # What plotly shows may have tags of its own mark-up; ours must not become one.
    figures = json.dumps(page.data["figures"])
    assert "<script" not in figures and "<img" not in figures and html.escape("<script>") in figures


def test_nothing_is_loaded() -> None:
    page = Page(page_of([made_up_run("run")], found={"run": activations()}))
    loads = [
        (tag, name, value)
        for tag, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "data", "action", "poster")
        and value
        and not value.startswith(("#", "data:"))
    ]
    assert loads == []
    assert not any(tag in ("link", "iframe", "object", "embed", "base") for tag, _ in page.tags)
    assert "url(" not in page.styles and "@import" not in page.styles
    (policy,) = (
        attributes["content"]
        for _, attributes in page.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None and policy.startswith("default-src 'none'; img-src data: blob:;")
    assert "http" not in policy and "script-src 'sha256-" in policy
    # Pictures and figures are in the page themselves.
    assert all(str(value).startswith("data:image/webp;base64,") for value in page.data["pictures"].values())


def test_the_page_says_that_it_is_ours_and_is_the_same_each_time() -> None:
    first, second = page_of([made_up_run("run")]), page_of([made_up_run("run")])
    assert is_page(first[:4096].encode())
    assert not is_page(f"Pages of ours have\n{MARK}\nin their head.".encode())
    assert not is_page(b"<!DOCTYPE html>\n<html><head></head></html>") and not is_page(b"")
    assert first == second


# --- missing pieces ---------------------------------------------------------------------------------------------------


def test_a_training_without_results_has_its_curves_and_says_what_is_missing() -> None:
    text = words(Page(page_of([replace(made_up_run("run"), evaluations=[])])))
    assert "Nothing has been measured yet" in text
    assert "Left out: this needs a checkpoint" in text
    assert "train/loss" in text


def test_results_without_anything_beside_them_leave_their_sections_out() -> None:
    run = Run("run", evaluations=[Evaluation(scorecard({"knn": protocol_object("knn", {"top1": 0.5})}))])
    text = words(Page(page_of([run], notes=["the videos have moved"])))
    for note in (
        "No training run lies beside these results",
        "Left out: no result here says what each test video was taken for",
        "Left out: no result here names the nearest train videos",
        "Left out: no features were kept",
        "Left out: there is no metrics.csv",
        "the videos have moved",
    ):
        assert note in text
    assert "50.0 %" in text


def test_videos_that_cannot_be_read_leave_a_place() -> None:
    text = page_of([made_up_run("run")], load_pictures=no_pictures)
    assert '<div class="absent"' in text
    assert "of these videos cannot be shown" in words(Page(text))


def test_unlabelled_videos_have_a_sheet_and_a_map() -> None:
    run = made_up_run("run")
    evaluation = run.evaluations[0]
    assert evaluation.predictions is not None
    bare = Predictions(evaluation.predictions.paths, [None] * 40, neighbours=evaluation.predictions.neighbours)
    report = scorecard({"features": protocol_object("features", {"rankme": 3.2})}, label=None)
    text = words(Page(page_of([replace(run, evaluations=[replace(evaluation, predictions=bare, report=report)])])))
    assert "There are no labels; the 24 shown are drawn with a fixed seed." in text
    assert "All 40 videos" in text and "3.2" in text


def test_features_that_are_not_finite_leave_the_map_out() -> None:
    run = made_up_run("run")
    broken = replace(run.evaluations[0], features=np.full((40, 8), np.nan))
    assert "fewer than three videos have finite features" in words(Page(page_of([replace(run, evaluations=[broken])])))


# --- size -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_hundred_classes_and_twenty_thousand_videos_stay_usable() -> None:
    rng = np.random.default_rng(0)
    run = made_up_run("run", videos=20_000, classes=100, dimensions=128)
    steps = np.arange(200_000.0)
    curves = {"step": steps, **{f"train/{name}": rng.random(len(steps)) for name in ("loss", "info_nce", "accuracy")}}
    thumbnail = [noise(seed, size=80) for seed in range(64)]  # noise compresses worse than any video
    asked: list[int] = []

    def load(one: Measured, paths: Sequence[str]) -> Mapping[str, bytes]:
        asked.append(len(paths))
        return {path: thumbnail[int(re.sub(r"\D", "", path)) % 64] + path.encode() for path in paths}

    started = time.process_time()  # whatever else the machine does
    text = page_of([replace(run, curves=curves)], load_pictures=load)
    assert time.process_time() - started < 60
    assert len(text.encode()) < 25e6
    assert sum(asked) <= 24 * 6 + 240
    assert "3000 of 20000 videos" in words(Page(text))
    assert text.count('<td class="bar"') == 100


# --- in a browser -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_draws_itself_without_a_network(tmp_path: Path) -> None:
    runs = [made_up_run("first", seed=0, label_name=EVIL), made_up_run("second", seed=1, label_name=EVIL)]
    path = tmp_path / "report.html"
    path.write_text(page_of(runs, found={"first": activations()}), encoding="utf-8")
    dom, console = dump_dom(path, profile=tmp_path / "profile")
    assert console == []
    drawn = Page(dom)
    assert drawn.tags[0][1]["data-drawn"] == "5"
    plots = [attributes for _, attributes in drawn.tags if "js-plotly-plot" in (attributes.get("class") or "")]
    assert len(plots) == 5
    assert sum(tag == "svg" and "main-svg" in (a.get("class") or "") for tag, a in drawn.tags) >= 5
    points = [a for tag, a in drawn.tags if tag == "path" and "plotly-customdata" in (a.get("class") or "")]
    assert len(points) >= 80  # two maps of forty videos each
    curves = [a for tag, a in drawn.tags if tag == "path" and a.get("class") == "js-line"]
    assert len(curves) >= 2 and all(a.get("d", "").startswith("M") for a in curves)  # type: ignore
    shown = [a for tag, a in drawn.tags if tag == "img" and "data-picture" in a]
    assert shown and all((a.get("src") or "").startswith("data:image/webp") for a in shown)
    (fault,) = (a for _, a in drawn.tags if a.get("id") == "fault")
    assert "hidden" in fault
    # Names of classes reach plotly's texts too, and stay text there.
    assert not any("evil.example" in (a.get("src") or a.get("href") or "") for _, a in drawn.tags)


@pytest.mark.browser
@pytest.mark.slow
def test_the_screenshot_shows_a_page(tmp_path: Path) -> None:
    path, target = tmp_path / "report.html", tmp_path / "page.png"
    path.write_text(page_of([made_up_run("run")], found={"run": activations()}), encoding="utf-8")
    screenshot(path, target, profile=tmp_path / "profile", width=1400, height=6000)
    with Image.open(target) as picture:
        assert picture.size == (1400, 6000)
        pixels = np.asarray(picture.convert("RGB")).astype(float)
    assert pixels.mean() > 200  # dark on light
    assert pixels.std() > 10  # not blank
    # A blank page has a single colour; plots, frames of pictures and text bring thousands.
    assert len(np.unique(pixels.reshape(-1, 3)[::7], axis=0)) > 500
    blue, orange = (np.abs(pixels - np.array(colour)).sum(axis=-1) < 12 for colour in ((0, 114, 178), (213, 94, 0)))
    assert blue.sum() > 1000 and orange.sum() > 1000
