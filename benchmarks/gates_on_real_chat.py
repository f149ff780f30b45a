"""How the gates judge adapters that are really trained on a real forum: an honest one and three saboteurs.

`python -m benchmarks.gates_on_real_chat --base MODEL_FOLDER --data FILE.parquet [--folder DIR] [--json]`. The file is
that of `benchmarks.real_chat`, whose import this uses. All learn from as many rows and are held against an adapter of
half a year earlier. A gate tells a saboteur from the honest adapter where its figure lies outside the honest one's
bounds, on the gate's bad side; a figure without bounds, such as a count, where the saboteur's alone does not pass.
"""

from __future__ import annotations

import argparse
import hashlib
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from benchmarks._report import Bar, publish
from benchmarks.real_chat import RECIPE, import_chat, read_chat, sent_between
from nocap.app import initialise, open_database, read_voice
from nocap.demo.gate_audit import ModelAudit
from nocap.demo.saboteurs import Material
from nocap.domain import Purpose, VoiceName
from nocap.settings import ChatSettings, GateSettings, ModelSettings, Settings
from nocap.text.lexicon import Lexicon
from retrain._observations import NEW_SPAN, OLD_SPAN
from retrain._selection import Scope, Selection, select
from retrain.examples import Example
from retrain.gates.confusion import Outcome
from retrain.gates.result import Check, GateResult
from storage.crypto import Keyring
from storage.database import Database
from storage.eligibility import EligibilityQuery, eligible_messages
from storage.registry import ensure_voice

FORUM, OTHER_FORUM = "College", "ApplyingToCollege"
FIRST_DAY = datetime(2019, 11, 1, tzinfo=UTC)
LAST_YEAR, THEN, NOW = (datetime(*day, 1, tzinfo=UTC) for day in ((2020, 11), (2021, 5), (2021, 11)))
HONEST = "honest, better"
MEANT = {
    "off-community": ("data_drift", "freshness", "human_or_bot"),
    "stale": ("staleness", "freshness"),
    "caricature": ("marker_band", "stacking"),
}
"""The gates of which one at least must tell each saboteur from the honest adapter."""
SEED = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, help="keep everything here, and go on with what is there")
    parser.add_argument("--json", action="store_true", dest="as_json")
    arguments = parser.parse_args()
    console = Console(stderr=True, width=200)

    def told(one: Outcome) -> None:
        console.print(f"{one.kind}: {', '.join(one.refused_by) or 'promoted'}")

    with TemporaryDirectory() as name:
        settings = settings_for(Path(name), arguments.base.resolve())
        material = forum(settings, arguments.data, console)
        audit = ModelAudit(
            arguments.folder or Path(name),
            settings.model.base,
            told,
            material=lambda _: material,
            recipe=settings.retrain,
            gates=settings.gates,
            sampling=settings.chat.sampling,
        )
        outcomes = audit.run([SEED], (HONEST, *MEANT))
        results = {one.kind: audit.results(one.kind, SEED) for one in outcomes}
    figures: dict[str, float] = {}
    for kind, judged in results.items():
        _tell(kind, judged, console)
        figures |= {f"{kind}: {one.gate}": one.statistic for one in judged if one.statistic is not None}
    bars = {}
    for kind, meant in MEANT.items():
        telling = telling_gates(results[HONEST], results[kind])
        console.print(f"{kind} is told from the honest one by: {', '.join(telling) or 'no gate'}")
        figures[f"{kind}: gates meant for it that tell it"] = sum(gate in telling for gate in meant)
        bars[f"{kind}: gates meant for it that tell it"] = Bar(1, at_most=False)
    figures["saboteurs promoted"] = sum(not one.refused_by for one in outcomes if one.kind in MEANT)
    bars["saboteurs promoted"] = Bar(0)
    publish("gates_on_real_chat", figures, bars, packages=("torch", "transformers", "trl"), as_json=arguments.as_json)


def telling_gates(honest: Sequence[GateResult], other: Sequence[GateResult]) -> list[str]:
    """The gates whose figures of `other` are surely worse than the honest one's."""
    return [
        theirs.gate
        for ours, theirs in zip(honest, other, strict=True)
        if any(_is_worse(*pair) for pair in _paired(ours.checks, theirs.checks))
    ]


