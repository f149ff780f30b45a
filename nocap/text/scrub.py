"""Removing personal data from a text before anything is written.

What has a shape of its own (numbers, addresses, keys, handles) goes by its shape, names by gazetteer and context.
Every pattern starts only where a run of its characters starts, or is of bounded length, so that the time is
linear in the text whatever it holds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import cache

from nocap.text._addresses import address_spans, may_hold_address
from nocap.text._checks import IBAN_LENGTHS, digits_of, is_card, is_iban, is_ipv4, is_ipv6, is_varied, looks_random
from nocap.text._names import has_doubtful_name, name_spans
from nocap.text._phone import announced_phone_spans, labelled_phone_spans, may_introduce_phone, phone_spans

MAX_PASSES = 8
"""Ordinary texts settle in two; one that does not settle was made to defeat the scrubber and is removed whole."""


class Found(StrEnum):
    """What was removed; its placeholder is the value in brackets."""

    EMAIL = "email"
    PHONE = "phone"
    LINK = "link"
    SECRET = "secret"
    ACCOUNT = "account"
    IP = "ip"
    USER = "user"
    ADDRESS = "address"
    NAME = "name"

    @property
    def placeholder(self) -> str:
        return f"[{self.value}]"


PLACEHOLDERS = frozenset(kind.placeholder for kind in Found)

Spans = Iterator[tuple[int, int]]
SpanFinder = Callable[[str], Spans]
"""Start and end of what is to be replaced, in order, without overlaps."""


def scrub(text: str) -> str:
    """`text` with e-mail, IP and postal addresses, phone, card and account numbers, links, keys, handles and names
    replaced by placeholders such as `[email]`; doing it again changes nothing."""
    return scrub_with_counts(text)[0]


def scrub_with_counts(text: str) -> tuple[str, dict[Found, int]]:
    """The scrubbed text, and how many of each kind were removed."""
    counts: Counter[Found] = Counter()
    for _ in range(MAX_PASSES):
        before, text = text, _scrub_once(text, counts)
        if text == before:
            return text, dict(counts)
    return Found.SECRET.placeholder, {Found.SECRET: 1}


def holds_doubtful_name(scrubbed: str) -> bool:
    """Whether a word that the scrub left may still be a name: `Will`, `Jordan`, a surname alone."""
    return has_doubtful_name(scrubbed)


def _scrub_once(text: str, counts: Counter[Found]) -> str:
    if "<" in text:
        text = _DISCORD_EMOJI.sub(r"\1", text)
    for concerns, rules in _RULES:
        if concerns(text):
            for kind, spans in rules:
                text = _replace(text, kind, spans, counts)
    return text


def _replace(text: str, kind: Found, spans: SpanFinder, counts: Counter[Found]) -> str:
    pieces: list[str] = []
    end_of_last = 0
    for start, end in spans(text):
        pieces += text[end_of_last:start], kind.placeholder
        end_of_last = end
        counts[kind] += 1
    return "".join((*pieces, text[end_of_last:])) if pieces else text


def _matches(pattern: str, is_real: Callable[[str], bool] | None = None, flags: int = re.IGNORECASE) -> SpanFinder:
    """Finds a pattern (its first group, where it has one) that passes the check."""
    compiled = re.compile(pattern, flags)
    group = min(compiled.groups, 1)

    def spans(text: str) -> Spans:
        for match in compiled.finditer(text):
            if is_real is None or is_real(match[group]):
                yield match.span(group)

    return spans


_DISCORD_EMOJI = re.compile(r"<a?(:\w{1,64}:)\d{1,25}>")

_LABEL = r"[\w-]{1,63}+"
_COUNTRY_SITES = "uk|eu|de|au|fr|nl|jp|kr|ru|pl|br|ch|cz|dk|fi"
_SITES = f"com|org|net|edu|gov|io|gg|app|dev|info|biz|xyz|{_COUNTRY_SITES}|(?:com?|ac|org|gov|edu|net)\\.[a-z]{{2}}"
_SITES_WITH_PATH = (
    f"{_SITES}|[a-z]{{2}}|link|page|site|online|store|shop|cloud|live|blog|news|wiki|club|fun|pro|tech|world"
    "|space|website|video|chat|games|media|social"
)
_URL_END = r"""[^\s<>"\[\]]*+"""
_links = _matches(
    rf"""(?:(?:https?|(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{{1,20}})://|(?<!\w)www\d?\.\w){_URL_END}"""
    rf"""|(?<![\w.@/\\~$)\]-])(?:{_LABEL}\.){{1,8}}(?:(?:{_SITES_WITH_PATH})(?::\d{{1,5}})?[/?]{_URL_END}"""
    rf"""|(?:{_SITES})(?![\w@-]|\.\w))"""
    r"|<#\d{1,25}>"
)


def _trimmed_links(text: str) -> Spans:
    """Links without the punctuation of the sentence around them."""
    for start, end in _links(text):
        yield start, start + len(text[start:end].rstrip(".,;:!?'*_~)|`’”"))


_LOCAL = r"(?<![\w.+%=&~-])[\w.+%=&~-]++"
_AT = r"\s?[\[(]at[\])]\s?"
_DOT = r"\s?(?:[\[(]dot[\])]|\.|(?<=\s)dot(?=\s))\s?"
_SPOKEN_DOT = r"\s?(?:[\[(]dot[\])]|(?<=\s)dot(?=\s))\s?"
_PROVIDERS = "gmail|hotmail|yahoo|outlook|icloud|proton(?:mail)?"
_emails = _matches(
    rf"{_LOCAL}(?:@(?:(?:{_LABEL}\.){{1,8}}[^\W\d_]{{2,24}}|(?:{_PROVIDERS})\b)"
    rf"|{_AT}{_LABEL}(?:{_DOT}[a-z]{{2,24}}){{1,3}}"
    rf"|\sat\s{_LABEL}(?:{_SPOKEN_DOT}(?:com|org|net|edu|[a-z]{{2}})\b){{1,2}})"
)

_secrets = _matches(
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[\w\s+/=]*+(?:-----END [A-Z ]{0,40}PRIVATE KEY-----)?"
    r"|(?<![\w-])(?:"
    r"sk-[\w-]{16,}+|[spr]k_(?:live|test)_\w{10,}+|gh[pousr]_\w{20,}+|github_pat_\w{20,}+|glpat-[\w-]{16,}+"
    r"|xox[abeoprs]-[\w-]{10,}+|(?:AKIA|ASIA)[A-Z0-9]{16}(?!\w)|AIza[\w-]{30,}+|ya29\.[\w-]{20,}+|hf_\w{20,}+"
    r"|npm_\w{30,}+|pypi-[\w-]{16,}+|SG\.[\w-]{16,80}+\.[\w-]{16,}+|eyJ[\w-]{8,}+\.[\w-]{8,}+(?:\.[\w-]++)?"
    r"|[MNO][\w-]{22,27}\.[\w-]{6}\.[\w-]{27,}+|\d{8,10}:[\w-]{35}(?![\w-]))",
    flags=0,
)
_passwords = _matches(
    r"\b(?:password|passwd|pass|pwd|passcode|api[ _-]?key|access[ _-]?token|client[ _-]?secret)"
    r"(?:\s?[:=]\s?(?![\[<])|\s(?:is|was)\s(?=[^\s\[]{0,40}\d))([^\s\[\]<>]{4,64})"
)
_random_tokens = _matches(r"(?<![\w+=-])[\w+=-]{20,}+", looks_random)


def _ibans(text: str) -> Spans:
    end_of_last = 0
    for start in _IBAN_START.finditer(text):
        length = IBAN_LENGTHS.get(start[0][:2].upper())
        if length is None or start.start() < end_of_last:
            continue
        written = _alphanumerics(length).match(text, start.start())
        if written and is_iban(written[0].replace(" ", "").replace("-", "")):
            end_of_last = written.end()
            yield written.span()


_IBAN_START = re.compile(r"(?<![^\W_])[A-Za-z]{2}[0-9]{2}(?=[ -]?[A-Za-z0-9])")


@cache
def _alphanumerics(length: int) -> re.Pattern[str]:
    return re.compile(rf"(?:[A-Za-z0-9][ -]?){{{length - 1}}}[A-Za-z0-9]")


_cards = _matches(r"(?<![\d.])(\d{4}([ .-]?)\d{4}\2\d{4}\2\d{1,7}|3\d{3}([ -])\d{6}\3\d{4,5}|\d{13,19})(?!\d)", is_card)
_social_security = _matches(r"(?<![\w-])(?!000|666)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\w-])")
_ipv4 = _matches(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\.?\d|\w)", is_ipv4)
_ipv6 = _matches(
    r"(?:(?<![0-9a-f:.])|(?<=[^0-9a-f:.]:))(?!:(?!:))([0-9a-f:]{6,45}(?:\.\d{1,3}){0,3})(?![\w:])", is_ipv6
)
_platform_ids = _matches(r"(?<![\w.,])\d{17,20}(?!\w)", lambda number: is_varied(digits_of(number)))

_users = _matches(
    r"<@[!&]?\d{1,25}>"
    r"|(?<![\w@])(?:@[^\W\d][\w.]{0,30}\w(?:\#\d{4}(?!\d))?)++"
    r"|(?<![\w#])[^\W\d][\w.]{1,31}\#\d{4}(?!\w)"
    r"|(?<![\w/])/?u/[\w-]{3,20}+"
)

_has_dot_inside = re.compile(r"\w\.\w|://|<#").search
_has_many_digits = re.compile(r"\d(?:\D{0,4}\d){6}").search


def _has_long_token(text: str) -> bool:
    return max(map(len, text.split()), default=0) >= 15


def _may_hold_email(text: str) -> bool:
    return "@" in text or (("(" in text or "[" in text or "dot" in text.lower()) and "at" in text.lower())


def _may_hold_password(text: str) -> bool:
    lowered = text.lower()
    return any(word in lowered for word in ("pass", "pwd", "key", "token", "secret"))


def _may_hold_user(text: str) -> bool:
    return "@" in text or "#" in text or "u/" in text.lower()


# In this order; each group with a cheap look at whether it can find anything in a text.
_RULES: tuple[tuple[Callable[[str], object], tuple[tuple[Found, SpanFinder], ...]], ...] = (
    (_has_dot_inside, ((Found.LINK, _trimmed_links),)),
    (_may_hold_email, ((Found.EMAIL, _emails),)),
    (_has_long_token, ((Found.SECRET, _secrets),)),
    (_may_hold_password, ((Found.SECRET, _passwords),)),
    (_may_hold_user, ((Found.USER, _users),)),
    (lambda text: text.count(".") >= 3, ((Found.IP, _ipv4),)),
    (lambda text: text.count(":") >= 2, ((Found.IP, _ipv6),)),
    (
        _has_many_digits,
        (
            (Found.ACCOUNT, _ibans),
            (Found.ACCOUNT, _cards),
            (Found.ACCOUNT, _social_security),
            (Found.USER, _platform_ids),
            (Found.PHONE, phone_spans),
        ),
    ),
    (
        lambda text: _has_many_digits(text) and may_introduce_phone(text),
        ((Found.PHONE, announced_phone_spans), (Found.PHONE, labelled_phone_spans)),
    ),
    (_has_long_token, ((Found.SECRET, _random_tokens),)),
    (may_hold_address, ((Found.ADDRESS, address_spans),)),
    (bool, ((Found.NAME, name_spans),)),
)
