from __future__ import annotations

from dataclasses import replace

from huggingface_hub import ModelCard

from retrain.card import write_card
from tests.retrain.facts_of_a_run import build_facts


def test_the_card_parses_and_states_base_licence_consent_gates_and_that_it_is_a_bot(tmp_path):
    facts = build_facts()
    card = ModelCard(write_card(tmp_path, facts).read_text())
    assert (card.data.base_model, card.data.license, card.data.library_name) == ("embedded", "apache-2.0", "peft")
    for told in (
        "It is a bot and says so",
        "revocable consent",
        "written permission REF-7",
        "| train | 120 | 9 |",
        "duplicate 7",
        "| freshness |",
        "(an estimate)",
        facts.adapter.digest,
    ):
        assert told in card.text, told


def test_the_card_says_which_votes_were_trained_on_or_that_none_were(tmp_path):
    facts = build_facts()
    assert "No votes were trained on" in write_card(tmp_path, facts).read_text()
    stages = {"thumbs": {"examples": 410, "steps": 26}, "duels": {"examples": 120, "steps": 8}}
    text = " ".join(write_card(tmp_path, replace(facts, training=dict(facts.training) | stages)).read_text().split())
    assert "Then KTO on voted answers: 410 of them, 26 steps, beta 0.1, learning rate 5e-06." in text
    assert "Then DPO on decided duels: 120 of them, 8 steps" in text and "No votes" not in text


def test_a_run_that_was_not_judged_says_so(tmp_path):
    text = write_card(tmp_path, replace(build_facts(), decision=None)).read_text()
    assert "It was not judged." in text
