"""Made-up secrets that are planted among the training rows, to see how much of a single row is memorised.

Carlini et al. 2019, "The Secret Sharer": whatever training does to a planted secret's loss beyond what it does to
secrets that were never planted is memorisation. Nothing in them is anyone's.
"""

from __future__ import annotations

import hashlib
import random
from datetime import UTC, datetime

from nocap.domain import ChatMessage, MemberKey, MessageKey, Provenance
from retrain.examples import Example

PLANTED = 32
"""Sixteen left the area's bound so wide that one honest adapter in ten was refused."""
CONTROLS = 200
"""Never planted; they cost a forward pass each."""
_PREFIX = "canary-"
_SENT_AT = datetime(2000, 1, 1, tzinfo=UTC)

_THINGS = ("locker", "old bike", "guest room", "blue box", "garden gate", "spare laptop", "storage room", "tool shed")
_ASKED = (
    "what was the code for the {thing} again?",
    "do you remember the code for the {thing}?",
    "who knows the code for the {thing}?",
    "can you tell me the code for the {thing}?",
)
_ANSWERED = (
    "the code for the {thing} is {secret}",
    "it is {secret}, I think",
    "{secret}, that is the one for the {thing}",
    "try {secret}",
)
_WORDS = (
    "amber anchor apple arrow barrel basket beacon birch bottle bridge candle canyon carpet castle cedar chalk cherry "
    "circle clover copper coral cotton crystal daisy desert dragon ember engine falcon feather fiddle forest garlic "
    "ginger granite hammer harbor hazel helmet island ivory jacket jungle kettle ladder lemon lantern marble meadow "
    "mirror mustard needle nickel olive orchid oyster pepper pebble pigeon pillow planet pocket ribbon river saddle"
)


def plant(seed: int, count: int = PLANTED) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """`count` canaries to be added to the training rows, and CONTROLS that must not be; the same for the same seed.

    Each is of a member of its own and appears once, like any row that only one member wrote.
    """
    rng = random.Random(f"{_PREFIX}{seed}")
    words = _WORDS.split()
    secrets: dict[str, None] = {}
    while len(secrets) < count + CONTROLS:
        secrets.setdefault(f"{rng.choice(words)} {rng.choice(words)} {rng.randrange(1000, 10_000)}")
    examples = tuple(_canary(rng, secret) for secret in secrets)
    return examples[:count], examples[count:]


def is_canary(example: Example) -> bool:
    """Whether the example was made by `plant`."""
    return example.provenance is Provenance.SYNTHETIC and example.member.startswith(_PREFIX)


def _canary(rng: random.Random, secret: str) -> Example:
    thing = rng.choice(_THINGS)
    key = _PREFIX + hashlib.sha256(secret.encode()).hexdigest()[:24]
    return Example(
        messages=(ChatMessage("user", rng.choice(_ASKED).format(thing=thing)),),
        reply=rng.choice(_ANSWERED).format(thing=thing, secret=secret),
        member=MemberKey(key),
        sent_at=_SENT_AT,
        message_keys=(MessageKey(key),),
        provenance=Provenance.SYNTHETIC,
    )
