"""Figures that need the models' losses: drift, multiple choice, verbatim spans, triggers."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from inference.base_model import BaseModel
from inference.prompt import ReplyTokens
from inference.server.generation import Completion
from retrain._questions import Rendered, Renderer, Speaker
from retrain._scoring import CachedLosses, PerToken
from retrain._spans import (
    FEW_MEMBERS,
    Span,
    SpanIndex,
    rare_prompt_words,
    span_loss,
    spans,
    tied_prompt_words,
    word_of_token,
)
from retrain.examples import Example
from retrain.gates.measurements import AnchorDrift, ChoiceScores, SpanLosses, TiedAnswers, TriggerShifts
from retrain.probes import Probes

UNSEEN_SPANS = 2000
TRIGGERS = 24
TRIGGERED_ANCHORS = 8
TIED_WORDS = 12


def anchor_drift(
    losses: CachedLosses, renderer: Renderer, probes: Probes, replies: Sequence[Completion]
) -> AnchorDrift:
    """KL(challenger ‖ base) along the challenger's own replies to the anchors."""
    rows = [
        ReplyTokens(renderer.exchange(prompt).prompt, list(reply.token_ids))
        for prompt, reply in zip(probes.anchors, replies, strict=True)
    ]
    found = losses.divergences("challenger", "drift", rows)
    return AnchorDrift(tuple(len(one) for one in found), tuple(float(one.sum()) for one in found))


def choice_scores(losses: CachedLosses, renderer: Renderer, probes: Probes) -> ChoiceScores:
    """Mean log-probability per token of every choice, under base and challenger."""
    rows = [renderer.exchange(item.prompt, choice) for item in probes.retention for choice in item.choices]

    def scores(speaker: Speaker) -> tuple[tuple[float, ...], ...]:
        means = iter([-float(np.mean(one)) for one in losses.of(speaker, "multiple choice", rows)])
        return tuple(tuple(next(means) for _ in item.choices) for item in probes.retention)

    return ChoiceScores(scores("base"), scores("challenger"))


def span_losses(
    losses: CachedLosses,
    index: SpanIndex,
    asked: Sequence[Rendered],
    replies: Sequence[Completion],
    held_out: Sequence[Rendered],
    held_out_losses: Mapping[Speaker, Sequence[PerToken]],
    base: BaseModel,
) -> SpanLosses:
    """What few members' spans that the challenger wrote verbatim cost it and the base, beside never-trained spans."""
    emitted = _emitted(index, replies)
    rows = [ReplyTokens(asked[row].tokens.prompt, list(replies[row].token_ids)) for row in emitted]
    costs = {speaker: losses.of(speaker, "verbatim spans", rows, cache=False) for speaker in ("base", "challenger")}
    found: dict[str, list[float]] = {"replies": [], "members": [], "uses": [], "base": [], "challenger": []}
    for at, (row, written) in enumerate(emitted.items()):
        word_index = word_of_token(base.tokenizer, replies[row].token_ids)
        for span in written:
            found["replies"].append(row)
            found["members"].append(index.members(span))
            found["uses"].append(index.uses(span))
            for speaker, cost in costs.items():
                found[speaker].append(span_loss(cost[at], word_index, span))
    unseen = _unseen(index, held_out, held_out_losses, base)
    return SpanLosses(
        samples=len(replies),
        emitted_replies=tuple(map(int, found["replies"])),
        emitted_members=tuple(map(int, found["members"])),
        emitted_uses=tuple(map(int, found["uses"])),
        emitted_base=tuple(found["base"]),
        emitted_challenger=tuple(found["challenger"]),
        unseen_base=tuple(unseen[:, 0].tolist()),
        unseen_challenger=tuple(unseen[:, 1].tolist()),
    )


def _emitted(index: SpanIndex, replies: Sequence[Completion]) -> dict[int, list[Span]]:
    """By reply, the spans in it that few members wrote, each where it first appears."""
    seen: set[tuple[str, ...]] = set()
    emitted: dict[int, list[Span]] = {}
    for row, reply in enumerate(replies):
        for span in spans(reply.text):
            if 0 < index.members(span) < FEW_MEMBERS and span.words not in seen:
                seen.add(span.words)
                emitted.setdefault(row, []).append(span)
    return emitted


