"""Memory that a recipe no longer needs, let go of while it works."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import cast

import torch
from torch import nn


def let_go(module: nn.Module) -> None:
    """Empty a module's weight in every model that shares the parameter."""
    cast(nn.Parameter, module.weight).data = torch.empty(0)


def give_back() -> None:
    """Have the C library give freed memory back to the system.

    glibc keeps freed tensors below 32 MB for later (mallopt(3), M_MMAP_THRESHOLD), 200 MB of them between the stages of
    a calibration of SmolLM2-135M. Elsewhere nothing is done.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
