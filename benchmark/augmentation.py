"""Which library for the colours and the blur of clips? Torchvision v2, Kornia and our own, side by side.

`python -m benchmark.augmentation` measures what one sample costs in a worker (two clips on one core) and what a batch
costs, on the CPU and on a GPU where there is one: each step by itself, and the whole of MoCo v2's augmentation with its
probabilities, from the reader's uint8 to what the network takes. The libraries take turns in one process. Kornia is
measured where it is installed (`pip install kornia`); nothing else of the project needs it.

The choice is our own (`ssl_video.data.transforms.photometric`). Milliseconds of CPU time a clip of 16 x 112 x 112 for
all of MoCo v2, on one of two cores of a machine that was busy (so the ratios count, which moved by a tenth or two):

    one sample in a worker     torchvision 22   Kornia 31-37   ours 6.0
    a batch of 16              torchvision 17-21   Kornia 47-58   ours 5.4-6.5

- Torchvision's functions take one value for all they are given, so a batch is a loop over its clips; ours touch only
  the clips that drew a step, all those of one step at once. Their results differ by 1e-6 of the range of the pixels.
- Kornia's modules take values per clip, but the clips of a batch share the order of their jitter, and contrast is
  measured against each frame's grey. What we train with would change, and it is the slowest here.
- Both turn the hue by way of HSV, more than half of all the cost; without that (see `turn_hue_`) it is a seventh.
- Greyscale and blur alone are much the same in all three.

On a GPU it was chosen by what is done, not by a figure: the loop over clips is thousands of small launches for a batch.
"""

import argparse
import importlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from ssl_video.data.transforms import photometric
from ssl_video.data.transforms.contrastive import ContrastiveTransform

FRAMES, SIZE, KERNEL = 16, 112, 13
MEAN, STD = 0.45, 0.225
FACTORS = {"brightness": 1.2, "contrast": 1.2, "saturation": 1.2, "hue": 0.07}
SIGMA = 1.3

Work = Callable[[Tensor], object]


@dataclass(frozen=True)
class Cost:
    """Milliseconds for each clip; on a GPU also the most memory in use beyond the input, in MiB for each clip."""

    milliseconds: float
    mebibytes: float | None


# --- the libraries ----------------------------------------------------------------------------------------------------


def torchvision_steps() -> dict[str, Work]:
    """Each step, clip by clip; one tall image, so that the mean grey is that of the clip."""
    steps: dict[str, Callable[[Tensor], Tensor]] = {
        "brightness": lambda clip: functional.adjust_brightness(clip, FACTORS["brightness"]),
        "contrast": lambda clip: functional.adjust_contrast(clip, FACTORS["contrast"]),
        "saturation": lambda clip: functional.adjust_saturation(clip, FACTORS["saturation"]),
        "hue": lambda clip: functional.adjust_hue(clip, FACTORS["hue"]),
        "grey": lambda clip: functional.rgb_to_grayscale(clip, num_output_channels=3),
    }
    works: dict[str, Work] = {
        name: lambda clips, step=step: torch.stack([step(clip.flatten(1, 2)).view_as(clip) for clip in clips])  # type: ignore[misc]
        for name, step in steps.items()
    }
    works["blur"] = lambda clips: torch.stack(
        [functional.gaussian_blur(clip, [KERNEL, KERNEL], [SIGMA, SIGMA]) for clip in clips]
    )
    return works


def our_steps() -> dict[str, Work]:
    """Each step for all clips at once, in place where it can be."""

    def factors(clips: Tensor, value: float) -> Tensor:
        return torch.full((len(clips),), value, device=clips.device)

    turn, rest = photometric.hue_turn(FACTORS["hue"])
    return {
        "brightness": lambda clips: photometric.change_brightness_(clips, factors(clips, FACTORS["brightness"])),
        "contrast": lambda clips: photometric.change_contrast_(clips, factors(clips, FACTORS["contrast"])),
        "saturation": lambda clips: photometric.change_saturation_(clips, factors(clips, FACTORS["saturation"])),
        "hue": lambda clips: photometric.turn_hue_(clips, factors(clips, rest), turn=turn),
        "grey": photometric.to_gray_,
        "blur": lambda clips: photometric.blur_(clips, factors(clips, SIGMA), kernel_size=KERNEL),
    }


