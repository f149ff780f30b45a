from datetime import timedelta

from storage.audit import events, record_event
from storage.database import Database
from tests.storage.community import NOW


def test_the_newest_events_come_first(database: Database) -> None:
    with database.write() as session:
        for number in range(3):
            record_event(session, "op", "retrain", f"run {number}", {"number": number}, NOW - timedelta(days=number))
    with database.read() as session:
        found = [(event.target, event.detail, event.at) for event in events(session, 2)]
    assert found == [
        ("run 2", {"number": 2}, NOW - timedelta(days=2)),
        ("run 1", {"number": 1}, NOW - timedelta(days=1)),
    ]
