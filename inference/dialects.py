"""How the kinds of backends differ on the wire: names, sampling options, and whether adapters come while they run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from inference.adapter_files import adapter_name
from nocap.domain import BASE, AdapterName, SamplingOptions
from nocap.errors import AdapterError, UnknownAdapter
from nocap.settings import InferenceSettings


@dataclass(frozen=True, slots=True)
class Dialect:
    """What the client must know of a backend besides OpenAI's protocol."""

    kind: Literal["embedded", "vllm", "tgi", "openai"] = "embedded"
    model_name: str = "{adapter}"
    """What stands in a request's `model` for an adapter."""
    base_name: str = BASE
    """What stands there for the bare base model."""

    @property
    def loads_adapters(self) -> bool:
        """Whether it takes adapters while it runs; the others are given theirs when they start."""
        return self.kind in ("embedded", "vllm")

    @property
    def names_the_adapter(self) -> bool:
        """Whether an answer's `model` is the name asked for; TGI 3.3 always gives the id of its base model."""
        return self.kind != "tgi"

    def wire_name(self, adapter: AdapterName) -> str:
        """The request's `model`. Raises UnknownAdapter for a name that no adapter can have, an empty one above all."""
        if adapter == BASE:
            return self.base_name
        try:
            return self.model_name.format(adapter=adapter_name(adapter))
        except AdapterError as error:
            raise UnknownAdapter(f"{error} Backends answer a name they do not know with the base model.") from error

    def sampling(self, options: SamplingOptions) -> dict[str, Any]:
        """The request's sampling fields.

        TGI refuses `top_p` 1 and takes any other `top_p` for a wish to sample, temperature 0 or not.
        """
        fields: dict[str, Any] = {"temperature": options.temperature, "max_tokens": options.max_tokens}
        if self.kind != "tgi" or (options.top_p < 1 and options.temperature > 0):
            fields["top_p"] = options.top_p
        if options.seed is not None:
            fields["seed"] = options.seed
        if options.stop:
            fields["stop"] = list(options.stop)
        return fields


def dialect_of(settings: InferenceSettings) -> Dialect:
    """The configured backend's; TGI's own name for its base model is `tgi`."""
    base_name = settings.base_model_name or ("tgi" if settings.backend == "tgi" else BASE)
    return Dialect(settings.backend, settings.model_name, base_name)
