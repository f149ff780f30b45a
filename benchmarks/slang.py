"""How well fresh slang is found: in simulated years whose truth is known, and, with real chat at hand, in that.

`python -m benchmarks.slang [--shared FOLDER] [--terms] [--quick] [--json]`. Planted are words, phrases, emoji and new
uses of old words, of many rates; decoys are names, memes of an evening, one person's words and one channel's. A
moderator reviews what is found each week, so it is listed once. The detector was not tuned on these years. `--shared`
names the folder of `data/chat` and `data/slang`; `--terms` prints what the detector finds in the college forum, for a
person to judge.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks._report import Bar, publish
from benchmarks._words import made_up_word
from nocap.domain import ChannelKey, MemberKey
from nocap.text.lexicon import Lexicon
from nocap.text.scrub import scrub
from nocap.text.tokens import words
from retrain.slang import MIN_MEMBERS, Use, find_terms, log_odds_rise, log_odds_score

START = datetime(2025, 1, 6, tzinfo=UTC)
WEEKS = 52
FIRST_LOOK = 14
YEARS = (101, 102, 103)
"""Seeds; the year that the detector was tuned on had another."""
MESSAGES_A_WEEK, MEMBERS, CHANNELS = 1_500, 250, 4
LISTED = 20
MIN_WORD_USES = 30
"""Below, how often a word is used in two corpora says little about its rise."""


@dataclass(frozen=True)
class Planted:
    """Something new that members say: `weekly` uses a week at its height, adopted over `adopted_days`."""

    text: str
    week: float
    weekly: float
    adopted_days: float = 10.0
    lasts_days: float = 400.0
    members: int = MEMBERS
    channels: int = CHANNELS
    is_slang: bool = True

    def strength(self, day: float) -> float:
        """Uses a day."""
        age = day - 7 * self.week
        if not 0 <= age <= self.lasts_days:
            return 0.0
        return self.weekly / 7 / (1 + math.exp(-(age - self.adopted_days) / (self.adopted_days / 4)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, help="folder with data/chat and data/slang")
    parser.add_argument("--terms", action="store_true", help="print what the forum's terms are")
    parser.add_argument("--quick", action="store_true", help="half of one year")
    parser.add_argument("--json", action="store_true", dest="as_json")
    arguments = parser.parse_args()
    found = found_in([year(WEEKS // 2, YEARS[0])] if arguments.quick else [year(WEEKS, seed) for seed in YEARS])
    figures = found | {"messages a second": speed()}
    bars = {
        "recall@20": Bar(0.9, at_most=False),
        "precision@20": Bar(0.8, at_most=False),
        "median days to detection": Bar(7.0),
        "messages a second": Bar(20_000, at_most=False),
    }
    if arguments.shared:
        figures |= known_growth(arguments.shared)
        bars["known growth, AUC by z score"] = Bar(0.8, at_most=False)
        if arguments.terms:
            for title, terms in forum_terms(arguments.shared).items():
                print(f"{title}: {', '.join(terms)}")
    publish("slang", figures, bars, packages=("numpy", "ahocorasick_rs"), as_json=arguments.as_json)


def planted(weeks: int, seed: int) -> list[Planted]:
    """The truth: twelve kinds of newcomers over the weeks that are looked at, and their decoys."""
    rng = np.random.default_rng((seed, 8))
    slang = [f"{a}{b}" for a in ("zor", "plim", "gub", "skev", "drax", "yup") for b in ("ber", "nok", "ly", "wave")]
    phrases = ["no lint", "touch moss", "big porch energy", "left the chat", "it is giving soup", "main quest"]
    emoji = ["🪩", "🫨", "🪿", "🛼", "🧋", "🪄"]
    homographs = [made_up_word(number) for number in range(200, 206)]  # old words of the simulated talk with a new use
    last = weeks - 5
    real = [
        Planted(text, float(rng.uniform(FIRST_LOOK, last)), float(np.exp(rng.uniform(np.log(low), np.log(60)))))
        for low, kind in ((8, [*slang, *phrases, *emoji]), (30, homographs))
        for text in kind
    ]
    names = ["Marcus", "Keisha", "Dmitri", "Yolanda", "Anneke", "Tariq", "Priya", "Oskar"]
    memes = ["worldcupfinal", "blackout night", "quizgate", "snowmageddon", "elevatorcam", "pizzafire"]
    decoys = [Planted(name, float(rng.uniform(FIRST_LOOK, last)), 30.0, is_slang=False) for name in names]
    decoys += [
        Planted(meme, float(rng.uniform(FIRST_LOOK, last)), 200.0, 0.1, lasts_days=1.5, is_slang=False)
        for meme in memes
    ]
    decoys += [Planted(f"mywordz{n}", 15.0 + 2 * n, 40.0, members=1, is_slang=False) for n in range(5)]
    decoys += [Planted(f"cliquez{n}", 16.0 + 2 * n, 40.0, members=4, is_slang=False) for n in range(5)]
    decoys += [Planted(f"channelz{n}", 17.0 + 2 * n, 40.0, channels=1, is_slang=False) for n in range(5)]
    return real + decoys


def simulate(weeks: int, terms: list[Planted], seed: int) -> list[Use]:
    """The year's messages in order of time."""
    rng = np.random.default_rng((seed, 4))
    vocabulary = [made_up_word(number) for number in range(8_000)]
    frequency = 1 / np.arange(3, 8_003) ** 1.05
    frequency /= frequency.sum()
    activity = 1 / np.arange(2, MEMBERS + 2) ** 0.7
    activity /= activity.sum()
    uses: list[Use] = []
    for day in range(7 * weeks):
        size = int(rng.poisson(MESSAGES_A_WEEK / 7))
        said = [[vocabulary[n] for n in rng.choice(8_000, size=rng.integers(2, 16), p=frequency)] for _ in range(size)]
        authors = rng.choice(MEMBERS, size=size, p=activity).tolist()
        places = rng.integers(CHANNELS, size=size).tolist()
        for number, term in enumerate(terms):
            for _ in range(int(rng.poisson(term.strength(day)))):
                allowed = [
                    index
                    for index in rng.integers(size, size=60).tolist()
                    if places[index] < term.channels and (authors[index] + 7 * number) % MEMBERS < term.members
                ]
                if term.members < 5:
                    index = int(rng.integers(size))
                    authors[index] = (-7 * number + int(rng.integers(term.members))) % MEMBERS
                    allowed = [index]
                if allowed:
                    said[allowed[0]].insert(int(rng.integers(1, len(said[allowed[0]]) + 1)), term.text)
        moments = np.sort(rng.uniform(0, 86_400, size))
        for tokens, author, place, moment in zip(said, authors, places, moments.tolist(), strict=True):
            at = START + timedelta(days=day, seconds=moment)
            uses.append(Use(MemberKey(f"m{author}"), ChannelKey(f"c{place}"), at, " ".join(tokens)))
    return uses


