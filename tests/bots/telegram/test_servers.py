"""Answers of Bot API servers that leave out what Telegram's own always says."""

from __future__ import annotations

import json

from telegram import Message, Update, User

from bots.telegram.transport import AiohttpRequest

BOT = {"id": 7, "first_name": "nocap", "username": "nocap_bot"}
ADA = {"id": 101, "first_name": "Ada"}
SAID = {"message_id": 5, "date": 1_795_614_173_823, "chat": {"id": 101, "type": "private", "first_name": "Ada"}}


def result_of(answer: dict[str, object]) -> object:
    return AiohttpRequest.parse_json_payload(json.dumps({"ok": True} | answer).encode())["result"]


def test_the_bot_is_a_bot_and_members_are_none() -> None:
    me = User.de_json(result_of({"result": BOT}))
    assert (me.is_bot, me.username) == (True, "nocap_bot")
    update = {"update_id": 1, "message": SAID | {"from": ADA, "text": "hi"}}
    (read,) = Update.de_list(result_of({"result": [update]}))
    assert read.message is not None and read.message.from_user is not None
    assert not read.message.from_user.is_bot


def test_what_a_server_says_itself_is_left_as_it_is() -> None:
    said = SAID | {"from": ADA | {"is_bot": True}, "date": 1_795_614_173, "text": "hi"}
    assert result_of({"result": said}) == said


def test_a_sent_message_is_read_whatever_its_clock_and_its_options() -> None:
    sent = SAID | {"text": "hi", "link_preview_options": '{"is_disabled": true}'}
    message = Message.de_json(result_of({"result": sent}))
    assert (message.text, message.date.year) == ("hi", 2026)


def test_a_press_without_a_chat_instance_and_an_edit_without_a_result_are_good_enough() -> None:
    press = {"update_id": 2, "callback_query": {"id": "1", "from": ADA, "message": SAID, "data": "v:1:u"}}
    (read,) = Update.de_list(result_of({"result": [press]}))
    assert read.callback_query is not None and read.callback_query.data == "v:1:u"
    assert result_of({"result": None}) is True
