"""The two training stages of a run: supervised from the base, then what votes and duels add.

Each kind of training leaves a whole adapter in `runs/<id>/steps/`, so that a killed run goes on behind the last one;
the last becomes the challenger. The base is loaded anew for each part, since quantised weights may be changed by use.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from inference.adapter_files import verify_adapter
from inference.signing import sign_adapter
from nocap.domain import AdapterName, AdapterStatus, VoiceName
from nocap.errors import AdapterError
from retrain import run_folder
from retrain.canaries import plant
from retrain.promote import GOLDEN_FILE, verify_registered, write_golden
from retrain.run_folder import write_file
from retrain.stages import RunCancelled, StageContext
from retrain.train.base_replies import base_replies
from retrain.train.golden import golden_answers
from retrain.train.preference import PreferencePlan, train_on_duels, train_on_thumbs
from retrain.train.publish import copy_adapter
from retrain.train.several import train_on_several
from retrain.train.sft import SftPlan, TrainingStopped, TrainReport, train_adapter
from storage import registry, runs
from storage.tables import Adapter

SUPERVISED, THUMBS, DUELS = "supervised", "thumbs", "duels"
_FIGURE_OF = {SUPERVISED: "steps", THUMBS: THUMBS, DUELS: DUELS}
PACE_STEPS = 5
"""After so many, how long the training will take can be told."""
BASE_REPLIES_SHARE = 0.1
"""Of the supervised stage's progress."""


def train_supervised(context: StageContext) -> None:
    """Trains on what members wrote, with planted canaries and the base's own replies mixed in."""
    snapshot, name = context.snapshot(), challenger(context)
    output = _step(context, SUPERVISED)
    if _is_trained(context, name) or _is_done(context, SUPERVISED):
        return
    settings = context.settings
    planted, _ = plant(settings.retrain.seed)
    synthetic = base_replies(
        *_base(context),
        context.system_prompt(),
        snapshot.train,
        share=settings.retrain.base_reply_share,
        sampling=settings.chat.sampling,
        seed=settings.retrain.seed,
        progress=lambda done, total: context.report(BASE_REPLIES_SHARE * done / total, f"base replies {done}/{total}"),
    )
    gc.collect()
    plan = SftPlan(
        *_base(context),
        system_prompt=context.system_prompt(),
        name=name,
        settings=settings.retrain,
        output=output,
        checkpoints=context.folder / run_folder.CHECKPOINTS,
    )
    config = settings.retrain.accelerate_config
    train = train_adapter if config is None else partial(train_on_several, accelerate_config=config)
    report = _stoppable(
        lambda: train(
            plan,
            [*snapshot.train, *planted, *synthetic],
            snapshot.validation,
            progress=_shown(context, "", BASE_REPLIES_SHARE),
            should_stop=lambda: context.cancelled,
        )
    )
    _note(context, asdict(report) | {"canaries": len(planted), "base_replies": len(synthetic)})
    shutil.rmtree(plan.checkpoints, ignore_errors=True)
    gc.collect()


def train_preferences(context: StageContext) -> None:
    """Goes on from the supervised adapter with whatever votes there are enough of, and registers the last one."""
    snapshot, name = context.snapshot(), challenger(context)
    if _is_trained(context, name):
        return
    if not _is_done(context, SUPERVISED):
        raise AdapterError(f"The supervised adapter of run {context.run_id} is gone; start another run.")
    last = SUPERVISED
    if snapshot.preferences.thumbs:
        last = _go_on(context, name, last, THUMBS, train_on_thumbs, snapshot.preferences.thumbs)
    if snapshot.preferences.pairs:
        last = _go_on(context, name, last, DUELS, train_on_duels, snapshot.preferences.pairs)
    output = context.settings.adapters_dir / name
    copy_adapter(_step(context, last), output)
    base, _, device = _base(context)
    served = context.settings.served_quantization
    write_golden(context.folder, golden_answers(base, served, device, context.voice().system_prompt, name, output))
    register(context, name)
    shutil.rmtree(context.folder / run_folder.STEPS, ignore_errors=True)
    gc.collect()


