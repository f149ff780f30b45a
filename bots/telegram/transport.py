"""HTTP for python-telegram-bot by aiohttp, which discord.py brings along; the measured reason is decision 0030."""

from __future__ import annotations

import asyncio
import time
from functools import cache
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
from telegram.error import NetworkError, TimedOut
from telegram.request import BaseRequest, RequestData
from yarl import URL

from bots.telegram.servers import completed

KEEP_ALIVE_SECONDS = 15.0
"""Shorter than servers keep connections, so that none is closed under a request."""
POLL_PAUSE_SECONDS = 0.3
LONGEST_EMPTY_ANSWER = 40


class AiohttpRequest(BaseRequest):
    """At most `connections` at a time; further requests wait for one."""

    def __init__(self, connections: int, read_seconds: float) -> None:
        self._connections = connections
        self._read_seconds = read_seconds
        self._session: aiohttp.ClientSession | None = None
        self._answered_at = float("-inf")

    @property
    def read_timeout(self) -> float:
        return self._read_seconds

    async def initialize(self) -> None:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=KEEP_ALIVE_SECONDS)
            cookies = aiohttp.DummyCookieJar()
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=cookies)

    def has_answered_within(self, seconds: float) -> bool:
        """Whether the server has granted a request in the last `seconds`."""
        return time.monotonic() - self._answered_at < seconds

    async def shutdown(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    @staticmethod
    def parse_json_payload(payload: bytes) -> Any:
        return completed(BaseRequest.parse_json_payload(payload))

    async def do_request(
        self,
        url: str,
        method: str,
        request_data: RequestData | None = None,
        read_timeout: Any = BaseRequest.DEFAULT_NONE,
        write_timeout: Any = BaseRequest.DEFAULT_NONE,
        connect_timeout: Any = BaseRequest.DEFAULT_NONE,
        pool_timeout: Any = BaseRequest.DEFAULT_NONE,
    ) -> tuple[int, bytes]:
        if self._session is None:
            raise RuntimeError("This request object is not initialised.")
        seconds = read_timeout if isinstance(read_timeout, int | float) else self._read_seconds
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=seconds)
        try:
            async with self._session.request(
                method, url, data=_body(request_data), timeout=timeout, proxy=_proxy(URL(url).origin())
            ) as response:
                content = await response.read()
                if response.ok:
                    self._answered_at = time.monotonic()
                return response.status, content
        except TimeoutError as error:
            raise TimedOut(str(error) or None) from error
        except aiohttp.ClientError as error:
            raise NetworkError(f"{type(error).__name__}: {error}") from error


class PollingRequest(AiohttpRequest):
    """For getUpdates: a server that answers at once that there is nothing is not asked again at once."""

    async def do_request(self, url: str, *arguments: Any, **options: Any) -> tuple[int, bytes]:
        asked_at = time.monotonic()
        status, content = await super().do_request(url, *arguments, **options)
        if b"[]" in content[:LONGEST_EMPTY_ANSWER] and time.monotonic() - asked_at < POLL_PAUSE_SECONDS:
            await asyncio.sleep(POLL_PAUSE_SECONDS)
        return status, content


@cache
def _proxy(origin: URL) -> str | None:
    """The environment's proxy for this server; aiohttp itself would look it up in a thread for each request."""
    is_direct = proxy_bypass(origin.host or "")
    return None if is_direct else getproxies().get(origin.scheme)


def _body(request_data: RequestData | None) -> aiohttp.FormData | dict[str, str] | None:
    if request_data is None:
        return None
    if not request_data.contains_files:
        return request_data.json_parameters
    form = aiohttp.FormData(request_data.json_parameters)
    for name, (filename, content, content_type) in (request_data.multipart_data or {}).items():
        form.add_field(name, content, filename=filename, content_type=content_type)
    return form
