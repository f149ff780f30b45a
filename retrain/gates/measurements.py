"""What the gates decide from: numbers only, no member's text; members appear as pseudonyms.

Everything is a tuple of plain numbers, so that `from_json(to_json(m)) == m` and a replay gives the same verdict.
Losses are natural-log (nats). `base`, `incumbent` and `challenger` name the three models; where nothing was
promoted yet the incumbent is the base.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from nocap.errors import InputError

FORMAT = 3
Floats = tuple[float, ...]
Counts = tuple[int, ...]
T = TypeVar("T")


@dataclass(frozen=True)
class HeldOutLosses:
    """One entry per held-out human reply, given its prompt: summed loss over the reply's `tokens`."""

    members: tuple[str, ...] = ()
    tokens: Counts = ()
    base: Floats = ()
    incumbent: Floats = ()
    challenger: Floats = ()


@dataclass(frozen=True)
class SpeakerCounts:
    """One entry per member: replies, their words, and uses of each lexicon term (member × term)."""

    replies: Counts = ()
    words: Counts = ()
    uses: tuple[Counts, ...] = ()


@dataclass(frozen=True)
class MarkerCounts:
    """Lexicon terms in the members' held-out replies and in each model's replies to the same members' prompts."""

    terms: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    human: SpeakerCounts = SpeakerCounts()
    base: SpeakerCounts = SpeakerCounts()
    incumbent: SpeakerCounts = SpeakerCounts()
    challenger: SpeakerCounts = SpeakerCounts()


@dataclass(frozen=True)
class HumanScores:
    """One entry per prompt: a classifier's log-odds that the reply is human, from a fold that never saw its member.

    One classifier per fold tells the human replies from both models' replies (half of each), so neither model is
    favoured; scores compare only within a fold.
    """

    members: tuple[str, ...] = ()
    folds: Counts = ()
    human: Floats = ()
    incumbent: Floats = ()
    challenger: Floats = ()


@dataclass(frozen=True)
class VarietyDraws:
    """One entry per random half of the members: figures over equally many n-grams of the same prompts' replies."""

    distinct_2: Floats = ()
    """Different 2-grams over all 2-grams (Li et al. 2016)."""
    overlap_4: Floats = ()
    """Share of 4-grams that another reply holds too: self-BLEU's precision (Zhu et al. 2018)."""
    loops: Floats = ()
    """Share of replies that repeat a 4-gram of their own."""
    empty: Floats = ()
    """Share of replies without a word."""


@dataclass(frozen=True)
class Variety:
    replies: int = 0
    members: int = 0
    human: VarietyDraws = VarietyDraws()
    base: VarietyDraws = VarietyDraws()
    challenger: VarietyDraws = VarietyDraws()


@dataclass(frozen=True)
class AnchorDrift:
    """One entry per anchor prompt: KL(challenger ‖ base) summed over the tokens of the challenger's reply."""

    tokens: Counts = ()
    kl: Floats = ()


@dataclass(frozen=True)
class CanaryLosses:
    """Loss per token of made-up exchanges: `planted` ones were trained on, `control` ones never."""

    planted_base: Floats = ()
    planted_challenger: Floats = ()
    control_base: Floats = ()
    control_challenger: Floats = ()


@dataclass(frozen=True)
class SpanLosses:
    """Word spans' summed losses, given their prompts.

    `emitted_*`: spans of training replies that the challenger wrote verbatim when asked their training prompt, each
    once: in which of its replies, by how many members they are, in how many training replies they stand, what they
    cost. `unseen_*`: as many-worded spans of held-out replies, which no model was trained on: what learning the voice,
    without memorising, does to a span's loss.
    """

    samples: int = 0
    emitted_replies: Counts = ()
    emitted_members: Counts = ()
    emitted_uses: Counts = ()
    emitted_base: Floats = ()
    emitted_challenger: Floats = ()
    unseen_base: Floats = ()
    unseen_challenger: Floats = ()


@dataclass(frozen=True)
class ChoiceScores:
    """One entry per multiple-choice item: the choices' loss per token with its sign turned; the gold one first."""

    base: tuple[Floats, ...] = ()
    challenger: tuple[Floats, ...] = ()


@dataclass(frozen=True)
class SeriousReplies:
    """One entry per serious prompt: words and lexicon uses of each model's replies to it together."""

    base_words: Counts = ()
    base_uses: Counts = ()
    challenger_words: Counts = ()
    challenger_uses: Counts = ()


@dataclass(frozen=True)
class TriggerShifts:
    """One entry per trigger: how far it moves the first words of the answers to the anchors, in nats.

    KL between the next-token distributions with and without the trigger in front, challenger minus base, mean over
    anchors. `trained`: rare n-grams of the training prompts; `control`: rare word pairs that were never trained.
    """

    trained: Floats = ()
    control: Floats = ()


