"""Figures that compare the models' replies with the members' to the same prompts: texts in, numbers out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from nocap.text.lexicon import Lexicon
from nocap.text.tokens import ngrams, words
from retrain.gates.measurements import HumanScores, SpeakerCounts, Variety, VarietyDraws

FOLDS = 5
HALF_SAMPLES = 200
_ENDINGS = " .,!?;:…~"


def speaker_counts(
    lexicon: Lexicon, order: Sequence[str], members: Sequence[str], texts: Sequence[str]
) -> SpeakerCounts:
    """Replies, words and term uses of `texts`, summed per member in the given order."""
    row = {member: index for index, member in enumerate(order)}
    column = {term: index for index, term in enumerate(lexicon.terms)}
    replies, lengths = [0] * len(order), [0] * len(order)
    uses = [[0] * len(column) for _ in order]
    for member, text in zip(members, texts, strict=True):
        replies[row[member]] += 1
        lengths[row[member]] += len(words(text))
        for term, count in lexicon.count(text).items():
            uses[row[member]][column[term]] += count
    return SpeakerCounts(tuple(replies), tuple(lengths), tuple(tuple(one) for one in uses))


def human_scores(
    members: Sequence[str], human: Sequence[str], incumbent: Sequence[str], challenger: Sequence[str], *, seed: int
) -> HumanScores:
    """A character-n-gram classifier's log-odds of "human" for each reply, by folds of members.

    The three replies to a prompt are cut to as many words and lose what ends a sentence, so that neither length nor
    a cut gives anyone away; prompts where one of them has no word are left out.
    """
    cut = [_cut(texts) for texts in zip(human, incumbent, challenger, strict=True)]
    kept = [index for index, texts in enumerate(cut) if all(texts)]
    people = [members[index] for index in kept]
    if len(set(people)) < FOLDS:
        return HumanScores()
    fold_of = _folds(people, seed)
    folds = np.array([fold_of[member] for member in people])
    sides = [[cut[index][side] for index in kept] for side in range(3)]
    scores = np.zeros((3, len(kept)))
    for fold in range(FOLDS):
        scores[:, folds == fold] = _score_fold(sides, folds == fold)
    return HumanScores(tuple(people), tuple(map(int, folds)), *(tuple(map(float, one)) for one in scores))


def _cut(texts: Sequence[str]) -> tuple[str, ...]:
    parts = [text.split() for text in texts]
    shortest = min(map(len, parts))
    return tuple(" ".join(one[:shortest]).strip(_ENDINGS) for one in parts)


def _folds(members: Sequence[str], seed: int) -> dict[str, int]:
    distinct = sorted(set(members))
    order = np.random.default_rng(seed).permutation(len(distinct))
    return {distinct[index]: place % FOLDS for place, index in enumerate(order)}


def _score_fold(sides: Sequence[Sequence[str]], judged: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Scores of the judged prompts' human, incumbent and challenger replies, (3, prompts), by all other prompts'."""
    known = [[text for text, is_judged in zip(side, judged, strict=True) if not is_judged] for side in sides]
    asked = [[text for text, is_judged in zip(side, judged, strict=True) if is_judged] for side in sides]
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 4), sublinear_tf=True, min_df=2, lowercase=False)
    features = vectorizer.fit_transform([text for side in known for text in side])
    count = len(known[0])
    labels = np.repeat([1, 0, 0], count)
    weights = np.repeat([1.0, 0.5, 0.5], count)
    model = LogisticRegression(C=3.0, solver="liblinear").fit(features, labels, sample_weight=weights)
    return np.stack([model.decision_function(vectorizer.transform(side)) for side in asked])


def variety(members: Sequence[str], speakers: Mapping[str, Sequence[str]], *, seed: int) -> Variety:
    """Figures of `human`, `base` and `challenger` replies to the same prompts over random halves of the members.

    In each half every speaker is cut to as many n-grams as the one who has fewest.
    """
    distinct = sorted(set(members))
    owner = np.array([distinct.index(member) for member in members], dtype=np.int64)
    profiles = {name: _Profile(texts) for name, texts in speakers.items()}
    draws: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in speakers}
    rng = np.random.default_rng(seed)
    for _ in range(HALF_SAMPLES if len(distinct) > 1 else 0):
        chosen = rng.permutation(len(distinct))[: (len(distinct) + 1) // 2]
        rows = rng.permutation(np.flatnonzero(np.isin(owner, chosen)))
        limits = [min(profile.size(n, rows) for profile in profiles.values()) for n in (2, 4)]
        for name, profile in profiles.items():
            draws[name].append(profile.figures(rows, limits[0], limits[1]))
    columns = {name: VarietyDraws(*(tuple(one) for one in zip(*found, strict=True))) for name, found in draws.items()}
    return Variety(len(members), len(distinct), columns["human"], columns["base"], columns["challenger"])


class _Profile:
    """One speaker's replies as numbered n-grams."""

    def __init__(self, texts: Sequence[str]) -> None:
        tokenized = [[word.lower() for word in words(text)] for text in texts]
        self._grams = {n: _numbered([ngrams(tokens, n) for tokens in tokenized]) for n in (2, 4)}
        self._loops = np.array([len(row) > len(np.unique(row)) for row in self._grams[4]], dtype=np.float64)
        self._empty = np.array([not tokens for tokens in tokenized], dtype=np.float64)

    def size(self, n: int, rows: NDArray[np.int64]) -> int:
        return sum(len(self._grams[n][row]) for row in rows)

    def figures(self, rows: NDArray[np.int64], pairs: int, runs: int) -> tuple[float, float, float, float]:
        """Distinct-2, overlap of 4-grams, loops and empty replies over the first n-grams of these rows."""
        found = np.concatenate([self._grams[2][row] for row in rows])[:pairs]
        distinct = len(np.unique(found)) / len(found) if len(found) else 0.0
        own = np.concatenate([np.unique(self._grams[4][row]) for row in rows])[:runs]
        _, place, times = np.unique(own, return_inverse=True, return_counts=True)
        overlap = float((times[place] > 1).mean()) if len(own) else 0.0
        return distinct, overlap, float(self._loops[rows].mean()), float(self._empty[rows].mean())


def _numbered(rows: Sequence[Sequence[tuple[str, ...]]]) -> list[NDArray[np.int64]]:
    numbers: dict[tuple[str, ...], int] = {}
    return [np.array([numbers.setdefault(gram, len(numbers)) for gram in row], dtype=np.int64) for row in rows]