def kornia_steps(kornia: Any) -> dict[str, Work]:
    """Each step for all clips at once; a clip is one tall image but for the blur, which it takes frame by frame."""
    enhance: Any = importlib.import_module("kornia.enhance")

    def tall(work: Callable[[Tensor, Tensor], Tensor], value: float) -> Work:
        return lambda clips: work(clips.flatten(2, 3), torch.full((len(clips),), value, device=clips.device))

    def blur(clips: Tensor) -> Tensor:
        frames = clips.transpose(1, 2).flatten(0, 1)
        sigmas = torch.full((len(frames), 2), SIGMA, device=clips.device)
        blurred: Tensor = kornia.filters.gaussian_blur2d(frames, (KERNEL, KERNEL), sigmas)
        return blurred

    return {
        "brightness": tall(enhance.adjust_brightness_accumulative, FACTORS["brightness"]),
        "contrast": tall(enhance.adjust_contrast_with_mean_subtraction, FACTORS["contrast"]),
        "saturation": tall(enhance.adjust_saturation_with_gray_subtraction, FACTORS["saturation"]),
        "hue": tall(enhance.adjust_hue, FACTORS["hue"] * 2 * torch.pi),
        "grey": lambda clips: kornia.color.rgb_to_grayscale(clips.flatten(2, 3)).expand(-1, 3, -1, -1),
        "blur": blur,
    }


def finish_by_torchvision(clips: Tensor, values: Mapping[str, Tensor]) -> Tensor:
    """All of MoCo v2 by torchvision's functions, clip by clip in the drawn order."""
    jitter = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    )
    finished = []
    for place, clip in enumerate(clips):
        upright = functional.horizontal_flip(clip) if values["mirrored"][place] else clip
        tall = functional.to_dtype(upright, torch.float32, scale=True).flatten(1, 2)
        for step in values["jitter_order"][place].tolist():
            if step >= 0:
                tall = jitter[step](tall, values["jitter_factors"][place, step].item())
        if values["gray"][place]:
            tall = functional.rgb_to_grayscale(tall, num_output_channels=3)
        frames = tall.unflatten(1, clip.shape[1:3])
        if values["blur_sigma"][place] > 0:
            frames = functional.gaussian_blur(frames, [KERNEL] * 2, [values["blur_sigma"][place].item()] * 2)
        finished.append(frames.sub(MEAN).div_(STD))
    return torch.stack(finished)


def finish_by_kornia(kornia: Any) -> Callable[[Tensor], Tensor]:
    """All of MoCo v2 by Kornia's modules, which draw for themselves, with the order of the jitter one for the batch."""
    augmentation: Any = importlib.import_module("kornia.augmentation")
    sequence = augmentation.VideoSequential(
        augmentation.RandomHorizontalFlip(p=0.5),
        augmentation.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        augmentation.RandomGrayscale(p=0.2),
        augmentation.RandomGaussianBlur((KERNEL, KERNEL), (0.1, 2.0), p=0.5),
        augmentation.Normalize(mean=torch.full((3,), MEAN), std=torch.full((3,), STD)),
        data_format="BCTHW",
        same_on_frame=True,
    )

    def finish(clips: Tensor) -> Tensor:
        result: Tensor = sequence(clips.to(torch.float32, memory_format=torch.contiguous_format).div_(255))
        return result

    return finish


def kornia_or_none() -> Any:
    """Kornia, where it is installed."""
    try:
        return importlib.import_module("kornia")
    except ImportError:
        return None


# --- the measurement --------------------------------------------------------------------------------------------------


