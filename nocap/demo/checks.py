"""The demo's promises looked up on disk: in the database's rows and in the bytes of every file."""

from __future__ import annotations

import json
from pathlib import Path

from sqlmodel import col, func, select

from nocap.demo.community import LEAKED_NUMBER, PAYLOAD, REVOKING_WEEK, Community, Role
from nocap.demo.slang_life import SLANG
from nocap.demo.world import World
from nocap.domain import MemberKey
from nocap.settings import Settings
from nocap.text.lexicon import Lexicon
from storage.runs import adapters_trained_on
from storage.tables import Message


def look_at_the_bytes(world: World, community: Community, weeks: int) -> dict[str, bool]:
    """Each promise, and whether it holds now."""
    never = [world.member(member.name) for member in community.with_role(Role.NEVER_CONSENTS)]
    revoked = [world.member(member.name) for member in community.with_role(Role.REVOKES)]
    leaker = [world.member(member.name) for member in community.with_role(Role.LEAKS)]
    with world.database.read() as session:
        leaked_texts = session.exec(select(Message.text).where(col(Message.member).in_(leaker))).all()

        def rows(members: list[MemberKey]) -> int:
            return session.exec(select(func.count()).where(col(Message.member).in_(members))).one()

        kept = {
            "no row of members who never consented": rows(never) == 0,
            "no adapter ever trained on members who never consented": not any(
                adapters_trained_on(session, member) for member in never
            ),
            "the leaked phone number was scrubbed before it was stored": bool(leaked_texts)
            and not any(LEAKED_NUMBER in text for text in leaked_texts),
        }
        if weeks >= REVOKING_WEEK:
            kept["no row of the member who asked to be forgotten"] = rows(revoked) == 0
    kept["no member's text readable in any file"] = not _found_in_files(world.settings.data_dir, _sentinels(community))
    return kept


def base_parameters(settings: Settings) -> int:
    """How many numbers the base model's weights hold, read from the safetensors headers."""
    total = 0
    for file in Path(settings.base_path).glob("*.safetensors"):
        with file.open("rb") as weights:
            header = json.loads(weights.read(int.from_bytes(weights.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__":
                size = 1
                for length in tensor["shape"]:
                    size *= length
                total += size
    return total


def _sentinels(community: Community) -> list[bytes]:
    """Whole messages that nobody but their member wrote, the poison's payload and the leaked number.

    Each holds the community's slang: plain ones ("That sounds scary. …") the base says by itself, in samples too.
    """
    slang = Lexicon(SLANG)
    texts = {one.text for one in community.week(1) if one.reply_to and len(one.text) > 60 and slang.count(one.text)}
    return [text.encode() for text in sorted(texts)[:200]] + [PAYLOAD.encode(), LEAKED_NUMBER.encode()]


def _found_in_files(folder: Path, sentinels: list[bytes]) -> bool:
    for file in folder.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            if any(sentinel in content for sentinel in sentinels):
                return True
    return False
