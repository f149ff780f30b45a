"""The demo's own installation: what of the simulated chat reaches the product, and what must not."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlmodel import func, select

from nocap.demo.checks import base_parameters, look_at_the_bytes
from nocap.demo.community import LEAKED_NUMBER, Community, Role
from nocap.demo.world import MARKER_FILE, World, prepare
from nocap.errors import ConfigurationError
from nocap.settings import Settings
from retrain.dataset import held_out_member
from storage.crypto import Keyring
from storage.tables import Message

SEED = 7


@pytest.fixture(scope="module")
def community() -> Community:
    return Community(SEED)


@pytest.fixture(scope="module")
def world(community: Community, tmp_path_factory: pytest.TempPathFactory) -> World:
    world = prepare(Settings(data_dir=tmp_path_factory.mktemp("data")), community, SEED)
    assert sum(world.store(community.week(1))) == len(community.week(1))
    return world


def test_only_consenting_members_are_stored_and_the_leaked_number_is_not(world: World, community: Community) -> None:
    with world.database.read() as session:
        stored = session.exec(select(func.count()).select_from(Message)).one()
    assert 0.9 * len(community.week(1)) < stored < len(community.week(1))
    assert any(LEAKED_NUMBER in message.text for message in community.week(1))
    assert all(look_at_the_bytes(world, community, weeks=1).values())


def test_the_checks_notice_a_text_that_lies_open(world: World, community: Community) -> None:
    texts = sorted({m.text for m in community.week(1) if m.reply_to and len(m.text) > 60})
    leak = world.settings.data_dir / "leak.txt"
    leak.write_text(texts[0], encoding="utf-8")
    assert not look_at_the_bytes(world, community, weeks=1)["no member's text readable in any file"]
    leak.unlink()


def test_everyone_with_a_part_to_play_is_a_member_whom_runs_train_on(world: World, community: Community) -> None:
    players = [member for role in (Role.REVOKES, Role.LEAKS, Role.POISONS) for member in community.with_role(role)]
    assert len(players) == 4
    assert not any(held_out_member(world.member(player.name)) for player in players)


def test_the_same_seed_gives_the_same_pseudonyms_and_another_seed_others(community: Community, tmp_path: Path) -> None:
    keys = []
    for name, seed in (("a", SEED), ("b", SEED), ("c", SEED + 1)):
        prepare(Settings(data_dir=tmp_path / name), community, seed).database.close()
        keys.append(Keyring.load(tmp_path / name / "demo" / "nocap.key").pseudonym("member", "demo", "member-000"))
    assert keys[0] == keys[1] != keys[2]


def test_a_folder_that_is_no_demos_is_never_replaced(community: Community, tmp_path: Path) -> None:
    mine = tmp_path / "demo" / "precious.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(ConfigurationError, match="no demo's"):
        prepare(Settings(data_dir=tmp_path), community, SEED)
    assert mine.read_text() == "mine"
    (tmp_path / "demo" / MARKER_FILE).touch()
    prepare(Settings(data_dir=tmp_path), community, SEED).database.close()
    assert not mine.exists()


def test_the_base_has_one_million_parameters() -> None:
    assert base_parameters(Settings()) == 1_049_984