def in_turns(works: Mapping[str, Callable[[], object]], *, rounds: int, clips: int, device: str) -> dict[str, Cost]:
    """Median over rounds in which each has its turn: CPU time, or time on the GPU."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    memory: dict[str, float] = {}
    for name, work in works.items():
        work()
        if device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            work()
            torch.cuda.synchronize()
            memory[name] = (torch.cuda.max_memory_allocated() - before) / 2**20 / clips
    for _ in range(rounds):
        for name, work in works.items():
            clock = time.perf_counter if device == "cuda" else time.process_time
            started = clock()
            work()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(clock() - started)
    return {name: Cost(median(own) / clips * 1e3, memory.get(name)) for name, own in seconds.items()}


def measure(number: int, device: str, *, rounds: int) -> dict[str, dict[str, Cost]]:
    """Costs by step and library, for so many clips at once."""
    torch.manual_seed(0)
    pixels = torch.randint(256, (number, FRAMES, SIZE, SIZE, 3), dtype=torch.uint8).permute(0, 4, 1, 2, 3).to(device)
    kornia = kornia_or_none()
    libraries = {"torchvision": torchvision_steps(), "ours": our_steps()}
    if kornia is not None:
        libraries["kornia"] = kornia_steps(kornia)
    table: dict[str, dict[str, Cost]] = {}
    scaled = pixels.float().div_(255).contiguous()
    for step in our_steps():
        works = {name: partial(steps[step], scaled.clone()) for name, steps in libraries.items()}
        table[step] = in_turns(works, rounds=rounds, clips=number, device=device)
    table["all of MoCo v2"] = in_turns(_whole(pixels, kornia), rounds=4 * rounds, clips=number, device=device)
    return table


def _whole(pixels: Tensor, kornia: Any) -> dict[str, Callable[[], object]]:
    """The whole augmentation; each call has draws of its own, the same for torchvision and ours."""
    transform = ContrastiveTransform(size=SIZE, blur_kernel_size=KERNEL)
    rough = ContrastiveTransform(size=SIZE, blur_kernel_size=KERNEL, arithmetic="bfloat16")
    places = dict.fromkeys(("torchvision", "ours", "bfloat16"), 0)
    drawn = [transform.draw([(256, 340)] * len(pixels), num_frames=FRAMES).values for _ in range(64)]

    def next_draws(name: str) -> Mapping[str, Tensor]:
        places[name] += 1
        return drawn[places[name] % len(drawn)]

    works: dict[str, Callable[[], object]] = {
        "torchvision": lambda: finish_by_torchvision(pixels, next_draws("torchvision")),
        "ours": lambda: transform.finish(pixels, next_draws("ours")),
    }
    if kornia is not None:
        by_kornia = finish_by_kornia(kornia)
        works["kornia"] = lambda: by_kornia(pixels)
    if pixels.is_cuda:
        works["ours, bfloat16"] = lambda: rough.finish(pixels, next_draws("bfloat16"))
    return works


def cost_of_drawing(*, rounds: int = 300) -> float:
    """Milliseconds of CPU time in which a clip's values are drawn."""
    transform = ContrastiveTransform(size=SIZE)
    works = {"ours": lambda: transform.draw([(256, 340)] * 2, num_frames=FRAMES)}
    return in_turns(works, rounds=rounds, clips=2, device="cpu")["ours"].milliseconds


def largest_difference(device: str) -> float:
    """Between torchvision's clips and ours, in parts of the range of the pixels."""
    torch.manual_seed(0)
    pixels = torch.randint(256, (32, 4, SIZE, SIZE, 3), dtype=torch.uint8).permute(0, 4, 1, 2, 3).to(device)
    transform = ContrastiveTransform(size=SIZE, blur_kernel_size=KERNEL)
    values = transform.draw([(256, 340)] * 32, num_frames=4).values
    difference = transform.finish(pixels, values) - finish_by_torchvision(pixels, values)
    return float(difference.abs().max()) * STD


def as_table(costs: Mapping[str, Mapping[str, Cost]]) -> str:
    """One line for each step: milliseconds a clip by each library, and how many times ours they are."""
    names = list(dict.fromkeys(name for row in costs.values() for name in row))
    lines = [f"  {'':16}" + "".join(f"{name:>20}" for name in names)]
    for step, row in costs.items():
        cells = [_cell(row[name], row["ours"]) if name in row else "" for name in names]
        lines.append(f"  {step:16}" + "".join(f"{cell:>20}" for cell in cells))
    return "\n".join(lines)


def _cell(cost: Cost, ours: Cost) -> str:
    memory = "" if cost.mebibytes is None else f" {cost.mebibytes:.0f} MiB"
    return f"{cost.milliseconds:.3f} ({cost.milliseconds / ours.milliseconds:.1f}x){memory}"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="turns of each library at each step")
    parser.add_argument("--clips", type=int, default=None, help="clips of a batch (CPU 16, GPU 128)")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    versions = [f"{name} {importlib.import_module(name).__version__}" for name in ("torch", "torchvision")]
    if kornia_or_none() is not None:
        versions.append(f"kornia {kornia_or_none().__version__}")
    print(f"{', '.join(versions)}; {FRAMES} frames of {SIZE} x {SIZE}, one CPU thread of {os.cpu_count()} cores")
    print(f"largest difference from torchvision: {largest_difference('cpu'):.1e} of the range of the pixels")
    print(f"drawing: {cost_of_drawing():.3f} ms of CPU time a clip")
    print("\none sample in a worker (2 clips), ms of CPU time a clip (times ours):")
    print(as_table(measure(2, "cpu", rounds=settings.rounds)))
    print("\na batch on the CPU, ms of CPU time a clip (times ours):")
    print(as_table(measure(settings.clips or 16, "cpu", rounds=max(3, settings.rounds // 3))))
    if torch.cuda.is_available():
        print(f"\na batch on {torch.cuda.get_device_name()}, ms a clip (times ours), memory beyond the input a clip:")
        print(as_table(measure(settings.clips or 128, "cuda", rounds=settings.rounds)))
        print(f"largest difference from torchvision there: {largest_difference('cuda'):.1e}")


if __name__ == "__main__":
    main()
