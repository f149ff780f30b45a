"""The base's own replies among the examples: how many, whose words, and the same again."""

from __future__ import annotations

from inference.base_model import load_base
from inference.prompt import chat_messages, render
from nocap.domain import Provenance, SamplingOptions
from nocap.settings import EMBEDDED_BASE
from retrain.train.base_replies import BASE_MEMBER, base_replies
from tests.inference.server import tiny
from tests.retrain.train.tiny import build_examples

EXAMPLES = build_examples(30)
PROMPT = "You are the bot of this chat."
GREEDY = SamplingOptions(temperature=0.0, max_tokens=64)


def _replies(*, share=0.25, seed=7):
    told = []
    found = base_replies(
        str(EMBEDDED_BASE),
        "none",
        "cpu",
        PROMPT,
        EXAMPLES,
        share=share,
        sampling=GREEDY,
        seed=seed,
        progress=lambda done, wanted: told.append((done, wanted)),
    )
    return found, told


def test_they_are_their_share_of_the_whole_set_and_nobodys_words():
    found, told = _replies()
    assert told[-1] == (10, 10) and 8 <= len(found) <= 10  # a reply that does not come to its end is left out
    assert {(one.member, one.provenance) for one in found} == {(BASE_MEMBER, Provenance.SYNTHETIC)}
    assert {one.messages for one in found} <= {example.messages for example in EXAMPLES}
    assert _replies(share=0.0) == ([], [])


def test_they_are_what_the_base_says_to_the_same_prompt():
    found, _ = _replies()
    tokenizer = load_base(str(EMBEDDED_BASE), quantization="none", device="cpu").tokenizer
    prompts = [
        render(tokenizer, chat_messages(PROMPT, (), one.messages, glossary_tokens=0), add_generation_prompt=True)
        for one in found[:3]
    ]
    said = tiny.reference(EMBEDDED_BASE, prompts, GREEDY.max_tokens)
    assert [one.reply for one in found[:3]] == [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in said]


def test_the_same_seed_asks_the_same_and_another_seed_others():
    keys = [[one.key for one in _replies(seed=seed)[0]] for seed in (7, 7, 8)]
    assert keys[0] == keys[1] != keys[2]
