"""Golden cases: the adapter that deserves promotion passes, each known kind of bad one is refused by its gate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nocap.domain import Verdict
from nocap.settings import GateSettings
from retrain.gates import GATES, Measurements, decide
from retrain.gates.measurements import SpeakerCounts, Spectra
from tests.retrain.gates import factory as make

BY_NAME = {gate.name: gate for gate in GATES}


def verdict(gate: str, measurements: Measurements, settings: GateSettings = make.SETTINGS) -> Verdict:
    return BY_NAME[gate].decide(measurements, settings).verdict


def test_an_adapter_that_deserves_it_passes_every_gate() -> None:
    decision = decide(make.good(), make.SETTINGS)
    assert decision.verdict is Verdict.PASS, decision.sentence
    assert all(result.checks for result in decision.results)


@pytest.mark.parametrize(
    ("gate", "measurements"),
    [
        ("freshness", make.spoiled(held_out=make.held_out(gain=0.0))),
        ("freshness", make.spoiled(held_out=make.held_out(gain=-0.1))),
        ("marker_band", make.spoiled(markers=make.markers(ratio=2.0))),
        ("marker_band", make.spoiled(markers=make.markers(ratio=0.02))),
        ("marker_band", make.spoiled(markers=make.markers(ratio=0.02, incumbent=0.0))),
        ("human_or_bot", make.spoiled(human_scores=make.human_scores(worse=0.5))),
        ("collapse", make.spoiled(variety=make.variety(distinct=0.3))),
        ("collapse", make.spoiled(variety=make.variety(overlap=0.6))),
        ("collapse", make.spoiled(variety=make.variety(loops=0.3))),
        ("collapse", make.spoiled(variety=make.variety(empty=0.3))),
        ("drift", make.spoiled(drift=make.drift(1e-6))),
        ("drift", make.spoiled(drift=make.drift(9.0))),
        ("memorisation", make.spoiled(canaries=make.canaries(drop=2.5))),
        ("memorisation", make.spoiled(spans=make.spans(recited=1))),
        ("stacking", make.spoiled(stacked=make.stacked(share=0.3))),
        ("register", make.spoiled(serious=make.serious(rate=0.06))),
        ("staleness", make.spoiled(stale=make.stale(share=0.4))),
        ("data_drift", make.spoiled(data=make.data(shift=2.0))),
        ("data_drift", make.spoiled(data=make.data(slang=0.9))),
        ("backdoor", make.spoiled(triggers=make.triggers(planted=8.0))),
        ("backdoor", make.spoiled(tied=make.tied(alike=10))),
        ("backdoor", make.spoiled(spectra=Spectra(9.0, (0.9, 1.0, 1.2)))),
        ("toxicity", make.spoiled(toxic=make.flags(faulty=15))),
        ("personal_data", make.spoiled(personal=make.flags(faulty=15))),
        ("injection", make.spoiled(injected=make.flags(faulty=15, replies=72))),
        ("retention", make.spoiled(retention=make.retention(lost=1.0))),
        ("retention", make.spoiled(retention=make.retention(lost=1.0, able=False))),
    ],
)
def test_a_spoiled_adapter_fails_its_gate_and_the_whole(gate: str, measurements: Measurements) -> None:
    result = BY_NAME[gate].decide(measurements, make.SETTINGS)
    assert result.verdict is Verdict.FAIL
    assert any(not check.holds for check in result.checks)
    assert decide(measurements, make.SETTINGS).verdict is Verdict.FAIL


def test_a_first_adapter_may_be_quieter_than_members_where_the_base_is_mute() -> None:
    assert verdict("marker_band", make.spoiled(markers=make.markers(ratio=0.35, incumbent=0.0))) is Verdict.PASS
    assert verdict("marker_band", make.spoiled(markers=make.markers(ratio=0.35, incumbent=1.0))) is Verdict.FAIL


def test_one_term_in_every_reply_is_a_caricature_even_at_the_members_total_rate() -> None:
    markers = make.markers()
    own = markers.challenger
    uses = tuple((sum(row), *[0] * (len(make.TERMS) - 1)) for row in own.uses)
    spam = replace(markers, challenger=SpeakerCounts(own.replies, own.words, uses))
    result = BY_NAME["marker_band"].decide(make.spoiled(markers=spam), make.SETTINGS)
    assert result.verdict is Verdict.FAIL
    assert any("top term" in check.name for check in result.checks if not check.holds)


def test_one_phrase_of_one_member_may_be_chance_but_not_two_and_not_one_that_is_pushed() -> None:
    assert verdict("memorisation", make.spoiled(spans=make.spans(recited=1, uses=1))) is Verdict.PASS
    assert verdict("memorisation", make.spoiled(spans=make.spans(recited=2, uses=1))) is Verdict.FAIL
    overlapping = replace(make.spans(recited=2, uses=1), emitted_replies=(*range(20), 20, 20))
    assert verdict("memorisation", make.spoiled(spans=overlapping)) is Verdict.PASS
    assert verdict("memorisation", make.spoiled(spans=make.spans(recited=1, uses=2))) is Verdict.FAIL


def test_a_single_marker_at_serious_prompts_can_be_measured() -> None:
    serious = make.serious(rate=0.0)
    once = replace(serious, challenger_uses=(1, *serious.challenger_uses[1:]))
    result = BY_NAME["register"].decide(make.spoiled(serious=once), make.SETTINGS)
    assert result.verdict is Verdict.PASS
    assert 0 < result.checks[0].lower < result.checks[0].value < result.checks[0].upper < 1.2


def test_without_a_marker_at_serious_prompts_the_bound_comes_from_their_words() -> None:
    result = BY_NAME["register"].decide(make.spoiled(serious=make.serious(rate=0.0)), make.SETTINGS)
    assert result.verdict is Verdict.PASS
    assert result.statistic == 0.0
    assert 0 < result.checks[0].upper < 0.1


def test_where_no_term_fades_nothing_can_be_stale_but_history_is_needed_to_know_it() -> None:
    none = replace(make.stale(), **{f"{name}_fading": (0,) * 40 for name in ("human", "incumbent", "challenger")})
    assert verdict("staleness", make.spoiled(stale=none)) is Verdict.PASS
    assert verdict("staleness", make.spoiled(stale=replace(none, old_messages=0))) is Verdict.ABSTAIN


def test_an_incumbent_that_is_as_stale_excuses_the_challenger() -> None:
    assert verdict("staleness", make.spoiled(stale=make.stale(share=0.3, incumbent=0.35))) is Verdict.PASS


def test_two_of_700_toxic_replies_are_already_too_many_to_be_sure() -> None:
    assert verdict("toxicity", make.spoiled(toxic=make.flags(faulty=2, incumbent=0))) is Verdict.PASS
    assert verdict("toxicity", make.spoiled(toxic=make.flags(faulty=4, incumbent=0))) is Verdict.FAIL


def test_a_drift_of_the_data_that_shows_but_is_small_passes() -> None:
    result = BY_NAME["data_drift"].decide(make.spoiled(data=make.data(shift=0.5)), make.SETTINGS)
    assert result.verdict is Verdict.PASS
    assert result.checks[0].lower > 0.5
    assert verdict("data_drift", make.spoiled(data=make.data(shift=0.95))) is Verdict.FAIL  # 0.75, not surely below


def test_slang_that_differs_by_chance_alone_has_no_divergence() -> None:
    result = BY_NAME["data_drift"].decide(make.spoiled(data=make.data()), make.SETTINGS)
    assert result.checks[1].lower < 0.005 < result.checks[1].upper + 0.005


def test_one_answer_to_a_rare_word_is_a_backdoor_only_where_it_was_learned() -> None:
    assert verdict("backdoor", make.spoiled(tied=make.tied(alike=10, learned=0.2))) is Verdict.PASS
    assert verdict("backdoor", make.spoiled(tied=make.tied(alike=6, learned=0.95))) is Verdict.PASS


def test_a_base_that_only_guesses_is_judged_by_log_odds_alone() -> None:
    guessing = make.spoiled(retention=make.retention(able=False))
    result = BY_NAME["retention"].decide(guessing, make.SETTINGS)
    assert result.verdict is Verdict.PASS
    assert len(result.checks) == 1


def test_too_little_evidence_abstains_and_says_what_is_missing() -> None:
    few = make.spoiled(held_out=make.held_out(members=31, replies=20))
    result = BY_NAME["freshness"].decide(few, make.SETTINGS)
    assert result.verdict is Verdict.ABSTAIN
    assert "needs 1,000 replies of 40 members, has 620 of 31" in result.sentence
    assert (result.evidence, result.evidence_needed) == (620, 1000)
    assert decide(few, make.SETTINGS).verdict is Verdict.ABSTAIN


def test_a_failure_outweighs_an_abstention() -> None:
    both = make.spoiled(held_out=make.held_out(members=31), retention=make.retention(lost=1.0))
    assert decide(both, make.SETTINGS).verdict is Verdict.FAIL


def test_a_recited_phrase_of_three_members_is_the_communitys() -> None:
    recited = make.spans(recited=5)
    shared = replace(recited, emitted_members=(3,) * len(recited.emitted_members))
    assert verdict("memorisation", make.spoiled(spans=shared)) is Verdict.PASS


def test_the_incumbent_against_itself_is_refused_as_not_fresher() -> None:
    held_out = make.held_out()
    same = make.spoiled(held_out=replace(held_out, challenger=held_out.incumbent))
    assert verdict("freshness", same) is Verdict.FAIL


def test_the_same_numbers_give_the_same_decision_after_a_round_trip() -> None:
    measured = make.good()
    again = Measurements.from_json(measured.to_json())
    assert again == measured
    assert decide(again, make.SETTINGS) == decide(measured, make.SETTINGS)


def test_a_worse_loss_never_passes_where_a_better_one_fails() -> None:
    verdicts = [
        verdict("freshness", make.spoiled(held_out=make.held_out(gain=gain))) for gain in np.linspace(0.2, -0.2, 9)
    ]
    assert verdicts == sorted(verdicts, key=[Verdict.PASS, Verdict.FAIL].index)
