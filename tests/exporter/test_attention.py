"""The runtime's attention and cache ops inside eager models: the same logits, or a typed "not taken"."""

from __future__ import annotations

import pytest
import torch

from exporter import attention, backends, checkpoint, rehearse, schedule
from exporter.attention import AttentionNotTaken
from exporter.checkpoint import Checkpoint
from exporter.errors import UnsupportedModel
from exporter.spec import ModelRef
from exporter.static_cache import Attention, ExportableModule, use_attention
from tests.exporter.conftest import ModelCopy
from tests.exporter.models import KINDS, VOCABULARY, WINDOW

LENGTH = 3 * WINDOW + 5
"""Tokens: well beyond every sliding window."""
IDS = torch.randint(VOCABULARY, (1, LENGTH), generator=torch.Generator().manual_seed(11))
NOT_TAKEN = {"gemma2"}
"""Kinds whose attention the runtime's op does not compute."""


def _checkpoint(kind: str, model_copy: ModelCopy) -> Checkpoint:
    return checkpoint.inspect(model_copy(kind), ModelRef())


def _logits(module: ExportableModule, sizes: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return schedule.feed(lambda ids, position: module(ids, position)[0], IDS, sizes)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_its_own_logits_through_either_attention(kind: str, model_copy: ModelCopy) -> None:
    """Beyond the window too, in uneven chunks, and again over the caches that the first run left behind."""
    ckpt = _checkpoint(kind, model_copy)
    model = checkpoint.load_model(ckpt)
    with torch.no_grad():
        expected = model(IDS, use_cache=False).logits[0]
    ways: tuple[Attention, ...] = ("stock",) if kind in NOT_TAKEN else ("stock", "custom")
    for way in ways:
        use_attention(model, way, ckpt.attention)
        module = ExportableModule(model, LENGTH + 3, way, ckpt.caches)
        for sizes in (schedule.chunks(LENGTH), [LENGTH], [1] * LENGTH):
            difference = (_logits(module, sizes) - expected).abs().max() / expected.std()
            assert difference < 1e-4, f"{way}, calls of {sizes[:4]}..."


@pytest.mark.parametrize("kind", ["llama", "gemma3", "gpt2", "mixtral"])
def test_the_ops_really_compute_it(kind: str, model_copy: ModelCopy) -> None:
    """Equal logits alone would not tell that the stock implementation was still there."""
    ckpt = _checkpoint(kind, model_copy)
    model = checkpoint.load_model(ckpt)
    use_attention(model, "custom", ckpt.attention)
    module = ExportableModule(model, LENGTH, "custom", ckpt.caches)
    with torch.profiler.profile() as profile, torch.no_grad():
        module(IDS[:, :4], torch.arange(4))
    calls = {event.key: event.count for event in profile.key_averages()}
    layers = len(ckpt.layers)
    assert calls["llama::custom_sdpa"] == layers
    assert calls["llama::update_cache"] == 2 * layers
    assert "aten::scaled_dot_product_attention" not in calls
    assert "aten::index_copy_" not in calls


def test_a_mask_is_built_only_where_the_window_needs_one(model_copy: ModelCopy) -> None:
    ckpt = _checkpoint("mistral", model_copy)
    model = checkpoint.load_model(ckpt)
    use_attention(model, "custom", ckpt.attention)
    for context, built in ((WINDOW, False), (WINDOW + 1, True)):
        module = ExportableModule(model, context, "custom", ckpt.caches)
        with torch.profiler.profile() as profile, torch.no_grad():
            module(IDS[:, :4], torch.arange(4))
        assert any(event.key == "aten::where" for event in profile.key_averages()) is built, context


@pytest.mark.parametrize("kind", sorted(NOT_TAKEN))
def test_what_the_op_cannot_take_is_refused_before_it_runs(kind: str, model_copy: ModelCopy) -> None:
    ckpt = _checkpoint(kind, model_copy)
    with pytest.raises(AttentionNotTaken):
        use_attention(checkpoint.load_model(ckpt), "custom", ckpt.attention)


def _call(**changes: object) -> torch.Tensor:
    given = {
        "query": torch.zeros(1, 4, 2, 8),
        "key": torch.zeros(1, 16, 2, 8),
        "value": torch.zeros(1, 16, 2, 8),
        "attention_mask": None,
        "scaling": 0.3,
    }
    attention.load_ops()
    with attention.start_position(0):
        out, weights = attention.runtime_sdpa(torch.nn.Identity(), **{**given, **changes})  # type: ignore[arg-type]
    assert weights is None
    return out


def test_the_plain_case_is_taken() -> None:
    assert _call().shape == (1, 2, 4, 8)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"softcap": 20.0}, "softcap"),
        ({"s_aux": torch.zeros(4)}, "s_aux"),
        ({"sinks": torch.zeros(4)}, "sinks"),
        ({"position_bias": torch.zeros(1, 4, 2, 16)}, "position_bias"),
        ({"is_causal": False}, "bidirectional"),
        ({"value": torch.zeros(1, 16, 2, 4)}, "different widths"),
        ({"query": torch.zeros(1, 4, 2, 16)}, "different widths"),
        ({"query": torch.zeros(1, 3, 2, 8)}, "3 query heads over 2"),
    ],
)
def test_what_the_op_does_not_compute_is_not_taken(changes: dict[str, object], why: str) -> None:
    with pytest.raises(AttentionNotTaken, match=why):
        _call(**changes)


