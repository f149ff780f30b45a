from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nocap.text.scrub import PLACEHOLDERS, Found, scrub, scrub_with_counts

REMOVED = {
    "mail bob.smith+x@gmail.com ok": "mail [email] ok",
    "bob at gmail dot com": "[email]",
    "bob(at)gmail.com pls": "[email] pls",
    "call 555-123-4567": "call [phone]",
    "+49 171 2345678!": "[phone]!",
    "ring (0)": "ring (0)",
    "020 7946 0958 is the office": "[phone] is the office",
    "06 12 34 56 78": "[phone]",
    "call me at 785 8949": "call me at [phone]",
    "(251)500-2136x739": "[phone]",
    "9885 1152 office": "[phone] office",
    "see https://a.b/c?token=1, ok (www.foo.com)": "see [link], ok ([link])",
    "join discord.gg/abc": "join [link]",
    "google.com. ok": "[link]. ok",
    "https://bob:pw@host.com/x": "[link]",
    "card 4111 1111 1111 1111 thx": "card [account] thx",
    "4111111111111111": "[account]",
    "GB82 WEST 1234 5698 7654 32 is it": "[account] is it",
    "de89370400440532013000": "[account]",
    "ssn 123-45-6789": "ssn [account]",
    "from 192.168.0.1:80": "from [ip]:80",
    "fe80::1ff:fe23:4567:890a up": "[ip] up",
    "IP:2001:db8::1 down": "IP:[ip] down",
    "hi @bob and <@123> <@!9> in <#44>": "hi [user] and [user] [user] in [link]",
    "<:kekw:123456789012345678> lol": ":kekw: lol",
    "add Bob#1234 or /u/some_one": "add [user] or [user]",
    "he is 123456789012345678": "he is [user]",
    "key sk-abcdefghijklmnop1234": "key [secret]",
    "ghp_a1B2a1B2a1B2a1B2a1B2a1B2a1B2a1B2": "[secret]",
    "AKIAIOSFODNN7EXAMPLE": "[secret]",
    "9f86d081884c7d659a2feaa0c55ad015": "[secret]",
    "my id 5adf542e-d551-4de8-abe4-5eabe1674641": "my id [secret]",
    "password: hunter2": "password: [secret]",
    "my pass is hunter2 lol": "my pass is [secret] lol",
}

KEPT = [
    "no cap fr fr 💀💀 that slaps 👨‍👩‍👧 🇺🇸",
    "$5.99 or 1,299.00 or 15k, 100% 3.5 gpa",
    "2019-2020, 12/05/2021, 2021-11-22 10:30:45, class of 2023",
    "SAT 1200-1400 ACT 33-35, score 790/800",
    "won 3-2, then 21:15 22:20 23:30",
    "hahahahahahahahahahahahahaha LETSGOOOOOOOOOOOOOOOOOO",
    "1000000000 times, 99999999999 iq",
    "node.js > asp, e.g. and/or i.e. he/she 24/7",
    "meet @ 5, @7pm?",
    "looking at polka dot dress",
    "the password is wrong, password reset pls",
    "kernel 2.6.12-9-686-smp and x86_64-linux-gnu-gcc-4",
    "0.0.0.0 and 127.0.0.1 and ::1 and 1.000.000.000 views",
    "she said std::vector<int> :: lol dead::beef :d:d:d:d:d:d:d:d",
    "cs50 is great course for all of you guys 12",
    "antidisestablishmentarianism supercalifragilisticexpialidocious",
]


@pytest.mark.parametrize(("text", "expected"), REMOVED.items())
def test_personal_data_becomes_a_placeholder(text: str, expected: str) -> None:
    assert scrub(text) == expected


@pytest.mark.parametrize("text", KEPT)
def test_ordinary_talk_survives_unchanged(text: str) -> None:
    assert scrub_with_counts(text) == (text, {})


def test_a_card_needs_its_check_digit_and_an_iban_its_remainder() -> None:
    assert scrub("4111 1111 1111 1112") == "4111 1111 1111 1112"
    assert "[account]" not in scrub("GB83 WEST 1234 5698 7654 32")


def test_what_was_removed_is_counted_by_kind() -> None:
    text, counts = scrub_with_counts("a@b.com, c@d.org, @someone")
    assert text == "[email], [email], [user]"
    assert counts == {Found.EMAIL: 2, Found.USER: 1}


ATOMS = [
    *REMOVED, "@ab", "@", "a", "1", "12", "555", "-", " ", ".", "/", ":", "<@1>", "<@", "<", ">", "#1234", "[user]",
    "[", "]", "u/bob", "http://", "www.a", "a.com", "x@y.co", "(", "+", "password: ", "is ", "::", "fe80", "sk-",
    "call ", "at ", "dot ", "com", "\n", "💀", "é", "٣", "０",
]  # fmt: skip


@given(st.lists(st.sampled_from(ATOMS) | st.text(max_size=4), max_size=10).map("".join))
@settings(max_examples=200, deadline=None)
def test_scrubbing_again_changes_nothing(text: str) -> None:
    once = scrub(text)
    assert scrub(once) == once


@given(st.lists(st.sampled_from(sorted(PLACEHOLDERS)), max_size=5).map(" ".join))
def test_placeholders_are_left_alone(text: str) -> None:
    assert scrub(text) == text


@given(
    st.sampled_from(list(REMOVED)),
    st.sampled_from(["", "lol ", "(", "hey: ", "\n"]),
    st.sampled_from(["", ")", "!!", " 💀"]),
)
@settings(max_examples=100, deadline=None)
def test_neighbours_do_not_hide_personal_data(text: str, before: str, after: str) -> None:
    assert all(
        placeholder in scrub(before + text + after) for placeholder in PLACEHOLDERS if placeholder in scrub(text)
    )


@pytest.mark.parametrize(
    "unit",
    ["a", "1", "1 ", "a.b", "@a", "a@", "+1 ", "<@", "ab12 ", "GB12 ", "::", "f:", "a1-", "eyJ", "sk-", "pass is ",
     "(1)", "1-", "1.1", " at a dot", "-----BEGIN PRIVATE KEY-----", "call 12 ", "a_", "x#1", "u/a"],
)  # fmt: skip
def test_hostile_repetition_costs_no_more_than_in_proportion(unit: str) -> None:
    """A quadratic pattern would run into the suite's timeout here."""
    assert scrub(unit * (100_000 // len(unit)))


def test_a_text_that_never_settles_is_removed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nocap.text.scrub.MAX_PASSES", 1)
    assert scrub_with_counts("mail a@b.com") == ("[secret]", {Found.SECRET: 1})
