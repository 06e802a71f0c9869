"""Structural types shared by layers that must not import each other."""

from typing import Protocol, runtime_checkable

import torch


@runtime_checkable
class SiteSpace(Protocol):
    """What an environment needs to know of a target whose objects assign values to sites."""

    name: str
    event_shape: tuple[int, ...]
    dtype: torch.dtype
    values: tuple[int, ...] | None
