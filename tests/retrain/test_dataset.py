"""What a run learns from and is judged by, from rows in a real database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlmodel import Session, select

from nocap.domain import BASE, ChannelKey, MemberKey, MessageKey, Provenance, Purpose, VoiceName
from nocap.errors import ConfigurationError, NothingToLearn, RunError
from nocap.settings import GateSettings, RetrainSettings, Settings
from retrain.dataset import (
    LET_THROUGH_OPTION,
    Snapshot,
    build_snapshot,
    held_out_member,
    load_snapshot,
    preview,
    record_snapshot,
    take_snapshot,
    voice_terms,
)
from storage.channels import ensure_channel
from storage.consent import record_consent
from storage.crypto import Keyring
from storage.database import Database
from storage.messages import forget_member
from storage.registry import ensure_voice
from storage.runs import create_run, get_run, sources
from storage.tables import Message, Run

AS_OF = datetime(2026, 11, 1, tzinfo=UTC)
GENZ, FLAT = VoiceName("genz"), ChannelKey("flat")
POLICY = "2026-11"
# fmt: off
WORDS = (
    "apple", "river", "stone", "cloud", "tiger", "maple", "ocean", "candle", "silver", "rocket",
    "garden", "pepper", "violin", "window", "summer", "button", "castle", "dragon", "forest", "guitar",
    "hammer", "island", "jacket", "kitten", "ladder", "mirror", "needle", "orange", "pencil",
)
# fmt: on

LEARNERS = [MemberKey(f"m{i}") for i in range(60) if not held_out_member(MemberKey(f"m{i}"))][:8]
JUDGES = [MemberKey(f"m{i}") for i in range(60) if held_out_member(MemberKey(f"m{i}"))][:5]
EVERYONE = (*LEARNERS, *JUDGES)

MakeSettings = Callable[..., Settings]


def small(settings: MakeSettings, **retrain: object) -> Settings:
    values = {"min_examples": 10, "max_examples_per_member": 100, "min_members_for_rare_ngram": 1} | retrain
    return settings(retrain=RetrainSettings.model_validate(values), gates=GateSettings(max_replies_per_member=10))


def sentence(number: int) -> str:
    """Seven words that no other number gives in this order."""
    step = len(WORDS)
    return " ".join(WORDS[(number // step**place + place * 11 + number) % step] for place in range(7))


def conversation(
    members: Iterable[MemberKey],
    start: datetime,
    count: int,
    prefix: str,
    *,
    apart: timedelta = timedelta(hours=1),
    provenance: Provenance = Provenance.DONATION,
) -> Iterator[Message]:
    """Pairs of a prompt and its reply a minute later, between all the members in turn."""
    everyone = list(members)
    for pair in range(count):
        number = 2 * (sum(map(ord, prefix)) * 1_000 + pair)
        at = start + pair * apart
        ask, answer = f"{prefix}{pair}q", f"{prefix}{pair}a"
        asking, answering = everyone[pair % len(everyone)], everyone[(pair + 1) % len(everyone)]
        yield _row(ask, asking, at, f"why {sentence(number)}", provenance)
        yield _row(answer, answering, at + timedelta(minutes=1), sentence(number + 1), provenance, reply_to=ask)


def _row(
    key: str, member: MemberKey, at: datetime, text: str, provenance: Provenance, reply_to: str | None = None
) -> Message:
    return Message(
        key=key, channel=FLAT, member=member, provenance=provenance, sent_at=at, text=text, reply_to=reply_to
    )


def settle(session: Session, *, purposes: Iterable[Purpose] = tuple(Purpose)) -> None:
    """A voice and a channel in which everybody agreed to `purposes`."""
    ensure_voice(session, GENZ, "You are a bot.", ["no cap"], AS_OF - timedelta(days=400))
    at = AS_OF - timedelta(days=400)
    ensure_channel(session, FLAT, platform="import", label=None, voice=GENZ, at=at, collect=True)
    for member in EVERYONE:
        record_consent(session, member, FLAT, list(purposes), True, POLICY, at)


def write(session: Session, messages: Iterable[Message], *, received: datetime | None = None) -> None:
    """Stores each message as received when it was sent, or all of them at `received`."""
    for message in messages:
        message.received_at = received or message.sent_at
        session.add(message)
    session.flush()


def start_run(session: Session, reference: str | None = None) -> Run:
    return create_run(
        session,
        voice=GENZ,
        trigger="operator",
        as_of=AS_OF,
        incumbent=BASE,
        options={},
        permission_reference=reference,
        at=AS_OF,
    )


def a_month(session: Session) -> None:
    settle(session)
    write(session, conversation(LEARNERS, AS_OF - timedelta(days=20), 60, "fresh"))
    write(session, conversation(LEARNERS, AS_OF - timedelta(days=200), 60, "old"))
    write(session, conversation(JUDGES, AS_OF - timedelta(days=3), 30, "judged"))


def test_held_out_members_are_the_same_in_every_run_and_about_four_in_ten() -> None:
    members = [MemberKey(f"somebody {number}") for number in range(2_000)]
    held_out = [member for member in members if held_out_member(member)]
    assert 0.37 < len(held_out) / len(members) < 0.43
    assert held_out == [member for member in members if held_out_member(member)]


def test_a_snapshot_separates_members_rows_and_times(
    database: Database, keyring: Keyring, settings: MakeSettings
) -> None:
    chosen = small(settings)
    with database.write() as session:
        a_month(session)
        mixed = conversation(EVERYONE, AS_OF - timedelta(days=6), 40, "mixed")
        write(session, mixed)
        snapshot = take_snapshot(session, start_run(session), chosen, keyring)
    learned = (*snapshot.train, *snapshot.validation)
    assert learned and snapshot.evaluate
    assert not any(held_out_member(example.member) for example in learned)
    assert all(held_out_member(example.member) for example in snapshot.evaluate)
    trained_rows = {key for example in learned for key in example.message_keys}
    assert not trained_rows & {key for example in snapshot.evaluate for key in example.message_keys}
    assert all(example.sent_at >= AS_OF - timedelta(days=7) for example in snapshot.evaluate)
    assert all(example.sent_at <= AS_OF - timedelta(hours=72) for example in learned)
    assert snapshot.dropped["held_out_row"] > 0
    assert snapshot.dropped["held_out_member"] > 0


def test_older_rows_are_replayed_in_their_share(database: Database, keyring: Keyring, settings: MakeSettings) -> None:
    with database.write() as session:
        a_month(session)
        snapshot = build_snapshot(session, start_run(session), small(settings), keyring)
    learned = (*snapshot.train, *snapshot.validation)
    window = AS_OF - timedelta(days=28)
    fresh = sum(example.sent_at >= window for example in learned)
    assert fresh > 40
    assert len(learned) - fresh == pytest.approx(fresh * 0.2 / 0.7, abs=2)
    assert snapshot.dropped["replay_cap"] > 0


def twenty_weeks(session: Session, messages: int) -> None:
    """So many messages in each of the last twenty weeks."""
    settle(session)
    for week in range(20):
        start = AS_OF - timedelta(days=7 * week + 11)
        write(session, conversation(LEARNERS, start, messages, f"week{week}-", apart=timedelta(minutes=80)))


def test_of_the_older_rows_the_recent_ones_are_likelier_to_be_replayed(
    database: Database, keyring: Keyring, settings: MakeSettings
) -> None:
    """A row weighs half as much as one that is four weeks younger."""
    with database.write() as session:
        twenty_weeks(session, 40)
        snapshot = build_snapshot(session, start_run(session), small(settings), keyring)
    ages = [(AS_OF - example.sent_at) / timedelta(weeks=1) for example in (*snapshot.train, *snapshot.validation)]
    replayed = [age for age in ages if age >= 4]
    recent, old = sum(age < 12 for age in replayed), sum(age >= 12 for age in replayed)
    assert len(replayed) > 15 and recent > 2 * old, (recent, old)


def test_old_replies_do_not_crowd_out_fresh_ones_where_members_are_capped(
    database: Database, keyring: Keyring, settings: MakeSettings
) -> None:
    """Replay and member cap draw lots of their own; by the same lot the replayed rows won nearly every place."""
    with database.write() as session:
        twenty_weeks(session, 100)
        snapshot = build_snapshot(session, start_run(session), small(settings, max_examples_per_member=20), keyring)
    learned = (*snapshot.train, *snapshot.validation)
    fresh = sum(example.sent_at >= AS_OF - timedelta(days=28) for example in learned)
    assert snapshot.dropped["member_cap"] > 100
    assert fresh / len(learned) == pytest.approx(0.78, abs=0.03)
    assert len(learned) > 0.85 * 20 * len(LEARNERS)


def test_no_more_examples_than_the_settings_allow(database: Database, keyring: Keyring, settings: MakeSettings) -> None:
    with database.write() as session:
        a_month(session)
        snapshot = build_snapshot(session, start_run(session), small(settings, max_examples=20), keyring)
    assert len(snapshot.train) + len(snapshot.validation) == 18  # the other tenth are the base's own replies
    assert snapshot.dropped["example_cap"] > 0


def test_rows_received_within_the_quarantine_wait_however_old_they_claim_to_be(
    database: Database, keyring: Keyring, settings: MakeSettings
) -> None:
    with database.write() as session:
        a_month(session)
        backdated = conversation(LEARNERS, AS_OF - timedelta(days=15), 20, "backdated")
        write(session, backdated, received=AS_OF - timedelta(hours=5))
        snapshot = build_snapshot(session, start_run(session), small(settings), keyring)
        waits_no_more = build_snapshot(
            session, get_run(session, _only_run(session)), small(settings, quarantine_hours=4), keyring
        )

    def backdated_rows(found: Iterable[object]) -> int:
        return sum("backdated" in str(example) for example in found)

    assert backdated_rows(snapshot.train) == 0
    assert snapshot.dropped["quarantined"] == 40
    assert backdated_rows(waits_no_more.train) > 10


def test_curation_lets_through_what_the_run_names_and_nothing_else(
    database: Database, keyring: Keyring, settings: MakeSettings
) -> None:
    with database.write() as session:
        a_month(session)
        spam = list(conversation(LEARNERS[:2], AS_OF - timedelta(days=10), 30, "spam"))
        for message in spam:
            message.text = "the blue door opens tonight for all who pay the keeper in coins"
        write(session, spam)
        run = start_run(session)
        curated = build_snapshot(session, run, small(settings, min_members_for_rare_ngram=3), keyring)
        run.options = {LET_THROUGH_OPTION: [message.key for message in spam]}
        let_through = build_snapshot(session, run, small(settings, min_members_for_rare_ngram=3), keyring)

    def spam_replies(snapshot: Snapshot) -> int:
        return sum("blue door" in example.reply for _, example in snapshot.by_role())

    assert spam_replies(curated) == 0
    assert spam_replies(let_through) == 30
    assert len(let_through.train) + len(let_through.validation) - 30 == len(curated.train) + len(curated.validation)


def _only_run(session: Session) -> str:
    return session.exec(select(Run.id)).one()


def test_a_context_of_somebody_who_did_not_agree_to_training_drops_the_example(
    database: Database, keyring: Keyring, settings: MakeSettings
) -> None:
    with database.write() as session:
        a_month(session)
        record_consent(session, LEARNERS[0], FLAT, [Purpose.TRAIN], False, POLICY, AS_OF - timedelta(days=30))
        snapshot = build_snapshot(session, start_run(session), small(settings), keyring)
    assert snapshot.train
    assert LEARNERS[0] not in snapshot.authors.values()
    assert snapshot.dropped["context_not_eligible"] > 0


def test_consent_to_training_alone_evaluates_nothing(
    database: Database, keyring: Keyring, settings: MakeSettings
) -> None:
    with database.write() as session:
        settle(session, purposes=(Purpose.STORE, Purpose.TRAIN))
        write(session, conversation(LEARNERS, AS_OF - timedelta(days=20), 60, "fresh"))
        write(session, conversation(JUDGES, AS_OF - timedelta(days=3), 30, "judged"))
        snapshot = build_snapshot(session, start_run(session), small(settings), keyring)
    assert snapshot.train
    assert snapshot.evaluate == ()


def test_discord_messages_train_only_with_the_permission_that_the_run_was_started_with(
    database: Database, keyring: Keyring, settings: MakeSettings
) -> None:
    with database.write() as session:
        settle(session)
        discord = Provenance.DISCORD_MESSAGE
        write(session, conversation(LEARNERS, AS_OF - timedelta(days=20), 60, "fresh", provenance=discord))
        run = start_run(session)
        with pytest.raises(NothingToLearn, match="no_permission 120"):
            build_snapshot(session, run, small(settings), keyring)
        run.permission_reference = "letter of 2026-10-01"
        assert build_snapshot(session, run, small(settings), keyring).train


def test_nobody_judges_with_more_replies_than_the_gates_can_use(
    database: Database, keyring: Keyring, settings: MakeSettings
) -> None:
    with database.write() as session:
        a_month(session)
        write(
            session,
            conversation(JUDGES[:2], AS_OF - timedelta(days=2), 80, "busy", apart=timedelta(minutes=20)),
        )
        snapshot = build_snapshot(session, start_run(session), small(settings), keyring)
    replies = [example for example in snapshot.evaluate if example.member == JUDGES[0]]
    assert len(replies) == 10
    assert min(reply.sent_at for reply in replies) > AS_OF - timedelta(days=2)
    assert snapshot.evaluate_dropped["evaluate_cap"] > 0


def test_too_few_examples_end_as_nothing_to_learn_with_the_counts(
    database: Database, keyring: Keyring, settings: MakeSettings
) -> None:
    with database.write() as session:
        a_month(session)
        with pytest.raises(NothingToLearn, match=r"of the 5000 .*held_out_member \d+.*outside_window"):
            write(session, conversation(LEARNERS, AS_OF - timedelta(days=399), 2, "ancient"))
            take_snapshot(session, start_run(session), small(settings, min_examples=5_000), keyring)


def test_an_empty_database_is_nothing_to_learn(database: Database, keyring: Keyring, settings: MakeSettings) -> None:
    with database.write() as session:
        settle(session)
        with pytest.raises(NothingToLearn, match="Only 0 examples"):
            build_snapshot(session, start_run(session), settings(), keyring)


def test_the_lineage_names_every_row_its_author_and_its_role(
    database: Database, keyring: Keyring, settings: MakeSettings
) -> None:
    with database.write() as session:
        a_month(session)
        run = start_run(session)
        snapshot = take_snapshot(session, run, small(settings), keyring)
    with database.read() as session:
        rows = sources(session, get_run(session, run.id).id)  # type: ignore[arg-type]
        assert {(row.role, row.message_key) for row in rows} == {
            (role, key) for role, example in snapshot.by_role() for key in example.message_keys
        }
        assert all(row.member == snapshot.authors[MessageKey(row.message_key)] for row in rows)
        assert get_run(session, run.id).options["snapshot_digest"] == snapshot.digest


def test_the_same_rows_and_settings_give_the_same_snapshot_and_another_seed_another(
    database: Database, keyring: Keyring, settings: MakeSettings
) -> None:
    with database.write() as session:
        a_month(session)
        run = start_run(session)
        first, second, other = (
            build_snapshot(session, run, small(settings, max_examples=40, seed=seed), keyring) for seed in (1, 1, 2)
        )
    assert first == second
    assert first.digest != other.digest


def test_a_recorded_snapshot_is_rebuilt_from_its_rows_even_when_more_have_come(
    database: Database, keyring: Keyring, settings: MakeSettings
) -> None:
    chosen = small(settings)
    with database.write() as session:
        a_month(session)
        run = start_run(session)
        taken = take_snapshot(session, run, chosen, keyring)
        write(session, conversation(LEARNERS, AS_OF - timedelta(days=12), 30, "late"))
    with database.read() as session:
        assert load_snapshot(session, get_run(session, run.id), chosen, keyring) == taken


def test_a_snapshot_with_an_erased_or_changed_row_is_not_rebuilt(
    database: Database, keyring: Keyring, settings: MakeSettings
) -> None:
    chosen = small(settings)
    with database.write() as session:
        a_month(session)
        run = start_run(session)
        snapshot = take_snapshot(session, run, chosen, keyring)
    with pytest.raises(RunError, match="must take its snapshot again"), database.write() as session:
        changed = session.exec(select(Message).where(Message.key == snapshot.train[0].key)).one()
        changed.text = "something else entirely"
        session.flush()
        load_snapshot(session, get_run(session, run.id), chosen, keyring)
    with database.write() as session:
        forget_member(session, snapshot.train[0].member, AS_OF)
        with pytest.raises(RunError, match="erased, changed or is no longer"):
            load_snapshot(session, get_run(session, run.id), chosen, keyring)


def test_a_lost_or_forged_snapshot_file_is_not_believed(
    database: Database, keyring: Keyring, settings: MakeSettings
) -> None:
    chosen = small(settings)
    with database.write() as session:
        a_month(session)
        run = start_run(session)
        snapshot = build_snapshot(session, run, chosen, keyring)
        with pytest.raises(RunError, match="missing or damaged"):
            load_snapshot(session, run, chosen, keyring)
        record_snapshot(session, run, snapshot, chosen, keyring)
        file = chosen.runs_dir / run.id / "snapshot.json"
        content = json.loads(file.read_text())
        content["examples"] = content["examples"][1:]
        file.write_text(json.dumps(content))
        with pytest.raises(RunError, match="is not the one that run"):
            load_snapshot(session, run, chosen, keyring)


def test_no_text_is_written_to_the_runs_folder(
    database: Database, keyring: Keyring, settings: MakeSettings, tmp_path: Path
) -> None:
    with database.write() as session:
        a_month(session)
        snapshot = take_snapshot(session, start_run(session), small(settings), keyring)
    written = [file for file in (tmp_path / "data").rglob("*") if file.is_file()]
    assert [file.name for file in written] == ["snapshot.json"]
    content = written[0].read_text()
    for _, example in snapshot.by_role():
        assert example.reply not in content and example.prompt not in content


def test_a_preview_counts_what_a_run_would_use_and_leave_out(
    database: Database, keyring: Keyring, settings: MakeSettings
) -> None:
    chosen = small(settings)
    with database.write() as session:
        a_month(session)
        record_consent(session, JUDGES[0], FLAT, [Purpose.EVALUATE], False, POLICY, AS_OF)
        snapshot = build_snapshot(session, start_run(session), chosen, keyring)
    with database.read() as session:
        counted = preview(session, GENZ, chosen, AS_OF)
    assert (counted.train, counted.validation, counted.evaluate) == (
        len(snapshot.train),
        len(snapshot.validation),
        len(snapshot.evaluate),
    )
    assert counted.train_members == len(LEARNERS)
    assert counted.evaluate_members == len({example.member for example in snapshot.evaluate}) > 0
    assert counted.dropped == snapshot.dropped
    assert counted.not_eligible_to_evaluate["no_purpose_consent"] > 0


def test_the_operators_seed_trains_and_never_evaluates(
    database: Database, keyring: Keyring, settings: MakeSettings
) -> None:
    with database.write() as session:
        a_month(session)
        seed = Provenance.OPERATOR_SEED
        write(session, conversation(JUDGES, AS_OF - timedelta(days=5), 10, "seed", provenance=seed))
        snapshot = build_snapshot(session, start_run(session), small(settings), keyring)
    trained = {example.provenance for example in (*snapshot.train, *snapshot.validation)}
    assert Provenance.OPERATOR_SEED in trained
    assert all(example.provenance != Provenance.OPERATOR_SEED for example in snapshot.evaluate)


def test_the_voices_terms_are_its_lexicon_and_an_unknown_voice_is_an_error(database: Database) -> None:
    with database.write() as session:
        settle(session)
        assert voice_terms(session, GENZ, AS_OF) == ("no cap",)
        with pytest.raises(ConfigurationError, match="no voice 'gaming'"):
            voice_terms(session, VoiceName("gaming"), AS_OF)
