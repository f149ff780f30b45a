"""The canary phase's gate: what members' votes and their traffic must say, and what it never believes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nocap.domain import Verdict
from nocap.settings import CanarySettings
from retrain.gates.votes import CommunityVotes, Harm, Trial, duel_evidence

SETTINGS = CanarySettings()
GATE = CommunityVotes()


def _trial(wins: int, losses: int, *, each: int = 3, hours: float = 72.0, newcomers: bool = False) -> Trial:
    """`wins` members who prefer the canary and `losses` who do not, `each` with as many votes."""
    sides = [1] * wins + [0] * losses
    voters = [f"{newcomers}-{number}" for number in range(len(sides))]
    return Trial(
        hours=hours,
        voters=tuple(voter for voter in voters for _ in range(each)),
        wins=tuple(side for side in sides for _ in range(each)),
        newcomers=(int(newcomers),) * (len(sides) * each),
    )


def _verdict(trial: Trial) -> Verdict:
    return GATE.decide(trial, SETTINGS).verdict


def test_a_clear_preference_of_enough_members_promotes():
    assert _verdict(_trial(40, 12)) is Verdict.PASS


def test_too_few_voters_abstain_and_the_sentence_counts_them():
    result = GATE.decide(_trial(9, 2), SETTINGS)
    assert (result.verdict, result.sentence) == (
        Verdict.ABSTAIN,
        "community votes: needs votes of 20 known members, has 11.",
    )


def test_an_open_vote_says_how_many_more_it_needs():
    result = GATE.decide(_trial(18, 10), SETTINGS)
    assert result.verdict is Verdict.ABSTAIN
    assert "more members' votes at the present rate, 64% of them for it" in result.sentence


def test_the_minimum_time_holds_even_for_a_clear_preference():
    assert _verdict(_trial(40, 12, hours=3)) is Verdict.ABSTAIN


def test_a_canary_that_members_like_less_is_withdrawn():
    assert _verdict(_trial(8, 40)) is Verdict.FAIL


def test_one_that_is_never_shown_to_be_preferred_is_withdrawn_in_the_end():
    assert _verdict(_trial(20, 19, hours=SETTINGS.max_hours)) is Verdict.FAIL


def test_one_member_cannot_vote_it_through():
    few = _trial(3, 19)
    stuffed = replace(
        few,
        voters=few.voters + ("False-0",) * 500,
        wins=few.wins + (1,) * 500,
        newcomers=few.newcomers + (0,) * 500,
    )
    assert GATE.decide(stuffed, SETTINGS).statistic == GATE.decide(few, SETTINGS).statistic


def test_bought_newcomers_neither_count_nor_go_unnoticed():
    honest, bought = _trial(11, 11), _trial(60, 0, newcomers=True)
    both = replace(
        honest,
        voters=honest.voters + bought.voters,
        wins=honest.wins + bought.wins,
        newcomers=honest.newcomers + bought.newcomers,
    )
    result = GATE.decide(both, SETTINGS)
    assert result.verdict is Verdict.ABSTAIN
    assert "60 newcomers vote unlike the 22 known members" in result.sentence


@pytest.mark.parametrize("kind", ["disliked", "failed", "slow"])
def test_harm_beyond_the_share_of_traffic_withdraws_at_once(kind):
    harmed = replace(_trial(40, 12), **{kind: Harm(8, 40, 2, 300)})
    assert _verdict(harmed) is Verdict.FAIL
    assert _verdict(replace(_trial(40, 12), **{kind: Harm(4, 40, 30, 300)})) is Verdict.PASS
    assert _verdict(replace(_trial(40, 12), **{kind: Harm(2, 40, 0, 300)})) is Verdict.PASS


@pytest.mark.parametrize(
    "broken",
    [
        {"hours": float("nan")},
        {"wins": (1,)},
        {"wins": (7,) * 156},
        {"disliked": Harm(9, 3, 0, 10)},
        {"failed": Harm(-1, 3, 0, 10)},
        {"slow": Harm(3, float("inf"), 0, 10)},
    ],
)
def test_numbers_that_cannot_be_read_never_promote(broken):
    assert _verdict(replace(_trial(40, 12), **broken)) is Verdict.FAIL


@given(st.lists(st.integers(-3, 3), max_size=60), st.data())
def test_a_vote_less_for_the_canary_is_never_more_evidence(thirds, data):
    if not thirds:
        return
    place = data.draw(st.integers(0, len(thirds) - 1))
    less = list(thirds)
    less[place] = max(-3, less[place] - 1)
    assert duel_evidence(np.array(less) / 3) <= duel_evidence(np.array(thirds) / 3) * (1 + 1e-12)


def test_peeking_at_every_vote_promotes_a_canary_that_is_not_preferred_in_less_than_one_of_twenty():
    rng = np.random.default_rng(5)
    promoted = 0
    for _ in range(400):
        tastes = rng.beta(1, 1, 40)
        bets = np.zeros(40)
        cast = np.zeros(40, dtype=int)
        for member in rng.integers(0, 40, 200):
            if cast[member] < 3:
                cast[member] += 1
                bets[member] += (1 if rng.random() < tastes[member] else -1) / 3
                if duel_evidence(bets) >= 20:
                    promoted += 1
                    break
    assert promoted <= 27  # the upper 95 % bound of 5 % in 400