@dataclass(frozen=True)
class Year:
    """What became of one simulated year's terms."""

    planted: int
    listed: int
    days: tuple[float, ...]
    """From the fifth member's first use to the list, of each planted term that was listed."""


def year(weeks: int, seed: int) -> Year:
    """Looks at the year's talk once a week, as the product does."""
    terms = planted(weeks, seed)
    uses = simulate(weeks, terms, seed)
    truth = {term.text.casefold(): term for term in terms if term.is_slang}
    listed: dict[str, datetime] = {}
    for week in range(FIRST_LOOK, weeks + 1):
        as_of = START + timedelta(weeks=week)
        window = [use for use in uses if as_of - timedelta(weeks=14) <= use.sent_at < as_of]
        found = [one for one in find_terms(window, as_of, list(listed)) if one.term not in listed]
        listed |= {one.term: as_of for one in found[:LISTED]}
    recalled = {term.casefold() for term in listed} & truth.keys()
    return Year(len(truth), len(listed), tuple(_delay(uses, truth[text], listed) for text in sorted(recalled)))


def found_in(years: Sequence[Year]) -> dict[str, float]:
    """Recall and precision of the weekly lists over all years, and of the year that is worst in each."""
    days = [delay for one in years for delay in one.days]
    return {
        "years": float(len(years)),
        "planted terms": float(sum(one.planted for one in years)),
        "terms listed": float(sum(one.listed for one in years)),
        "recall@20": len(days) / sum(one.planted for one in years),
        "precision@20": len(days) / max(1, sum(one.listed for one in years)),
        "worst year's recall@20": min(len(one.days) / one.planted for one in years),
        "worst year's precision@20": min(len(one.days) / max(1, one.listed) for one in years),
        "median days to detection": median(days) if days else math.inf,
    }


def _delay(uses: list[Use], term: Planted, listed: dict[str, datetime]) -> float:
    """Days from the fifth member's first use to the list that holds the term."""
    (shown,) = (text for text in listed if text.casefold() == term.text.casefold())
    born = START + timedelta(weeks=term.week)
    seen: set[MemberKey] = set()
    for use in uses:
        if use.sent_at >= born and f" {term.text} " in f" {use.text} ":
            seen.add(use.member)
            if len(seen) == MIN_MEMBERS:
                return (listed[shown] - use.sent_at) / timedelta(days=1)
    return math.inf


def speed() -> float:
    """Messages a second through scrubbing, matching 500 terms and counting words, on one core; the best of three."""
    texts = [use.text for use in simulate(4, [], YEARS[0])]
    lexicon = Lexicon([made_up_word(number) for number in range(500, 1_000)])
    best = 0.0
    for _ in range(3):
        counted: Counter[str] = Counter()
        begun = time.process_time()
        for text in texts:
            clean = scrub(text)
            counted.update(lexicon.count(clean))
            counted["words"] += len(words(clean))
        best = max(best, len(texts) / (time.process_time() - begun))
    return best


def known_growth(shared: Path) -> dict[str, float]:
    """How well words that grew (2013 to 2016, Stewart and Eisenstein 2018) rank above words that faded, by their
    log-odds from text messages of 2003 to 2015 to a forum of 2018 to 2021.

    The z score is what the detector lists by; the rise itself is the size that the score tests, and needs no more than
    `MIN_WORD_USES`. The interval is the z score's, over drawn words.
    """
    import pandas as pd

    slang, chat = shared / "data" / "slang", shared / "data" / "chat"
    lists = pd.read_csv(slang / "reddit_growth_words_2013_2016.csv")
    faded = {
        word
        for kind in ("logistic", "piecewise")
        for word in pd.read_csv(slang / f"reddit_decline_words_{kind}.csv").c0
    }
    grown = set(lists[lists.growth.astype(str) == "True"].word) - faded
    before = _counted(pd.read_parquet(chat / "nus_sms_2003_2015_dev.parquet").text)
    after = _counted(pd.read_parquet(chat / "reddit_college_dev.parquet").text)
    known = [word for word in sorted(grown | faded) if before[word] + after[word] >= MIN_WORD_USES]
    counts = [(after[word], after.total(), before[word], before.total()) for word in known]
    has_grown = np.array([word in grown for word in known])
    scores = np.array([log_odds_score(*one) for one in counts])
    rng = np.random.default_rng(0)
    drawn = [_area(has_grown[chosen], scores[chosen]) for chosen in rng.integers(len(known), size=(2_000, len(known)))]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {
        "known growth, words": float(len(known)),
        "known growth, AUC by z score": _area(has_grown, scores),
        "known growth, 95 % from": float(low),
        "known growth, 95 % to": float(high),
        "known growth, AUC by rise": _area(has_grown, np.array([log_odds_rise(*one) for one in counts])),
    }


def _area(labels: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores))


def forum_terms(shared: Path) -> dict[str, list[str]]:
    """The forum's own words against general text messages, and what it began to say in each half of its last year."""
    import pandas as pd

    chat = shared / "data" / "chat"
    forum = pd.read_parquet(chat / "reddit_college_dev.parquet").sort_values("created")
    own, general = _counted(forum.text), _counted(pd.read_parquet(chat / "nus_sms_2003_2015_dev.parquet").text)
    totals = own.total(), general.total()
    scores = {word: log_odds_score(own[word], totals[0], general[word], totals[1]) for word in own if len(word) > 1}
    fresh: dict[str, float] = {}
    for as_of in pd.date_range(forum.created.min() + pd.Timedelta(weeks=14), forum.created.max(), freq="14D"):
        since = as_of - pd.Timedelta(weeks=14)
        window = forum[(forum.created >= since) & (forum.created < as_of)]
        for one in find_terms(_uses(window.itertuples()), as_of.to_pydatetime().replace(tzinfo=UTC), list(fresh)):
            fresh.setdefault(one.term, one.score)
    best = sorted(fresh, key=lambda term: -fresh[term])[:100]
    return {"against a general background": sorted(scores, key=lambda w: -scores[w])[:100], "over time": best}


def _uses(rows: Iterable[Any]) -> Iterator[Use]:
    for row in rows:
        at = row.created.to_pydatetime().replace(tzinfo=UTC)
        yield Use(MemberKey(row.user), ChannelKey(row.subreddit), at, scrub(row.text))


def _counted(texts: Iterable[str]) -> Counter[str]:
    return Counter(word.casefold() for text in texts for word in words(str(text)))


if __name__ == "__main__":
    main()
