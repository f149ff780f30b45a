"""Tells operators in their chat how runs ended and what became of a canary: once, by whichever process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from bots import staff_messages
from bots.incidents import report_incident
from nocap.domain import ChannelKey, Clock, VoiceName
from storage.database import Database
from storage.posted import claim_notice, release_notice
from storage.registry import ended_canaries
from storage.runs import ended_since, gate_results

NEWS_DAYS = 2
"""What ended longer ago is no news, even if nobody was told."""

Announce = Callable[[str], Awaitable[None]]


class Notices:
    """Watches the runs of one voice on behalf of one chat."""

    def __init__(self, database: Database, clock: Clock, voice: VoiceName, destination: ChannelKey) -> None:
        self._database = database
        self._clock = clock
        self._voice = voice
        self._destination = destination

    async def watch(self, announce: Announce, every_seconds: float) -> None:
        """Until cancelled; what cannot be announced now is tried again."""
        while True:
            try:
                await self.announce_new(announce)
            except Exception as error:
                report_incident("notice", error, self._destination)
            await asyncio.sleep(every_seconds)

    async def announce_new(self, announce: Announce) -> None:
        waiting = await asyncio.to_thread(self._claimed)
        try:
            while waiting:
                await announce(waiting[0][1])
                waiting.pop(0)
        finally:
            if waiting:
                await asyncio.to_thread(self._release, [key for key, _ in waiting])

    def _claimed(self) -> list[tuple[str, str]]:
        """What is new to this chat, oldest first, and now this process's to tell."""
        at = self._clock()
        with self._database.read() as session:
            ended = ended_since(session, self._voice, at - timedelta(days=NEWS_DAYS))
            found = [
                (f"run/{run.id}/{self._destination}", staff_messages.run_ended(run, gate_results(session, run.id)))
                for run in ended
            ]
            found += [
                (
                    f"canary/{event.id}/{self._destination}",
                    staff_messages.canary_ended(self._voice, event.detail["canary"], event.detail["how"]),
                )
                for event in ended_canaries(session, self._voice, at - timedelta(days=NEWS_DAYS))
            ]
        if not found:
            return []
        with self._database.write() as session:
            return [one for one in found if claim_notice(session, one[0], at)]

    def _release(self, keys: list[str]) -> None:
        with self._database.write() as session:
            for key in keys:
                release_notice(session, key)
