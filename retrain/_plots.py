"""The report's plots: SVG that takes its colours from the page, so that it reads in light and in dark."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

_COLOURS = {"ink": "#010101", "muted": "#020202", "grid": "#030303", "pass": "#040404", "fail": "#050505"} | {
    f"series{index}": f"#0606{index:02x}" for index in range(6)
}
"""Stand-ins that matplotlib draws with; each becomes `var(--name)` of the page."""
_PROLOGUE = re.compile(r"^.*?(?=<svg)", re.DOTALL)
MAX_TERMS = 6

Series = Sequence[tuple[float, float]]


def loss_plot(losses: Series, validation: Series) -> str:
    """Training and validation loss by step, or nothing where there is none."""
    if not losses:
        return ""

    def draw(axes: Any) -> None:
        axes.plot(*zip(*losses, strict=True), color=_COLOURS["series0"], label="training", linewidth=1.2)
        if validation:
            axes.plot(*zip(*validation, strict=True), color=_COLOURS["series1"], label="validation", marker="o")
        axes.set_xlabel("step")
        axes.set_ylabel("nats per token")
        _legend(axes)

    return _svg("loss", draw)


def slang_plot(weekly: Mapping[str, Sequence[tuple[datetime, float]]]) -> str:
    """Uses per 1,000 messages by week of the terms that are used most now, or nothing where there is none."""
    lately = sorted((term for term in weekly if weekly[term]), key=lambda term: (-weekly[term][-1][1], term))
    if not lately:
        return ""

    def draw(axes: Any) -> None:
        for index, term in enumerate(lately[:MAX_TERMS]):
            moments, rates = zip(*weekly[term], strict=True)
            axes.plot(moments, rates, color=_COLOURS[f"series{index}"], label=_label(term), marker="o", markersize=3)
        axes.set_ylabel("uses per 1,000 messages")
        axes.tick_params(axis="x", rotation=30)
        _legend(axes)

    return _svg("slang", draw)


def drift_plot(per_anchor: Sequence[float]) -> str:
    """How far the challenger is from its base on each anchor prompt, or nothing where it was not measured."""
    if not per_anchor:
        return ""

    def draw(axes: Any) -> None:
        axes.hist(per_anchor, bins=24, color=_COLOURS["series0"])
        axes.set_xlabel("KL from the base, nats per token")
        axes.set_ylabel("anchor prompts")

    return _svg("drift", draw)


def _label(term: str) -> str:
    return term.replace("$", r"\$").removeprefix("_")


def _legend(axes: Any) -> None:
    axes.legend(frameon=False, labelcolor=_COLOURS["ink"], fontsize=9)


def _svg(name: str, draw: Callable[[Any], None]) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        _tint(axes)
        page = io.StringIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph", UserWarning)  # the browser's fonts draw the text, emoji too
            figure.savefig(page, format="svg", transparent=True, metadata={"Date": None})
    text = _PROLOGUE.sub("", page.getvalue())
    for colour, value in _COLOURS.items():
        text = text.replace(value, f"var(--{colour})")
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    return re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"|<svg ', r'<svg \1class="plot" ', text, count=1)


def _tint(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=_COLOURS["grid"], linewidth=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color(_COLOURS["muted"])
    axes.tick_params(colors=_COLOURS["ink"], labelsize=9)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(_COLOURS["ink"])
