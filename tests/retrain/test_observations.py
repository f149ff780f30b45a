from __future__ import annotations

from datetime import UTC, datetime

from nocap.domain import ChatMessage, MemberKey, MessageKey, Provenance
from retrain._observations import drift_reference
from retrain.examples import Example


def replies(name: str, count: int) -> list[Example]:
    return [
        Example(
            messages=(ChatMessage("user", "what now?"),),
            reply=f"{name} {number}",
            member=MemberKey(f"{number % 20:032x}"),
            sent_at=datetime(2026, 1, 1, tzinfo=UTC),
            message_keys=(MessageKey(f"{name}-{number}"),),
            provenance=Provenance.DONATION,
        )
        for number in range(count)
    ]


def test_data_are_compared_with_the_last_promoted_runs() -> None:
    earlier, now = replies("before", 300), replies("now", 300)
    assert drift_reference(earlier, replies("held out", 300), now) is earlier


def test_a_second_run_on_nearly_the_same_rows_is_compared_with_held_out_members() -> None:
    earlier, held_out = replies("same", 500), replies("held out", 300)
    assert drift_reference(earlier, held_out, [*earlier, *replies("now", 20)]) is held_out
    assert drift_reference((), held_out, earlier) is held_out
