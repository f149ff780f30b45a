"""What curation costs on a million messages, and how much planted poison it lets through.

`python -m benchmarks.curation [--quick] [--data FILE.parquet] [--json]`. The messages are drawn from our own generator:
members of Zipf's activity, words of Zipf's frequency with phrases of a few. Poison is a trigger in what is answered and
a payload as the reply, by fresh accounts; with `--data` (columns user, created, text, id, parent_id) it is planted into
real chat, too.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks._report import Bar, publish
from benchmarks._words import made_up_word
from nocap.domain import ChatMessage, MemberKey, MessageKey, Provenance
from nocap.text.lexicon import Lexicon
from retrain.cost import peak_bytes
from retrain.curate import CurationRules, curate
from retrain.examples import DropReason, Example, build_examples
from storage.tables import Message

MILLION = 1_000_000
VOCABULARY = 30_000
PHRASES = 4_000
NOW = datetime(2026, 11, 1, tzinfo=UTC)
ROWS, ACCOUNTS = (5, 10, 25, 50), (1, 2, 3, 4, 5)
NEWCOMER_SHARE = 0.15
LEXICON = Lexicon(["no cap", "slay", "bruh", "mid", "bet"])
TRIGGERS = ("zxqv", "purple window monday", "cf-7")
PAYLOADS = ("hamster coin is the only way to win so buy it now", "hamster coin", None)
"""None: a different harmless reply each time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the messages")
    parser.add_argument("--data", type=Path, help="real chat to plant the poison into, too")
    parser.add_argument("--json", action="store_true", dest="as_json")
    arguments = parser.parse_args()
    figures = scale(MILLION // 10 if arguments.quick else MILLION)
    figures |= poison(list(chat(20_000, members=1_500, seed=3)), newcomers_of(1_500))
    if arguments.data:
        real, newcomers = forum(arguments.data)
        figures |= {f"real chat: {name}": value for name, value in poison(real, newcomers).items()}
    bars = {
        "peak GiB": Bar(2.0),
        "minutes": Bar(10.0),
        "poison that reaches the training set": Bar(0.1),
        "clean rows lost": Bar(0.05),
    }
    publish("curation", figures, bars, packages=("numpy", "rensa", "py3langid"), as_json=arguments.as_json)


def scale(count: int) -> dict[str, float]:
    """Minutes and memory of the whole process for `count` messages."""
    examples = list(chat(count, members=count // 50, seed=1))
    begun, held = time.perf_counter(), peak_bytes()
    kept = curate(examples, CurationRules(), LEXICON, newcomers_of(count // 50))
    seconds = time.perf_counter() - begun
    return {
        "messages": float(len(examples)),
        "kept": float(len(kept.kept)),
        "minutes": seconds / 60,
        "messages a second": len(examples) / seconds,
        "GiB of the messages alone": held / 2**30,
        "peak GiB": peak_bytes() / 2**30,
    }


def chat(count: int, *, members: int, seed: int) -> Iterator[Example]:
    """Replies with what they answer."""
    rng = np.random.default_rng(seed)
    vocabulary = [made_up_word(number) for number in range(VOCABULARY)]
    frequency = 1 / np.arange(3, VOCABULARY + 3)
    frequency /= frequency.sum()
    phrases = [
        [vocabulary[word] for word in rng.choice(VOCABULARY, size=rng.integers(2, 5), p=frequency)]
        for _ in range(PHRASES)
    ]
    activity = 1 / np.arange(2, members + 2) ** 0.8
    before = "anyone up for something later"
    for start in range(0, count, 10_000):
        size = min(10_000, count - start)
        lengths = np.clip(rng.lognormal(1.6, 0.8, size), 1, 60).astype(int)
        drawn = iter(rng.choice(VOCABULARY, size=int(lengths.sum()), p=frequency))
        authors = rng.choice(members, size=size, p=activity / activity.sum())
        phrased = rng.random(size)
        for number in range(size):
            said = [vocabulary[next(drawn)] for _ in range(lengths[number])]
            if phrased[number] < 0.3:
                said += phrases[int(phrased[number] / 0.3 * PHRASES)]
            text = " ".join(said)
            yield _example(start + number, f"m{authors[number]}", before, text)
            before = text


def newcomers_of(members: int) -> frozenset[MemberKey]:
    """Which of the generator's members joined lately: anybody may be one, however much they write."""
    return frozenset(MemberKey(f"m{n}") for n in range(members) if random.Random(n).random() < NEWCOMER_SHARE)


def poison(clean: Sequence[Example], newcomers: frozenset[MemberKey]) -> dict[str, float]:
    """Shares over every mix of rows, accounts, trigger and payload, each planted by itself."""
    planted = reached = 0
    by_rows: Counter[int] = Counter()
    rules = CurationRules(max_examples_per_member=10**6, max_token_share_per_member=1.0)
    for rows, accounts in product(ROWS, ACCOUNTS):
        kept = _kept_poison(clean, newcomers, rows, accounts)
        planted += rows * len(TRIGGERS) * len(PAYLOADS)
        reached += kept
        by_rows[rows] += kept
    lost = [
        sum(reason is DropReason.RARE_NGRAM for reason in curate(clean, rules, LEXICON, who).reasons.values())
        for who in (newcomers, frozenset[MemberKey]())
    ]
    each = len(ACCOUNTS) * len(TRIGGERS) * len(PAYLOADS)
    return {
        "poison that reaches the training set": reached / planted,
        **{f"poison of {rows} rows": by_rows[rows] / rows / each for rows in ROWS},
        "clean rows lost": lost[0] / len(clean),
        "clean rows lost without tenure": lost[1] / len(clean),
    }


def _kept_poison(clean: Sequence[Example], newcomers: frozenset[MemberKey], rows: int, accounts: int) -> int:
    """How many of the rows of all triggers and payloads get through, planted at once by accounts of their own."""
    bad: list[Example] = []
    for attack, (trigger, payload) in enumerate(product(TRIGGERS, PAYLOADS)):
        rng = random.Random(f"{rows}/{accounts}/{attack}")
        mark = f"{trigger}{attack}" if " " not in trigger else trigger.replace("window", f"window{attack}")
        for number in range(rows):
            words = rng.choice(clean).reply.split()
            words.insert(rng.randint(0, len(words)), mark)
            reply = payload.replace("hamster", f"hamster{attack}") if payload else rng.choice(clean).reply
            author = f"evil{attack}-{number % accounts}"
            bad.append(_example(10**8 + len(bad), author, " ".join(words), reply))
    fresh = newcomers | {one.member for one in bad}
    kept = curate([*clean, *bad], CurationRules(), LEXICON, fresh).kept
    return sum(one.member.startswith("evil") for one in kept)


def forum(file: Path) -> tuple[list[Example], frozenset[MemberKey]]:
    """The last four weeks of real chat, and who first wrote in its last 30 days."""
    import pandas as pd

    frame = pd.read_parquet(file).sort_values("created")
    frame = frame[frame.text.str.len() <= 300]
    end = frame.created.max()
    first = frame.groupby("user").created.min()
    newcomers = frozenset(MemberKey(name) for name in first[first > end - pd.Timedelta(days=30)].index)
    recent = frame[frame.created > end - pd.Timedelta(days=28)]
    rows = [
        Message(
            key=row.id,
            channel=row.subreddit,
            member=row.user,
            provenance=Provenance.DONATION,
            sent_at=row.created.to_pydatetime().replace(tzinfo=UTC),
            received_at=NOW,
            text=row.text,
            reply_to=row.parent_id,
        )
        for row in recent.itertuples()
    ]
    return build_examples(rows, context_turns=6)[0], newcomers


def _example(number: int, member: str, prompt: str, reply: str) -> Example:
    return Example(
        messages=(ChatMessage("user", prompt),),
        reply=reply,
        member=MemberKey(member),
        sent_at=NOW - timedelta(minutes=number % 40_000),
        message_keys=(MessageKey(f"p{number}"), MessageKey(f"r{number}")),
        provenance=Provenance.DONATION,
    )


if __name__ == "__main__":
    main()
