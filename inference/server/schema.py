"""The bodies of requests, as OpenAI's and vLLM's clients send them; fields that change nothing here are ignored."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, field_validator

from nocap.domain import ChatMessage, SamplingOptions


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


class WireMessage(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    def as_message(self) -> ChatMessage:
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return ChatMessage("system" if self.role == "developer" else self.role, text)


class StreamOptions(BaseModel):
    include_usage: bool = False


class Options(BaseModel):
    """What both kinds of completion share."""

    model: str
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] = 1
    logprobs: Literal[False, 0] | None = None

    @field_validator("stop")
    @classmethod
    def _at_most_four(cls, stop: str | list[str] | None) -> str | list[str] | None:
        if isinstance(stop, list) and len(stop) > 4:
            raise ValueError("at most 4 stop strings")
        return stop

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, tokens_left: int) -> SamplingOptions:
        """As asked for; without `max_tokens` the reply may fill the context."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return SamplingOptions(
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_tokens if self.max_tokens is not None else max(tokens_left, 1),
            seed=self.seed,
            stop=stop,
        )


class ChatBody(Options):
    messages: Annotated[list[WireMessage], Field(min_length=1)]
    max_completion_tokens: int | None = None

    def sampling(self, tokens_left: int) -> SamplingOptions:
        if self.max_completion_tokens is not None:
            return self.model_copy(
                update={"max_tokens": self.max_completion_tokens, "max_completion_tokens": None}
            ).sampling(tokens_left)
        return super().sampling(tokens_left)


class CompletionBody(Options):
    prompt: str | list[int]


class LoadBody(BaseModel):
    lora_name: str
    lora_path: str
    load_inplace: Literal[False] = False


class UnloadBody(BaseModel):
    lora_name: str


class PauseBody(BaseModel):
    owner: str
    lease_seconds: Annotated[float, Field(gt=0, le=3600)]


class ResumeBody(BaseModel):
    owner: str
