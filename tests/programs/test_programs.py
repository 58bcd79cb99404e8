"""Fixed programs: edits of the text, shots in front of it, neighbours from a masked model."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from repromia.errors import AttackError, TargetError
from repromia.programs import Binding, Identity
from repromia.programs.edits import LowerCase, MaskedNeighbours, WordSwaps, edited, generator_for, swap_words
from repromia.programs.prefixes import MemberShots, NonmemberShots, TextPrefix
from repromia.programs.registry import PLANS, plan_for
from repromia.progress import Silent
from repromia.records import Chat, Completion, LabelledRecords, Records
from repromia.signals import TOKEN_FIELDS, TokenSignals
from repromia.targets.language import LanguageModel
from repromia.targets.masked import MaskedModel
from small import SmallModels


def records_of(texts: list[str], side: str = "r") -> Records:
    ids = tuple(f"{side}{row}" for row in range(len(texts)))
    return Records(ids, tuple(texts), ids)


def labelled(members: list[str], nonmembers: list[str], name: str) -> LabelledRecords:
    inside, outside = records_of(members, f"{name}-in-"), records_of(nonmembers, f"{name}-out-")
    ids = inside.ids + outside.ids
    member = np.repeat([True, False], [len(members), len(nonmembers)])
    return LabelledRecords(Records(ids, inside.contents + outside.contents, ids), member)


def binding_of(models: SmallModels, target: LanguageModel | None = None, *, seed: int = 0, longest: int = 0) -> Binding:
    target = target or models.leaky
    fit = labelled(models.members[:20], models.nonmembers[:20], "fit")
    select = labelled(models.members[20:30], models.nonmembers[20:30], "select")
    return Binding(target, fit, select, seed, Silent(), longest or target.encoder.limit)


def assert_equal(got: TokenSignals, expected: TokenSignals) -> None:
    for name in TOKEN_FIELDS:
        assert np.array_equal(getattr(got, name), getattr(expected, name)), name


def test_every_plan_has_a_key_and_takes_its_options() -> None:
    assert plan_for("word_swaps", {"copies": 3, "k": 0.2}) == WordSwaps(copies=3)
    assert len({repr(kind()) for kind in PLANS.values()}) == len(PLANS)


def test_identity_asks_the_record_as_it_is(models: SmallModels) -> None:
    records = records_of(models.members[:4])
    (got,) = Identity().ask(models.base, records)
    assert_equal(got, models.base.signals(models.base.encode(records.contents)))


def test_lower_case_asks_the_lower_cased_record(models: SmallModels) -> None:
    texts = [text for text in models.members if text != text.lower()][:4]
    (got,) = LowerCase().ask(models.base, records_of(texts))
    (expected,) = Identity().ask(models.base, records_of([text.lower() for text in texts]))
    assert_equal(got, expected)


def test_edits_keep_roles_and_the_prompts_border() -> None:
    assert edited(Completion("WHO?", " ME"), str.lower) == Completion("who?", " me")
    assert edited(Chat((("user", "WHO?"), ("assistant", "ME"))), str.lower) == Chat(
        (("user", "who?"), ("assistant", "me"))
    )


def test_word_swaps_keep_the_words(models: SmallModels) -> None:
    changed = 0
    for text in models.members[:30]:
        swapped = swap_words(text, 0.3, generator_for(text, 0, 0))
        assert sorted(swapped.split()) == sorted(text.split())
        changed += swapped != " ".join(text.split())
    assert changed > 25
    assert swap_words("one", 0.3, np.random.default_rng(0)) == "one"
    assert swap_words("one two", 0.3, np.random.default_rng(0)) == "two one"


def test_word_swaps_do_not_depend_on_the_records_place(models: SmallModels) -> None:
    program = WordSwaps(copies=2)
    forward = program.ask(models.base, records_of(models.members[:6]))
    backward = program.ask(models.base, records_of(models.members[5::-1]))
    for one, other in zip(forward, backward, strict=True):
        turned = other.take(range(5, -1, -1))
        assert np.array_equal(one.token, turned.token)
        np.testing.assert_allclose(one.logprob, turned.logprob, atol=1e-5)
    assert not np.array_equal(forward[0].token, forward[1].token)
    (other_seed, _) = WordSwaps(copies=2, seed=1).ask(models.base, records_of(models.members[:6]))
    assert not np.array_equal(other_seed.token, forward[0].token)


@pytest.mark.parametrize(("plan", "side"), [(NonmemberShots(3), "out"), (MemberShots(3), "in")])
def test_shots_come_from_one_side_of_fit(plan: NonmemberShots | MemberShots, side: str, models: SmallModels) -> None:
    binding = binding_of(models, longest=40)
    program = plan.bind(binding)
    assert {name.rsplit("-", 1)[0] for name in program.used} == {f"fit-{side}"}
    assert program.details == {"shots": 3, "shots_asked": 3, "prefix_tokens": len(program.ids)}
    text = models.base.tokenizer.decode(program.ids, skip_special_tokens=True)
    shots = dict(zip(binding.fit.records.ids, binding.fit.records.texts(), strict=True))
    assert sorted(text.strip().split("\n\n")) == sorted(shots[name].strip() for name in program.used)
    assert plan.bind(binding).ids == program.ids
    assert plan.bind(replace(binding, seed=1)).used != program.used
    assert plan.bind(replace(binding, seed=1)).key != program.key


@pytest.mark.parametrize("room", [2, 30, 80, 128, 200])
def test_shots_never_exceed_the_room(room: int, models: SmallModels) -> None:
    program = NonmemberShots(12).bind(binding_of(models, longest=256 - room))
    assert 2 <= len(program.ids) <= room
    assert 1 <= program.shots < program.shots_asked == 12
    assert len(program.used) == program.shots
    if room == 30:  # not one shot fits whole: it is cut
        assert len(program.ids) == room


@pytest.mark.parametrize("room", [0, 1])
def test_no_room_for_a_shot_is_an_error(room: int, models: SmallModels) -> None:
    with pytest.raises(AttackError, match="no room"):
        NonmemberShots().bind(binding_of(models, longest=256 - room))


def test_a_text_prefix_scores_the_records_own_tokens(models: SmallModels) -> None:
    target = models.leaky
    records = records_of(models.nonmembers[40:44])
    program = NonmemberShots(2).bind(binding_of(models))
    (plain,) = Identity().ask(target, records)
    (got,) = program.ask(target, records)
    assert np.array_equal(got.token, plain.token)
    assert np.array_equal(got.offsets, plain.offsets)
    with torch.inference_mode():
        for row, sequence in enumerate(target.encode(records.contents)):
            body = sequence.ids[1:]  # BOS, shots, record: the prefix takes the BOS over
            ids = torch.tensor([*program.ids, *body])
            logprob = target.model(input_ids=ids[None]).logits[0].log_softmax(-1)
            expected = logprob[len(program.ids) - 1 : -1].gather(-1, torch.from_numpy(body)[:, None])[:, 0]
            np.testing.assert_allclose(got.take([row]).logprob, expected, atol=1e-4)


def test_a_text_prefix_without_bos_leaves_the_first_token_unscored(models: SmallModels) -> None:
    target = models.leaky
    ids = target.encoder.plain_ids("My fellow citizens\n\n")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=target.tokenizer.backend_tokenizer)  # knows no BOS
    bare = replace(target, encoder=replace(target.encoder, tokenizer=tokenizer))
    sequences = bare.encode(models.members[:1])
    assert bare.encoder.bos is None
    (got,) = TextPrefix(tuple(ids), frozenset(), 1, 1).ask(bare, records_of(models.members[:1]))
    assert np.array_equal(got.token, sequences[0].ids[1:])


def test_a_chat_that_begins_with_no_bos_keeps_its_first_token(models: SmallModels) -> None:
    tokenizer = copy.deepcopy(models.leaky.tokenizer)
    tokenizer.chat_template = "{% for one in messages %}{{ one.role }}: {{ one.content }}\n{% endfor %}"
    target = replace(models.leaky, encoder=replace(models.leaky.encoder, tokenizer=tokenizer))
    contents = (Chat((("user", "Who spoke?"), ("assistant", "Lincoln."))), "Nobody else.")
    records = Records(("a", "b"), contents, ("a", "b"))
    ids = (target.encoder.bos, *target.encoder.plain_ids("My fellow citizens\n\n"))
    (plain,), (got,) = Identity().ask(target, records), TextPrefix(ids, frozenset(), 1, 1).ask(target, records)
    assert np.array_equal(got.token, plain.token)
    chat, text = target.encode(contents)
    for row, body in enumerate((chat.ids, text.ids[1:])):  # the text's BOS gives way to the prefix
        joined = torch.tensor([*ids, *body])
        with torch.inference_mode():
            logprob = target.model(input_ids=joined[None]).logits[0, :-1].log_softmax(-1)
        expected = logprob.gather(-1, joined[1:, None])[-got.lengths[row] :, 0]
        np.testing.assert_allclose(got.take([row]).logprob, expected, atol=1e-4)


@pytest.fixture
def masked_folder(models: SmallModels, tmp_path: Path) -> Path:
    """A BERT with random weights that shares the small tokenizer."""
    torch.manual_seed(0)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=models.base.tokenizer.backend_tokenizer,
        mask_token="</s>",  # noqa: S106
        bos_token="<s>",  # noqa: S106
    )
    save_masked(tmp_path / "bert", 1.0)
    tokenizer.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def save_masked(folder: Path, scale: float) -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=512, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    model = BertForMaskedLM(config)
    with torch.no_grad():
        model.cls.predictions.bias.copy_(scale * torch.randn(512))
    model.save_pretrained(folder)
    MaskedModel.load.cache_clear()  # as in another process


def test_neighbours_differ_in_a_few_tokens(masked_folder: Path, models: SmallModels) -> None:
    records = records_of(models.members[:3])
    program = MaskedNeighbours(str(masked_folder), copies=2)
    one, two = program.ask(models.base, records)
    again, _ = program.ask(models.base, records)
    (plain,) = Identity().ask(models.base, records)
    assert_equal(one, again)
    assert not np.array_equal(one.token, two.token)
    assert not np.array_equal(one.token, plain.token)
    masked = MaskedModel.load(str(masked_folder))
    text = models.members[0]
    before = masked.tokenizer(text)["input_ids"]
    after = masked.tokenizer(masked.neighbour(text, 0.1, 10, np.random.default_rng(0)))["input_ids"]
    assert sorted(set(before) - set(after)) != []
    assert abs(len(after) - len(before)) <= 0.3 * len(before)


def test_the_key_of_neighbours_follows_the_masked_models_weights(masked_folder: Path) -> None:
    program = MaskedNeighbours(str(masked_folder), copies=2)
    first = program.key
    assert first == MaskedNeighbours(str(masked_folder), copies=2).key != MaskedNeighbours(str(masked_folder)).key
    save_masked(masked_folder, 2.0)
    assert program.key != first
    save_masked(masked_folder, 1.0)
    assert program.key == first


def test_neighbours_need_a_masked_model(models: SmallModels, tmp_path: Path) -> None:
    with pytest.raises(AttackError, match="neighbour:masked_model="):
        MaskedNeighbours().ask(models.base, records_of(["text"]))
    with pytest.raises(TargetError, match="cannot be loaded"):
        MaskedNeighbours(str(tmp_path)).ask(models.base, records_of(["text"]))


def test_a_masked_model_without_its_head_is_refused(masked_folder: Path, models: SmallModels) -> None:
    weights = load_file(masked_folder / "model.safetensors")
    kept = {name: one for name, one in weights.items() if "transform" not in name}
    save_file(kept, masked_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TargetError, match="random"):
        MaskedNeighbours(str(masked_folder)).ask(models.base, records_of(["text"]))