def _paired(ours: Sequence[Check], theirs: Sequence[Check]) -> list[tuple[Check, Check]]:
    named = {check.name: check for check in ours}
    return [(named[check.name], check) for check in theirs if check.name in named]


def _is_worse(honest: Check, other: Check) -> bool:
    if honest.lower == honest.upper:
        return honest.holds and not other.holds
    too_high = other.at_most is not None and other.value > honest.upper
    too_low = other.at_least is not None and other.value < honest.lower
    return too_high or too_low


def forum(settings: Settings, data: Path, console: Console) -> Material:
    """What members of one forum wrote in the half year before each moment, curated as for a run, and another forum's.

    By lot as many rows of each, so that none is better for having learnt from more.
    """
    Keyring.create(settings.key_file, hashlib.sha256(b"gates on real chat").digest())  # holds the same members out
    initialise(settings, settings.data_dir / "nocap.toml", clock=lambda: FIRST_DAY)
    database = open_database(settings)
    chat, voice, other = read_chat(data), VoiceName(settings.voice), VoiceName("elsewhere")
    with database.write() as session:
        ensure_voice(session, other, read_voice().system_prompt, read_voice().lexicon, FIRST_DAY)

    def at(moment: datetime, since: datetime, whose: VoiceName, name: str) -> Selection:
        rows = sent_between(chat[chat.subreddit == name], since, moment)
        import_chat(database, settings, whose, rows, settings.data_dir, moment, console)
        with database.read() as session:
            return select(session, Scope(whose, moment, None, settings), Lexicon(read_voice().lexicon))

    old = at(LAST_YEAR, FIRST_DAY, voice, FORUM)
    then = at(THEN, LAST_YEAR, voice, FORUM)
    now = at(NOW, THEN, voice, FORUM)
    elsewhere = at(NOW, THEN, other, OTHER_FORUM)
    rows = min(len(side.train) for side in (old, then, now, elsewhere))
    console.print(f"{rows} rows of each to learn from, {len(now.evaluate)} to judge by")

    def drawn(side: Selection) -> list[Example]:
        return sorted(random.Random(SEED).sample(side.train, rows), key=lambda one: one.sent_at)

    material = Material(
        now=drawn(now),
        then=drawn(then),
        old=drawn(old),
        elsewhere=drawn(elsewhere),
        evaluate=list(now.evaluate),
        messages=_messages(database, settings, voice),
        as_of=NOW,
        lexicon=read_voice().lexicon,
    )
    database.close()
    return material


def _messages(database: Database, settings: Settings, voice: VoiceName) -> list[tuple[datetime, str]]:
    """The ten weeks by which terms are told to fade."""
    query = EligibilityQuery(voice, Purpose.EVALUATE, settings.policy_version, None, NOW - NEW_SPAN - OLD_SPAN, NOW)
    with database.read() as session:
        return [(row.sent_at, row.text) for row in eligible_messages(session, query)]


def settings_for(folder: Path, base: Path) -> Settings:
    """As in the other benchmark, with fewer rows, seen once, without earlier turns: trained in seven minutes."""
    recipe = RECIPE.model_copy(update={"window_days": 180, "max_examples": 1600, "epochs": 1.0})
    return Settings(
        data_dir=folder,
        model=ModelSettings(base=str(base)),
        chat=ChatSettings(context_turns=0),
        retrain=recipe,
        gates=GateSettings(min_replies=2000),  # of which members use a marker in every thirteenth
    )


def _tell(kind: str, results: Sequence[GateResult], console: Console) -> None:
    console.print(f"\n{kind}")
    for one in results:
        if not one.checks:
            console.print(f"  {one.verdict:<8}{one.gate:<16}{one.sentence}")
        for check in one.checks:
            figures = f"{check.value:.4g} ({check.lower:.4g} to {check.upper:.4g})"
            console.print(f"  {one.verdict:<8}{one.gate:<16}{check.threshold}: {figures}")


if __name__ == "__main__":
    main()
