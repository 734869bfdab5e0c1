"""A written file, loaded on the ExecuTorch runtime, as a step function over tokens."""

from __future__ import annotations

from pathlib import Path

import torch

from exporter.errors import InvalidPte
from exporter.schedule import Step


class RuntimeFailed(Exception):
    """The runtime refused to load or to execute; the text is its first line."""


def load(path: Path) -> Step:
    """Load ``forward`` of a ``.pte`` file once; every call of the result runs on that same loaded method.

    Raises:
        InvalidPte: the runtime cannot load the file.
    """
    from executorch.runtime import Runtime

    try:
        program = Runtime.get().load_program(path)
        method = program.load_method("forward")
    except (RuntimeError, ValueError) as error:
        raise InvalidPte(f"{path} cannot be loaded by the runtime: {str(error).splitlines()[0][:200]}.") from None
    if method is None:
        raise InvalidPte(f"{path} has no method named forward.")

    def step(input_ids: torch.Tensor, cache_position: torch.Tensor) -> torch.Tensor:
        try:
            outputs = method.execute([input_ids, cache_position])
        except RuntimeError as error:
            raise RuntimeFailed(str(error).splitlines()[0][:200]) from None
        if not outputs or not isinstance(outputs[0], torch.Tensor) or not outputs[0].ndim:
            raise RuntimeFailed("forward gives no tensor")
        # The output tensor lives in the method's own memory and is overwritten by the next call.
        return outputs[0][0].clone()

    # The program must outlive its method, and only the closure's owner knows how long that is.
    step.program = program  # type: ignore[attr-defined]
    return step
