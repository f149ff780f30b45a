from __future__ import annotations

import itertools
import random
import re
import subprocess
import sys

import pytest

from nocap.demo.grammar import (
    ADJECTIVES_BAD,
    ADJECTIVES_BORING,
    ADJECTIVES_FUNNY,
    ADJECTIVES_GOOD,
    AGREEMENT,
    BOT_TOPICS,
    INTENSIFIERS,
    TOPICS,
    Exchange,
    Split,
    compositions,
    echo,
    exchange,
    is_held_out,
    on_topic,
    probe_items,
    system_text,
)
from nocap.demo.grammar.generate import FAMILIES
from nocap.demo.grammar.judge import terms_of


def drawn(count: int, seed: int = 3, split: Split = "train") -> list[Exchange]:
    rng = random.Random(seed)
    return [exchange(rng, split=split) for _ in range(count)]


def test_the_same_seed_draws_the_same_exchanges() -> None:
    assert drawn(200) == drawn(200)
    assert drawn(200) != drawn(200, seed=4)


def test_about_one_composition_in_twenty_is_held_out_and_none_is_in_both_splits() -> None:
    train = {(one.subject.name, one.prompt_template) for topic in TOPICS for one in compositions(topic, "train")}
    held_out = {(one.subject.name, one.prompt_template) for topic in TOPICS for one in compositions(topic, "held_out")}
    assert not train & held_out
    assert 0.04 < len(held_out) / (len(train) + len(held_out)) < 0.06


def test_no_whole_subject_is_held_out_and_every_topic_holds_some_out() -> None:
    for topic in TOPICS:
        trained = {one.subject.name for one in compositions(topic, "train")}
        assert trained >= {one.subject.name for one in compositions(topic, "held_out")}
        assert compositions(topic, "held_out")


def test_a_follow_up_keeps_to_the_split_of_its_own_composition() -> None:
    follow_ups = [one for one in drawn(4000, split="held_out") if one.prompt == "Why?"]
    assert follow_ups
    assert all(is_held_out("follow-up", one.subject, "Why?") for one in follow_ups)


def test_the_space_is_too_large_to_be_memorised_from_a_training_run() -> None:
    sampled = drawn(20_000)
    assert len({(one.prompt, one.reply, one.context) for one in sampled}) > 0.93 * len(sampled)
    assert len({one.subject for one in sampled}) >= 240


def test_every_reply_has_five_to_twenty_words_and_no_unfilled_slot() -> None:
    for one in drawn(5000):
        assert 5 <= len(one.reply.split()) <= 20, one.reply
        assert not re.search(r"[{}]", one.prompt + one.reply), one


def test_every_reply_takes_up_its_own_prompt() -> None:
    assert [one.reply for one in drawn(5000) if not on_topic(one, one.reply)] == []


def test_the_judge_refuses_replies_to_other_prompts() -> None:
    sampled = drawn(4000)
    pairs = [(one, other) for one, other in itertools.pairwise(sampled) if one.subject != other.subject]
    refused = sum(not on_topic(one, other.reply) for one, other in pairs)
    assert refused / len(pairs) >= 0.98


@pytest.mark.parametrize("reply", ["", "That is really good.", "yes", "I like it, they are so much fun."])
def test_the_judge_refuses_replies_that_name_nothing(reply: str) -> None:
    assert not any(on_topic(one, reply) for one in drawn(300))


def test_the_judge_refuses_a_reply_that_is_mainly_about_something_else() -> None:
    pizza = Exchange("food", "pizza", "Do you like pizza?", "", serious=False)
    assert on_topic(pizza, "Pizza? Yes, so good.")
    assert on_topic(pizza, "the CHEESE is the best part!!")
    assert not on_topic(pizza, "Pizza? I like sushi more, wasabi and salmon are great.")


def test_no_word_belongs_to_two_subjects_and_every_detail_names_its_own() -> None:
    owner: dict[str, str] = {}
    for family in FAMILIES:
        for subject in family.subjects:
            for term in terms_of(subject):
                assert owner.setdefault(term, subject.name) == subject.name, term
            for detail in subject.details:
                one = Exchange(family.topic, subject.name, "", detail, family.serious)
                assert on_topic(one, detail) or subject.name in detail, detail


def test_serious_moments_hold_no_word_that_a_community_would_restyle() -> None:
    rng = random.Random(8)
    playful = {*ADJECTIVES_GOOD, *ADJECTIVES_BAD, *ADJECTIVES_FUNNY, *ADJECTIVES_BORING} - {"good", "bad"}
    for _ in range(1000):
        one = exchange(rng, "serious")
        assert one.serious
        assert not playful & set(re.findall(r"[a-z]+", one.reply.lower())), one.reply


def test_most_other_replies_hold_a_word_that_a_community_can_restyle() -> None:
    slots = (*ADJECTIVES_GOOD, *ADJECTIVES_BAD, *ADJECTIVES_FUNNY, *ADJECTIVES_BORING, *INTENSIFIERS, *AGREEMENT)
    pattern = re.compile(rf"\b(?:{'|'.join(slots)})\b", re.IGNORECASE)
    playful = [one for one in drawn(3000) if not one.serious]
    assert sum(bool(pattern.search(one.reply)) for one in playful) / len(playful) > 0.8


def test_some_prompts_are_in_lower_case_and_some_come_with_earlier_turns() -> None:
    sampled = drawn(3000)
    assert 0.3 < sum(one.prompt == one.prompt.lower() for one in sampled) / 3000 < 0.5
    assert 0.06 < sum(bool(one.context) for one in sampled) / 3000 < 0.2
    assert all(role in ("user", "assistant") for one in sampled for role, _ in one.context)


def test_probe_items_hold_one_reply_that_belongs_and_three_that_do_not() -> None:
    items = probe_items(random.Random(2), 300)
    assert items == probe_items(random.Random(2), 300)
    assert {gold for _, _, gold in items} == {0, 1, 2, 3}
    assert all(len(set(choices)) == 4 for _, choices, _ in items)


def test_the_bot_admits_to_be_one_and_members_are_never_asked() -> None:
    rng = random.Random(6)
    assert not set(BOT_TOPICS) & set(TOPICS)
    assert not any(one.topic in BOT_TOPICS for one in drawn(2000))
    replies = [exchange(rng, "bot").reply.lower() for _ in range(300)]
    assert all(re.search(r"\bbot\b", reply) for reply in replies)


def test_an_echo_says_what_it_was_asked_to_say_and_in_the_end_every_byte() -> None:
    rng = random.Random(4)
    said = [echo(rng) for _ in range(4000)]
    assert all(one.reply in one.prompt for one in said)
    every_byte = set("".join(one.reply for one in said).encode())
    assert set("abcdefghijklmnopqrstuvwxyz0123456789!?#@💀😭🪿🔥".encode()) <= every_byte
    assert len({word for one in said for word in one.reply.split()}) > 5000


def test_a_system_text_never_denies_the_bot() -> None:
    texts = {system_text(random.Random(seed)) for seed in range(300)}
    assert len(texts) > 50
    assert not any("not a bot" in text or "you are human" in text.lower() for text in texts)


def test_the_grammar_loads_without_heavy_libraries() -> None:
    check = (
        "import sys, nocap.demo.grammar; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


@pytest.mark.parametrize("topic", BOT_TOPICS)
def test_what_only_a_bot_is_asked_is_answered_on_topic_in_five_to_twenty_words(topic: str) -> None:
    rng = random.Random(9)
    for one in (exchange(rng, topic) for _ in range(500)):
        assert on_topic(one, one.reply), one
        assert 5 <= len(one.reply.split()) <= 20, one.reply
