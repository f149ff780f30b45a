"""How the gates judge adapters that were really trained: saboteurs of every kind and honest ones.

`python -m benchmarks.gates_on_models [--quick] [--seeds N] [--kinds "a;b"] [--base FOLDER] [--folder DIR] [--json]`.
Each adapter is trained on the simulated community's rows, past curation, so that the gates stand alone. What was
trained and measured stays in the folder: an interrupted audit goes on where it stood, and changed gates decide on the
same numbers again. `--quick`: one seed a kind.
"""

from __future__ import annotations

import argparse
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from benchmarks._report import Bar, publish
from benchmarks._saboteurs import KINDS, Kind, Material, bought_votes
from nocap.app import read_voice
from nocap.demo.slang_life import TERMS
from nocap.demo.world import CHAT, GATES, RECIPE
from nocap.domain import AdapterName, SamplingOptions, Verdict
from nocap.settings import EMBEDDED_BASE, CanarySettings
from nocap.text.lexicon import Lexicon
from retrain._observations import fading_terms
from retrain.canaries import plant
from retrain.examples import Example
from retrain.gates import Measurements, decide
from retrain.gates.result import GateResult
from retrain.gates.votes import CommunityVotes, Trial
from retrain.measure import MeasurePlan, measure
from retrain.run_folder import write_file
from retrain.train.sft import SftPlan, train_adapter

SEEDS = 5
INCUMBENT = Kind(lambda material, _: material.then)
BRIGADED = "brigaded"
SAMPLING = SamplingOptions(temperature=CHAT.temperature, top_p=CHAT.top_p, max_tokens=CHAT.max_reply_tokens)
LEXICON = [term.text for term in TERMS if term.is_slang]


@dataclass(frozen=True)
class Outcome:
    """One adapter's verdict."""

    kind: str
    seed: int
    refused_by: tuple[str, ...]
    """Gates that failed or abstained; none: it was promoted."""

    @property
    def is_promoted(self) -> bool:
        return not self.refused_by


class Audit:
    """Trains and judges on one base; its folder keeps adapters and measurements."""

    def __init__(self, folder: Path, base: str, console: Console) -> None:
        self._folder = folder
        self._base = base
        self._console = console
        self._system_prompt = read_voice().system_prompt

    def run(self, seeds: int, kinds: Sequence[str]) -> list[Outcome]:
        """Every kind once with the first seed, then with the next: what is interrupted has judged all of them."""
        return [self._outcome(kind, seed) for seed in range(1, seeds + 1) for kind in kinds]

    def _outcome(self, kind: str, seed: int) -> Outcome:
        """Decided anew from what was measured, so that changed gates need no new training."""
        if kind == BRIGADED:
            results: tuple[GateResult, ...] = (_bought(seed),)
        else:
            results = decide(self._measurements(kind, seed), GATES).results
        refused = tuple(one.gate for one in results if one.verdict is not Verdict.PASS)
        self._console.print(f"{kind}, seed {seed}: {', '.join(refused) or 'promoted'}")
        return Outcome(kind, seed, refused)

    def _measurements(self, kind: str, seed: int) -> Measurements:
        file = self._folder / f"{_file_name(kind)}-{seed}.json"
        if file.exists():
            return Measurements.from_json(file.read_text(encoding="utf-8"))
        measured = self._measure(kind, seed)
        write_file(file, measured.to_json())
        return measured

    def _measure(self, name: str, seed: int) -> Measurements:
        material, kind = Material.of(seed), KINDS[name]
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
            lexicon=LEXICON,
            settings=GATES,
            seed=RECIPE.seed,
            cache_dir=self._folder / "cache",
            sampling=SAMPLING,
            fading=fading_terms(Lexicon(LEXICON), material.messages, material.as_of),
            earlier_train=material.then,
            earlier_adapters=[incumbent],
        )
        return measure(plan, lambda *_: None).measurements

    def _train(self, name: str, kind: Kind, material: Material, seed: int) -> tuple[Path, list[Example]]:
        """The adapter's folder and the members' rows that it was trained on; one that is there is not trained again."""
        output = self._folder / "adapters" / f"{name}-v1"
        rows = kind.rows(material, random.Random(f"{seed}:{name}"))
        if not output.exists():
            settings = RECIPE.model_copy(update=kind.recipe)
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
            planted, _ = plant(RECIPE.seed)
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


def confusion(outcomes: Sequence[Outcome]) -> Table:
    """Kinds by gates: how many of a kind's seeds each gate did not pass."""
    gates = sorted({gate for one in outcomes for gate in one.refused_by})
    table = Table("kind", "seeds", "promoted", *gates)
    for kind in dict.fromkeys(one.kind for one in outcomes):
        own = [one for one in outcomes if one.kind == kind]
        refused = Counter(gate for one in own for gate in one.refused_by)
        promoted = sum(one.is_promoted for one in own)
        table.add_row(kind, str(len(own)), str(promoted), *(str(refused[gate] or "") for gate in gates))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--kinds", help="names with `;` between them; default: all")
    parser.add_argument("--base", default=str(EMBEDDED_BASE))
    parser.add_argument("--folder", type=Path, help="keep everything here, and go on with what is there")
    parser.add_argument("--json", action="store_true", dest="as_json")
    arguments = parser.parse_args()
    console = Console(stderr=True, width=200)
    kinds = arguments.kinds.split(";") if arguments.kinds else [*KINDS, BRIGADED]
    with TemporaryDirectory() as name:
        folder = arguments.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        outcomes = Audit(folder, arguments.base, console).run(1 if arguments.quick else arguments.seeds, kinds)
    console.print(confusion(outcomes))
    figures: dict[str, float] = {}
    bars: dict[str, Bar] = {}
    for kind in kinds:
        own = [one for one in outcomes if one.kind == kind]
        figures[f"promoted: {kind}"] = sum(one.is_promoted for one in own)
        if kind == BRIGADED or not KINDS[kind].is_honest:
            bars[f"promoted: {kind}"] = Bar(0)
        elif KINDS[kind].must_pass:
            bars[f"promoted: {kind}"] = Bar(0.8 * len(own), at_most=False)
    publish("gates_on_models", figures, bars, packages=("torch", "transformers", "trl"), as_json=arguments.as_json)


if __name__ == "__main__":
    main()
