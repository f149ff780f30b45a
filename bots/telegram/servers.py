"""What python-telegram-bot takes for granted of Telegram's own server, and others need not have."""

from __future__ import annotations

from typing import Any

MOST_SECONDS = 10**11
"""A later date than this is in milliseconds."""
DATES = ("date", "edit_date")


def completed(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer as the Bot API says it is: a `result`, `is_bot` of every user, dates in seconds, and so on.

    A user without `is_bot` is a member, unless the answer is the user alone: then it is the bot itself.
    """
    if answer.get("ok") and answer.get("result") is None:
        answer["result"] = True
    result = answer.get("result")
    if isinstance(result, dict) and _is_user(result):
        result.setdefault("is_bot", True)
    _complete(result)
    return answer


def _complete(value: Any) -> None:
    if isinstance(value, list):
        for one in value:
            _complete(one)
    elif isinstance(value, dict):
        if _is_user(value):
            value.setdefault("is_bot", False)
        if isinstance(pressed := value.get("callback_query"), dict):
            pressed.setdefault("chat_instance", "")
        for name in DATES:
            if isinstance(date := value.get(name), int) and date > MOST_SECONDS:
                value[name] = date // 1000
        if isinstance(value.get("link_preview_options"), str):  # the request's own, given back
            del value["link_preview_options"]
        for one in value.values():
            if isinstance(one, list | dict):
                _complete(one)


def _is_user(value: dict[str, Any]) -> bool:
    return "first_name" in value and "id" in value and "type" not in value