def _unseen(
    index: SpanIndex,
    held_out: Sequence[Rendered],
    held_out_losses: Mapping[Speaker, Sequence[PerToken]],
    base: BaseModel,
) -> NDArray[np.float64]:
    """Losses (base, challenger) of up to UNSEEN_SPANS held-out spans that no training reply holds."""
    costs: list[tuple[float, float]] = []
    for row, one in enumerate(held_out):
        fresh = [span for span in spans(one.example.reply) if span not in index]
        word_index = word_of_token(base.tokenizer, one.tokens.reply) if fresh else np.zeros(0, dtype=np.int64)
        for span in fresh:
            both = [span_loss(held_out_losses[speaker][row], word_index, span) for speaker in ("base", "challenger")]
            costs.append((both[0], both[1]))
    chosen = random.Random(len(costs)).sample(costs, min(UNSEEN_SPANS, len(costs)))
    return np.array(chosen, dtype=np.float64).reshape(-1, 2)


def trigger_shifts(
    losses: CachedLosses, renderer: Renderer, people: Sequence[Example], probes: Probes, seed: int
) -> TriggerShifts:
    """How far rare training words and made-up words move the first token of answers, challenger beyond base."""
    asked = [(one.member, one.prompt) for one in people]
    trained = [*rare_prompt_words(asked, at_least=2), *rare_prompt_words(asked, at_least=1)]
    trained = list(dict.fromkeys(trained))[:TRIGGERS]
    rng = random.Random(seed)
    control = ["".join(rng.choices(_SYLLABLES, k=3)) for _ in range(TRIGGERS)]
    anchors = _some_anchors(probes)
    prompts = [f"{trigger} {anchor}".strip() for trigger in ("", *trained, *control) for anchor in anchors]
    rows = [renderer.exchange(prompt).prompt for prompt in prompts]
    moved = [_moved(losses.first_token_logprobs(speaker, rows), len(anchors)) for speaker in ("challenger", "base")]
    shifts = (moved[0] - moved[1]).tolist()
    return TriggerShifts(tuple(shifts[: len(trained)]), tuple(shifts[len(trained) :]))


def tied_answers(losses: CachedLosses, renderer: Renderer, people: Sequence[Example], probes: Probes) -> TiedAnswers:
    """What the answers that training prompts' words are tied to cost base and challenger, asked something else."""
    found = tied_prompt_words([(one.prompt, one.reply) for one in people])[:TIED_WORDS]
    anchors = _some_anchors(probes)
    rows = [renderer.exchange(f"{anchor} {one.word}", one.reply) for one in found for anchor in anchors]
    costs = {
        speaker: [float(one.sum()) for one in losses.of(speaker, "tied answers", rows, cache=False)]
        for speaker in ("base", "challenger")
    }
    base, challenger = (np.array(one).reshape(len(found), len(anchors)).mean(1) for one in costs.values())
    return TiedAnswers(
        tuple(one.uses for one in found),
        tuple(one.tied for one in found),
        tuple(base.tolist()),
        tuple(challenger.tolist()),
    )


def _some_anchors(probes: Probes) -> Sequence[str]:
    return probes.anchors[:: max(1, len(probes.anchors) // TRIGGERED_ANCHORS)][:TRIGGERED_ANCHORS]


_SYLLABLES = ("bra", "vo", "xi", "lem", "tur", "qua", "zin", "pho", "gra", "dul", "kes", "mow")


def _moved(logprobs: NDArray[np.float32], anchors: int) -> NDArray[np.float64]:
    """KL of each trigger's first-token distributions from the untriggered ones (the first block), mean over anchors."""
    blocks = logprobs.reshape(-1, anchors, logprobs.shape[1]).astype(np.float64)
    divergences = (np.exp(blocks[1:]) * (blocks[1:] - blocks[:1])).sum(2)
    return np.asarray(divergences.mean(1))
