from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from prometheus_client import CollectorRegistry, generate_latest

from nocap.domain import AdapterName, Provenance, Purpose, Vote
from nocap.observability.state import StateCollector
from nocap.settings import Settings
from storage.crypto import Keyring
from storage.database import Database
from storage.feedback import cast_vote, record_reply
from storage.registry import ensure_voice
from storage.runs import set_gate_results
from storage.tables import GateOutcome, Run
from tests.storage.community import ANA, BEN, FLAT, GENZ, NOW, POLICY, agree, message, open_channel, store


def populate(database: Database) -> None:
    with database.write() as session:
        ensure_voice(session, GENZ, "", [], NOW)
        open_channel(session)
        agree(session, ANA)
        agree(session, BEN, [Purpose.STORE])
        store(session, message("k1", text="SENTINEL"))
        for vote in (Vote.UP, Vote.UP, Vote.CRINGE):
            answered = record_reply(
                session, channel=FLAT, voice=GENZ, adapter=AdapterName("genz-v1"), prompt_member=ANA, prompt_key=None,
                prompt=None, text=None, provenance=Provenance.TERMINAL, policy_version=POLICY, at=NOW,
            )  # fmt: skip
            cast_vote(session, answered, BEN, vote, NOW)
        for number, (state, money) in enumerate([("refused", 0.25), ("promoted", 0.5)]):
            cost = {"seconds": 60.0 + number, "money": money, "currency": "USD", "energy_joules": 1000.0}
            session.add(
                Run(id=f"r{number}", voice=GENZ, state=state, trigger="operator", as_of=NOW, created_at=NOW,
                    ended_at=NOW + timedelta(hours=number), incumbent="base", cost=cost)
            )  # fmt: skip
        session.flush()
        for run, verdict in (("r0", "fail"), ("r1", "pass")):
            outcome = GateOutcome(run_id=run, gate="drift", verdict=verdict, statistic=0.3, threshold="x",
                                  evidence=1, evidence_needed=1, sentence="x")  # fmt: skip
            set_gate_results(session, run, [outcome])  # type: ignore[arg-type]


def exposition(collector: StateCollector) -> list[str]:
    registry = CollectorRegistry()
    registry.register(collector)
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


def test_every_figure_is_counted_in_the_database_and_no_text_is_in_it(
    database: Database, settings: Callable[..., Settings]
) -> None:
    populate(database)
    settings().data_dir.mkdir()
    lines = exposition(StateCollector(database, settings()))
    assert {
        'nocap_feedback{adapter="genz-v1",voice="genz",vote="up"} 2.0',
        'nocap_feedback{adapter="genz-v1",voice="genz",vote="cringe"} 1.0',
        'nocap_replies{adapter="genz-v1",voice="genz"} 3.0',
        'nocap_consents{purpose="store"} 2.0',
        'nocap_consents{purpose="train"} 1.0',
        'nocap_messages{provenance="telegram_message"} 1.0',
        'nocap_channels{collect="true",mode="mention",platform="telegram"} 1.0',
        'nocap_runs{state="promoted",voice="genz"} 1.0',
        'nocap_runs{state="failed",voice="genz"} 0.0',
        'nocap_run_seconds{state="promoted",voice="genz"} 61.0',
        'nocap_run_money{currency="USD",voice="genz"} 0.75',
        'nocap_run_energy_joules{voice="genz"} 2000.0',
        'nocap_gate_verdict{gate="drift",verdict="pass",voice="genz"} 1.0',
        'nocap_gate_statistic{gate="drift",voice="genz"} 0.3',
        'nocap_deployment_info{adapter="base",role="current",voice="genz"} 1.0',
        "nocap_database_up 1.0",
        "nocap_votes_waiting 0.0",
    } <= set(lines), lines
    assert not any("SENTINEL" in line or ANA in line.split("{")[0] for line in lines)


def test_a_database_that_is_away_is_a_figure_not_an_error(keyring: Keyring, settings: Callable[..., Settings]) -> None:
    from storage._engine import usable_url

    away = Database(usable_url("postgresql://nobody@127.0.0.1:9/nothing"), keyring)
    settings().data_dir.mkdir()
    assert "nocap_database_up 0.0" in exposition(StateCollector(away, settings()))
    away.close()
