"""From what a backend refuses with to our errors. Sentences never repeat a member's text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime

import httpx

from inference.wire import DEFAULT_RETRY_AFTER_SECONDS
from nocap.domain import AdapterName, ChatMessage, utc_now
from nocap.errors import (
    AdapterError,
    BackendBusy,
    BackendPaused,
    BackendUnavailable,
    InferenceError,
    NocapError,
    NotPermitted,
    PromptTooLong,
    UnknownAdapter,
)

_TOO_LONG = re.compile(
    r"context.length|too long|maximum (?:context|model) len|longer than the maximum|must be <= \d+\. Given",
    re.IGNORECASE,
)
_LOADED_ALREADY = re.compile(r"already (?:been )?(?:loaded|added)")
_QUOTATION = re.compile(r"[\"{\[\n`]|(?<!\w)'")


def refusal(
    url: str, response: httpx.Response, adapter: AdapterName, messages: Sequence[ChatMessage] = ()
) -> InferenceError:
    """The error for a refused request; `messages` are the texts that must not be repeated."""
    status = response.status_code
    if status == 404:
        return UnknownAdapter(f"{url} does not hold `{adapter}`; load it there first.")
    if status == 429:
        return BackendBusy(f"{url} has a full queue; try again shortly.", retry_after_seconds(response))
    if status in (401, 403):
        return InferenceError(f"{url} refuses our token ({status}); mend `inference.user_token`.")
    if status == 503 and _is_pause(response):
        return BackendPaused(f"{url} has made room for a retrain; ask again later.", retry_after_seconds(response))
    if status >= 500:
        return BackendUnavailable(f"{url} cannot answer now ({status}); try again, or read its log.")
    reason = _without_texts(response, messages)
    if status in (400, 413, 422) and _TOO_LONG.search(response.text):
        return PromptTooLong(f"{url} finds the prompt too long{reason}; shorten it.")
    return InferenceError(f"{url} refused the request ({status}){reason}; read its log.")


def load_refusal(url: str, response: httpx.Response, name: AdapterName) -> NocapError:
    """The error for a refused adapter, with the backend's own reason."""
    status = response.status_code
    if status in (401, 403):
        return InferenceError(f"{url} refuses our admin token ({status}); set `inference.admin_token`.")
    if status == 429 or status >= 500:
        return refusal(url, response, name)
    reason = _words(response)[:500]
    advice = "mend the adapter or choose another"
    if has_no_such_route(response):
        advice = "it may forbid loading at run time (vLLM: VLLM_ALLOW_RUNTIME_LORA_UPDATING=1)"
    return AdapterError(f"{url} did not load `{name}` ({status}){f': {reason}' if reason else ''}; {advice}.")


def pause_refusal(url: str, response: httpx.Response) -> NocapError:
    """The error for a pause, or its end, that was refused."""
    if response.status_code in (401, 403):
        return InferenceError(f"{url} refuses our admin token ({response.status_code}); set `inference.admin_token`.")
    reason = _words(response)[:300]
    if response.status_code == 409:
        return NotPermitted(f"{url}: {reason}.")
    return InferenceError(
        f"{url} cannot pause ({response.status_code}){f': {reason}' if reason else ''}; set `retrain.gpu` to `share`."
    )


def is_loaded_already(response: httpx.Response) -> bool:
    """Whether this is vLLM's refusal to load a name twice; the embedded server takes the same adapter in peace."""
    return response.status_code == 400 and _LOADED_ALREADY.search(_words(response)) is not None


def has_no_such_route(response: httpx.Response) -> bool:
    """Whether the backend knows no such endpoint at all, rather than no such adapter."""
    return response.status_code in (404, 405) and _words(response) in ("", "Not Found", "Method Not Allowed")


def unreachable(url: str, error: httpx.HTTPError, timeout_seconds: float) -> BackendUnavailable:
    """The error for a backend that cannot be reached, is silent, or hangs up."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.UnsupportedProtocol):
        return BackendUnavailable(
            f"No inference backend answers at {url}; start one with `nocap serve`, or mend `inference.urls`."
        )
    if isinstance(error, httpx.TimeoutException):
        return BackendUnavailable(
            f"{url} was silent for {timeout_seconds:g} s (`inference.timeout_seconds`); try again."
        )
    return BackendUnavailable(f"The connection to {url} broke ({type(error).__name__}); try again.")


def retry_after_seconds(response: httpx.Response) -> float:
    """The Retry-After header, in seconds or as a date (RFC 9110, 10.2.3); one second where it is missing."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return DEFAULT_RETRY_AFTER_SECONDS
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - utc_now()).total_seconds())


def _is_pause(response: httpx.Response) -> bool:
    try:
        return bool(response.json()["error"]["code"] == "paused")
    except (ValueError, LookupError, TypeError):
        return False


def _words(response: httpx.Response) -> str:
    try:
        detail = response.json()
        detail = detail.get("error", detail)
        words = detail.get("message") or detail.get("detail") if isinstance(detail, dict) else detail
    except (ValueError, AttributeError):
        words = response.text
    return str(words or "").strip().rstrip(".")


def _without_texts(response: httpx.Response, messages: Sequence[ChatMessage]) -> str:
    """The backend's words up to its first quotation; nothing where they still repeat a line of the prompt."""
    words = _QUOTATION.split(_words(response), maxsplit=1)[0].strip().rstrip(".:,")[:200]
    lines = (line.strip() for message in messages for line in message.content.splitlines())
    return "" if not words or any(line in words for line in lines if line) else f": {words}"
