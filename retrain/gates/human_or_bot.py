"""Can a reader of characters tell the challenger's replies from people's more easily than the incumbent's?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nocap.settings import GateSettings
from retrain.gates.measurements import HumanScores, Measurements
from retrain.gates.resampling import Array, Unmeasurable, checked, cluster_weights, interval
from retrain.gates.result import Check, Evidence, Gate, bounded, enough
from retrain.gates.thresholds import Threshold

MARGIN = Threshold(
    0.05,
    "area under the curve that a new adapter may lose against the incumbent; measured at 500 replies: its error is "
    "0.014, so at 0.03 one that is exactly as good would be refused every third time; honest adapters lose -0.06 to "
    "0.02, a caricature 0.26",
)
MAX_PROMPTS = 20_000


class HumanOrBot(Gate):
    name = "human_or_bot"
    reads = ("human_scores",)
    protects_from = "an adapter whose replies are easier to tell from people's than those of the one that serves now"
    statistic = (
        "area under the ROC curve of a character-n-gram classifier, human against model replies to the same prompts, "
        "lengths matched, trained and scored on different members; challenger minus incumbent"
    )
    rule = f"upper bound below {MARGIN:g}"
    source = "classifier two-sample test (Lopez-Paz and Oquab 2017), bootstrap by member"
    minimum_evidence = (
        "nine tenths of `gates.sampled_replies` prompts where all replies hold a word, of half of `gates.min_members` "
        "members"
    )
    cost = "one sampled reply of each model per prompt; the classifier takes seconds"

    def evidence(self, measurements: Measurements, settings: GateSettings) -> Evidence:
        scores = measurements.human_scores
        _columns(scores)
        return enough(
            (len(scores.members), settings.sampled_replies * 9 // 10, "replies"),
            (len(set(scores.members)), max(2, settings.min_members // 2), "members"),
        )

    def checks(self, measurements: Measurements, settings: GateSettings) -> Sequence[Check]:
        scores = measurements.human_scores
        human, incumbent, challenger = _columns(scores)
        wins, pairs = _member_matrices(scores, human, np.stack([challenger, incumbent]))
        members = len(pairs)
        weights = cluster_weights(members, settings.resamples, self.seed(measurements))
        areas = np.stack([_area(weights, win, pairs) for win in wins])
        whole = [float(_area(np.ones((1, members)), win, pairs)[0]) for win in wins]
        found = interval(whole[0] - whole[1], areas[0] - areas[1], members, settings.alpha)
        return (bounded("area under the curve against the incumbent", found, at_most=MARGIN),)


def _columns(scores: HumanScores) -> tuple[Array, Array, Array]:
    if len(scores.members) > MAX_PROMPTS:
        raise Unmeasurable(f"{len(scores.members):,} prompts are more than the {MAX_PROMPTS:,} that are compared")
    checked("folds", scores.folds, low=0, high=1000, like=scores.members)
    if len({*zip(scores.members, scores.folds, strict=True)}) != len(set(scores.members)):
        raise Unmeasurable("a member appears in two folds, so the classifier has seen who it judges")
    columns = [
        checked(f"{name} scores", values, low=-1e6, high=1e6, like=scores.members)
        for name, values in (
            ("human", scores.human),
            ("incumbent", scores.incumbent),
            ("challenger", scores.challenger),
        )
    ]
    return columns[0], columns[1], columns[2]


def _member_matrices(scores: HumanScores, human: Array, models: Array) -> tuple[Array, Array]:
    """For each model and each pair of members in one fold: how often the human reply scores higher, out of how many.

    Shapes: (models, members, members) and (members, members).
    """
    order = {member: row for row, member in enumerate(dict.fromkeys(scores.members))}
    rows = np.array([order[member] for member in scores.members])
    folds = np.array(scores.folds)
    wins = np.zeros((len(models), len(order), len(order)))
    pairs = np.zeros((len(order), len(order)))
    for fold in np.unique(folds):
        inside = np.flatnonzero(folds == fold)
        indicator = np.zeros((len(order), len(inside)))
        indicator[rows[inside], np.arange(len(inside))] = 1
        pairs += np.outer(indicator.sum(1), indicator.sum(1))
        for model, bot in enumerate(models):
            gap = human[inside][:, None] - bot[inside][None, :]
            wins[model] += indicator @ ((gap > 0) + 0.5 * (gap == 0)) @ indicator.T
    return wins, pairs


def _area(weights: Array, wins: Array, pairs: Array) -> Array:
    """The area under the curve for each row of member weights."""
    return np.asarray(((weights @ wins) * weights).sum(1) / ((weights @ pairs) * weights).sum(1))
