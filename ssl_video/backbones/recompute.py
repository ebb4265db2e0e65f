"""Activation checkpointing: keep what enters each part of a network, and compute the rest again when it is needed.

Less memory for about a third more time. Gradients are those of the plain network, dropout is drawn as before, and batch
norm's running statistics move once: torch's own checkpointing would move them a second time in the backward pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ssl_video.backbones.base import Backbone


def recompute_activations(backbone: Backbone) -> list[nn.Module]:
    """Makes a backbone recompute its parts' activations in the backward pass, in place.

    Names in its state stay as they are. Copies taken before are not concerned; one taken afterwards would call the
    original's parts.

    Returns:
        The parts.
    """
    parts = recomputed_parts(backbone)
    for part in parts:
        part.forward = functools.partial(_recomputed, part, part.forward)
    return parts


def recomputed_parts(backbone: Backbone) -> list[nn.Module]:
    """Stages or blocks: children that have layers themselves, and the members of children that are rows of such."""
    module: nn.Module = backbone
    while not list(module.parameters(recurse=False)) and len(_children(module)) == 1:
        module = _children(module)[0]
    parts: list[nn.Module] = []
    for child in _children(module):
        members = _children(child)
        is_row = isinstance(child, nn.Sequential | nn.ModuleList) and any(_children(member) for member in members)
        parts += members if is_row else [child]
    return [part for part in parts if _children(part)]


def _children(module: nn.Module) -> list[nn.Module]:
    return [child for child in module.children() if next(child.parameters(), None) is not None]


def _recomputed(part: nn.Module, forward: Callable[..., Any], *inputs: Any, **settings: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **settings)
    if torch.compiler.is_compiling():  # what is computed again is then cut out of one graph, which moves buffers once
        return checkpoint(forward, *inputs, use_reentrant=False, **settings)
    contexts = functools.partial(_contexts, part)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **settings)


def _contexts(part: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Of the forward pass and of its repetition."""
    return nullcontext(), _on_copies_of_buffers(part)


@contextmanager
def _on_copies_of_buffers(part: nn.Module) -> Iterator[None]:
    owned = [(module, name, own) for module in part.modules() for name, own in module.named_buffers(recurse=False)]
    for module, name, buffer in owned:
        setattr(module, name, buffer.clone())
    try:
        yield
    finally:
        for module, name, buffer in owned:
            setattr(module, name, buffer)
