"""The decoder layers of a model one at a time: what goes into each, and what its linear layers are given.

Goes in: an eager causal LM and token sequences. Comes out: a ``Walk`` that stands before one decoder layer, holds
the hidden states that enter it ([1, T, hidden] for each sequence) and nothing of other layers, so that memory does
not grow with depth. It knows no architecture: layers are called with the arguments that the model's own forward gave
them, and linear layers are put in order by watching one call.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

_NUMBER = re.compile(r"\.\d+(?=\.|$)")
OnInput = Callable[[str, int, torch.Tensor], None]
"""(name of the linear layer below the decoder layer, number of the sequence, its input [rows, in_features])"""


class UnknownStructure(Exception):
    """The model is not a stack of decoder layers that can be run one by one; the text says why."""


class _Enough(Exception):
    """Everything wanted of this call was seen."""


@dataclass(frozen=True)
class Stage:
    """Linear layers of one decoder layer that can be rounded at once: none is fed by another."""

    groups: list[list[str]]
    """Names below the decoder layer; those of a group have the same input."""
    ends: list[str]
    """Linear layers that are reached only when all of this stage were: a call need not go beyond one."""

    @property
    def names(self) -> list[str]:
        return [name for group in self.groups for name in group]


@dataclass(frozen=True)
class _Call:
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def decoder_layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The name and list of the model's decoder layers; raises UnknownStructure."""
    count = model.config.get_text_config().num_hidden_layers
    lists = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if not lists:
        raise UnknownStructure(f"no list of {count} decoder layers")
    return max(lists, key=lambda item: sum(p.numel() for p in item[1].parameters()))


class Walk:
    """Stands before one decoder layer after the other.

    Args:
        model: in evaluation mode. Its layers may be changed between calls, one at a time.
        sequences: [1, T] int64 each.

    Raises:
        UnknownStructure: its layers cannot be run one by one.
    """

    def __init__(self, model: PreTrainedModel, sequences: list[torch.Tensor]) -> None:
        self.model, self._sequences = model, sequences
        self.prefix, self.layers = decoder_layers(model)
        self._calls: list[list[_Call]] = []
        self._tuple = False
        self.hidden: list[torch.Tensor] = []
        """What enters the layer that is next, for each sequence."""
        for ids in sequences:
            seen: dict[int, tuple[torch.Tensor, _Call]] = {}
            with self._replaced(self._recorder(seen)), suppress(_Enough):
                self.model(ids, use_cache=False)
            if len(seen) != len(self.layers):
                raise UnknownStructure("not every decoder layer is called")
            self.hidden.append(seen[0][0])
            self._calls.append([seen[number][1] for number in range(len(self.layers))])

    def beside(self, model: PreTrainedModel) -> Walk:
        """A walk at the same place through a copy of the model; what was recorded is in memory once.

        Args:
            model: one that computes the same up to here.
        """
        other = copy.copy(self)
        other.model, other.hidden = model, list(self.hidden)
        other.prefix, other.layers = decoder_layers(model)
        return other

    def _recorder(self, seen: dict[int, tuple[torch.Tensor, _Call]]) -> Callable[[int, Any], Any]:
        def forward_of(number: int, original: Any) -> Any:
            def forward(*args: Any, **kwargs: Any) -> Any:
                named = not args
                entering = kwargs["hidden_states"] if named else args[0]
                rest = {key: value for key, value in kwargs.items() if key != "hidden_states"}
                seen[number] = (entering, _Call(args=() if named else args[1:], kwargs=rest))
                if number == 0 and not self._calls:
                    self._tuple = isinstance(original(*args, **kwargs), tuple)
                if len(seen) == len(self.layers):
                    raise _Enough  # what comes after them, the output layer above all, is not looked at here
                return self._shaped(entering)

            return forward

        return forward_of

    def _shaped(self, hidden: torch.Tensor) -> Any:
        return (hidden,) if self._tuple else hidden

    @contextmanager
    def _replaced(self, forward_of: Callable[[int, Any], Any]) -> Iterator[None]:
        """Every decoder layer's forward replaced for a while."""
        try:
            for number, layer in enumerate(self.layers):
                layer.forward = forward_of(number, layer.forward)
            yield
        finally:
            for layer in self.layers:
                layer.__dict__.pop("forward", None)

    def run(self, number: int, sequence: int, layer: nn.Module | None = None) -> torch.Tensor:
        """What leaves layer ``number`` for what enters it; ``layer``: another one in its place."""
        call = self._calls[sequence][number]
        out = (layer or self.layers[number])(self.hidden[sequence], *call.args, **call.kwargs)
        found: torch.Tensor = out[0] if isinstance(out, tuple) else out
        return found

    def advance(self, number: int, names: Sequence[str] = (), on_input: OnInput | None = None) -> None:
        """Go past layer ``number``, and give ``on_input`` what the linear layers ``names`` of it are fed."""
        modules = {name: self.layers[number].get_submodule(name) for name in names}
        for sequence in range(len(self.hidden)):
            with _watched(modules, sequence, on_input):
                self.hidden[sequence] = self.run(number, sequence)

    def stages(self, number: int) -> list[Stage]:
        """The linear layers of a decoder layer in the order in which they can be rounded.

        Those with one input tensor go together, and so do those whose names differ by a number only: experts. Ones
        that the first sequence does not reach follow their siblings, or stand at the end.
        """
        layer = self.layers[number]
        linears = {name: m for name, m in layer.named_modules() if isinstance(m, nn.Linear)}
        seen: dict[str, torch.Tensor] = {}
        with ExitStack() as stack:
            for name, module in linears.items():
                hook = partial(_remember, seen, name)
                stack.callback(module.register_forward_pre_hook(hook).remove)
            self.run(number, 0)
        kinds: dict[str, list[str]] = {}
        for name in [*seen, *(name for name in linears if name not in seen)]:
            kinds.setdefault(_NUMBER.sub(".N", name), []).append(name)
        found: list[list[str]] = []
        for names in kinds.values():
            entering = [seen[name] for name in names if name in seen]
            for together in found:
                if any(seen.get(other) is tensor for other in together for tensor in entering):
                    together.extend(names)
                    break
            else:
                found.append(list(names))
        order = {name: position for position, name in enumerate(seen)}
        return [Stage(groups=_by_input(stage, seen), ends=_ends(stage, found, order)) for stage in found]

    def norms_before(self, number: int, names: Sequence[str]) -> dict[str, str]:
        """Those linear layers whose input is what a norm gave, as it gave it -> that norm."""
        layer = self.layers[number]
        given: dict[str, torch.Tensor] = {}
        seen: dict[str, torch.Tensor] = {}
        with ExitStack() as stack:
            for name, module in layer.named_modules():
                if is_norm(module):
                    stack.callback(module.register_forward_hook(partial(_given, given, name)).remove)
            for name in names:
                hook = partial(_remember, seen, name)
                stack.callback(layer.get_submodule(name).register_forward_pre_hook(hook).remove)
            self.run(number, 0)
        return {name: norm for name, x in seen.items() for norm, out in given.items() if out is x}

    def watch(self, number: int, stage: Stage, on_input: OnInput) -> None:
        """Give ``on_input`` what the first linear layer of each group of ``stage`` is fed, sequence by sequence."""
        layer = self.layers[number]
        firsts = {group[0]: layer.get_submodule(group[0]) for group in stage.groups}
        ends = [layer.get_submodule(name) for name in stage.ends]
        for sequence in range(len(self.hidden)):
            with ExitStack() as stack:
                stack.enter_context(_watched(firsts, sequence, on_input))
                for module in ends:
                    stack.callback(module.register_forward_pre_hook(_stop).remove)
                with suppress(_Enough):
                    self.run(number, sequence)

    def tail(self, module: nn.Module, on_input: Callable[[int, torch.Tensor], None]) -> None:
        """Give ``on_input`` what a module after the decoder layers is fed; the walk has gone past all of them."""
        for sequence, ids in enumerate(self._sequences):
            with ExitStack() as stack:
                stack.enter_context(self._replaced(self._leaving(sequence)))
                watch = _watched({"": module}, sequence, lambda name, number, entering: on_input(number, entering))
                stack.enter_context(watch)
                stack.callback(module.register_forward_pre_hook(_stop).remove)
                with suppress(_Enough):
                    self.model(ids, use_cache=False)

    def _leaving(self, sequence: int) -> Callable[[int, Any], Any]:
        shaped = self._shaped(self.hidden[sequence])
        return lambda number, original: lambda *args, **kwargs: shaped


