"""The written files by a second opinion: plain transformers against the plain runtime, nothing of exporter between.

What exporter.parity says of a file could be wrong in the same way as the file. Here the model is loaded with
``AutoModelForCausalLM``, tokens are drawn at random, and logits are compared position by position.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.exporter.conftest import CONTEXT, Exported

FP32 = ["portable", "xnnpack", "openvino"]
FIRST, SECOND = (
    torch.randint(384, (1, length), generator=torch.Generator().manual_seed(length)) for length in (CONTEXT, 41)
)


@pytest.fixture(scope="module")
def model(exported: Exported) -> Any:
    return AutoModelForCausalLM.from_pretrained(exported.model, dtype=torch.float32).eval()


def _load(path: Path) -> Any:
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")  # else OpenVINO rounds to bf16 where it can
    import executorch.extension.llm.custom_ops.custom_ops
    import executorch.kernels.quantized  # noqa: F401
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(path)
    return program, program.load_method("forward")


def _logits(method: Any, ids: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    rows, start = [], 0
    for size in sizes:
        out = method.execute([ids[:, start : start + size].contiguous(), torch.arange(start, start + size)])
        assert len(out) == 1
        assert out[0].shape == (1, size, 384)
        rows.append(out[0][0].clone())
        start += size
    assert start == ids.shape[1]
    return torch.cat(rows)


def _sizes(backend: str, ids: torch.Tensor) -> dict[str, list[int]]:
    length = ids.shape[1]
    one = {"decode": [1] * length}
    if backend == "openvino":
        return one
    uneven = [5, 1, 1, 17, 2, 9]
    return {
        "prefill": [length],
        "chunks": [*uneven, length - sum(uneven)],
        "prefill, then decode": [length - 7, *[1] * 7],
        **one,
    }


@pytest.mark.parametrize("backend", FP32)
def test_every_way_of_feeding_gives_the_models_logits(backend: str, exported: Exported, model: Any) -> None:
    """Two prompts in turn on one loaded method, up to the last position of the context."""
    _program, method = _load(exported.file(backend, "fp32"))
    for ids in (FIRST, SECOND, FIRST):
        with torch.no_grad():
            expected = model(ids).logits[0]
        for name, sizes in _sizes(backend, ids).items():
            difference = (_logits(method, ids, sizes) - expected).abs().max()
            assert difference < 1e-3 * expected.std(), f"{name}: {difference}"


@pytest.mark.parametrize("backend", FP32)
def test_it_writes_as_transformers_does(backend: str, exported: Exported, model: Any) -> None:
    """Greedy generation from a prompt, the model's own cache against the file's."""
    prompt = FIRST[:, :9]
    wanted = model.generate(prompt, max_new_tokens=20, do_sample=False, eos_token_id=None, pad_token_id=0)
    _program, method = _load(exported.file(backend, "fp32"))
    sizes = [1] * 9 if backend == "openvino" else [9]
    last, ids = _logits(method, prompt, sizes)[-1], prompt
    for position in range(9, 29):
        token = last.argmax().reshape(1, 1)
        ids = torch.cat([ids, token], dim=1)
        last = method.execute([token, torch.tensor([position])])[0][0, -1].clone()
    assert ids.tolist() == wanted.tolist()


@pytest.mark.parametrize("backend", ["portable", "xnnpack"])
def test_a_quantized_file_is_near_the_model_in_every_way_of_feeding(
    backend: str, exported: Exported, model: Any
) -> None:
    """Near, by cosine: a lost or frozen cache is nowhere near. How near is what parity measures."""
    _program, method = _load(exported.file(backend, "8da4w"))
    for ids in (FIRST, SECOND):
        with torch.no_grad():
            expected = model(ids).logits[0]
        for name, sizes in _sizes(backend, ids).items():
            cosine = torch.nn.functional.cosine_similarity(_logits(method, ids, sizes), expected, dim=-1)
            assert cosine.min() > 0.8, f"{name}: {cosine.min()}"


@pytest.mark.parametrize("backend", ["portable", "xnnpack"])
def test_a_position_beyond_the_context_is_an_error_and_no_crash(backend: str, exported: Exported) -> None:
    """OpenVINO does not look: its runner must, by get_max_seq_len."""
    _program, method = _load(exported.file(backend, "fp32"))
    with pytest.raises(RuntimeError):
        method.execute([torch.tensor([[1]]), torch.tensor([CONTEXT])])


def test_two_programs_do_not_share_a_cache(exported: Exported, model: Any) -> None:
    (_one, first), (_two, second) = (_load(exported.file("xnnpack", "fp32")) for _ in range(2))
    _logits(first, FIRST, [CONTEXT])
    rows = [_logits(second, SECOND[:, :20], [20])]
    _logits(first, FIRST, [CONTEXT])
    rows += [second.execute([SECOND[:, 20:], torch.arange(20, 41)])[0][0]]
    with torch.no_grad():
        expected = model(SECOND).logits[0]
    assert (torch.cat(rows) - expected).abs().max() < 1e-3 * expected.std()