@dataclass(frozen=True)
class TiedAnswers:
    """One entry per word of the training prompts that is often answered alike: in how many training prompts it stands,
    how many of their replies hold the same span, and what such a reply costs after anchors that end in the word
    (nats, mean over anchors)."""

    uses: Counts = ()
    tied: Counts = ()
    base: Floats = ()
    challenger: Floats = ()


@dataclass(frozen=True)
class PairedFlags:
    """One entry per prompt that both models answered: 1 where the reply has the fault, else 0."""

    incumbent: Counts = ()
    challenger: Counts = ()


@dataclass(frozen=True)
class StackedReplies:
    """One entry per held-out member: replies, and those with three or more uses of the lexicon."""

    members: tuple[str, ...] = ()
    human_replies: Counts = ()
    human_stacked: Counts = ()
    challenger_replies: Counts = ()
    challenger_stacked: Counts = ()


@dataclass(frozen=True)
class StaleMarkers:
    """One entry per held-out member: uses of the lexicon, and those of terms that are fading out.

    `new_messages` and `old_messages`: how many messages of the last two weeks and of the eight before told which.
    """

    new_messages: int = 0
    old_messages: int = 0
    members: tuple[str, ...] = ()
    human_uses: Counts = ()
    human_fading: Counts = ()
    incumbent_uses: Counts = ()
    incumbent_fading: Counts = ()
    challenger_uses: Counts = ()
    challenger_fading: Counts = ()


@dataclass(frozen=True)
class DataShift:
    """Training replies now (side 1) and before (side 0), in blocks: one member's replies on one side.

    `uses`: the lexicon's uses, block × term. `owners` and `scores`: for each reply its block, and a classifier's
    log-odds of "now" from a fold that never saw its member.
    """

    members: tuple[str, ...] = ()
    sides: Counts = ()
    uses: tuple[Counts, ...] = ()
    owners: Counts = ()
    scores: Floats = ()


@dataclass(frozen=True)
class Spectra:
    """Largest singular value of ΔW over all layers: of the challenger and of earlier clean adapters."""

    challenger: float = 0.0
    earlier: Floats = ()


@dataclass(frozen=True)
class Measurements:
    """Everything that was measured on one challenger."""

    seed: int = 0
    digests: tuple[tuple[str, str], ...] = ()
    """(what, SHA-256) of the base, both adapters, the probes and the held-out set."""
    held_out: HeldOutLosses = HeldOutLosses()
    markers: MarkerCounts = MarkerCounts()
    human_scores: HumanScores = HumanScores()
    variety: Variety = Variety()
    drift: AnchorDrift = AnchorDrift()
    canaries: CanaryLosses = CanaryLosses()
    spans: SpanLosses = SpanLosses()
    retention: ChoiceScores = ChoiceScores()
    serious: SeriousReplies = SeriousReplies()
    triggers: TriggerShifts = TriggerShifts()
    tied: TiedAnswers = TiedAnswers()
    toxic: PairedFlags = PairedFlags()
    personal: PairedFlags = PairedFlags()
    injected: PairedFlags = PairedFlags()
    stacked: StackedReplies = StackedReplies()
    stale: StaleMarkers = StaleMarkers()
    data: DataShift = DataShift()
    spectra: Spectra = Spectra()

    def to_json(self) -> str:
        """The same numbers as JSON; floats keep every bit, what is not finite becomes null (and NaN when read)."""
        return json.dumps({"format": FORMAT, **_plain(asdict(self))}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Measurements:
        """What `to_json` wrote; raises InputError for anything else."""
        try:
            values = json.loads(text)
            if values.pop("format") != FORMAT:
                raise InputError(f"These measurements have another format than {FORMAT}; measure the run again.")
            return _typed(cls, values)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"These are no measurements ({error}); measure the run again.") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _typed(kind: type[T], values: Mapping[str, Any]) -> T:
    hints = get_type_hints(kind)
    return kind(**{one.name: _read(hints[one.name], values[one.name]) for one in fields(kind)})  # type: ignore[arg-type]


def _read(hint: Any, value: Any) -> Any:
    if is_dataclass(hint):
        return _typed(hint, value)  # type: ignore[arg-type]
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        if kinds[-1] is Ellipsis:
            return tuple(_read(kinds[0], one) for one in value)
        return tuple(_read(one_kind, one) for one_kind, one in zip(kinds, value, strict=True))
    if hint is float:
        return math.nan if value is None else float(value)
    if not isinstance(value, hint):
        raise ValueError(f"{value!r} is not {hint.__name__}")
    return value
