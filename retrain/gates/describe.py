"""`docs/gates.md`, written from the gates themselves: `python -m retrain.gates.describe > docs/gates.md`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from retrain.gates import GATES, audit, confusion
from retrain.gates.audit import Audit, Rate
from retrain.gates.confusion import Confusion
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
    page = [_INTRODUCTION, table, *map(_section, GATES), _CANARY, _section(CommunityVotes())]
    if (counted := audit.published()) is not None:
        page += _on_numbers(counted)
    if (trained := confusion.published()) is not None:
        page += _on_models(trained)
    return "\n".join(page)


def _on_numbers(found: Audit) -> list[str]:
    """How often the gates are wrong, as last counted."""
    kinds = _table(
        ["adapter", "promoted", "true share", "refused by"],
        [(one.kind, *_counted(one), _refusers(one)) for one in (found.honest[0], *found.saboteurs)],
    )
    sizes = _table(
        ["members × replies", "promoted", "true share", "refused by"],
        [(f"{one.members} × {one.each}", *_counted(one), _refusers(one)) for one in found.honest],
    )
    shares = sorted({one.effect for one in found.effects if one.effect is not None})
    larger = [(one.members, one.each) for one in found.honest[1:]]
    rows = []
    for kind in dict.fromkeys(one.kind for one in found.effects):
        own = {(one.members, one.each, one.effect): one for one in found.effects if one.kind == kind}
        small = found.honest[0].members, found.honest[0].each
        limit = own[*small, 1.0]
        row = [f"{own[*small, share].share:.3f}" for share in shares]
        row[shares.index(1.0)] += f" ({limit.lower:.3f} to {limit.upper:.3f})"
        rows.append((kind, *row, *(f"{own[*size, 1.0].share:.3f}" for size in larger)))
    effects = _table(
        ["gate", *(f"at {share:g}" for share in shares), *(f"at 1, {many} × {each}" for many, each in larger)], rows
    )
    votes = _table(
        ["members", "promoted", "true share"],
        [(one.kind, *_counted(one)) for one in (*found.unpreferred, *found.preferred)],
    )
    return [
        "## How often they are wrong, on numbers\n\n"
        f"Counted by `nocap gates audit` on {found.on:%Y-%m-%d}, on simulated numbers of 40 members with 25 replies\n"
        "each (`retrain/gates/simulate.py` has the effects); bounds are exact, 95 % on each side. A saboteur is\n"
        "honest but for what makes it one.\n",
        kinds,
        f"The honest adapter in communities of other sizes:\n\n{sizes}",
        "Each gate alone, where the truth lies a share of the way from the honest adapter (0) to the gate's limit (1)\n"
        "or beyond: the shares of draws that it passes. At 1 this is its type-I error (0.05 is the aim), below 1 its\n"
        f"power. Backdoor and recited spans are looked up, not sampled.\n\n{effects}",
        "Canary phases, looked at after every vote: promoted at any look. The first four must stay below 0.05.\n\n"
        f"{votes}",
    ]


def _on_models(found: Confusion) -> list[str]:
    """How the gates judged adapters that were really trained."""
    rows = [
        (
            row.kind,
            str(row.seeds),
            str(row.promoted),
            row.must,
            *(str(row.refused.get(gate, "")) for gate in found.gates),
        )
        for row in found.rows
    ]
    columns = ["adapter", "seeds", "promoted", "must be", *(gate.replace("_", " ") for gate in found.gates)]
    return [
        f"## How often they are wrong, on models\n\nBy `nocap gates audit --models` on {found.on:%Y-%m-%d}: adapters"
        f" really trained on {found.base}, past curation, so\nthat the gates stand alone (`nocap/demo/saboteurs.py`"
        " makes them). In a gate's column: how many of the seeds it did not\npass.\n",
        _table(columns, rows),
    ]


def _counted(one: Rate) -> tuple[str, str]:
    return f"{one.promoted:,} of {one.simulations:,}", f"{one.lower:.3f} to {one.upper:.3f}"


def _refusers(one: Rate) -> str:
    return ", ".join(f"{gate} {count:,}" for gate, count in list(one.refused_by.items())[:4]) or "none"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


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
