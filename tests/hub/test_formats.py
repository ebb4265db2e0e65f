"""Graphs compute what the network does, in as many sizes as they say, or are refused."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from ssl_video.backbones.base import Backbone
from ssl_video.hub import formats
from ssl_video.hub.formats import FORMATS, TOLERANCE, Checked, ExportFailed, check_installed, export_graphs
from ssl_video.utils.config import build
from ssl_video.utils.errors import InputError
from support.training import TinyNet

CONF = Path(__file__).resolve().parent.parent.parent / "conf" / "backbone"
SMALL = sorted(file.stem for file in CONF.glob("*.yaml") if file.stem.endswith(("_small", "_tiny")))
ALL = ("batch", "frames", "height", "width")
# What the small presets leave open: linear layers and numbered positions fix the size, encodings the length too, and
# torchvision's transformers all. In clips as small as these, S3D's last map is one place, which torch.export fixes.
CLOSED = {
    "caffenet_o3n_small": ("batch",),
    "caffenet_opn_small": ("batch", "frames"),
    "caffenet_small": ("batch", "frames"),
    "mvit_small": ("batch",),
    "swin3d_small": ("batch",),
    "videomae_small": ("batch", "frames"),
}
CLIPS = (3, 3, 4, 16, 16)


@pytest.fixture(autouse=True)
def without_torchs_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pytest's capture of logs makes torch describe each step of its reasoning, which takes most of the time."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "handlers", [])


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_runs_alone_and_gives_the_networks_features(tmp_path: Path, name: str) -> None:
    network = TinyNet().eval()
    [checked] = export_graphs(network, torch.randn(*CLIPS), names=[name], folder=tmp_path)
    assert checked.file in str(checked) and f"{checked.difference:.1e}" in str(checked)
    assert checked.open_dimensions == ALL
    assert checked.difference <= 1e-5
    graph = FORMATS[name].read(tmp_path / checked.file)
    for shape in ((1, 3, 4, 16, 16), (5, 3, 4, 16, 16), (2, 3, 7, 20, 33)):
        clips = torch.randn(*shape)
        torch.testing.assert_close(graph(clips), network(clips).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(900)  # S3D and TSM take a minute of a free core to trace
@pytest.mark.parametrize("preset", SMALL)
def test_every_small_backbone_has_both_formats(tmp_path: Path, preset: str) -> None:
    node = yaml.safe_load((CONF / f"{preset}.yaml").read_text())
    network: Backbone = build(node).eval()
    clips = torch.randn(3, 3, node.get("num_frames") or 8, 32, 32)
    found = export_graphs(network, clips, names=list(FORMATS), folder=tmp_path)
    assert [one.file for one in found] == ["backbone.pt2", "backbone.onnx"]
    assert all(one.difference <= TOLERANCE / 10 for one in found)
    expected = CLOSED.get(preset, ALL)
    assert found[1].open_dimensions == expected
    assert found[0].open_dimensions == (("batch",) if preset == "s3d_g_small" else expected)


class TellsTheTracer(TinyNet):
    """Computes something else in a graph than in Python, as a wrong translation would."""

    share = 1.01

    def forward(self, clips: Tensor) -> Tensor:
        features = super().forward(clips)
        return features * self.share if torch.compiler.is_exporting() else features


class CannotBeTraced(TinyNet):
    def forward(self, clips: Tensor) -> Tensor:
        return super().forward(clips) * float(clips.sum().item() > 0)


class Overflows(TinyNet):
    def forward(self, clips: Tensor) -> Tensor:
        return super().forward(clips) * float("inf")


class KeepsTheLength(TinyNet):
    """Its graph is right for one length only, and nothing in it says so."""

    def forward(self, clips: Tensor) -> Tensor:
        frames = [4, *range(9)][0] if torch.compiler.is_exporting() else clips.shape[2]
        return super().forward(clips) * frames


def refusal(network: Backbone, folder: Path) -> str:
    with pytest.raises(ExportFailed) as fault:
        export_graphs(network.eval(), torch.randn(*CLIPS), names=["torch_export"], folder=folder)
    return str(fault.value)


def test_a_graph_that_differs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = refusal(TellsTheTracer(), tmp_path)
    assert "backbone.pt2 was not written" in told
    assert "its features differ by 1.0e-02 of the largest one, and 1e-04 is allowed" in told
    monkeypatch.setattr(TellsTheTracer, "share", 1 + TOLERANCE / 2)
    [checked] = export_graphs(TellsTheTracer().eval(), torch.randn(*CLIPS), names=["torch_export"], folder=tmp_path)
    assert checked.difference == pytest.approx(TOLERANCE / 2, rel=0.01)


@pytest.mark.parametrize(("network", "reason"), [(CannotBeTraced, "Error"), (Overflows, "not finite")])
def test_what_cannot_be_made_is_refused(tmp_path: Path, network: type[TinyNet], reason: str) -> None:
    assert reason in refusal(network(), tmp_path)


def test_a_dimension_counts_as_open_only_where_other_sizes_were_run(tmp_path: Path) -> None:
    [checked] = export_graphs(KeepsTheLength().eval(), torch.randn(*CLIPS), names=["torch_export"], folder=tmp_path)
    assert checked.open_dimensions == ("batch",)
    assert checked.shapes == ((1, *CLIPS[1:]), (3, *CLIPS[1:]))


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed(list(FORMATS))
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)  # type: ignore[attr-defined]
    check_installed(["torch_export"])
    with pytest.raises(InputError, match=r"needs onnx, onnxscript, onnxruntime: pip install 'ssl_video\[export\]'"):
        check_installed(["onnx"])


def test_a_network_of_zeros_differs_by_nothing(tmp_path: Path) -> None:
    network = TinyNet()
    nn.init.zeros_(network.layers[1][1].weight)  # type: ignore[index,arg-type]
    found: list[Checked] = export_graphs(network.eval(), torch.randn(*CLIPS), names=["torch_export"], folder=tmp_path)
    assert found[0].difference == 0.0
    values: Any = FORMATS["torch_export"].read(tmp_path / "backbone.pt2")(torch.randn(*CLIPS))
    assert values.abs().max() == 0
