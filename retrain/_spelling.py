"""Joining the spellings of one word: case, stretched letters (`sooo`), hyphens (`low-key`), skin tones."""

from __future__ import annotations

import re
from collections.abc import Mapping

_RUN = re.compile(r"(.)\1{2,}")
_SKIN_TONES = re.compile("[\U0001f3fb-\U0001f3ff\ufe0f]")


class Spelling:
    """Knows how often each token was written, and so which spelling of a word is the plain one."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts: dict[str, int] = {}
        for token, count in counts.items():
            folded = _folded(token)
            self._counts[folded] = self._counts.get(folded, 0) + count
        self._plain: dict[str, str] = {}

    def plain(self, token: str) -> str:
        """The spelling that stands for `token` when uses are counted; case folded."""
        if token not in self._plain:
            self._plain[token] = self._joined(_folded(token))
        return self._plain[token]

    def _joined(self, folded: str) -> str:
        forms = [_RUN.sub(r"\1", folded), _RUN.sub(r"\1\1", folded)] if _RUN.search(folded) else [folded]
        forms += [form.replace("-", "") for form in forms if "-" in form]
        best = max(forms, key=lambda form: self._counts.get(form, 0))
        return best if best in self._counts else forms[0]


def _folded(token: str) -> str:
    return _SKIN_TONES.sub("", token.casefold().replace("’", "'"))
