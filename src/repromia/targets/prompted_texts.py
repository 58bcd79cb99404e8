"""A text classifier asked with embeddings of its own kind put into every text."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from repromia.errors import AttackError
from repromia.targets.classifier import Classifier
from repromia.targets.classifier_forwards import TextForward
from repromia.targets.load import quiet

Prompt = Float[Tensor, "token width"]


@dataclass(frozen=True)
class PromptedTexts:
    """Asks a module of texts with a prompt behind the first token of each, differentiable in the prompt.

    The first token stays first, as encoders read their answer there. Texts are cut to what the prompt leaves room for,
    and those of one length are asked together: nothing is padded.
    """

    forward: TextForward
    prompt: Prompt

    def __post_init__(self) -> None:
        limit = self.forward.limit
        if 2 * len(self.prompt) > limit:
            raise AttackError(
                "The prompt leaves too little room for the texts.",
                expected=f"at most {limit // 2} tokens",
                found=str(len(self.prompt)),
                hint="ask for a shorter one (reprogram:length=…)",
            )

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "record class"]:
        """Its answers."""
        room = self.forward.limit - len(self.prompt)
        sequences = self.forward.tokenizer(list(texts), truncation=True, max_length=room)["input_ids"]
        found: dict[int, Tensor] = {}
        for rows in _of_one_length(sequences, together=self.forward.padded):
            answers = self._asked([sequences[row] for row in rows])
            found |= dict(zip(rows, answers, strict=True))
        return torch.stack([found[row] for row in range(len(texts))])

    def _asked(self, sequences: list[list[int]]) -> Tensor:
        module = self.forward.module
        embed = module.get_input_embeddings()  # type: ignore[operator]
        tokens = embed(torch.tensor(sequences, device=embed.weight.device))
        prompt = self.prompt.to(tokens.device, tokens.dtype).expand(len(sequences), -1, -1)
        given = torch.cat([tokens[:, :1], prompt, tokens[:, 1:]], dim=1)
        with quiet():  # decoders warn of padding, and there is none
            answer = module(inputs_embeds=given, attention_mask=given.new_ones(given.shape[:2], dtype=torch.long))
        found: Tensor = getattr(answer, "logits", answer)
        return found


def _of_one_length(sequences: list[list[int]], *, together: bool) -> list[list[int]]:
    """Rows of texts of equal length; of a model that does not know what padding is, each by itself."""
    if not together:
        return [[row] for row in range(len(sequences))]
    by_length: dict[int, list[int]] = {}
    for row, one in enumerate(sequences):
        by_length.setdefault(len(one), []).append(row)
    return list(by_length.values())


def can_be_prompted(target: object) -> bool:
    """Whether the target is a module of token ids, asked as it is."""
    return isinstance(target, Classifier) and isinstance(target.forward, TextForward)


def embeddings_of(model: Classifier) -> Prompt:
    """The embedding of every token. Raises AttackError for a model that cannot be given embeddings."""
    forward = model.forward
    if not isinstance(forward, TextForward):
        raise AttackError(
            "A prompt is put into texts that a module of tokens is given.",
            expected="a Hugging Face text classifier, without a defence in front of it",
            found=model.reader.kind if model.reader.kind != "text" else type(forward).__name__,
        )
    module = forward.module
    embed = getattr(module, "get_input_embeddings", lambda: None)()
    if not isinstance(embed, nn.Embedding) or "inputs_embeds" not in inspect.signature(module.forward).parameters:
        raise AttackError(
            "The model takes no embeddings in place of tokens.",
            expected="a forward with inputs_embeds, and get_input_embeddings",
            found=type(module).__name__,
        )
    return embed.weight.detach()