def _go_on(
    context: StageContext, name: AdapterName, last: str, step: str, train: Callable[..., TrainReport], data: Any
) -> str:
    """Trains `step` from what `last` left, unless that is done already."""
    if _is_done(context, step):
        return step
    retrain = context.settings.retrain
    plan = PreferencePlan(
        *_base(context),
        system_prompt=context.system_prompt(),
        name=name,
        start=_step(context, last),
        output=_step(context, step),
        settings=context.settings.preferences,
        max_length=retrain.max_length,
        seed=retrain.seed,
    )
    show = _shown(context, f"{step}: ", 0.0)
    report = _stoppable(lambda: train(plan, data, progress=show, should_stop=lambda: context.cancelled))
    _note(context, {step: asdict(report)})
    gc.collect()
    return step


def challenger(context: StageContext) -> AdapterName:
    """The name that the run's adapter has, given once."""
    with context.database.write() as session:
        run = runs.get_run(session, context.run_id)
        if run.challenger is None:
            run.challenger = registry.next_adapter_name(session, VoiceName(run.voice))
        return AdapterName(run.challenger)


def register(context: StageContext, name: AdapterName) -> None:
    """Signs the finished adapter, where the operator has a key, and enters it as a candidate."""
    folder = context.settings.adapters_dir / name
    manifest = verify_adapter(folder, base_digest=None)
    if (key_file := context.settings.inference.signing_key_file) is not None:
        sign_adapter(folder, key_file)
    with context.database.write() as session:
        run = runs.get_run(session, context.run_id)
        adapter = Adapter(
            name=name,
            voice=run.voice,
            run_id=run.id,
            base=context.settings.model.base,
            base_digest=manifest.base_digest,
            digest=manifest.digest,
            status=AdapterStatus.CANDIDATE,
            created_at=context.clock(),
        )
        registry.register_adapter(session, adapter)


def _base(context: StageContext) -> tuple[Any, Any, Any]:
    settings = context.settings
    return settings.base_path, settings.model.quantization, settings.model.device


def _step(context: StageContext, step: str) -> Path:
    return context.folder / run_folder.STEPS / step


def _is_done(context: StageContext, step: str) -> bool:
    """Whether a kind of training has left its adapter, which is renamed into place once whole, and its figures."""
    return _step(context, step).is_dir() and _FIGURE_OF[step] in _figures(context)


def _is_trained(context: StageContext, name: AdapterName) -> bool:
    with context.database.read() as session:
        adapter = session.get(Adapter, name)
    if adapter is None:
        return False
    verify_registered(context.settings, adapter)
    return all((context.folder / file).exists() for file in (run_folder.TRAIN_FILE, GOLDEN_FILE))


def _stoppable(work: Callable[[], TrainReport]) -> TrainReport:
    try:
        return work()
    except TrainingStopped as stopped:
        raise RunCancelled from stopped


def _shown(context: StageContext, what: str, begins: float) -> Callable[[int, int, float], None]:
    began = context.meter.seconds

    def show(step: int, steps: int, loss: float) -> None:
        if step >= PACE_STEPS:
            pace = (context.meter.seconds - began) / step
            context.budget.check(context.meter.seconds + pace * (steps - step), is_estimate=True)
        done = begins + (0.95 - begins) * step / steps
        context.report(done, f"{what}step {step}/{steps}, loss {loss:.3f}", step=step, loss=loss)

    return show


def _figures(context: StageContext) -> dict[str, Any]:
    path = context.folder / run_folder.TRAIN_FILE
    return dict(run_folder.read_json(path)) if path.exists() else {}


def _note(context: StageContext, figures: dict[str, Any]) -> None:
    """Adds a training's figures to `train.json` and to the run's cost."""
    told = _figures(context) | figures
    write_file(context.folder / run_folder.TRAIN_FILE, run_folder.as_json(told))
    parts = [told, *(told[step] for step in (THUMBS, DUELS) if step in told)]
    tokens, examples = (sum(part[what] for part in parts) for what in ("tokens", "examples"))
    context.meter.trained(tokens, examples)
    context.log.info("trained", tokens=tokens, examples=examples, seconds=sum(part["seconds"] for part in parts))
