"""The decoder blocks of a causal LM: skip them, or change what they add, without touching a weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from repromia.errors import AttackError

Change = Callable[[int, Tensor, Tensor], Tensor]  # (block, its input, its output) -> its output from now on


def decoder_blocks(model: Any) -> nn.ModuleList:
    """The blocks in order. Raises AttackError where the model does not keep them in one list."""
    expected = int(model.config.get_text_config().num_hidden_layers)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == expected:
            return module
    raise AttackError(
        "The model's layers cannot be told apart.",
        expected=f"one list of {expected} decoder blocks in {type(model).__name__}",
    )


@contextmanager
def changed_outputs(blocks: nn.ModuleList, change: Change) -> Iterator[None]:
    """While open, every block's hidden states go through `change`."""

    def hook(at: int) -> Callable[..., Any]:
        def apply(_: object, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            return _with_hidden(output, change(at, _input(args, kwargs), _hidden(output)))

        return apply

    handles = [block.register_forward_hook(hook(at), with_kwargs=True) for at, block in enumerate(blocks)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def recorded(blocks: nn.ModuleList, inputs: list[Tensor], outputs: list[Any]) -> Iterator[None]:
    """While open, one forward pass leaves every block's input and output in the lists."""

    def keep(_: object, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        inputs.append(_input(args, kwargs))
        outputs.append(output)

    handles = [block.register_forward_hook(keep, with_kwargs=True) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def skipped(blocks: nn.ModuleList, skip: int, inputs: Sequence[Tensor], outputs: Sequence[Any]) -> Iterator[None]:
    """While open, block `skip` returns its input, and those before it are not computed again.

    inputs, outputs: what `recorded` kept of the same batch.
    """

    def known(output: Any) -> Callable[..., Any]:
        return lambda *_args, **_kwargs: output

    answers = [*outputs[:skip], _with_hidden(outputs[skip], inputs[skip])]
    before = [block.__dict__.get("forward") for block in blocks]  # accelerate puts its own there
    try:
        for block, answer in zip(blocks, answers, strict=False):
            block.__dict__["forward"] = known(answer)
        yield
    finally:
        for block, forward in zip(blocks, before, strict=True):
            if forward is None:
                block.__dict__.pop("forward", None)
            else:
                block.__dict__["forward"] = forward


def _input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    hidden: Tensor = args[0] if args else kwargs["hidden_states"]
    return hidden


def _hidden(output: Any) -> Tensor:
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


def _with_hidden(output: Any, hidden: Tensor) -> Any:
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden
