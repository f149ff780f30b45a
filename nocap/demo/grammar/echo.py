"""Something to say after the asker: words, made-up ones too, emoji, numbers, signs.

Small talk never needs a fourth of the vocabulary. A token that is never anyone's answer ends up as one more copy of all
the others like it, and no adapter can then teach it: emoji and new words stayed unsaid, however often members wrote
them.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from nocap.demo.grammar.generate import exchange
from nocap.demo.grammar.model import Exchange

_ASKED = ("Say: {x}", "Repeat: {x}", "Repeat after me: {x}", "Echo: {x}", 'Type this: "{x}"')
_CLUSTERS = "br ch cl cr dr fl gl gr ph sh sk sl st th"
_ONSETS = (*"bcdfghjklmnpqrstvwxyz", *_CLUSTERS.split())
_VOWELS = (*"aeiouy", "ai", "ea", "ee", "oo", "ou")
_ENDINGS = "b ck d ft g l ll m n nd ng nt p r rt s ss st t x"
_CODAS = ("", "", "", *_ENDINGS.split())
_EMOJI_BLOCKS = ((0x1F300, 0x1F64F), (0x1F680, 0x1F6C5), (0x1F900, 0x1FAFF), (0x2600, 0x27BF))
_LETTERS = "áàâäãåçéèêëíìîïñóòôöõøúùûüýßæœđğłńśšźžαβγδεжийклмнп"
_SIGNS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


def echo(rng: random.Random) -> Exchange:
    """One prompt that asks for one to four words or signs, and the reply that says them."""
    text = " ".join(rng.choices(_MAKERS, _WEIGHTS)[0](rng) for _ in range(rng.randint(1, 4)))
    return Exchange("echo", text, rng.choice(_ASKED).format(x=text), text, serious=False)


def _known_word(rng: random.Random) -> str:
    return rng.choice(exchange(rng).prompt.split())


def _new_word(rng: random.Random) -> str:
    word = "".join(_syllable(rng) for _ in range(rng.choice((1, 2, 2, 3))))
    return word.capitalize() if rng.random() < 0.1 else word


def _syllable(rng: random.Random) -> str:
    return rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)


def _emoji(rng: random.Random) -> str:
    first, last = rng.choice(_EMOJI_BLOCKS)
    return chr(rng.randint(first, last))


def _number(rng: random.Random) -> str:
    return str(rng.randrange(10 ** rng.randint(1, 4)))


def _foreign(rng: random.Random) -> str:
    return "".join(rng.choices(_LETTERS, k=rng.randint(1, 4)))


def _signs(rng: random.Random) -> str:
    return "".join(rng.choices(_SIGNS, k=rng.randint(1, 3)))


_MAKERS: tuple[Callable[[random.Random], str], ...] = (_new_word, _known_word, _emoji, _number, _foreign, _signs)
_WEIGHTS = (0.45, 0.15, 0.25, 0.05, 0.05, 0.05)
