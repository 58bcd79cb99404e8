"""A causal language model of Hugging Face transformers as a target."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from repromia.errors import TargetError
from repromia.records import Content
from repromia.signals import TOKEN_FIELDS, TokenSignals, from_token_arrays
from repromia.targets.defended_tokens import TokenDefences
from repromia.targets.devices import full_float32
from repromia.targets.fingerprint import model_fingerprint
from repromia.targets.head import CHUNK_FLOATS, token_divergence, token_logprob, token_statistics
from repromia.targets.output_head import find_head, own_logits
from repromia.targets.prefix import KeyValues, cache_for_batch, read_key_values
from repromia.targets.rotary import factor_switches
from repromia.targets.tokens import Encoder, TokenSequence, named

Prefix = KeyValues | Tensor  # computed key/values, or (token, width) embeddings to put in front
# How a batch of token ids (record, token), padded on the right, is asked: for each variant in turn the hidden states
# (record, token, width) that the output head receives.
Way = Callable[["LanguageModel", Tensor], Iterator[Tensor]]


@dataclass
class LanguageModel:
    """A frozen causal LM and how it is asked.

    model: transformers (or PEFT) causal LM; encoder: text to tokens; name: for reports.
    context: longest input that the model was made for, in tokens, prefix included.
    adapter: False asks the base with the adapter switched off, in the same memory.
    batch_tokens: tokens (padding included) in one forward pass; halved by itself when memory runs out.
    defence: what its answers go through (`repromia.targets.defended`).
    The weights are never changed, and eval mode is restored to what it was after every call.
    """

    model: Any
    encoder: Encoder
    name: str = "target"
    context: int = 2048
    adapter: bool = True
    batch_tokens: int = 4096
    defence: TokenDefences | None = None
    asked: int = field(default=0, compare=False)
    _fingerprint: str = field(default="", compare=False)
    _remembered: dict[str, Any] = field(default_factory=dict, compare=False)

    modality = "language"

    def __post_init__(self) -> None:
        asked = self.asked
        self._head = find_head(self)
        self.asked = asked  # of records, not of the eight tokens that told the head
        if self._head is own_logits:  # whole batches of logits then exist at once
            self.batch_tokens = min(self.batch_tokens, max(1, 8 * CHUNK_FLOATS // self.vocabulary))

    @property
    def tokenizer(self) -> Any:
        """The tokenizer behind `encoder`."""
        return self.encoder.tokenizer

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        layer = self.model.get_input_embeddings()
        if layer.weight.is_meta:  # offloaded by accelerate: inputs go where the layer is executed
            return torch.device(layer._hf_hook.execution_device)
        device: torch.device = layer.weight.device
        return device

    @property
    def embeddings(self) -> Tensor:
        """Input embedding matrix (vocabulary, width)."""
        weight: Tensor = self.model.get_input_embeddings().weight
        return self.embed(torch.arange(len(weight))).detach() if weight.is_meta else weight

    @property
    def vocabulary(self) -> int:
        """Size of the output distribution."""
        return int(self.model.config.get_text_config().vocab_size)

    @property
    def fingerprint(self) -> str:
        """Hash of weights, dtype, adapter state, architecture, tokenizer and token policy."""
        if not self._fingerprint:
            self._fingerprint = model_fingerprint(self.model, self.encoder, adapter=self.adapter)
            if self.defence is not None:
                behind = f"{self._fingerprint} behind {self.defence!r}"
                self._fingerprint = blake2b(behind.encode(), digest_size=16).hexdigest()
        return self._fingerprint

    @property
    def defences(self) -> tuple[str, ...]:
        """What stands between the model and whoever asks it."""
        return self.defence.specs if self.defence is not None else ()

    @property
    def tells_distributions(self) -> bool:
        """Whether more is told than the log-probabilities of the records' own tokens."""
        return self.defence is None or not self.defence.told

    @property
    def has_adapter(self) -> bool:
        """Whether a PEFT adapter sits on the model."""
        return hasattr(self.model, "peft_config") and hasattr(self.model, "disable_adapter")

    def base(self) -> LanguageModel:
        """The same model with its adapter switched off: a reference at no cost in memory."""
        if not self.has_adapter:
            raise TargetError(f"{self.name} carries no adapter, so it has no base to compare with.")
        return replace(self, adapter=False, name=f"{self.name} (adapter off)", asked=0, _fingerprint="", _remembered={})

    def refresh(self) -> None:
        """Forget what depends on the weights: a live model may have been trained on since."""
        self._fingerprint, self._remembered = "", {}

    def describe(self) -> dict[str, Any]:
        """What a reader of the report needs to know about this model."""
        return {
            "name": self.name,
            "architecture": type(self.model).__name__,
            "parameters": sum(weight.numel() for weight in self.model.parameters()),
            "dtype": str(self.embeddings.dtype).removeprefix("torch."),
            "device": str(self.device),
            "context": self.context,
            "longest_record": self.encoder.limit,
            "begins_with_bos": self.encoder.bos is not None,
            "loss_on": self.encoder.loss_on,
            "score_end": self.encoder.score_end,
            "adapter": self.adapter if self.has_adapter else None,
            **({"defences": list(self.defences)} if self.defences else {}),
            "fingerprint": self.fingerprint,
        }

    def encode(
        self, contents: Sequence[Content], ids: Sequence[str] | None = None, *, keep_bare: bool = False
    ) -> list[TokenSequence]:
        """Token sequences of these contents (see `Encoder`). Raises TargetError for tokens that the model has not."""
        sequences = self.encoder.encode(contents, ids, keep_bare=keep_bare)
        known = len(self.model.get_input_embeddings().weight)
        highest = [int(one.ids.max(initial=0)) for one in sequences]
        foreign = [row for row, token in enumerate(highest) if token >= known]
        if foreign:  # the embedding would end in an IndexError, on a GPU in one that names nothing
            raise TargetError(
                "The tokenizer has tokens that the model has not.",
                expected=f"token ids below {known}, the rows of the model's embedding matrix",
                found=f"ids up to {max(highest)} in {named(foreign, len(sequences), ids)}",
                hint="give the tokenizer that the model was trained with; if tokens were added in training, the "
                "checkpoint is to be saved after resize_token_embeddings",
            )
        return sequences

    def signals(self, sequences: Sequence[TokenSequence], prefix: Prefix | None = None) -> TokenSignals:
        """One forward pass over the sequences, behind an optional shared prefix.

        Batches are sorted by length; the answer for a record does not depend on its batch mates.
        Raises TargetError where the model's answers are not finite or memory runs out on a single record.
        """
        return self.ask(sequences, behind(prefix), front=_length(prefix))[0]

    def ask(self, sequences: Sequence[TokenSequence], way: Way, *, front: int = 0) -> tuple[TokenSignals, ...]:
        """The sequences asked in some way: signals of every variant. Batches and errors as in `signals`.

        front: tokens that the way puts in front of every record.
        """
        rows: list[list[dict[str, Tensor]]] = [[] for _ in sequences]
        with self.asking(), torch.inference_mode():
            for batch in self._batches(sequences, front):
                self._ask_batch(sequences, batch, way, rows)
        lengths = [sequence.n_scored for sequence in sequences]
        return tuple(
            from_token_arrays(
                lengths, {name: torch.cat([part[name] for part in variant]).numpy() for name in TOKEN_FIELDS}
            )
            for variant in zip(*rows, strict=True)
        )

    def _ask_batch(
        self, sequences: Sequence[TokenSequence], batch: list[int], way: Way, rows: list[list[dict[str, Tensor]]]
    ) -> None:
        picked = [sequences[row] for row in batch]
        try:
            ids, scored = self._padded(picked)
            token = ids[:, 1:][scored[:, 1:]]
            answers = []
            for hidden in way(self, ids):
                statistics = token_statistics(self._answer, _predicting(hidden, scored), token, self.vocabulary)
                answers.append(self._told(statistics, picked) | {"token": token.int().cpu()})
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            if len(batch) == 1:
                raise TargetError(
                    "Out of memory on a single record.",
                    found=str(error)[:200],
                    hint="cut records with --max-tokens, use a smaller --dtype, or --device-map auto",
                ) from error
        else:
            for statistics in answers:
                at = 0
                for row, sequence in zip(batch, picked, strict=True):
                    rows[row].append({name: statistics[name][at : at + sequence.n_scored] for name in TOKEN_FIELDS})
                    at += sequence.n_scored
            return
        # only here is the error gone, and with it the frames that held the failed batch's tensors
        torch.cuda.empty_cache()
        self.batch_tokens = max(1, self.batch_tokens // 2)
        half = len(batch) // 2
        for part in (batch[:half], batch[half:]):
            self._ask_batch(sequences, part, way, rows)

    def record_logprobs(
        self, sequences: Sequence[TokenSequence], prefix: Prefix | None
    ) -> Iterator[tuple[list[int], list[Float[Tensor, " token"]]]]:
        """Differentiable log-probabilities in batches: (rows, one vector a row). For learning a prefix."""
        with self.asking():
            for batch in self._batches(sequences, _length(prefix)):
                picked = [sequences[row] for row in batch]
                ids, scored = self._padded(picked)
                hidden = _predicting(next(behind(prefix)(self, ids)), scored)
                logprob = token_logprob(self._answer, hidden, ids[:, 1:][scored[:, 1:]], self.vocabulary)
                counts = [sequence.n_scored for sequence in picked]
                if self.defence is not None:
                    logprob = self.defence.logprobs(logprob, [sequence.ids for sequence in picked], counts)
                yield batch, list(torch.split(logprob, counts))

    def _answer(self, hidden: Tensor) -> Tensor:
        """Logits as they are answered."""
        logits = self._head(hidden)
        return logits if self.defence is None else self.defence.distribution(logits)

    def _told(self, statistics: dict[str, Tensor], sequences: Sequence[TokenSequence]) -> dict[str, Tensor]:
        """What is told of the scored tokens of these sequences."""
        if self.defence is None or self.tells_distributions:
            return statistics
        given = [sequence.ids for sequence in sequences], [sequence.n_scored for sequence in sequences]
        logprob = self.defence.logprobs(statistics["logprob"], *given)
        hidden = {name: torch.full_like(statistics[name], torch.nan) for name in ("mean", "std", "top_logprob")}
        unknown = {name: torch.full_like(statistics[name], -1) for name in ("top_token", "rank")}
        return statistics | {"logprob": logprob} | hidden | unknown

    def divergence(self, copy: LanguageModel, sequences: Sequence[np.ndarray]) -> Float[Tensor, ""]:
        """Mean KL(this || copy) over the next-token distributions of token sequences, in one batch.

        Differentiable in the copy's weights. Lies in nats; 0 where both answer alike.
        """
        longest = max(len(one) for one in sequences)
        ids = torch.zeros(len(sequences), longest, dtype=torch.long)
        counted = torch.zeros(len(sequences), longest, dtype=torch.bool)
        for row, one in enumerate(sequences):
            ids[row, : len(one)] = torch.from_numpy(one)
            counted[row, : len(one)] = True
        ids, counted = ids.to(self.device), counted.to(self.device)
        with self.asking(), torch.no_grad():
            own = self.hidden(input_ids=ids)[counted]
        with copy.asking():
            other = copy.hidden(input_ids=ids)[counted]
        return token_divergence(self._head, own, copy._head, other, self.vocabulary)

    def key_values(self, prefix: Tensor) -> Prefix:
        """What the model remembers of a prefix, computed once.

        prefix: token ids (token,) or embeddings (token, width). Models without an expandable cache (state
        space models) get the embeddings back and read them again in front of every record; so do models that
        read a prefix by other rotary factors when a long record follows.
        """
        embedded = self.embed(prefix) if prefix.dim() == 1 else prefix
        most = len(embedded) + self.encoder.limit + 1  # a record may bring the prefix's last token along
        if any(len(embedded) <= length < most for length in factor_switches(self.model.config)):
            return embedded
        with self.asking():
            output = self.model(inputs_embeds=embedded[None].to(self.embeddings.dtype), use_cache=True)
        self.asked += len(embedded)
        return read_key_values(output) or embedded

    def embed(self, ids: Tensor) -> Float[Tensor, "*batch token width"]:
        """Input embeddings of token ids, as the model's own embedding layer gives them."""
        embedded: Tensor = self.model.get_input_embeddings()(ids.to(self.device))
        return embedded

    def remembered(self, name: str, find_out: Callable[[LanguageModel], Any]) -> Any:
        """A property of the model that takes a few passes to find out; found out once."""
        if name not in self._remembered:
            with self.asking(), torch.inference_mode():
                self._remembered[name] = find_out(self)
        return self._remembered[name]

    def _padded(self, batch: Sequence[TokenSequence]) -> tuple[Tensor, Tensor]:
        """Token ids and which of them are scored, both (record, token), on the model's device."""
        longest = max(len(sequence.ids) for sequence in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        scored = torch.zeros(len(batch), longest, dtype=torch.bool)
        for row, sequence in enumerate(batch):  # right padding cannot reach back through a causal mask
            ids[row, : len(sequence.ids)] = torch.from_numpy(sequence.ids)
            scored[row, : len(sequence.ids)] = torch.from_numpy(sequence.scored)
        return ids.to(self.device), scored.to(self.device)

    def hidden(self, **inputs: Any) -> Float[Tensor, "batch token width"]:
        """Hidden states as the output head receives them (or the logits, where the head cannot be set apart).

        inputs: of the model's own forward. The tokens among them are counted as asked.
        """
        inputs.setdefault("use_cache", "past_key_values" in inputs)
        fed = inputs["input_ids"] if "input_ids" in inputs else inputs["inputs_embeds"]
        self.asked += fed.shape[0] * fed.shape[1]
        if self._head is own_logits:
            logits: Tensor = self.model(**inputs).logits
            return logits
        caught: list[Tensor] = []

        def catch(_: object, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            caught.append(args[0])
            return (args[0][:, :1],)  # the head then computes one column of logits that nobody reads

        hook = self.model.get_output_embeddings().register_forward_pre_hook(catch)
        try:
            self.model(**inputs)
        finally:
            hook.remove()
        return caught[0]

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Eval mode and the right adapter state, restored afterwards."""
        training = [module for module in self.model.modules() if module.training]
        off = self.model.disable_adapter() if self.has_adapter and not self.adapter else nullcontext()
        try:
            self.model.eval()
            with off, full_float32():
                yield
        finally:
            for module in training:
                module.training = True

    def _batches(self, sequences: Sequence[TokenSequence], front: int) -> Iterator[list[int]]:
        """Rows in batches of like length, at most `batch_tokens` padded tokens each.

        front: tokens in front of every record. A batch's longest record sets its rotary factors where a model has
        several: records that are read by others alone are kept apart.
        """
        switches = factor_switches(self.model.config)
        order = sorted(range(len(sequences)), key=lambda row: (-len(sequences[row].ids), row))
        factors = [sum(front + len(one.ids) > length for length in switches) for one in sequences]
        at = 0
        while at < len(order):
            room = max(1, self.batch_tokens // len(sequences[order[at]].ids))
            batch = [row for row in order[at : at + room] if factors[row] == factors[order[at]]]
            yield batch
            at += len(batch)


def behind(prefix: Prefix | None) -> Way:
    """The records as they are, behind a shared prefix if there is one."""

    def way(target: LanguageModel, ids: Tensor) -> Iterator[Tensor]:
        if isinstance(prefix, KeyValues):
            yield target.hidden(input_ids=ids, past_key_values=cache_for_batch(prefix, len(ids), target.model))
        elif prefix is not None:
            front = prefix[None].expand(len(ids), -1, -1).to(target.embeddings.dtype)
            yield target.hidden(inputs_embeds=torch.cat([front, target.embed(ids)], 1))[:, len(prefix) :]
        else:
            yield target.hidden(input_ids=ids)

    return way


def _length(prefix: Prefix | None) -> int:
    return 0 if prefix is None else len(prefix)


def _predicting(hidden: Tensor, scored: Tensor) -> Float[Tensor, "row width"]:
    """Hidden states that predict the scored tokens: that at t - 1 predicts token t; a first token never counts."""
    states: Tensor = hidden[:, :-1][scored[:, 1:]]
    return states


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(error)


def check_same_tokens(target: LanguageModel, reference: LanguageModel, contents: Sequence[Content]) -> None:
    """Raises TargetError unless target and reference cut the records into the same tokens."""
    for ours, theirs in zip(target.encode(contents), reference.encode(contents), strict=True):
        if not (np.array_equal(ours.ids, theirs.ids) and np.array_equal(ours.scored, theirs.scored)):
            raise TargetError(
                "The reference has another tokenizer than the target.",
                expected="the same tokens for every record, so that differences are per token",
                found="at least one record is cut differently",
                hint="give the checkpoint that the target was fine-tuned from as --reference",
            )
