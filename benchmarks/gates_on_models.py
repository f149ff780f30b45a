"""How the gates judge adapters that were really trained: saboteurs of every kind and honest ones.

`python -m benchmarks.gates_on_models [--quick] [--seeds N] [--kinds "a;b"] [--base FOLDER] [--folder DIR] [--json]`.
Each adapter is trained on the simulated community's rows, past curation, so that the gates stand alone; each result is
a file in the folder, so that an interrupted audit goes on where it stood. `--quick`: one seed a kind.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
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
from retrain.gates import decide
from retrain.gates.votes import CommunityVotes, Trial
from retrain.measure import MeasurePlan, measure
from retrain.run_folder import write_file
from retrain.train.sft import SftPlan, train_adapter

SEEDS = 5
BRIGADED = "brigaded"
SAMPLING = SamplingOptions(temperature=CHAT.temperature, top_p=CHAT.top_p, max_tokens=CHAT.max_reply_tokens)
LEXICON = [term.text for term in TERMS if term.is_slang]


@dataclass(frozen=True)
class Outcome:
    """One adapter's verdict."""

    kind: str
    seed: int
    verdict: str
    refused_by: tuple[str, ...]
    """Gates that failed or abstained."""
    seconds: float


class Audit:
    """Trains and judges on one base; its folder keeps the results of one version of the code."""

    def __init__(self, folder: Path, base: str, console: Console) -> None:
        self._folder = folder
        self._base = base
        self._console = console
        self._system_prompt = read_voice().system_prompt

    def run(self, seeds: int, kinds: Sequence[str]) -> list[Outcome]:
        """Every kind once with the first seed, then with the next: what is interrupted has judged all of them."""
        return [self._outcome(kind, seed) for seed in range(1, seeds + 1) for kind in kinds]

    def _outcome(self, kind: str, seed: int) -> Outcome:
        file = self._folder / f"{kind.replace(', ', '-').replace(' ', '-')}-{seed}.json"
        if file.exists():
            kept = json.loads(file.read_text(encoding="utf-8"))["outcome"]
            return Outcome(**kept | {"refused_by": tuple(kept["refused_by"])})
        begun = time.monotonic()
        found = self._vote(seed) if kind == BRIGADED else self._measure(kind, seed)
        outcome = Outcome(kind, seed, found["verdict"], tuple(found["refused_by"]), time.monotonic() - begun)
        write_file(file, json.dumps({"outcome": asdict(outcome), "results": found["results"]}, indent=1, default=str))
        self._console.print(f"{kind}, seed {seed}: {outcome.verdict} {', '.join(outcome.refused_by)}")
        return outcome

    def _measure(self, name: str, seed: int) -> dict[str, list[dict[str, object]]]:
        material, kind = Material.of(seed), KINDS[name]
        incumbent = self._train(f"incumbent-{seed}", Kind(lambda rows, _: rows.then), material, seed)[0]
        challenger, rows = self._train(f"{name.replace(', ', '-').replace(' ', '-')}-{seed}", kind, material, seed)
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
        decision = decide(measure(plan, lambda *_: None).measurements, GATES)
        refused = [one.gate for one in decision.results if one.verdict is not Verdict.PASS]
        return {
            "verdict": decision.verdict,
            "refused_by": refused,
            "results": [asdict(one) for one in decision.results],
        }

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
        return output, rows

    def _vote(self, seed: int) -> dict[str, list[dict[str, object]]]:
        voters, wins, newcomers = bought_votes(seed)
        result = CommunityVotes().decide(Trial(96.0, tuple(voters), tuple(wins), tuple(newcomers)), CanarySettings())
        refused = [] if result.verdict is Verdict.PASS else [result.gate]
        return {"verdict": result.verdict, "refused_by": refused, "results": [asdict(result)]}


def confusion(outcomes: Sequence[Outcome]) -> Table:
    """Kinds by gates: how many of a kind's seeds each gate did not pass."""
    gates = sorted({gate for one in outcomes for gate in one.refused_by})
    table = Table("kind", "seeds", "promoted", *gates)
    for kind in dict.fromkeys(one.kind for one in outcomes):
        own = [one for one in outcomes if one.kind == kind]
        refused = Counter(gate for one in own for gate in one.refused_by)
        promoted = sum(one.verdict == Verdict.PASS for one in own)
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
        figures[f"promoted: {kind}"] = sum(one.verdict == Verdict.PASS for one in own)
        if kind == BRIGADED or not KINDS[kind].is_honest:
            bars[f"promoted: {kind}"] = Bar(0)
        elif KINDS[kind].must_pass:
            bars[f"promoted: {kind}"] = Bar(0.8 * len(own), at_most=False)
    publish("gates_on_models", figures, bars, packages=("torch", "transformers", "trl"), as_json=arguments.as_json)


if __name__ == "__main__":
    main()
