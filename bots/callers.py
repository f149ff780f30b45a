"""Who asks for a command, and what they may do: the platform finds out, the commands insist."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from nocap.domain import MemberKey
from nocap.errors import NotPermitted


class Right(IntEnum):
    """Beyond what every member may do. Operators may do what moderators may; the other way never."""

    MODERATOR = 1
    OPERATOR = 2


@dataclass(frozen=True, slots=True)
class Caller:
    """`is_moderator` holds for the chat at hand; `is_operator` comes from the settings' allow-list alone."""

    platform: str
    member: MemberKey
    is_moderator: bool = False
    is_operator: bool = False

    @property
    def actor(self) -> str:
        """How the audit log names the caller."""
        return f"{self.platform}:{self.member}"

    def insist(self, right: Right) -> None:
        """Raises NotPermitted where the caller lacks the right."""
        if right is Right.MODERATOR and not (self.is_moderator or self.is_operator):
            raise NotPermitted("Only this chat's moderators may do that.")
        if right is Right.OPERATOR and not self.is_operator:
            raise NotPermitted("Only the bot's operators may do that.")
