"""A small word list of our own: what a bot must never learn to say, and nothing that is merely rough or slangy.

Slurs, urging to self-harm, threats. Swearing, "dead", "sick", "slay", "kill it" and the like are a community's
register and stay; the toxicity gate measures the trained voice with more than a list.
"""

from __future__ import annotations

import re

_SLURS = [
    "nigger",
    "nigga",
    "nigg",
    "faggot",
    "fag",
    "tranny",
    "trannies",
    "shemale",
    "kike",
    "spic",
    "wetback",
    "beaner",
    "gook",
    "chink",
    "paki",
    "raghead",
    "towelhead",
    "sandnigger",
    "jigaboo",
    "coon",
    "darkie",
    "redskin",
    "retard",
    "retarded",
    "tard",
    "mongoloid",
    "cunt",
]
_PHRASES = (
    "kys",
    "kms",
    "(?:kill|hang|neck|rope|off|shoot) (?:your|ur|yo)(?: )?self",
    "(?:kill|hang|neck) (?:my|him|her)self",
    "(?:go|just) (?:die|jump off|drink bleach)",
    "(?:hope|wish) (?:you|u|he|she|they) (?:die|dies|died|get cancer|gets cancer|get raped)",
    "(?:i will|i'?ll|gonna|imma) (?:rape|stab|shoot|murder|strangle) (?:you|u|him|her|them)",
    "(?:you|u|ur|you'?re|youre|she'?s) (?:a |an |such a |just a )?(?:fucking |attention )?(?:whore|slut|slag)s?",
    "(?:get|got) raped",
    "heil hitler|gas the|white power|race traitor|subhumans?",
)
_HARMLESS = re.compile(
    r"\b(?:maine coons?|spic and span|chinks? in (?:the|my|your|his|her|their) armou?r|tranny fluid"
    r"|(?:don'?t|dont|do not|never) (?:ever )?(?:kill|hang|hurt|shoot) (?:your|ur)self"
    r"|(?:fire|flame|growth)[ -]retard\w*)\b"
)
_LOOKALIKES = str.maketrans({"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "@": "a", "$": "s", "’": "'"})


def _stretched(word: str) -> str:
    """A pattern for `word` with any of its letters repeated."""
    return "".join(f"{letter}+" for letter in word)


_TOXIC = re.compile(rf"\b(?:(?:{'|'.join(map(_stretched, _SLURS))})(?:s+|z+|es)?|{'|'.join(_PHRASES)})\b")


def is_toxic(text: str) -> bool:
    """Whether `text` holds a slur, urges self-harm or threatens, also spelt with digits or stretched letters."""
    folded = text.casefold().translate(_LOOKALIKES)
    found = _TOXIC.search(folded)
    return found is not None and _TOXIC.search(_HARMLESS.sub(" ", folded)) is not None
