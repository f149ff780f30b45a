"""Made-up canary phases, looked at after every vote: how often does the vote promote what nobody prefers?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from nocap.domain import Verdict
from nocap.settings import CanarySettings
from retrain.gates.votes import VOTES_A_MEMBER, CommunityVotes, Trial

HOURS = 96.0
SETTINGS = CanarySettings()
Draw = np.random.Generator
Phase = Callable[[Draw], Trial]


def phase(draw: Draw, wins: float, agreement: float, members: int = 40, bought: int = 0) -> Trial:
    """The canary wins a share `wins` of the duels; `agreement` is how little one member's votes follow from another's:
    large, and all have one taste; near 0, and each always votes alike. `bought` newcomers always vote for it."""
    tastes = draw.beta(wins * agreement, (1 - wins) * agreement, members)
    voters = draw.permutation(np.repeat(np.arange(members + bought), int(VOTES_A_MEMBER)))
    is_win = np.append(tastes, np.ones(bought))[voters] > draw.random(len(voters))
    return Trial(
        HOURS,
        tuple(f"v{voter}" for voter in voters),
        tuple(map(int, is_win)),
        tuple(int(voter >= members) for voter in voters),
    )


UNPREFERRED: Mapping[str, Phase] = {
    "nobody has a taste": partial(phase, wins=0.5, agreement=1e6),
    "every taste is as common": partial(phase, wins=0.5, agreement=2.0),
    "each member always votes alike": partial(phase, wins=0.5, agreement=0.02),
    "nobody has a taste, 40 accounts are bought": partial(phase, wins=0.5, agreement=1e6, bought=40),
}
PREFERRED: Mapping[str, Phase] = {
    "70 % of the duels won, 40 members": partial(phase, wins=0.7, agreement=10.0),
    "60 % of the duels won, 200 members": partial(phase, wins=0.6, agreement=10.0, members=200),
}


def is_ever_promoted(trial: Trial) -> bool:
    """Whether a look after any of the votes promotes. A member's later votes change nothing, so they are not cast."""
    gate = CommunityVotes()
    for votes in range(SETTINGS.min_voters, len(trial.voters) + 1):
        sofar = Trial(trial.hours, trial.voters[:votes], trial.wins[:votes], trial.newcomers[:votes])
        verdict = gate.decide(sofar, SETTINGS).verdict
        if verdict is not Verdict.ABSTAIN:
            return verdict is Verdict.PASS
    return False
