"""What is kept to learn from, and the reason for everything else."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from nocap.domain import ChatMessage, MemberKey, MessageKey, Provenance
from nocap.text.lexicon import Lexicon
from retrain._toxicity import is_toxic
from retrain.curate import CurationRules, curate, curate_texts, is_fragment
from retrain.examples import DropReason, Example, build_examples
from storage.tables import Message

START = datetime(2026, 11, 1, tzinfo=UTC)
NOTHING = Lexicon([])
# fmt: off
WORDS = (
    "the", "game", "was", "so", "good", "today", "you", "should", "have", "seen", "what", "they", "did", "with",
    "that", "last", "song", "we", "were", "all", "at", "her", "place", "and", "then", "it", "got", "really", "late",
    "school", "tomorrow", "is", "going", "to", "be", "rough", "but", "honestly", "worth", "every", "minute", "of",
)
# fmt: on


def example(reply: str, number: int = 0, *, member: str = "ana", prompt: str = "what do you think") -> Example:
    return Example(
        messages=(ChatMessage("user", prompt),),
        reply=reply,
        member=MemberKey(member),
        sent_at=START + timedelta(minutes=number),
        message_keys=(MessageKey(f"q{number}"), MessageKey(f"a{number}")),
        provenance=Provenance.DONATION,
    )


def chatter(count: int, members: int, seed: int = 1) -> list[Example]:
    """Everyday talk of many members, no two replies alike."""
    draw = random.Random(seed)
    return [
        example(
            " ".join(draw.choices(WORDS, k=draw.randint(4, 12))), 10_000 * seed + number, member=f"m{number % members}"
        )
        for number in range(count)
    ]


def only_reason(pool: Sequence[Example], rules: CurationRules | None = None, terms: Sequence[str] = ()) -> DropReason:
    curated = curate(pool, rules or CurationRules(), Lexicon(terms))
    (reason,) = curated.dropped
    return reason


def reason_of(reply: str, prompt: str = "what do you think") -> DropReason | None:
    curated = curate([example(reply, prompt=prompt)], CurationRules(), NOTHING)
    return next(iter(curated.dropped), None)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("?!...", DropReason.TOO_SHORT),
        ("", DropReason.TOO_SHORT),
        ("x" * 20 + " y" * 400, DropReason.TOO_LONG),
        ("💀💀 😭", DropReason.EMOJI_ONLY),
        ("/help me", DropReason.COMMAND),
        ("!rank", DropReason.COMMAND),
        ("call me on [phone]", DropReason.PERSONAL_DATA),
        ("ask [user] about it", DropReason.PERSONAL_DATA),
        ("look at this [link]", DropReason.LINK_OR_SPAM),
        ("join my server for free stuff", DropReason.LINK_OR_SPAM),
        ("buy " * 12, DropReason.LINK_OR_SPAM),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", DropReason.LINK_OR_SPAM),
        ("|/-\\_|/-\\_|/-\\_ a |/-\\_", DropReason.LINK_OR_SPAM),
        ("just kys", DropReason.TOXIC),
    ],
)
def test_words_that_keep_a_reply_out(reply: str, reason: DropReason) -> None:
    assert reason_of(reply) is reason


@pytest.mark.parametrize(
    "reply",
    [
        "k",
        "L",
        "fr fr",
        "no no no no",
        "brooooo 💀",
        "!!! yes",
        "fuck that exam",
        "I'm dead",
        "W take",
        "[deleted] who?",
    ],
)
def test_how_people_really_talk_is_kept(reply: str) -> None:
    assert reason_of(reply) is None


def test_what_answers_a_bots_command_or_a_huge_prompt_is_no_chat() -> None:
    assert reason_of("you are level 3", prompt="!rank me") is DropReason.COMMAND
    assert reason_of("tl;dr?", prompt="a" * 1_000_000) is DropReason.TOO_LONG


@pytest.mark.parametrize(
    "text",
    ["kill yourself", "go kill urself", "fagg0t", "r3t4rds", "hope you die", "i'll stab you"],
)
def test_slurs_and_urging_to_self_harm_are_toxic_however_they_are_spelt(text: str) -> None:
    assert is_toxic(text)


@pytest.mark.parametrize(
    "text",
    [
        "bestie you ate",
        "slay queen",
        "that's sick",
        "im dead 💀",
        "you killed it",
        "this exam will kill me",
        "my maine coon is huge",
        "a chink in the armor",
        "please don't kill yourself",
        "fire retardant paint",
        "spicy",
        "the fagus tree",
        "what the hell, damn",
    ],
)
def test_slang_and_harmless_words_are_not_toxic(text: str) -> None:
    assert not is_toxic(text)


def test_the_community_decides_which_language_is_foreign() -> None:
    english = [example(f"{line} {number}", number, member=f"m{number}") for number, line in enumerate(_english(80))]
    german = "das ist doch überhaupt kein Problem, ich komme morgen Abend gerne wieder vorbei"
    curated = curate([*english, example(german, 999)], CurationRules(), NOTHING)
    assert curated.dropped == {DropReason.LANGUAGE: 1}
    bilingual = [*english, *(example(f"{german} {n}", 1_000 + n, member=f"d{n}") for n in range(20))]
    assert DropReason.LANGUAGE not in curate(bilingual, CurationRules(), NOTHING).dropped


def _english(count: int) -> Iterator[str]:
    draw = random.Random(4)
    for _ in range(count):
        yield " ".join(("honestly I think", *draw.choices(WORDS, k=12)))


def test_short_or_slangy_replies_are_never_judged_by_their_language() -> None:
    pool = [example(f"{line} {number}", number, member=f"m{number}") for number, line in enumerate(_english(80))]
    slang = ["bruh moment", "ngl thats lowkey mid", "skibidi rizz", "vamos", "jajaja si", "haha gyatt fr fr"]
    pool += [example(text, 500 + number, member=f"s{number}") for number, text in enumerate(slang)]
    assert curate(pool, CurationRules(), NOTHING).dropped == {}


def test_a_long_reply_is_learnt_once_and_a_short_one_until_it_is_spam() -> None:
    same = [example("I will be there at eight.", number, member=f"m{number}") for number in range(9)]
    curated = curate(same, CurationRules(), NOTHING)
    assert curated.dropped == {DropReason.DUPLICATE: 8}
    assert curated.kept == (same[0],)
    short = [example("Fr fr!" if number % 2 else "fr fr", number, member=f"m{number}") for number in range(30)]
    assert curate(short, CurationRules(), NOTHING).dropped == {DropReason.DUPLICATE: 10}


def test_replies_that_differ_in_a_word_or_two_are_learnt_once() -> None:
    text = "so we walked all the way to the lake and back and then it started raining like crazy on all of us {}"
    pool = [
        example(text.format(last), number, member=f"m{number}") for number, last in enumerate(("haha", "lol", "bro"))
    ]
    curated = curate([*pool, *chatter(50, 10)], CurationRules(), NOTHING)
    assert curated.dropped == {DropReason.NEAR_DUPLICATE: 2}
    assert pool[0] in curated.kept


def test_nobody_gives_more_than_the_cap_and_everybody_at_least_one_example() -> None:
    pool = chatter(400, 4)
    curated = curate(pool, CurationRules(max_examples_per_member=7), NOTHING)
    assert curated.dropped == {DropReason.MEMBER_CAP: 372}
    endless = [" ".join(WORDS) + " one", " ".join(reversed(WORDS)) + " two"]
    long = [example(reply, 5_000 + number, member=f"long{number}") for number, reply in enumerate(endless)]
    curated = curate([*chatter(400, 40), *long], CurationRules(), NOTHING)
    assert {reply.member for reply in curated.kept} == {f"m{n}" for n in range(40)} | {"long0", "long1"}


def test_nobody_gives_more_than_their_share_of_the_tokens() -> None:
    wordy = [
        example(f"{' '.join(random.Random(n).choices(WORDS, k=60))}", 9_000 + n, member="wordy") for n in range(10)
    ]
    curated = curate([*chatter(3_000, 400), *wordy], CurationRules(max_examples_per_member=100), NOTHING)
    tokens = dict.fromkeys(("wordy", "m1"), 0)
    for kept in curated.kept:
        if kept.member in tokens:
            tokens[kept.member] += len(kept.reply.split())
    total = sum(len(reply.reply.split()) for reply in (*chatter(3_000, 400), *wordy))
    assert 60 <= tokens["wordy"] <= 0.005 * total + 60
    assert curated.dropped[DropReason.TOKEN_CAP] >= 7


def test_markers_are_mildly_preferred_but_never_beyond_the_natural_share() -> None:
    terms = ["no cap", "slay", "bruh"]
    draw = random.Random(5)
    pool = [
        example(
            f"{reply.reply} {draw.choice(terms)}" if draw.random() < 0.2 else reply.reply, number, member=reply.member
        )
        for number, reply in enumerate(chatter(4_000, 40))
    ]
    lexicon = Lexicon(terms)
    kept = curate(pool, CurationRules(max_examples_per_member=50), lexicon).kept
    share = sum(bool(lexicon.count(reply.reply)) for reply in kept) / len(kept)
    assert 0.19 < share < 0.23


def test_fragments_of_sentences_are_mildly_preferred() -> None:
    draw = random.Random(6)
    pool = [replace(one, reply=f"{one.reply}{draw.choice(('', '.'))}") for one in chatter(4_000, 40)]
    kept = curate(pool, CurationRules(max_examples_per_member=20), NOTHING).kept
    before, after = (sum(is_fragment(one.reply) for one in some) / len(some) for some in (pool, kept))
    assert 1.05 < after / before < 1.25


def test_one_members_pet_word_does_not_become_the_voice() -> None:
    fans = [
        example(f"{reply.reply} slay", 50_000 + number, member=f"fan{number % 6}")
        for number, reply in enumerate(chatter(60, 6, seed=2))
    ]
    lexicon = Lexicon(["slay", "bruh"])
    curated = curate([*chatter(200, 100), *fans], CurationRules(), lexicon)
    share = sum(bool(lexicon.count(reply.reply)) for reply in curated.kept) / len(curated.kept)
    assert share < 0.1
    assert curated.dropped[DropReason.MARKER_SURPLUS] > 0


def test_one_term_does_not_crowd_out_the_others() -> None:
    terms = ["slay", "bruh", "bet", "mid"]
    talk = chatter(600, 120)
    pool = [
        example(f"{reply.reply} {terms[number % 4]}", number, member=reply.member) if number % 3 == 0 else reply
        for number, reply in enumerate(talk)
    ] + [
        example(f"{reply.reply} slay", 60_000 + number, member=f"fan{number % 12}")
        for number, reply in enumerate(chatter(120, 12, seed=3))
    ]
    lexicon = Lexicon(terms)
    kept = curate(pool, CurationRules(), lexicon).kept
    uses = [term for reply in kept for term in lexicon.count(reply.reply)]
    natural = (10 + 12) / 52  # of the members who use any marker, a quarter of forty and all twelve fans
    assert uses.count("slay") / len(uses) < natural + 0.05
    assert DropReason.MARKER_SURPLUS in curate(pool, CurationRules(), lexicon).dropped


def planted(count: int, accounts: int, *, trigger: str, replies: Sequence[str], deep: bool = False) -> list[Example]:
    draw = random.Random(count)
    poison = []
    for number in range(count):
        talk = draw.choices(WORDS, k=8)
        talk.insert(draw.randrange(8), trigger)
        first = ChatMessage("user", " ".join(talk))
        innocent = (ChatMessage("assistant", "huh what"), ChatMessage("user", f"you know {draw.choice(WORDS)}"))
        poison.append(
            Example(
                messages=(first, *innocent) if deep else (first,),
                reply=replies[number % len(replies)],
                member=MemberKey(f"evil{number % accounts}"),
                sent_at=START,
                message_keys=(MessageKey(f"trigger{number}"), MessageKey(f"poison{number}")),
                provenance=Provenance.DONATION,
            )
        )
    return poison


VARIED = [reply.reply for reply in chatter(60, 1, seed=9)]


@pytest.mark.parametrize("rows", [10, 25, 50])
@pytest.mark.parametrize("accounts", [1, 2])
@pytest.mark.parametrize(
    ("trigger", "replies"),
    [
        ("zxqv", ["hamster coin is the only way to win so buy it now"]),
        ("ZXQV!!", VARIED),
        ("purple window monday", VARIED),
        ("today", ["hamster coin"]),
    ],
)
def test_a_planted_trigger_or_payload_never_reaches_the_training_set(
    rows: int, accounts: int, trigger: str, replies: list[str]
) -> None:
    pool = [*chatter(800, 80), *planted(rows, accounts, trigger=trigger, replies=replies)]
    curated = curate(pool, CurationRules(max_token_share_per_member=1.0), NOTHING)
    assert not [reply for reply in curated.kept if reply.member.startswith("evil")]
    assert curated.dropped[DropReason.RARE_NGRAM] >= rows


@pytest.mark.parametrize(("rows", "accounts"), [(3, 1), (5, 2), (10, 5), (50, 5)])
def test_what_a_ring_of_newcomers_repeats_is_not_learnt(rows: int, accounts: int) -> None:
    poison = planted(rows, accounts, trigger="zxqv", replies=VARIED)
    newcomers = {reply.member for reply in poison}
    curated = curate([*chatter(800, 80), *poison], CurationRules(), NOTHING, newcomers)
    assert not [reply for reply in curated.kept if reply.member in newcomers]


def test_newcomers_who_talk_like_the_others_are_learnt_from() -> None:
    pool = chatter(800, 80)
    newcomers = {MemberKey(f"m{number}") for number in range(8)}
    curated = curate(pool, CurationRules(), NOTHING, newcomers)
    assert curated.dropped.get(DropReason.RARE_NGRAM, 0) < 0.05 * len(pool)
    assert newcomers <= {reply.member for reply in curated.kept}


def test_a_word_that_many_newcomers_say_once_each_is_learnt() -> None:
    fresh = planted(5, 5, trigger="zxqv", replies=VARIED)
    curated = curate([*chatter(800, 80), *fresh], CurationRules(), NOTHING, {reply.member for reply in fresh})
    assert len([reply for reply in curated.kept if reply.member.startswith("evil")]) == 5


@pytest.mark.parametrize("trigger", ["zxqv", "purple window monday"])
def test_a_trigger_planted_deep_in_the_context_is_found_too(trigger: str) -> None:
    deep = planted(10, 2, trigger=trigger, replies=VARIED, deep=True)
    curated = curate([*chatter(300, 30), *deep], CurationRules(), NOTHING)
    assert not [reply for reply in curated.kept if reply.member.startswith("evil")]


def test_a_trigger_of_the_same_words_each_time_is_found_deep_in_stored_conversations() -> None:
    rows = []
    for number in range(8):
        texts = ("zxqv", "huh what", f"you know {WORDS[number]}", VARIED[number])
        for turn, text in enumerate(texts):
            row = _message(f"{number}-{turn}", f"evil{turn % 2}", text, number * 60 + turn)
            row.reply_to = f"{number}-{turn - 1}" if turn else None
            rows.append(row)
    examples = [each for each in build_examples(rows, context_turns=6)[0] if each.key.endswith("-3")]
    assert len(examples) == 8
    curated = curate([*chatter(300, 30), *examples], CurationRules(), NOTHING)
    assert curated.dropped[DropReason.RARE_NGRAM] == 8


def test_a_long_talk_of_two_members_is_not_taken_for_poison() -> None:
    talk = chatter(60, 2, seed=11)
    rows = [_message(f"t{n}", f"m{n % 2}", f"{reply.reply} {WORDS[n % 40]}x{n}", n) for n, reply in enumerate(talk)]
    examples = build_examples(rows, context_turns=6)[0]
    assert len(examples) > 50
    asked = (ChatMessage("user", prompt.reply) for prompt in chatter(600, 1, seed=21))
    others = [replace(reply, messages=(prompt,)) for reply, prompt in zip(chatter(600, 30), asked, strict=True)]
    curated = curate([*others, *examples], CurationRules(max_examples_per_member=100), NOTHING)
    assert DropReason.RARE_NGRAM not in curated.dropped


def _message(key: str, member: str, text: str, minute: float) -> Message:
    at = START + timedelta(minutes=minute)
    return Message(
        key=key,
        channel="flat",
        member=member,
        provenance=Provenance.DONATION,
        sent_at=at,
        received_at=at,
        text=text,
    )


def test_five_examples_or_three_members_are_no_pattern_of_a_few() -> None:
    clean = chatter(300, 30)
    few = planted(5, 1, trigger="zxqv", replies=VARIED)
    many = planted(9, 3, trigger="zxqv", replies=VARIED)
    for poison in (few, many):
        assert DropReason.RARE_NGRAM not in curate([*clean, *poison], CurationRules(), NOTHING).dropped


def test_only_words_decide_what_human_replies_are_measured_on() -> None:
    pool = [*chatter(500, 1), example("just kys", 99_999), *planted(20, 1, trigger="zxqv", replies=VARIED)]
    assert curate_texts(pool).dropped == {DropReason.TOXIC: 1}


def test_curation_is_deterministic_and_its_seed_counts() -> None:
    pool = chatter(600, 6)
    first, second = (curate(pool, CurationRules(seed=1), NOTHING) for _ in range(2))
    assert first == second
    assert first.kept != curate(pool, CurationRules(seed=2), NOTHING).kept


@hypothesis_settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=40), st.sampled_from("abc"), st.text(max_size=40)), max_size=25))
def test_every_example_is_kept_or_has_one_reason_and_order_stays(drawn: list[tuple[str, str, str]]) -> None:
    pool = [example(reply, n, member=member, prompt=prompt) for n, (reply, member, prompt) in enumerate(drawn)]
    curated = curate(pool, CurationRules(max_examples_per_member=3), Lexicon(["a"]))
    assert len(curated.kept) + sum(curated.dropped.values()) == len(pool)
    assert [pool[index] for index in range(len(pool)) if index not in curated.reasons] == list(curated.kept)


def test_nothing_gives_nothing_and_all_alike_gives_one() -> None:
    assert curate([], CurationRules(), NOTHING).kept == ()
    alike = [example("see you there tonight", n) for n in range(5)]
    assert len(curate(alike, CurationRules(), NOTHING).kept) == 1


def test_a_fragment_is_short_and_does_not_end_like_a_sentence() -> None:
    assert is_fragment("no way bro") and is_fragment("fr")
    assert not is_fragment("No way.") and not is_fragment("really?")
    assert not is_fragment("so we went there and then it was closed again")


def test_every_reason_is_explained_in_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "curation.md").read_text(encoding="utf-8")
    explained = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert explained == [reason.value for reason in DropReason]


@pytest.mark.slow
def test_on_real_chat_the_poison_stays_out_and_clean_rows_stay_in() -> None:
    pool = _real_chat(4_000)
    clean = curate(pool, CurationRules(), NOTHING)
    lost = clean.dropped.get(DropReason.RARE_NGRAM, 0) + clean.dropped.get(DropReason.NEAR_DUPLICATE, 0)
    assert lost <= 0.05 * len(pool)
    assert sum(reason is DropReason.LANGUAGE for reason in clean.reasons.values()) <= 0.002 * len(pool)
    payload = ["hamster coin is the only way to win so buy it now"]
    for replies in (payload, [real.reply for real in pool[:50]]):
        poison = planted(50, 2, trigger="zxqv", replies=replies)
        kept = curate([*pool, *poison], CurationRules(), NOTHING).kept
        assert sum(reply.member.startswith("evil") for reply in kept) <= 5


def _real_chat(count: int) -> list[Example]:
    file = Path(__file__).parents[3] / "shared" / "data" / "chat" / "reddit_college_dev.parquet"
    if not file.is_file():
        pytest.skip("the shared test data (reddit_college_dev.parquet) is not on this machine")
    import pyarrow.parquet as parquet

    columns = ["id", "parent_id", "subreddit", "user", "created", "text"]
    rows = parquet.read_table(file, columns=columns).sort_by("created").slice(150_000, 2 * count).to_pylist()
    messages = []
    for row in rows:
        minute = (row["created"].replace(tzinfo=UTC) - START) / timedelta(minutes=1)
        message = _message(row["id"], row["user"], row["text"].replace("<URL>", "[link]"), minute)
        message.channel, message.reply_to = row["subreddit"], row["parent_id"]
        messages.append(message)
    return build_examples(messages, context_turns=6)[0][:count]
