"""Whole runs on what no run can learn from: each ends with a reason, and the live adapter stays."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from nocap.domain import BASE, MessageKey, Provenance, RunState
from retrain.run_folder import read_json
from storage.messages import NewMessage, ingest
from tests.retrain.job_world import AS_OF, CHANNEL, LEARNERS, World, chat
from tests.retrain.train.tiny import build_tiny_base


def _say(database, texts, *, members=LEARNERS, days_ago=20, received_days_ago=5, name="said") -> None:
    """One message every five minutes, each answering the one before."""
    rows = []
    for number, text in enumerate(texts):
        at = AS_OF - timedelta(days=days_ago) + timedelta(minutes=5 * number)
        answers = MessageKey(f"{name}{number - 1}") if number else None
        member = members[number % len(members)]
        rows.append(NewMessage(MessageKey(f"{name}{number}"), CHANNEL, member, Provenance.DONATION, at, text, answers))
    received = AS_OF - timedelta(days=received_days_ago)
    with database.write() as session:
        ingest(session, rows, policy_version="2026-11", at=received)


def _nothing(database) -> None:
    pass


def _one_member(database) -> None:
    _say(database, [f"today i saw thing number {number} and told myself" for number in range(80)], members=LEARNERS[:1])


def _duplicates(database) -> None:
    _say(database, ["we all say the very same sentence in here every day"] * 200)


def _emoji(database) -> None:
    _say(database, ["💀😭" if number % 2 else "🔥🔥🔥" for number in range(200)])


def _everything_old(database) -> None:
    _say(database, [f"an old saying of ours, the one with number {number}" for number in range(80)], days_ago=900)


def _clock_ahead(database) -> None:
    """A machine whose clock ran ahead stamped everything with days to come."""
    _say(database, [f"said by a clock that runs ahead, {number} of them" for number in range(80)], days_ago=-9)


@pytest.mark.parametrize(
    ("talk", "told"),
    [
        (_nothing, "Left out by curation: nothing; not eligible: nothing"),
        (_one_member, "no_prompt 80"),
        (_duplicates, "duplicate 19"),
        (_emoji, "emoji_only"),
        (_everything_old, "not eligible: outside_window 80"),
        (_clock_ahead, "not eligible: outside_window 80"),
    ],
)
def test_a_run_without_anything_to_learn_says_what_was_left_out_and_changes_nothing(tmp_path, tiny_base, talk, told):
    world = World(tmp_path / "data", tiny_base, talk)
    assert world.work() is RunState.NOTHING_TO_LEARN
    reason = world.run().reason
    assert told in reason and "\n" not in reason, reason
    assert (world.live(), world.adapters()) == (BASE, {})
    assert (world.folder / "report.html").is_file()
    world.database.close()


def _oddities(database) -> None:
    """Among ordinary chat a megabyte, broken encodings, and rows received by a clock that runs a day ahead.

    UTF-8 read as Latin-1, both directions of writing, combining marks, control characters, half a surrogate pair.
    """
    chat(database)
    mojibake = "naïve café 🔥 déjà vu".encode().decode("latin-1")
    marks = "z\u0338\u0322\u031ba\u0334l\u0335g\u0336o text here"
    odd = (
        mojibake,
        "שלום عالم مرحبا",
        marks,
        "nul\x00 bell\x07 esc\x1b[31m",
        "half a pair \ud83d here",
        "\ufeffbom first",
    )
    long = ("does anybody read this?", "a" * 500_000 + " b" * 250_000, "no way i read all that today")
    _say(database, [*long, *(odd[number % len(odd)] for number in range(24))])
    late = [f"came in by tomorrow's clock, {number}" for number in range(20)]
    _say(database, late, received_days_ago=-1, name="late")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_odd_texts_are_left_out_or_learnt_on_a_base_whose_template_is_missing(tmp_path):
    """One run of all real stages; the turns of the base are those of the fallback in `inference.prompt`."""
    base = _base_without(tmp_path / "plain", "chat_template")
    world = World(tmp_path / "data", base, _oddities, max_steps=2)
    assert world.work() in (RunState.REFUSED, RunState.ABSTAINED), world.run().reason
    dropped = read_json(world.folder / "snapshot.json")["dropped"]
    assert dropped["too_long"] >= 1 and dropped["quarantined"] >= 10
    assert (world.live(), set(world.adapters())) == (BASE, {"genz-v1"})
    world.database.close()


def test_a_base_with_neither_template_nor_end_token_fails_with_one_sentence(tmp_path):
    world = World(tmp_path / "data", _base_without(tmp_path / "plain", "chat_template", "eos_token"), max_steps=2)
    assert world.work() is RunState.FAILED
    assert "neither a chat template nor an end token" in world.run().reason
    assert (world.live(), world.adapters()) == (BASE, {})
    world.database.close()


def _base_without(folder: Path, *names: str) -> Path:
    base = build_tiny_base(folder)
    (base / "chat_template.jinja").unlink()
    config = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in names}))
    return base
