"""A word that comes to mean something else is told by its company; one person's habit and steady words are not."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from nocap.domain import ChannelKey, MemberKey
from retrain.shifted import shifted_words
from retrain.slang import Use

AS_OF = datetime(2026, 11, 1, tzinfo=UTC)
FILLER = ("today", "the", "really", "with", "was", "again", "my", "so", "this", "that", "we", "just", "and", "now")
WEATHER, PRAISE = ("rain", "cold", "winter", "storm"), ("song", "album", "verse", "beat")
FURNITURE = ("chair", "table", "couch", "lamp")


def _uses(rng, word, company, weeks_ago, count, members) -> list[Use]:
    made = []
    for number in range(count):
        middle = [rng.choice(company), word, rng.choice(company)]
        text = " ".join([rng.choice(FILLER), *middle, rng.choice(FILLER)])
        at = AS_OF - timedelta(weeks=weeks_ago) - timedelta(hours=number % 160)
        made.append(Use(MemberKey(members[number % len(members)]), ChannelKey(f"c{number % 3}"), at, text))
    return made


def _community(rng) -> list[Use]:
    everybody, one = [f"m{index}" for index in range(20)], ["loner"]
    said = []
    for n in range(5000):
        text = " ".join(rng.choices(FILLER, k=6))
        said.append(Use(MemberKey(f"m{n % 20}"), ChannelKey(f"c{n % 3}"), AS_OF - timedelta(minutes=20 * n), text))
    for weeks in range(3, 13):
        said += _uses(rng, "snow", WEATHER, weeks, 12, everybody)
        said += _uses(rng, "sofa", FURNITURE, weeks, 12, everybody)
        said += _uses(rng, "lake", WEATHER, weeks, 12, everybody)
    said += _uses(rng, "snow", PRAISE, 0, 60, everybody)
    said += _uses(rng, "sofa", FURNITURE, 0, 60, everybody)
    said += _uses(rng, "lake", PRAISE, 0, 60, one)
    return said


def test_only_the_word_whose_company_changed_among_many_is_found_with_its_new_company():
    found = shifted_words(_community(random.Random(3)), AS_OF)
    assert [shift.word for shift in found if shift.word in ("snow", "sofa", "lake")] == ["snow"]
    (snow,) = (shift for shift in found if shift.word == "snow")
    assert set(snow.company[:4]) == set(PRAISE) and snow.z > 10
    assert shifted_words(_community(random.Random(3)), AS_OF) == found, "the same words give the same list"


def test_too_little_says_nothing():
    rng = random.Random(3)
    few = _uses(rng, "snow", WEATHER, 5, 20, ["a", "b"]) + _uses(rng, "snow", PRAISE, 0, 20, ["a", "b"])
    assert shifted_words(few, AS_OF) == [] and shifted_words([], AS_OF) == []
