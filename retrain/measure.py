"""Measures one challenger against the incumbent and the base: everything the gates decide from, in one go.

Replies are drawn by the engine that serves, at the quantisation that serves, and sampled as in chat; losses come from
forward passes over the same rendering. Members' texts stay in memory: what is returned are numbers and samples, what is
cached are numbers and answers to our own prompts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from inference.adapter_files import AdapterManifest, verify_adapter
from inference.base_model import BaseModel, Device, Quantization, load_base
from inference.prompt import ReplyTokens
from nocap.domain import Provenance, SamplingOptions
from nocap.settings import GateSettings
from nocap.text.lexicon import Lexicon
from nocap.text.tokens import words
from retrain import _comparisons as comparisons
from retrain import _observations as observations
from retrain._figures import anchor_drift, choice_scores, span_losses, tied_answers, trigger_shifts
from retrain._kept_replies import KeptReplies
from retrain._questions import (
    Purpose,
    Rendered,
    Renderer,
    Replies,
    Speaker,
    draw_replies,
    held_out_examples,
    rendered,
    rows_digest,
)
from retrain._scoring import CachedLosses, Scorer
from retrain._spans import SpanIndex, order_to_ask, rare_prompt_words
from retrain._toxicity import is_toxic
from retrain.canaries import PLANTED, is_canary, plant
from retrain.examples import Example
from retrain.gates.measurements import (
    CanaryLosses,
    HeldOutLosses,
    HumanScores,
    MarkerCounts,
    Measurements,
    PairedFlags,
    SeriousReplies,
    StackedReplies,
    StaleMarkers,
    Variety,
)
from retrain.probes import Probes, load_probes
from retrain.samples import Sample

__all__ = ["MeasurePlan", "Measured", "Measurements", "Sample", "measure"]

Progress = Callable[[str, int, int], None]
"""Called with what is being measured, how much of it is done, and how much there is; may raise to stop."""

TRAINING_SAMPLES = 2
"""Replies to training prompts, times `gates.sampled_replies`: 1,000 by default."""
SERIOUS_DRAWS = 4
"""Replies to each serious prompt."""
SHOWN_ANCHORS = 24


@dataclass(frozen=True, slots=True)
class MeasurePlan:
    """Whom to measure, on which base, with what."""

    base_path: str
    quantization: Quantization
    device: Device
    system_prompt: str
    challenger: Path
    incumbent: Path | None
    """None: nothing was promoted yet, so the base is what serves."""
    train: Sequence[Example]
    evaluate: Sequence[Example]
    """Replies of members who were never trained on."""
    lexicon: Sequence[str]
    settings: GateSettings
    seed: int
    """The one that `canaries.plant` was given."""
    cache_dir: Path
    """Keeps the base's and the incumbent's losses, and what each adapter answered to our own prompts, by digest; goes
    when a member is forgotten."""
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    """As in chat."""
    planted: int = PLANTED
    """How many canaries were planted."""
    fading: observations.Fading = field(default_factory=observations.Fading)
    """Which terms of the lexicon the members are giving up."""
    earlier_train: Sequence[Example] = ()
    """What the last promoted adapter was trained on; none: the training rows are held against `evaluate`."""
    earlier_adapters: Sequence[Path] = ()
    """Adapters of the voice whose gates passed."""


@dataclass(frozen=True, slots=True)
class Measured:
    measurements: Measurements
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class _Material:
    """Everything that is asked and scored, rendered."""

    held_out: list[Rendered]
    asked: list[int]
    """Which of `held_out` the models reply to."""
    training: list[Rendered]
    """Training prompts to ask again, as often as they stand here."""
    planted: list[ReplyTokens]
    controls: list[ReplyTokens]
    probes: Probes
    people: list[Example]
    """The training examples that members wrote."""


def measure(plan: MeasurePlan, progress: Progress) -> Measured:
    """The numbers for the gates, and the models' answers to our own prompts side by side.

    The same plan gives the same numbers on the same machine. Raises ModelError or AdapterError where the base or an
    adapter cannot be loaded.
    """
    base = load_base(plan.base_path, quantization=plan.quantization, device=plan.device)
    adapters = _adapters(plan, base)
    identity = f"{base.digest}/{base.quantization}/{base.device}"
    renderer = Renderer(base, plan.system_prompt, plan.sampling)
    material = _material(plan, renderer)
    replies = draw_replies(
        base,
        adapters,
        _prompts(material, renderer),
        sampling=plan.sampling,
        seed=plan.seed,
        kept=KeptReplies(plan.cache_dir, identity),
        progress=lambda done, total: progress("replies", done, total),
    )
    scorer = Scorer(base, {speaker: folder for speaker, (folder, _) in adapters.items()})
    digests = {speaker: manifest.digest for speaker, (_, manifest) in adapters.items()}
    losses = CachedLosses(scorer, plan.cache_dir, identity, digests, progress)
    measurements = _measurements(plan, material, replies, losses, renderer, base)
    return Measured(measurements, _samples(material, replies))


def _adapters(plan: MeasurePlan, base: BaseModel) -> dict[Speaker, tuple[Path, AdapterManifest]]:
    folders: dict[Speaker, Path | None] = {"incumbent": plan.incumbent, "challenger": plan.challenger}
    return {
        speaker: (folder, verify_adapter(folder, base_digest=base.digest))
        for speaker, folder in folders.items()
        if folder is not None
    }


def _material(plan: MeasurePlan, renderer: Renderer) -> _Material:
    rng = random.Random(plan.seed)
    held_out = rendered(renderer, held_out_examples(plan.evaluate, plan.settings))
    people = [one for one in plan.train if one.provenance is not Provenance.SYNTHETIC and not is_canary(one)]
    index = SpanIndex((one.member, one.reply) for one in people)
    triggers = set(rare_prompt_words([(one.member, one.prompt) for one in people]))
    suspicious = [
        index.is_pushed(one.reply) or not triggers.isdisjoint(word.lower() for word in words(one.prompt))
        for one in people
    ]
    again = order_to_ask(suspicious, TRAINING_SAMPLES * plan.settings.sampled_replies, rng)
    planted, controls = plant(plan.seed, plan.planted)
    return _Material(
        held_out=held_out,
        asked=list(range(len(held_out)))[: plan.settings.sampled_replies],
        training=rendered(renderer, [people[one] for one in again]),
        planted=[one.tokens for one in rendered(renderer, planted)],
        controls=[one.tokens for one in rendered(renderer, controls)],
        probes=load_probes(),
        people=people,
    )


def _prompts(material: _Material, renderer: Renderer) -> Mapping[Purpose, Sequence[Sequence[int]]]:
    return {
        "held_out": [material.held_out[index].tokens.prompt for index in material.asked],
        "anchors": [renderer.exchange(prompt).prompt for prompt in material.probes.anchors],
        "serious": [renderer.exchange(prompt).prompt for prompt in material.probes.serious] * SERIOUS_DRAWS,
        "injections": [renderer.exchange(attack.prompt).prompt for attack in material.probes.injections],
        "training": [one.tokens.prompt for one in material.training],
    }


def _measurements(
    plan: MeasurePlan,
    material: _Material,
    replies: Replies,
    losses: CachedLosses,
    renderer: Renderer,
    base: BaseModel,
) -> Measurements:
    rows = [one.tokens for one in material.held_out]
    held_out = {speaker: losses.of(speaker, "held-out replies", rows) for speaker in _SPEAKERS}
    index = SpanIndex((one.member, one.reply) for one in material.people)
    lexicon = Lexicon(plan.lexicon)
    return Measurements(
        seed=plan.seed,
        digests=(
            ("base", base.digest),
            *((speaker, digest) for speaker, digest in sorted(losses.digests.items())),
            ("probes", material.probes.digest),
            ("held_out", rows_digest(rows)),
        ),
        held_out=HeldOutLosses(
            members=tuple(one.example.member for one in material.held_out),
            tokens=tuple(len(row.reply) for row in rows),
            **{speaker: tuple(float(one.sum()) for one in held_out[speaker]) for speaker in _SPEAKERS},
        ),
        markers=_markers(lexicon, material, replies),
        human_scores=_human_scores(plan, material, replies),
        variety=_variety(plan, material, replies),
        drift=anchor_drift(losses, renderer, material.probes, replies["anchors", "challenger"]),
        canaries=_canaries(losses, material),
        spans=span_losses(
            losses, index, material.training, replies["training", "challenger"], material.held_out, held_out, base
        ),
        retention=choice_scores(losses, renderer, material.probes),
        serious=_serious(lexicon, replies),
        triggers=trigger_shifts(losses, renderer, material.people, material.probes, plan.seed),
        tied=tied_answers(losses, renderer, material.people, material.probes),
        toxic=_faults(is_toxic, replies),
        personal=_faults(observations.holds_personal_data, replies),
        injected=_injected(plan, material, replies),
        stacked=_stacked(lexicon, material, replies),
        stale=_stale(plan, lexicon, material, replies),
        data=observations.data_shift(
            lexicon,
            observations.drift_reference(plan.earlier_train, plan.evaluate, material.people),
            material.people,
            plan.seed,
        ),
        spectra=observations.spectra(plan.challenger, plan.earlier_adapters),
    )


_SPEAKERS: tuple[Speaker, ...] = ("base", "incumbent", "challenger")


def _markers(lexicon: Lexicon, material: _Material, replies: Replies) -> MarkerCounts:
    members = [one.example.member for one in material.held_out]
    order = list(dict.fromkeys(members))
    asked = [members[index] for index in material.asked]
    human = comparisons.speaker_counts(lexicon, order, members, [one.example.reply for one in material.held_out])
    models = {
        speaker: comparisons.speaker_counts(lexicon, order, asked, _texts(replies, "held_out", speaker))
        for speaker in _SPEAKERS
    }
    return MarkerCounts(terms=lexicon.terms, members=tuple(order), human=human, **models)


def _human_scores(plan: MeasurePlan, material: _Material, replies: Replies) -> HumanScores:
    return comparisons.human_scores(
        [material.held_out[index].example.member for index in material.asked],
        [material.held_out[index].example.reply for index in material.asked],
        _texts(replies, "held_out", "incumbent"),
        _texts(replies, "held_out", "challenger"),
        seed=plan.seed,
    )


def _variety(plan: MeasurePlan, material: _Material, replies: Replies) -> Variety:
    return comparisons.variety(
        [material.held_out[index].example.member for index in material.asked],
        {
            "human": [material.held_out[index].example.reply for index in material.asked],
            "base": _texts(replies, "held_out", "base"),
            "challenger": _texts(replies, "held_out", "challenger"),
        },
        seed=plan.seed,
    )


def _canaries(losses: CachedLosses, material: _Material) -> CanaryLosses:
    def per_token(speaker: Speaker, rows: Sequence[ReplyTokens], what: str) -> tuple[float, ...]:
        return tuple(float(np.mean(one)) for one in losses.of(speaker, what, rows))

    return CanaryLosses(
        planted_base=per_token("base", material.planted, "planted canaries"),
        planted_challenger=per_token("challenger", material.planted, "planted canaries"),
        control_base=per_token("base", material.controls, "control canaries"),
        control_challenger=per_token("challenger", material.controls, "control canaries"),
    )


def _serious(lexicon: Lexicon, replies: Replies) -> SeriousReplies:
    """Words and uses per prompt, its draws together."""

    def per_prompt(counts: Sequence[int]) -> tuple[int, ...]:
        return tuple(map(int, np.array(counts, dtype=np.int64).reshape(SERIOUS_DRAWS, -1).sum(0)))

    def lengths(speaker: Speaker) -> tuple[int, ...]:
        return per_prompt([len(words(text)) for text in _texts(replies, "serious", speaker)])

    def uses(speaker: Speaker) -> tuple[int, ...]:
        return per_prompt([sum(lexicon.count(text).values()) for text in _texts(replies, "serious", speaker)])

    return SeriousReplies(lengths("base"), uses("base"), lengths("challenger"), uses("challenger"))


def _faults(has_fault: Callable[[str], bool], replies: Replies) -> PairedFlags:
    """Which replies of incumbent and challenger have the fault, over everything that both were asked in chat."""
    purposes: tuple[Purpose, ...] = ("held_out", "anchors", "serious")
    incumbent, challenger = (
        [text for purpose in purposes for text in _texts(replies, purpose, speaker)]
        for speaker in ("incumbent", "challenger")
    )
    return observations.paired_flags(has_fault, incumbent, challenger)


def _injected(plan: MeasurePlan, material: _Material, replies: Replies) -> PairedFlags:
    attacks = material.probes.injections
    return PairedFlags(
        observations.obeyed(attacks, _texts(replies, "injections", "incumbent"), plan.system_prompt),
        observations.obeyed(attacks, _texts(replies, "injections", "challenger"), plan.system_prompt),
    )


def _stacked(lexicon: Lexicon, material: _Material, replies: Replies) -> StackedReplies:
    return observations.stacked_replies(lexicon, _human(material), _spoken(material, replies, "challenger"))


def _stale(plan: MeasurePlan, lexicon: Lexicon, material: _Material, replies: Replies) -> StaleMarkers:
    models = {speaker: _spoken(material, replies, speaker) for speaker in _SPEAKERS}
    return observations.stale_markers(lexicon, plan.fading, models | {"human": _human(material)})


def _human(material: _Material) -> list[tuple[str, str]]:
    """(member, reply) of every held-out reply."""
    return [(one.example.member, one.example.reply) for one in material.held_out]


def _spoken(material: _Material, replies: Replies, speaker: Speaker) -> list[tuple[str, str]]:
    """(member who was asked for, reply) of a model."""
    members = [material.held_out[index].example.member for index in material.asked]
    return list(zip(members, _texts(replies, "held_out", speaker), strict=True))


def _samples(material: _Material, replies: Replies) -> tuple[Sample, ...]:
    step = max(1, len(material.probes.anchors) // SHOWN_ANCHORS)
    texts = zip(material.probes.anchors, *(_texts(replies, "anchors", speaker) for speaker in _SPEAKERS), strict=True)
    return tuple(Sample(*one) for one in list(texts)[::step][:SHOWN_ANCHORS])


def _texts(replies: Replies, purpose: Purpose, speaker: Speaker) -> list[str]:
    return [one.text for one in replies[purpose, speaker]]
