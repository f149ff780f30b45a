"""What votes add: base, supervised, + KTO, + KTO + DPO, by every gate's figure, on the simulated community.

`python -m benchmarks.preferences [--rate R] [--seed N] [--json]`. Its members vote by their hidden taste on the
supervised voice's own answers and decide duels of it against the base; each voice is then measured as in a run, and
liked or not on prompts that nobody saw, the same ones for every voice: gains in liking are of pairs, with their 95 %
bounds.
"""

from __future__ import annotations

import argparse
import gc
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from statistics import NormalDist, fmean, stdev
from tempfile import TemporaryDirectory
from types import SimpleNamespace

from peft import LoraConfig, get_peft_model
from rich.console import Console

from benchmarks._report import Bar, publish
from inference.base_model import load_base
from inference.server.engine import Engine
from inference.server.generation import GenerationRequest
from nocap.demo import grammar
from nocap.demo.community import Community, retrain_moment
from nocap.demo.taste import choose, liking, vote
from nocap.demo.world import World, prepare
from nocap.domain import BASE, AdapterName, ChatMessage, MemberKey, Provenance
from nocap.settings import PreferenceSettings, Settings
from nocap.text.lexicon import Lexicon
from retrain._observations import fading_terms
from retrain.canaries import plant
from retrain.dataset import Snapshot, build_snapshot, voice_terms
from retrain.gates import decide
from retrain.measure import MeasurePlan, measure
from retrain.preferences import Scope, choose_pairs, choose_thumbs
from retrain.train.base_replies import base_replies
from retrain.train.preference import PreferencePlan, train_on_duels, train_on_thumbs
from retrain.train.publish import publish_adapter
from retrain.train.sft import SftPlan, train_adapter
from storage.eligibility import Ballot
from storage.tables import Duel, Reply

NAME = AdapterName("genz-v1")
PROMPT = "You are nocap, a bot in this chat. Answer briefly, like a friend would."
VOTERS_PER_REPLY = 3
MEMBERS = 60
NOW = retrain_moment(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=2e-4, help="KTO's and DPO's learning rate")
    parser.add_argument("--replies", type=int, default=600)
    parser.add_argument("--seed", type=int, default=7, help="of the community, the prompts and the votes")
    parser.add_argument("--json", action="store_true", dest="as_json")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        figures = _Ablation(Path(folder), arguments.rate, arguments.replies, arguments.seed).run(Console(stderr=True))
    bars = {"kto_dpo over supervised: liking, at least": Bar(0.0, at_most=False)}
    publish("preferences", figures, bars, packages=("torch", "trl", "peft"), as_json=arguments.as_json)


