from __future__ import annotations

from nocap.domain import ChannelKey, MemberKey, Purpose
from storage.consent import claim_ask
from storage.consent_audit import ChatDue, audit_consent, ledger_state
from storage.database import Database
from tests.storage.community import ANA, BEN, FLAT, NOW, POLICY, agree, open_channel

BOTH = [Purpose.STORE, Purpose.TRAIN]
NEXT = "2027-01"
CLEO = MemberKey("cleo")


def test_a_members_last_lines_say_what_holds(database: Database) -> None:
    with database.write() as session:
        open_channel(session)
        agree(session, ANA, BOTH)
        agree(session, ANA, [Purpose.TRAIN], granted=False)
        agree(session, ANA, [Purpose.STORE], channel=ChannelKey("elsewhere"), policy="2025-01")
        states = ledger_state(session, ANA, POLICY)
        assert [(row.channel, row.purpose, row.granted, row.holds) for row in states] == [
            ("elsewhere", "store", True, False),
            ("flat", "store", True, True),
            ("flat", "train", False, False),
        ]
        assert [row.platform for row in states] == [None, "telegram", "telegram"]
        assert ledger_state(session, BEN, POLICY) == []


def test_the_audit_counts_each_member_once_by_their_last_word(database: Database) -> None:
    with database.write() as session:
        open_channel(session)
        agree(session, ANA, BOTH, granted=False)
        agree(session, ANA, BOTH)
        agree(session, BEN, BOTH)
        agree(session, BEN, [Purpose.TRAIN], granted=False)
        agree(session, CLEO, BOTH, policy="2025-01")
        audit = audit_consent(session, POLICY)
    counts = {(row.purpose): (row.agreed, row.outdated, row.refused) for row in audit.purposes}
    assert counts == {"store": (2, 1, 0), "train": (1, 1, 1)}
    assert audit.policy_versions == {"2025-01": 2, POLICY: 3}
    assert audit.due == [ChatDue(FLAT, due=1, asked=0)]


def test_a_new_privacy_text_makes_everybody_due_who_agreed_until_they_answer(database: Database) -> None:
    with database.write() as session:
        open_channel(session)
        for member in (ANA, BEN, CLEO):
            agree(session, member, BOTH)
        agree(session, MemberKey("dan"), BOTH, granted=False)
        assert audit_consent(session, POLICY).due == []
        assert audit_consent(session, NEXT).due == [ChatDue(FLAT, due=3, asked=0)]
        assert claim_ask(session, ANA, FLAT, NEXT, NOW)
        assert audit_consent(session, NEXT).due == [ChatDue(FLAT, due=3, asked=1)]
        agree(session, ANA, BOTH, policy=NEXT)
        agree(session, BEN, [Purpose.STORE], granted=False, policy=NEXT)
        assert audit_consent(session, NEXT).due == [ChatDue(FLAT, due=1, asked=0)]
