"""What is installed, and whether its parts fit each other."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
from collections.abc import Iterator, Mapping

import av
import torch

from ssl_video.cli.checks.finding import Finding
from ssl_video.cli.index import decord_distributions

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "av", "pyarrow", "numpy")
# What stands in the files of video data sets; a build of FFmpeg without one of them cannot read those.
CODECS = {
    "h264": "most data sets",
    "hevc": "phones",
    "vp9": "YouTube's WebM, Something-Something V2",
    "av1": "YouTube since 2020",
    "mpeg4": "UCF101 and HMDB51 (AVI)",
}
BROKEN = {("torch", "2.13.0"): "its torchvision does not import"}


def check_installation() -> Iterator[Finding]:
    """Versions, readers, codecs, GPU."""
    versions = {name: _version(name) for name in PACKAGES}
    yield check_versions(platform.python_version(), versions)
    yield _check_torchvision()
    yield check_decord(decord_distributions())
    yield from check_codecs({name: _can_decode(name) for name in CODECS}, encodes_h264=_can_encode("libx264"))
    yield _check_torchcodec()
    yield check_gpu(
        built_for=torch.version.cuda,
        names=[torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
        has_bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
    )


def check_versions(python: str, versions: Mapping[str, str | None]) -> Finding:
    """Versions of Python and the packages that matter; None where one is not installed."""
    told = ", ".join(f"{name} {version or 'missing'}" for name, version in {"Python": python, **versions}.items())
    major, minor = (int(part) for part in python.split(".")[:2])
    if not (3, 11) <= (major, minor) <= (3, 13):
        return Finding("fault", "versions", told, "ssl_video is made for Python 3.11, 3.12 and 3.13.")
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        return Finding("fault", "versions", told, f"pip install {' '.join(missing)}")
    for (name, version), reason in BROKEN.items():
        if (versions.get(name) or "").split("+")[0] == version:
            return Finding("fault", "versions", told, f"{name} {version}: {reason}; install another version.")
    return Finding("ok", "versions", told)


def _check_torchvision() -> Finding:
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as fault:  # a build for another torch lacks its operators
        return Finding(
            "fault",
            "torchvision",
            f"does not import: {str(fault).splitlines()[0]}",
            "torch and torchvision must be of the same release and for the same CUDA; install both in one command.",
        )
    return Finding("ok", "torchvision", "imports")


def check_decord(described: str) -> Finding:
    """Which distribution ``import decord`` comes from, as `decord_distributions` says it."""
    if described.startswith("decord2 ") and " and " not in described:
        return Finding("ok", "decord", described)
    fix = "pip uninstall -y decord decord2 && pip install decord2"
    return Finding("fault", "decord", described, f"{fix}  (decord 0.6 reads no AV1 and overwrites decord2)")


def check_codecs(decodes: Mapping[str, bool], *, encodes_h264: bool) -> Iterator[Finding]:
    """What PyAV's FFmpeg can decode, and whether it can write what ``ssl-video prepare`` and the demo need."""
    ffmpeg = ".".join(map(str, av.library_versions["libavcodec"]))
    missing = [name for name, is_there in decodes.items() if not is_there]
    told = f"libavcodec {ffmpeg} decodes {', '.join(name for name, is_there in decodes.items() if is_there)}"
    if missing:
        lost = "; ".join(f"no {name} ({CODECS[name]})" for name in missing)
        yield Finding("note", "codecs", f"{told}; {lost}", "pip install --force-reinstall --only-binary :all: av")
    else:
        yield Finding("ok", "codecs", told)
    if not encodes_h264:
        yield Finding(
            "fault",
            "encoder",
            "libx264 is missing: neither moving_shapes nor ssl-video prepare can write their files",
            "pip install --force-reinstall --only-binary :all: av",
        )


def _check_torchcodec() -> Finding:
    version = _version("torchcodec")
    if version is None:
        return Finding("ok", "torchcodec", "not installed (an extra; decord and PyAV read everything without it)")
    try:
        importlib.import_module("torchcodec.decoders").VideoDecoder(b"")
    except ValueError:  # its libraries are there; empty input is refused
        return Finding("ok", "torchcodec", version)
    except (ImportError, OSError, RuntimeError):
        told = f"{version} is installed but finds no FFmpeg libraries"
        return Finding(
            "note", "torchcodec", told, "apt-get install ffmpeg, or leave it: reader=torchcodec needs it only"
        )
    return Finding("ok", "torchcodec", version)


def check_gpu(*, built_for: str | None, names: list[str], has_bf16: bool) -> Finding:
    """The GPUs that torch sees."""
    if not names:
        told = "none that torch sees" + (f" (it is built for CUDA {built_for})" if built_for else " (a CPU build)")
        fix = "trainer=cpu works; if there is a GPU, compare nvidia-smi's CUDA version with torch's."
        return Finding("note", "GPU", told, fix)
    told = f"{len(names)} x {names[0]}" if len(set(names)) == 1 else ", ".join(names)
    if not has_bf16:
        return Finding("note", "GPU", f"{told}, without bf16", "trainer.precision=16-mixed")
    return Finding("ok", "GPU", told)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _can_decode(codec: str) -> bool:
    return _has_codec(codec, "r")


def _can_encode(codec: str) -> bool:
    return _has_codec(codec, "w")


def _has_codec(name: str, mode: str) -> bool:
    try:
        av.Codec(name, mode)  # type: ignore[arg-type]
    except av.codec.codec.UnknownCodecError:
        return False
    return True