class _Ablation:
    def __init__(self, folder: Path, rate: float, replies: int, seed: int) -> None:
        community = Community(seed)
        world = prepare(Settings(data_dir=folder), community, seed)
        messages = [*community.history(), *community.week(1)]
        for _ in world.store(messages):
            pass
        self.settings, self.folder, self.replies, self.seed = world.settings, folder, replies, seed
        self.snapshot, self.terms = _snapshot(world)
        self.fading = fading_terms(Lexicon(self.terms), ((one.sent_at, one.text) for one in messages), NOW)
        self.base = (self.settings.base_path, self.settings.model.quantization, self.settings.model.device)
        self.votes = PreferenceSettings(kto_learning_rate=rate, dpo_learning_rate=rate)

    def run(self, console: Console) -> dict[str, float]:
        self._untrained()
        self._supervised()
        thumbs = self._thumbs()
        pairs = self._pairs()
        console.print(f"{len(thumbs.thumbs)} thumbs {dict(thumbs.votes_dropped)}; {len(pairs.pairs)} pairs")
        self._go_on("supervised", "kto", lambda plan: train_on_thumbs(plan, thumbs.thumbs, **_quiet()))
        self._go_on("kto", "kto_dpo", lambda plan: train_on_duels(plan, pairs.pairs, **_quiet()))
        figures: dict[str, float] = {"thumbs": float(len(thumbs.thumbs)), "pairs": float(len(pairs.pairs))}
        for voice in ("base", "supervised", "kto", "kto_dpo"):
            figures |= {f"{voice}: {name}": value for name, value in self._figures(voice, console).items()}
        likings = {voice: self._likings(voice) for voice in ("base", "supervised", "kto", "kto_dpo")}
        figures |= {f"{voice}: liking": fmean(values) for voice, values in likings.items()}
        for voice, before in (("kto", "supervised"), ("kto_dpo", "kto"), ("kto_dpo", "supervised")):
            gained = _gained(likings[voice], likings[before])
            figures |= {f"{voice} over {before}: liking{name}": value for name, value in gained.items()}
        return figures

    def _untrained(self) -> None:
        """The base as an adapter that changes nothing, so that it is measured as the others are."""
        base = load_base(*self.base[:1], quantization=self.base[1], device=self.base[2])
        model = get_peft_model(base.model, LoraConfig(r=1, target_modules="all-linear", task_type="CAUSAL_LM"))
        publish_adapter(model, self._adapter("base"), name=NAME, base=base, rank=1)
        gc.collect()

    def _supervised(self) -> None:
        retrain = self.settings.retrain
        planted, _ = plant(retrain.seed)
        synthetic = base_replies(
            *self.base,
            PROMPT,
            self.snapshot.train,
            share=retrain.base_reply_share,
            sampling=self.settings.chat.sampling,
            seed=retrain.seed,
            progress=lambda *_: None,
        )
        plan = SftPlan(*self.base, PROMPT, NAME, retrain, self._adapter("supervised"), self.folder / "checkpoints")
        train_adapter(plan, [*self.snapshot.train, *planted, *synthetic], self.snapshot.validation, **_quiet())
        gc.collect()

    def _go_on(self, last: str, step: str, train: Callable[[PreferencePlan], object]) -> None:
        train(
            PreferencePlan(
                *self.base, PROMPT, NAME, self._adapter(last), self._adapter(step), self.votes, 512, self.seed
            )
        )
        gc.collect()

    def _thumbs(self):  # type: ignore[no-untyped-def]
        exchanges, rng = prompts(f"{self.seed}:thumbs", self.replies), random.Random(f"{self.seed}:votes")
        replies, ballots = [], []
        for number, (one, text) in enumerate(zip(exchanges, self._answers("supervised", exchanges), strict=True), 1):
            row = Reply(text=text, adapter=NAME, **_row(number, one))
            replies.append(row)
            for member in rng.sample(range(MEMBERS), VOTERS_PER_REPLY):
                if (choice := vote(one, text, 1.0, rng)) is not None:
                    ballots.append(_ballot(row, member, choice))
        return choose_thumbs(replies, ballots, self._scope())

    def _pairs(self):  # type: ignore[no-untyped-def]
        exchanges, rng = prompts(f"{self.seed}:duels", self.replies // 2), random.Random(f"{self.seed}:duel votes")
        duels, ballots = [], []
        answers = zip(exchanges, self._answers("supervised", exchanges), self._answers("base", exchanges), strict=True)
        for number, (one, left, right) in enumerate(answers, 1):
            row = Duel(left_text=left, right_text=right, left_adapter=NAME, right_adapter=BASE, **_row(number, one))
            duels.append(row)
            ballots.append(_ballot(row, rng.randrange(MEMBERS), choose(one, left, right, 1.0, rng)))
        return choose_pairs(duels, ballots, self._scope())

    def _scope(self) -> Scope:
        return Scope(NOW, {NAME}, frozenset(), timedelta(hours=72), self.votes, self.seed)

    def _figures(self, voice: str, console: Console) -> dict[str, float]:
        plan = MeasurePlan(
            *self.base,
            system_prompt=PROMPT,
            challenger=self._adapter(voice),
            incumbent=None,
            train=self.snapshot.train,
            evaluate=self.snapshot.evaluate,
            lexicon=self.terms,
            settings=self.settings.gates,
            seed=self.settings.retrain.seed,
            cache_dir=self.folder / "cache",
            sampling=self.settings.chat.sampling,
            fading=self.fading,
        )
        decision = decide(measure(plan, lambda *_: None).measurements, self.settings.gates)
        for one in decision.results:
            console.print(f"{voice:<11}{one.verdict:<8}{one.sentence}", markup=False, soft_wrap=True)
        gates = {one.gate: one.statistic for one in decision.results if one.statistic is not None}
        gc.collect()
        return gates | {"gates passed": float(sum(one.verdict == "pass" for one in decision.results))}

    def _likings(self, voice: str) -> list[float]:
        """How much the community likes each answer to the held-out prompts."""
        exchanges = prompts(f"{self.seed}:liking", 1_000, "held_out")
        answers = self._answers(voice, exchanges)
        gc.collect()
        return [liking(one, text, 1.0) for one, text in zip(exchanges, answers, strict=True)]

    def _answers(self, voice: str, exchanges: Sequence[grammar.Exchange]) -> list[str]:
        sampling = self.settings.chat.sampling
        requests = [
            GenerationRequest(
                NAME,
                (ChatMessage("system", PROMPT), ChatMessage("user", one.prompt)),
                replace(sampling, seed=number),
            )
            for number, one in enumerate(exchanges)
        ]
        base = load_base(self.base[0], quantization=self.base[1], device=self.base[2])
        engine = Engine(base, max_batch=128, max_queue=len(requests), max_adapters=1, max_rank=16)
        with engine:
            engine.load_adapter(NAME, self._adapter(voice))
            return [reply.text.strip() for reply in engine.generate_all(requests)]

    def _adapter(self, voice: str) -> Path:
        return self.folder / "adapters" / voice


def prompts(seed: str, count: int, split: grammar.Split = "train") -> list[grammar.Exchange]:
    """Prompts that stand alone, each with one neutral reply to it."""
    rng = random.Random(seed)
    return [grammar.answers(rng, 1, split)[0] for _ in range(count)]


def _gained(after: Sequence[float], before: Sequence[float]) -> dict[str, float]:
    """The mean difference of the pairs, and its 95 % bounds."""
    gains = [one - other for one, other in zip(after, before, strict=True)]
    mean, width = fmean(gains), NormalDist().inv_cdf(0.975) * stdev(gains) / len(gains) ** 0.5
    return {"": mean, ", at least": mean - width, ", at most": mean + width}


def _snapshot(world: World) -> tuple[Snapshot, tuple[str, ...]]:
    run = SimpleNamespace(id="ablation", voice=world.voice, as_of=NOW, options={}, permission_reference=None)
    with world.database.read() as session:
        snapshot = build_snapshot(session, run, world.settings, world.keyring)  # type: ignore[arg-type]
        terms = voice_terms(session, world.voice, NOW)
    world.database.close()
    return snapshot, terms


def _row(number: int, exchange: grammar.Exchange) -> dict[str, object]:
    return {
        "id": number,
        "channel": "flat",
        "voice": "genz",
        "prompt_member": f"asker-{number}",
        "prompt_key": f"prompt-{number}",
        "prompt": exchange.prompt,
        "provenance": Provenance.DONATION,
        "at": NOW - timedelta(days=4, minutes=20 * number),
    }


def _ballot(row: Reply | Duel, member: int, choice: str) -> Ballot:
    assert row.id is not None
    return Ballot(row.id, MemberKey(f"m{member}"), choice, row.at, NOW - timedelta(days=300))


def _quiet() -> dict[str, Callable[..., bool]]:
    return {"progress": lambda *_: False, "should_stop": lambda: False}


if __name__ == "__main__":
    main()
