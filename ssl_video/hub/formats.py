"""A backbone as a graph that runs without this package: torch.export and ONNX, each checked by running the file."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as tracing

from ssl_video.backbones.base import Backbone
from ssl_video.backbones.memory_format import lay_out
from ssl_video.utils.errors import InputError

TOLERANCE = 1e-4
"""Largest difference from the network that a file may have, as a share of the largest feature."""

DIMENSIONS = {0: "batch", 2: "frames", 3: "height", 4: "width"}
BATCHES = (1, 3)

INSTALL = "pip install 'ssl_video[export]'"

Run = Callable[[Tensor], Tensor]
Trace = Callable[[Sequence[int], bool], ExportedProgram]


class ExportFailed(RuntimeError):
    """A graph could not be made, or does not compute what the network does; nothing was kept of it (exit code 1)."""


@dataclass(frozen=True)
class Checked:
    """A file that was run beside the network.

    Attributes:
        file: its name.
        format: what it is.
        open_dimensions: of clips ``[N, C, T, H, W]``, those that may have another size than the run's.
        difference: the largest difference of a feature, as a share of the largest feature.
        shapes: of the clips it was run on.
    """

    file: str
    format: str
    open_dimensions: tuple[str, ...]
    difference: float
    shapes: tuple[tuple[int, ...], ...]

    def __str__(self) -> str:
        """One line for the terminal."""
        return (
            f"{self.file}: {self.format}, open in {', '.join(self.open_dimensions)}; it differs from the network by at "
            f"most {self.difference:.1e} of the largest feature (allowed: {TOLERANCE:.0e}), run on clips of "
            f"{', '.join('x'.join(map(str, shape)) for shape in self.shapes)}"
        )


# --- the formats ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Format:
    """How a graph is written, and how the file is run."""

    name: str
    file: str
    packages: tuple[str, ...]
    write: Callable[[ExportedProgram, Sequence[int], Path], None]
    read: Callable[[Path], Run]


def _write_torch_export(program: ExportedProgram, open_dims: Sequence[int], path: Path) -> None:
    torch.export.save(program, path)


def _read_torch_export(path: Path) -> Run:
    graph: Run = torch.export.load(path).module()
    return graph


def _write_onnx(program: ExportedProgram, open_dims: Sequence[int], path: Path) -> None:
    import onnx_ir

    # It tells its progress on the standard output.
    with contextlib.redirect_stdout(io.StringIO()):
        graph: Any = torch.onnx.export(
            program,
            input_names=["clips"],
            output_names=["features"],
            dynamic_shapes=({dim: DIMENSIONS[dim] for dim in open_dims},),
            dynamo=True,
            verbose=False,
        )
    clips = graph.model.graph.inputs[0]
    sizes: list[Any] = _sizes(program)
    # Otherwise the closed dimensions that torch found are names.
    clips.shape = onnx_ir.Shape([DIMENSIONS[dim] if dim in open_dims else sizes[dim] for dim in range(5)])
    graph.save(str(path))


def _read_onnx(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what goes wrong is raised too
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda clips: torch.from_numpy(session.run(["features"], {"clips": clips.numpy()})[0])


FORMATS = {
    "torch_export": Format("torch.export", "backbone.pt2", (), _write_torch_export, _read_torch_export),
    "onnx": Format("ONNX", "backbone.onnx", ("onnx", "onnxscript", "onnxruntime"), _write_onnx, _read_onnx),
}


def check_installed(formats: Sequence[str]) -> None:
    """Refuses formats whose packages are missing, before anything is computed.

    Raises:
        InputError: names them, and what to install.
    """
    for name in formats:
        missing = [package for package in FORMATS[name].packages if importlib.util.find_spec(package) is None]
        if missing:
            raise InputError(f"--formats={name} needs {', '.join(missing)}: {INSTALL}, or leave {name} out.")


# --- writing and checking ---------------------------------------------------------------------------------------------


def export_graphs(backbone: Backbone, clips: Tensor, *, names: Sequence[str], folder: Path) -> list[Checked]:
    """Writes graphs and runs each file beside the network: on one clip, on several, and on other sizes if it is open.

    What is left open beside the batch is what the network allows: each way of tracing is tried, the most open first,
    until one computes what the network does.

    Args:
        backbone: on the CPU, in eval mode; its weights are laid out contiguously.
        clips: as the input transform makes them, ``[N, C, T, H, W]``; they tell sizes and scale.
        names: of the formats.
        folder: which gets the files.

    Raises:
        ExportFailed: no graph computes what the network does, or none can be made.
    """
    lay_out(backbone, "contiguous")
    traced = functools.cache(functools.partial(_trace, backbone, clips))
    with _quiet():
        return [_write_checked(FORMATS[name], traced, backbone, clips, folder=folder) for name in names]


def _write_checked(form: Format, traced: Trace, backbone: Backbone, clips: Tensor, *, folder: Path) -> Checked:
    path = folder / form.file
    problem = ""
    for way in _ways(backbone):
        try:
            program = traced(*way)
            is_open = [dim for dim, size in enumerate(_sizes(program)) if not isinstance(size, int)]
            form.write(program, is_open, path)
            shapes = _shapes(clips, is_open)
            difference = _largest_difference(backbone, form.read(path), clips, shapes)
        except Exception as fault:  # tracing runs all of the network's code, and has no error of its own
            problem = f"{type(fault).__name__}: {(str(fault).strip().splitlines() or [''])[0][:200]}"
            continue
        if difference <= TOLERANCE:
            return Checked(form.file, form.name, tuple(DIMENSIONS[dim] for dim in is_open), difference, shapes)
        problem = f"its features differ by {difference:.1e} of the largest one, and {TOLERANCE:.0e} is allowed"
    raise ExportFailed(
        f"{form.file} was not written: {form.name} of {type(backbone).__name__} does not compute what the network does "
        f"({problem}). Leave this format out of --formats."
    )


def _ways(backbone: Backbone) -> Iterator[tuple[tuple[int, ...], bool]]:
    """Dimensions left open, and whether torch is to think of 0 and 1 as of any other size.

    By default it does not: a map that shrinks to one place makes it fix that, and clips must then stay as short or as
    small. The other way it fixes comparisons instead, such as those of a shifted frame.
    """
    if backbone.traces_any_size:
        yield tuple(DIMENSIONS), True
        yield tuple(DIMENSIONS), False
    yield (0,), False


def _trace(backbone: Backbone, clips: Tensor, open_dims: Sequence[int], oblivious: bool) -> ExportedProgram:
    # More than one clip, as torch takes a 1 for a size that never changes.
    example = clips[:1].expand(BATCHES[-1], -1, -1, -1, -1).contiguous()
    with torch.no_grad(), tracing.patch(backed_size_oblivious=oblivious):  # type: ignore[attr-defined]
        return torch.export.export(backbone, (example,), dynamic_shapes=(dict.fromkeys(open_dims, Dim.AUTO),))


def _sizes(program: ExportedProgram) -> list[int | torch.SymInt]:
    """Of the graph's input: numbers, and symbols where it is open."""
    [name] = program.graph_signature.user_inputs
    [node] = [node for node in program.graph.nodes if node.op == "placeholder" and node.name == name]
    # Of the dimensions asked for, torch closes those that the network takes in one size only; they stay symbols.
    return [int(size) if str(size).isdigit() else size for size in node.meta["val"].shape]