def test_a_wrongly_shaped_update_is_refused_and_not_run() -> None:
    """The native op ends the process on it."""
    attention.load_ops()
    with attention.start_position(0), pytest.raises(AttentionNotTaken, match="for a cache of"):
        attention.update_cache(torch.zeros(1, 3, 2, 8), torch.zeros(1, 16, 2, 8))


@pytest.mark.parametrize("blocked", range(1, 9))
def test_a_block_of_masked_keys_is_no_nan(blocked: int) -> None:
    """The flash kernel goes over keys in blocks; a block without one allowed key must count as nothing."""
    generator = torch.Generator().manual_seed(blocked)
    keys, values = (torch.randn(1, 640, 1, 8, generator=generator) for _ in range(2))
    allowed = torch.zeros(1, 640, dtype=torch.bool)
    allowed[:, 64 * blocked : 64 * blocked + 5] = True
    query = torch.randn(1, 1, 1, 8, generator=generator)
    attention.load_ops()
    with attention.start_position(639):
        mask = torch.where(allowed, 0.0, attention._MASKED)
        out, _ = attention.runtime_sdpa(torch.nn.Identity(), query, keys, values, mask, scaling=0.5)
    wanted = torch.nn.functional.scaled_dot_product_attention(
        query, keys.transpose(1, 2), values.transpose(1, 2), allowed[None], scale=0.5
    )
    assert torch.allclose(out.transpose(1, 2), wanted, atol=1e-6)


@pytest.mark.parametrize(("kind", "asked", "wanted"), [
    ("llama", "auto", {"xnnpack": "custom", "portable": "stock", "openvino": "stock"}),
    ("llama", "custom", {"xnnpack": "custom", "portable": "stock", "openvino": "stock"}),
    ("llama", "stock", {"xnnpack": "stock", "portable": "stock", "openvino": "stock"}),
    ("gemma2", "auto", {"xnnpack": "stock", "portable": "stock", "openvino": "stock"}),
])  # fmt: skip
def test_the_kind_of_attention_is_chosen_by_backend_and_model(
    kind: str, asked: str, wanted: dict[str, str], model_copy: ModelCopy
) -> None:
    ckpt = _checkpoint(kind, model_copy)
    assert rehearse.choose_attention(ckpt, [backends.get(name) for name in wanted], asked) == wanted


def test_asking_for_what_a_model_cannot_take_is_refused(model_copy: ModelCopy) -> None:
    ckpt = _checkpoint("gemma2", model_copy)
    with pytest.raises(UnsupportedModel, match=r"cannot compute this model's attention") as caught:
        rehearse.choose_attention(ckpt, [backends.get("xnnpack")], "custom")
    assert "stock" in caught.value.advice
    assert rehearse.choose_attention(ckpt, [backends.get("portable")], "custom") == {"portable": "stock"}


def test_attention_that_computes_something_else_is_not_chosen(
    model_copy: ModelCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing raises here: only the logits tell."""
    from transformers import AttentionInterface

    def unscaled(*args: object, **kwargs: object) -> tuple[torch.Tensor, None]:
        return attention.runtime_sdpa(*args, **{**kwargs, "scaling": 1.0})  # type: ignore[arg-type]

    ckpt = _checkpoint("llama", model_copy)
    monkeypatch.setitem(AttentionInterface._global_mapping, attention.CUSTOM, unscaled)
    assert rehearse.choose_attention(ckpt, [backends.get("xnnpack")], "auto") == {"xnnpack": "stock"}
    with pytest.raises(UnsupportedModel, match="standard deviations"):
        rehearse.choose_attention(ckpt, [backends.get("xnnpack")], "custom")
