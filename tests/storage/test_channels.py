from datetime import UTC, datetime

import pytest

from nocap.domain import ChannelKey, ChannelMode, VoiceName
from nocap.errors import InputError
from storage.channels import ensure_channel, get_channel, move_channel, moved_channels, set_channel
from storage.database import Database

NOW = datetime(2026, 11, 1, tzinfo=UTC)
KEY = ChannelKey("c1")
GENZ = VoiceName("genz")


def test_a_channel_is_made_once_and_keeps_its_own_settings(database: Database) -> None:
    with database.write() as session:
        ensure_channel(session, KEY, platform="telegram", label="the flat", voice=GENZ, at=NOW)
        set_channel(session, KEY, mode=ChannelMode.ALWAYS, collect=True)
    with database.write() as session:
        ensure_channel(session, KEY, platform="telegram", label="renamed", voice=GENZ, at=NOW, collect=False)
    with database.read() as session:
        channel = get_channel(session, KEY)
        assert channel is not None
        assert (channel.label, channel.mode, channel.collect, channel.duels) == ("the flat", "always", True, True)


def test_a_new_channel_does_not_collect(database: Database) -> None:
    with database.write() as session:
        assert not ensure_channel(session, KEY, platform="discord", label=None, voice=GENZ, at=NOW).collect


def test_settings_not_given_stay(database: Database) -> None:
    with database.write() as session:
        ensure_channel(session, KEY, platform="discord", label=None, voice=GENZ, at=NOW, collect=True)
        set_channel(session, KEY, duels=False)
        channel = set_channel(session, KEY, voice=VoiceName("boomer"))
        assert (channel.collect, channel.duels, channel.voice) == (True, False, "boomer")


def test_an_unknown_channel_cannot_be_set(database: Database) -> None:
    with database.write() as session, pytest.raises(InputError, match="no channel c1"):
        set_channel(session, KEY, collect=True)


def test_a_chat_that_moves_twice_stays_the_channel_that_it_was(database: Database) -> None:
    second, third = ChannelKey("second"), ChannelKey("third")
    with database.write() as session:
        assert move_channel(session, KEY, second, NOW)
        assert not move_channel(session, KEY, second, NOW), "the platform says so in both chats"
        assert move_channel(session, second, third, NOW)
        assert moved_channels(session) == {second: KEY, third: KEY}