def _shapes(clips: Tensor, open_dims: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """What a graph is run on: the run's clips in two batches, and longer, larger and oblong ones where it is open."""
    own = tuple(clips.shape[1:])
    shapes = [(batch, *own) for batch in BATCHES]
    if len(open_dims) > 1:
        more = {2: own[1] + 2, 3: own[2] + 16, 4: own[3] + 32}
        shapes.append((2, *(more[dim] if dim in open_dims else size for dim, size in enumerate(own, start=1))))
    return tuple(shapes)


@torch.no_grad()
def _largest_difference(backbone: Backbone, graph: Run, clips: Tensor, shapes: Sequence[Sequence[int]]) -> float:
    """Over random clips of the scale of ``clips``, as a share of the largest feature.

    Raises:
        ValueError: the network's features are not finite.
    """
    random = torch.Generator().manual_seed(0)
    largest = 0.0
    for shape in shapes:
        drawn = torch.randn(*shape, generator=random) * clips.std() + clips.mean()
        features = backbone(drawn)
        scale = float(features.abs().max())
        if not math.isfinite(scale):
            raise ValueError("the network's features are not finite; take an earlier checkpoint")
        difference = float((graph(drawn) - features).abs().max())
        share = difference / scale if scale else difference
        largest = max(largest, math.inf if math.isnan(share) else share)
    return largest


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice of torch to those who wrote it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
