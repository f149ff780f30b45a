"""`docs/gates.md`, written from the gates themselves: `python -m retrain.gates.describe > docs/gates.md`."""

from __future__ import annotations

import sys

from retrain.gates import GATES
from retrain.gates.audit import published
from retrain.gates.result import Gate
from retrain.gates.votes import CommunityVotes

_INTRODUCTION = """\
# The gates

<!-- Written by `python -m retrain.gates.describe`; a test keeps it in step. Change the gates, not this page. -->

A retrained adapter (the challenger) is promoted only if every gate passes: an intersection-union test (Berger 1982).
Each gate holds at level `gates.alpha` (0.05), so an adapter that is bad on any one gate is promoted with a probability
of at most 5 %, whatever the others say; nothing has to be corrected for their number.

- **pass**: the bounds lie inside the limits. It was shown good, not merely not shown bad.
- **fail**: they do not, or the numbers cannot be read: a gate that cannot measure has failed.
- **abstain**: too little evidence; the sentence says how much is missing. Nothing is promoted, nothing is held against
  the adapter.

The challenger is compared with the incumbent (before the first promotion: with the base), on the same prompts, and
whole members are resampled, because one member's messages are not independent of each other: resampling messages
refuses or promotes wrongly in 14 to 28 % of cases at 40 members of 25 messages, resampling members in about 5 %.
Held-out replies are of members whom no run trains on. Replies are drawn by the engine that serves, at the quantisation
that serves, sampled as in chat. The gates read numbers only; no member's text is kept.

Thresholds belong to the code and are frozen before a run: there is no setting that loosens one.
"""


_CANARY = """\
## In the canary phase

With `canary.share` above 0, an adapter that passed answers in that share of the channels before it is promoted, and
members decide. This gate looks every `canary.check_seconds`: pass promotes, fail withdraws, abstain goes on.
"""


def describe() -> str:
    """The page."""
    rows = "\n".join(f"| [{_title(gate)}](#{gate.name}) | {_sentence(gate.protects_from)} |" for gate in GATES)
    table = f"| gate | protects from |\n|---|---|\n{rows}\n"
    return "\n".join(
        [_INTRODUCTION, table, *(_section(gate) for gate in GATES), _CANARY, _section(CommunityVotes()), *_audit()]
    )


def _audit() -> list[str]:
    """How often the gates are wrong, as last counted."""
    found = published()
    if found is None:
        return []
    kinds = "\n".join(
        f"| {one.kind} | {one.promoted:,} of {one.simulations:,} | {one.lower:.3f} to {one.upper:.3f} |"
        f" {', '.join(f'{gate} {count:,}' for gate, count in list(one.refused_by.items())[:3]) or 'none'} |"
        for one in (found.honest, *found.saboteurs)
    )
    limits = "\n".join(
        f"| {one.kind.removeprefix('limit of ')} | {one.share:.3f} | {one.lower:.3f} to {one.upper:.3f} |"
        for one in found.at_the_limit
    )
    return [
        f"## How often they are wrong\n\nCounted by `nocap gates audit` on {found.on:%Y-%m-%d}, on simulated numbers of"
        " 40 members (`retrain/gates/simulate.py` has\nthe effects); bounds are exact, 95 % on each side. A saboteur is"
        " honest but for what makes it one.\n",
        f"| adapter | promoted | true share | refused by |\n|---|---|---|---|\n{kinds}\n",
        "Where the truth lies on the limit of one gate, that gate passes in this share of the draws (its type-I error;"
        f"\n0.05 is the aim):\n\n| gate | passes | true share |\n|---|---|---|\n{limits}\n",
    ]


def _section(gate: Gate | CommunityVotes) -> str:
    facts = (
        ("Protects from", gate.protects_from),
        ("Statistic", gate.statistic),
        ("Passes if", gate.rule),
        ("Source", gate.source),
        ("Minimum evidence", gate.minimum_evidence),
        ("Cost", gate.cost),
    )
    lines = "\n".join(f"- **{name}:** {_sentence(text)}" for name, text in facts)
    return f'<a id="{gate.name}"></a>\n## {_title(gate).capitalize()}\n\n{lines}\n'


def _title(gate: Gate | CommunityVotes) -> str:
    return gate.name.replace("_", " ")


def _sentence(text: str) -> str:
    return f"{text.rstrip('.')}."


if __name__ == "__main__":
    sys.stdout.write(describe())
