"""The promise in bytes: words of members who did not agree, or no longer do, lie nowhere under the data directory."""

from __future__ import annotations

import base64
from datetime import timedelta

from sqlalchemy import text

from nocap.actions import Actions
from nocap.domain import MemberKey, MessageKey, Provenance, Purpose, RunId
from retrain.stages import StageContext, take_snapshot
from storage import runs
from storage.consent import record_consent
from storage.messages import NewMessage, ingest
from tests.retrain.job_world import AS_OF, CHANNEL, LEARNERS, LONG_AGO, World, new_run

POLICY = "2026-11"
FORGOTTEN = LEARNERS[0]
SENTINELS = {"never": "zanzibarquokka", "revoked": "mongoosetrombone", FORGOTTEN: "walrussaxophone"}
PLATFORM_ID = "8812345678901234567"


def _say(world: World, member: str, number: int, agreed: bool) -> None:
    """One question of a learner and the member's answer with their sentinel."""
    at = AS_OF - timedelta(days=15, minutes=number)
    with world.database.write() as session:
        if agreed:
            record_consent(session, MemberKey(member), CHANNEL, list(Purpose), True, POLICY, LONG_AGO)
        said = f"the {SENTINELS[member]} lives under bridge number {number} of the old town"
        rows = [
            _message(f"ask-{member}-{number}", LEARNERS[1], f"where does animal {number} live these days?", at, None),
            _message(f"say-{member}-{number}", member, said, at + timedelta(minutes=1), f"ask-{member}-{number}"),
        ]
        ingest(session, rows, policy_version=POLICY, at=AS_OF - timedelta(days=5))


def _message(key: str, member: str, said: str, at, reply_to: str | None) -> NewMessage:
    answered = MessageKey(reply_to) if reply_to else None
    return NewMessage(MessageKey(key), CHANNEL, MemberKey(member), Provenance.DONATION, at, said, answered)


def _assert_nowhere(world: World, needles: list[bytes]) -> None:
    for path in world.settings.data_dir.rglob("*"):
        if path.is_file():
            content = path.read_bytes().lower()
            for needle in needles:
                assert needle.lower() not in content, path


def _holds(world: World, piece: bytes) -> bool:
    return any(piece in path.read_bytes() for path in world.settings.data_dir.rglob("*") if path.is_file())


def _forms(word: str) -> list[bytes]:
    """A word as text, in UTF-16, and in base64 at each of its three alignments."""
    shifted = [base64.b64encode(b" " * shift + word.encode())[4:-4] for shift in range(3)]
    return [word.encode(), word.encode("utf-16-le"), *shifted]


def test_sentinels_lie_nowhere_after_a_whole_run_and_the_next_one_never_sees_erased_rows(tmp_path, tiny_base):
    world = World(tmp_path / "data", tiny_base, max_steps=4)
    for number in range(6):
        _say(world, "never", number, agreed=False)
        _say(world, "revoked", number, agreed=True)
        _say(world, FORGOTTEN, number, agreed=True)
    with world.database.write() as session:
        record_consent(session, MemberKey("revoked"), CHANNEL, list(Purpose), False, POLICY, AS_OF)
    world.work()
    everything = [form for word in (*SENTINELS.values(), PLATFORM_ID) for form in _forms(word)]
    _assert_nowhere(world, everything)
    with world.database.read() as session:
        used = {row.member for row in runs.sources(session, world.run_id)}
        theirs = f"SELECT text FROM message WHERE member = '{FORGOTTEN}'"
        ciphertexts = list(session.connection().execute(text(theirs)).scalars())
    assert FORGOTTEN in used and used.isdisjoint({"never", "revoked"})
    assert len(ciphertexts) >= 6 and all(_holds(world, one) for one in ciphertexts), "the search finds what is there"

    actions = Actions(world.database, world.settings, actor="operator", clock=lambda: AS_OF)
    key = actions.member_key(f"telegram:{PLATFORM_ID}")
    assert PLATFORM_ID not in key
    actions.forget(key)
    receipt = actions.forget(FORGOTTEN)
    assert receipt.adapters == ["genz-v1"] and receipt.messages >= 6 and receipt.files >= 3
    _assert_nowhere(world, everything)
    assert not any(_holds(world, one) for one in ciphertexts)
    for path in world.settings.data_dir.rglob("*"):
        if path.is_file():
            assert path.name != "snapshot.json" or f"say-{FORGOTTEN}-".encode() not in path.read_bytes()

    following = new_run(world.database)
    with StageContext(RunId(following), world.settings, world.database, lambda: AS_OF) as context:
        take_snapshot(context)
    with world.database.read() as session:
        assert FORGOTTEN not in {row.member for row in runs.sources(session, following)}
    manifest = (world.settings.runs_dir / following / "snapshot.json").read_text()
    assert f"say-{FORGOTTEN}-" not in manifest and '"examples":[{' in manifest
    report = actions.report(world.run_id)
    assert report.is_file(), "a report that an erasure took away is made anew"
    _assert_nowhere(world, everything)
    world.database.close()
