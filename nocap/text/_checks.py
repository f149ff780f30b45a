"""What tells a card, an account, an address or a key from other runs of digits and letters."""

from __future__ import annotations

import ipaddress
import re
from itertools import pairwise

# ISO 13616 registry, release 99: characters of an IBAN by country.
IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27,
    "BR": 29, "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28,
    "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23,
    "GL": 18, "GR": 27, "GT": 28, "HN": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26,
    "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21,
    "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28,
    "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22,
    "RU": 33, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "SO": 23, "ST": 25,
    "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20, "YE": 30,
}  # fmt: skip

MIN_DISTINCT_DIGITS = 4
"""Fewer in a long number mean that it is round or a joke (1000000000, 99999999999)."""
MIN_SWITCHES = 0.22
"""Least share of neighbours that go from a lower to an upper case letter, or between letter and digit, in a key."""
MIN_RANDOM_RUN = 12
"""Letters and digits in a row that a key holds; versions and file names are broken up by dashes."""


def digits_of(text: str) -> str:
    return "".join(character for character in text if character.isdecimal())


def is_varied(digits: str) -> bool:
    """Whether a long number looks assigned rather than round."""
    return len(set(digits)) >= MIN_DISTINCT_DIGITS


def is_card(text: str) -> bool:
    """Whether the 13 to 19 digits in `text` pass the Luhn check and begin as payment cards do (ISO/IEC 7812)."""
    digits = [int(digit) for digit in digits_of(text)]
    if not 13 <= len(digits) <= 19 or digits[0] not in (2, 3, 4, 5, 6):
        return False
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_iban(compact: str) -> bool:
    """Whether `compact` (no spaces) has its country's length and passes the mod-97 check (ISO 13616)."""
    if len(compact) != IBAN_LENGTHS.get(compact[:2].upper()):
        return False
    return int("".join(str(int(character, 36)) for character in compact[4:] + compact[:4])) % 97 == 1


def is_ipv4(text: str) -> bool:
    """Whether `text` is an address that can belong to somebody; versions, counts and loopback are none."""
    octets = text.split(".")
    return octets[0] not in ("0", "127") and all(
        int(octet) <= 255 and (octet == "0" or not octet.startswith("0")) for octet in octets
    )


def is_ipv6(text: str) -> bool:
    """Whether `text` is an address that can belong to somebody, so neither `::1` nor a word like `dead::beef`."""
    if sum(character not in ":." for character in text) < 4 or not any(map(str.isdecimal, text)):
        return False
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def looks_random(token: str) -> bool:
    """Whether a long token mixes letters and digits as keys do, and words, names and laughter do not."""
    runs = [run for run in re.split(r"[\W_]+", token) if run]
    characters = "".join(runs)
    if max(map(len, runs), default=0) < MIN_RANDOM_RUN or len(set(characters)) < 8:
        return False
    kinds = "".join("d" if c.isdecimal() else "U" if c.isupper() else "l" for c in characters)
    switches = sum(left + right in ("lU", "ld", "Ud", "dl", "dU") for left, right in pairwise(kinds))
    return "d" in kinds and switches >= MIN_SWITCHES * len(characters)