@contextmanager
def _watched(modules: dict[str, nn.Module], sequence: int, on_input: OnInput | None) -> Iterator[None]:
    with ExitStack() as stack:
        if on_input is not None:
            for name, module in modules.items():
                hook = partial(_tell, on_input, name, sequence)
                # In front of others, which stop the call or change what is fed.
                stack.callback(module.register_forward_pre_hook(hook, prepend=True).remove)
        yield


def _tell(on_input: OnInput, name: str, sequence: int, module: nn.Module, args: tuple[Any, ...]) -> None:
    on_input(name, sequence, args[0].reshape(-1, args[0].shape[-1]))


def _remember(seen: dict[str, torch.Tensor], name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
    seen.setdefault(name, args[0])


def is_norm(module: nn.Module) -> bool:
    """Whether a module multiplies channels by a weight of its own and has no other matrix."""
    weight = getattr(module, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.ndim == 1 and not any(True for _ in module.children())


def _given(given: dict[str, torch.Tensor], name: str, module: nn.Module, args: Any, out: Any) -> None:
    if isinstance(out, torch.Tensor):
        given[name] = out


def _stop(module: nn.Module, args: tuple[Any, ...]) -> None:
    raise _Enough


def _ends(stage: list[str], stages: list[list[str]], order: dict[str, int]) -> list[str]:
    last = max((order.get(name, len(order)) for name in stage), default=0)
    if len({_NUMBER.sub(".N", name) for name in stage}) < len(stage):
        return []  # siblings such as experts: which of them a sequence reaches, and in what order, is its own
    return [name for other in stages if other is not stage for name in other if order.get(name, -1) > last]


def _by_input(names: list[str], seen: dict[str, torch.Tensor]) -> list[list[str]]:
    groups: list[list[str]] = []
    for name in names:
        for group in groups:
            if name in seen and seen.get(group[0]) is seen[name]:
                group.append(name)
                break
        else:
            groups.append([name])
    return groups
