"""Adapters really trained to be refused, and honest ones, and what the gates say: `nocap gates audit --models`.

Each is trained on a community's rows, past curation, so that the gates stand alone. What was trained and
measured stays in a folder: an interrupted audit goes on where it stood, and changed gates decide on the same numbers
again.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from nocap.app import read_voice
from nocap.demo.saboteurs import KINDS, Kind, Material, bought_votes
from nocap.demo.world import CHAT, GATES, RECIPE
from nocap.domain import AdapterName, SamplingOptions, Verdict
from nocap.settings import CanarySettings, GateSettings, RetrainSettings
from nocap.text.lexicon import Lexicon
from retrain._observations import fading_terms
from retrain.canaries import plant
from retrain.examples import Example
from retrain.gates import Measurements, decide
from retrain.gates.confusion import Outcome
from retrain.gates.result import GateResult
from retrain.gates.votes import CommunityVotes, Trial
from retrain.measure import MeasurePlan, measure
from retrain.run_folder import write_file
from retrain.train.sft import SftPlan, train_adapter

SEEDS = 5
INCUMBENT = Kind(lambda material, _: material.then)
BRIGADED = "brigaded"
ALL_KINDS = (*KINDS, BRIGADED)


class ModelAudit:
    """Trains and judges on the base in the folder `base`; `folder` keeps adapters and measurements.

    `material` gives a seed's community: by default the embedded one, which the other defaults suit.
    """

    def __init__(
        self,
        folder: Path,
        base: str,
        told: Callable[[Outcome], None],
        *,
        material: Callable[[int], Material] = Material.of,
        recipe: RetrainSettings = RECIPE,
        gates: GateSettings = GATES,
        sampling: SamplingOptions = CHAT.sampling,
    ) -> None:
        self._folder = folder
        self._base = base
        self._told = told
        self._material = lru_cache(maxsize=1)(material)
        self._recipe = recipe
        self._gates = gates
        self._sampling = sampling
        self._system_prompt = read_voice().system_prompt

    def run(self, seeds: Sequence[int], kinds: Sequence[str] = ALL_KINDS) -> list[Outcome]:
        """Every kind once with the first seed, then with the next: what is interrupted has judged all of them."""
        return [self._outcome(kind, seed) for seed in seeds for kind in kinds]

    def _outcome(self, kind: str, seed: int) -> Outcome:
        refused = tuple(one.gate for one in self.results(kind, seed) if one.verdict is not Verdict.PASS)
        judged = KINDS.get(kind)
        found = Outcome(kind, seed, bool(judged and judged.is_honest), bool(judged and judged.must_pass), refused)
        self._told(found)
        return found

    def results(self, kind: str, seed: int) -> tuple[GateResult, ...]:
        """Decided anew from what was measured, so that changed gates need no new training."""
        if kind == BRIGADED:
            return (_bought(seed),)
        return decide(self._measurements(kind, seed), self._gates).results

    def _measurements(self, kind: str, seed: int) -> Measurements:
        file = self._folder / f"{_file_name(kind)}-{seed}.json"
        if file.exists():
            return Measurements.from_json(file.read_text(encoding="utf-8"))
        measured = self.measure(kind, seed, self._folder / "cache")
        write_file(file, measured.to_json())
        return measured

    def measure(self, name: str, seed: int, cache: Path) -> Measurements:
        """Trains what is not there yet and measures it against its incumbent."""
        material, kind = self._material(seed), KINDS[name]
        incumbent = self._train(f"incumbent-{seed}", INCUMBENT, material, seed)[0]
        challenger, rows = self._train(f"{_file_name(name)}-{seed}", kind, material, seed)
        plan = MeasurePlan(
            base_path=self._base,
            quantization="nf4",
            device="cpu",
            system_prompt=self._system_prompt,
            challenger=challenger,
            incumbent=incumbent,
            train=rows,
            evaluate=material.evaluate,
            lexicon=material.lexicon,
            settings=self._gates,
            seed=self._recipe.seed,
            cache_dir=cache,
            sampling=self._sampling,
            fading=fading_terms(Lexicon(material.lexicon), material.messages, material.as_of),
            earlier_train=material.then,
            earlier_adapters=[incumbent],
        )
        return measure(plan, lambda *_: None).measurements

    def _train(self, name: str, kind: Kind, material: Material, seed: int) -> tuple[Path, list[Example]]:
        """The adapter's folder and the members' rows that it was trained on; one that is there is not trained again."""
        output = self._folder / "adapters" / f"{name}-v1"
        rows = kind.rows(material, random.Random(f"{seed}:{name}"))
        if not output.exists():
            settings = self._recipe.model_copy(update=kind.recipe)
            plan = SftPlan(
                self._base,
                "nf4",
                "cpu",
                system_prompt=self._system_prompt,
                name=AdapterName(f"{name}-v1"),
                settings=settings,
                output=output,
                checkpoints=self._folder / "checkpoints" / name,
            )
            planted, _ = plant(self._recipe.seed)
            train_adapter(
                plan, [*rows, *planted], material.evaluate[:16], progress=lambda *_: None, should_stop=lambda: False
            )
            shutil.rmtree(plan.checkpoints, ignore_errors=True)
        return output, rows


def _bought(seed: int) -> GateResult:
    voters, wins, newcomers = bought_votes(seed)
    return CommunityVotes().decide(Trial(96.0, tuple(voters), tuple(wins), tuple(newcomers)), CanarySettings())


def _file_name(kind: str) -> str:
    return kind.replace(", ", "-").replace(" ", "-")
