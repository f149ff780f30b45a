import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from sqlmodel import func, select

from nocap.domain import AdapterName, Vote
from nocap.errors import NotPermitted
from storage.crypto import Keyring
from storage.database import Database
from storage.feedback import cast_vote
from storage.leases import lease
from storage.messages import forget_member, ingest
from storage.registry import deployment, ensure_voice, move_pointer, register_adapter
from storage.tables import Adapter, AuditEvent, Feedback, Message, Reply
from tests.storage.community import ANA, BEN, GENZ, NOW, POLICY, agree, answer, message, open_channel

THREADS = 8


def in_threads(work: Callable[[int], None], times: int = THREADS) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(times)))


def reply(database: Database, text: str | None = None) -> int:
    with database.write() as session:
        return answer(session, ANA, text, text)


def test_many_threads_write_and_read_without_a_lock_error(database: Database) -> None:
    with database.write() as session:
        open_channel(session)
        agree(session, ANA)

    def work(number: int) -> None:
        with database.write() as session:
            ingest(session, [message(f"k{number}")], policy_version=POLICY, at=NOW)
        with database.read() as session:
            assert session.exec(select(Message.text).where(Message.key == f"k{number}")).one() == "no cap"

    in_threads(work, 80)
    with database.read() as session:
        assert session.exec(select(func.count()).select_from(Message)).one() == 80


def test_a_session_that_reads_first_can_write_while_others_do(database: Database) -> None:
    with database.write() as session:
        ensure_voice(session, GENZ, "", [], NOW)

    def work(_: int) -> None:
        with database.write() as session:
            deployment(session, GENZ)
            pointer = session.get_one(
                type(deployment(session, GENZ)), GENZ, with_for_update=True, populate_existing=True
            )
            pointer.revision += 1

    in_threads(work, 40)
    with database.read() as session:
        assert deployment(session, GENZ).revision == 40


def test_a_vote_cast_many_times_at_once_is_one_vote(database: Database) -> None:
    answered = reply(database)

    def work(number: int) -> None:
        with database.write() as session:
            cast_vote(session, answered, BEN, [Vote.UP, Vote.DOWN][number % 2], NOW)

    in_threads(work, 40)
    with database.read() as session:
        assert session.exec(select(func.count()).select_from(Feedback)).one() == 1


def test_the_same_messages_taken_in_twice_at_once_are_stored_once(database: Database) -> None:
    with database.write() as session:
        open_channel(session)
        agree(session, ANA)
    batch = [message(f"k{number}") for number in range(200)]
    added = []

    def work(_: int) -> None:
        with database.write() as session:
            added.append(ingest(session, batch, policy_version=POLICY, at=NOW).added)

    in_threads(work, 4)
    assert sum(added) == 200
    with database.read() as session:
        assert session.exec(select(func.count()).select_from(Message)).one() == 200


@pytest.mark.parametrize("keep", ["message", "reply"])
def test_no_text_is_stored_right_behind_its_erasure(database: Database, keep: str) -> None:
    with database.write() as session:
        open_channel(session)
        agree(session, ANA)

    def work() -> str | int | None:
        if keep == "reply":
            answered = reply(database, "what's up")
            with database.read() as session:
                return session.get_one(Reply, answered).text
        with database.write() as session:
            return ingest(session, [message("k1")], policy_version=POLICY, at=NOW).added or None

    with ThreadPoolExecutor(1) as pool:
        with database.write() as session:
            forget_member(session, ANA, NOW)
            stored = pool.submit(work)
            assert not wait([stored], timeout=0.3).done
        assert stored.result() is None


def test_only_one_of_many_gets_the_lease(database: Database) -> None:
    leases = [lease(database, "job", f"owner {number}", 60, lambda: NOW) for number in range(THREADS)]
    granted, refused = [], []

    def work(number: int) -> None:
        try:
            granted.append(leases[number].__enter__())
        except NotPermitted as error:
            refused.append(error)

    in_threads(work)
    assert (len(granted), len(refused)) == (1, THREADS - 1)


def test_pointer_moves_at_once_leave_one_whole_history(database: Database) -> None:
    names = [AdapterName(f"genz-v{number + 1}") for number in range(THREADS)]
    with database.write() as session:
        ensure_voice(session, GENZ, "", [], NOW)
        facts = {"voice": GENZ, "base": "b", "base_digest": "d", "status": "passed", "created_at": NOW}
        for name in names:
            register_adapter(session, Adapter(name=name, digest=name, **facts))

    def work(number: int) -> None:
        with database.write() as session:
            move_pointer(session, GENZ, names[number], actor="op", reason="race", at=NOW)

    in_threads(work)
    with database.read() as session:
        steps = [event.detail for event in session.exec(select(AuditEvent).order_by("id"))]
        live = deployment(session, GENZ)
    assert live.revision == THREADS
    assert {step["after"] for step in steps} == set(names)
    by_revision = sorted(steps, key=lambda step: step["revision"])
    assert [step["before"] for step in by_revision] == ["base", *(step["after"] for step in by_revision[:-1])]
    assert live.current == by_revision[-1]["after"]


VOTER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from nocap.domain import MemberKey, Vote
from storage.crypto import Keyring
from storage.database import Database
from storage.feedback import cast_vote
url, key_file, reply_id = sys.argv[1:]
database = Database.open(url, Keyring.load(Path(key_file)))
for number in range(1_000_000):
    with database.write() as session:
        cast_vote(session, int(reply_id), MemberKey(f"m{number}"), Vote.UP, datetime(2026, 11, 1, tzinfo=UTC))
    print(number, flush=True)
"""


def test_a_killed_process_loses_no_vote_that_it_reported(tmp_path: Path) -> None:
    url, key_file = f"sqlite:///{tmp_path}/nocap.db", tmp_path / "nocap.key"
    database = Database.open(url, Keyring.create(key_file), create=True)
    answered = reply(database)
    database.close()
    program = [sys.executable, "-c", VOTER, url, str(key_file), str(answered)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as voter:
        assert voter.stdout is not None
        while voter.stdout.readline() != "200\n":
            assert voter.poll() is None, "the voter died by itself"
        voter.send_signal(signal.SIGKILL)
        reported = 201 + len(voter.stdout.read().splitlines())
    database = Database.open(url, Keyring.load(key_file))
    with database.read() as session:
        stored = set(session.exec(select(Feedback.member)))
        assert session.connection().exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    database.close()
    assert {f"m{number}" for number in range(reported)} <= stored
