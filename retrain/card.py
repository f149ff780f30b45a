"""The adapter's model card, in the hub's format: what it is, what it learnt from, how it was judged. No texts."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from retrain.facts import RunFacts
from retrain.run_folder import write_file

CARD_FILE = "README.md"

TEMPLATE = """---
{{ card_data }}
---

# {{ facts.adapter.name }}

A LoRA adapter of rank {{ facts.adapter.rank }} for `{{ facts.settings.model.base }}` that answers in the voice of the
community `{{ facts.run.voice }}`. **It is a bot and says so**; no prompt may deny it (EU AI Act, Art. 50).

- State: {{ facts.state.value }}. {{ facts.reason }}
- Digest of the adapter: `{{ facts.adapter.digest }}`
- Digest of its base: `{{ facts.adapter.base_digest }}`
- Licence: {{ facts.licence }}, inherited from the base.

## What it learnt from

{{ facts.consent_basis }} Texts were scrubbed of personal data; none is part of this card or of the adapter's folder.
Planted canaries and the base model's own replies were mixed in.

| | examples | members |
|---|---|---|
{% for role, count in facts.examples.items() -%}
| {{ role }} | {{ count }} | {{ facts.members[role] }} |
{% endfor %}
{%- if facts.dropped %}

Left out: {% for reason, count in facts.dropped.items() %}{{ reason }} {{ count }}{{ ", " if not loop.last }}\
{% endfor %}.
{%- endif %}

Snapshot `{{ facts.snapshot_digest }}`; rows as of {{ facts.run.as_of.date() }}.

## How it was trained

QLoRA ({{ facts.settings.model.quantization }}) on {{ recipe.targets }} layers, alpha {{ recipe.alpha }}, learning rate
{{ recipe.learning_rate }}, {{ facts.training.steps }} steps, {{ facts.cost.tokens }} tokens, seed {{ recipe.seed }},
loss on the reply alone.
{% for told, stage in facts.preference_stages.items() -%}
Then {{ told }}: {{ stage.examples }} of them, {{ stage.steps }} steps, beta {{ preferences.beta }}, learning rate
{{ preferences.kto_learning_rate if told.startswith("KTO") else preferences.dpo_learning_rate }}.
{% else -%}
No votes were trained on: there were too few of enough members.
{% endfor -%}
{{ "%.0f" | format(facts.cost.seconds) }} s, {{ "%.2f" | format(facts.cost.money) }} {{ facts.cost.currency }},
{{ "%.4f" | format(facts.cost.energy_joules / 3600000) }} kWh\
{{ " (an estimate)" if facts.cost.energy_is_estimate }}.

## How it was judged
{% if facts.decision %}
| gate | verdict | figure | interval |
|---|---|---|---|
{% for one in facts.decision.results -%}
| {{ one.gate }} | {{ one.verdict.value }} | {{ figure(one.statistic) }} | {{ figure(one.lower) }} to \
{{ figure(one.upper) }} |
{% endfor %}
{%- else %}
It was not judged.
{% endif %}
## Limits

It knows no more than its base model and may be wrong. It imitates how consenting members write; it is not any of them.
Slang dates: it is meant to be replaced by the next retrain. Use it with its own base only.
"""


def write_card(folder: Path, facts: RunFacts) -> Path:
    """Writes `folder`/README.md."""
    write_file(folder / CARD_FILE, str(build_card(facts)))
    return folder / CARD_FILE


def build_card(facts: RunFacts) -> ModelCard:
    """The card; it parses as one of the hub's."""
    assert facts.adapter is not None, "only a trained adapter has a card"
    data = ModelCardData(
        model_name=facts.adapter.name,
        base_model=facts.settings.model.base,
        license=facts.licence,
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["lora", "nocap", "chat", "bot"],
    )
    recipe = facts.settings.retrain
    card: ModelCard = ModelCard.from_template(
        data,
        template_str=TEMPLATE,
        facts=facts,
        recipe=recipe,
        preferences=facts.settings.preferences,
        figure=_figure,
    )
    return card


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
