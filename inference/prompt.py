"""The one rendering of a chat for training, measuring and serving (the design's invariant 6).

`chat_messages` builds the messages, `render` turns them into token ids by the tokenizer's own chat template, and
`render_reply` does so for a known reply, with a prompt that equals what serving renders, token for token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from jinja2.exceptions import TemplateError

from nocap.domain import ChatMessage
from nocap.errors import ModelError

GLOSSARY_LEAD = "Words this community uses right now, each only where it fits: "
BYTES_PER_TOKEN = 3
"""A cautious estimate for chat text (Qwen2.5's vocabulary averages 4), since a bot process holds no tokenizer."""

SAID_WEIGHT = 1_000
_TELLING_WORD = re.compile(r"\w{4,}")

ROLE_MARKERS = ("<|system|>", "<|user|>", "<|assistant|>")
"""Open a turn where the tokenizer has no chat template."""


class Glossed(Protocol):
    """A term of the slang glossary; `storage.slang.GlossaryEntry` is one."""

    @property
    def term(self) -> str: ...

    @property
    def gloss(self) -> str | None: ...


class ChatTokenizer(Protocol):
    """What rendering needs of a transformers tokenizer."""

    chat_template: Any
    eos_token: Any
    bos_token: Any

    @property
    def all_special_tokens(self) -> list[str]: ...

    def __hash__(self) -> int: ...

    def get_added_vocab(self) -> dict[str, int]: ...

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any: ...

    def encode(self, text: str, **options: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class ReplyTokens:
    """A rendered chat with its reply: the loss belongs on `reply` alone, which ends with the end of the turn."""

    prompt: list[int]
    reply: list[int]


def chat_messages(
    system_prompt: str,
    glossary: Sequence[Glossed],
    turns: Sequence[ChatMessage],
    *,
    glossary_tokens: int,
) -> list[ChatMessage]:
    """The prompt's messages: system first, then turns that alternate and begin with the user's.

    Neighbouring turns of one role are joined by a newline; the assistant's turns before the first of a user are
    left out (Mistral's and Gemma's templates refuse them). As many glossary entries are kept as fit into about
    `glossary_tokens`, those that the turns are about before the others. An empty system message is never written.
    """
    assert all(turn.role != "system" for turn in turns), "the system prompt is an argument of its own"
    system = "\n\n".join(
        part for part in (system_prompt.strip(), _glossary_line(glossary, turns, glossary_tokens)) if part
    )
    messages = [ChatMessage("system", system)] if system else []
    return messages + _alternating(turns)


def render(tokenizer: ChatTokenizer, messages: Sequence[ChatMessage], *, add_generation_prompt: bool) -> list[int]:
    """The token ids of `messages` by the tokenizer's chat template.

    Where the template refuses or drops a system role, the system text opens the first user turn. Without a template,
    a turn is `<|role|>\\ncontent<eos>\\n`. Control tokens inside contents are broken by a space, so that nobody can
    end a turn or open another from within. Raises ModelError where the template refuses these messages.
    """
    return _encode(tokenizer, _text(tokenizer, messages, add_generation_prompt))


def render_reply(tokenizer: ChatTokenizer, messages: Sequence[ChatMessage], reply: str) -> ReplyTokens:
    """The prompt as `render(..., add_generation_prompt=True)` gives it, and the reply's tokens with their end.

    Raises ModelError where the template renders a finished chat differently from its generation prompt.
    """
    prompt = _text(tokenizer, messages, True)
    whole = _text(tokenizer, [*messages, ChatMessage("assistant", reply)], False)
    if not whole.startswith(prompt):
        raise ModelError(
            "The tokenizer's chat template renders a finished turn differently from its generation prompt; "
            "use another base, or mend its chat_template."
        )
    ending = whole[len(prompt) :].rstrip()
    if ending.endswith(_defused(tokenizer, reply).rstrip()):
        ending += tokenizer.eos_token or ""
    return ReplyTokens(_encode(tokenizer, prompt), _encode(tokenizer, ending))


def _glossary_line(glossary: Sequence[Glossed], turns: Sequence[ChatMessage], budget_tokens: int) -> str:
    """The most relevant entries that fit, in their given order: where all fit, the line never changes."""
    shown = [
        " ".join(entry.term.split()) + (f" ({' '.join(entry.gloss.split())})" if entry.gloss else "")
        for entry in glossary
    ]
    said = " ".join(turn.content for turn in turns).casefold()
    chosen: list[int] = []
    for index in sorted(range(len(shown)), key=lambda index: -_relevance(glossary[index], said)):
        longer = sorted([*chosen, index])
        if len(_listed(shown, longer).encode()) > budget_tokens * BYTES_PER_TOKEN:
            break
        chosen = longer
    return f"{_listed(shown, chosen)}." if chosen else ""


def _listed(shown: Sequence[str], chosen: Sequence[int]) -> str:
    return GLOSSARY_LEAD + "; ".join(shown[index] for index in chosen)


def _relevance(entry: Glossed, said: str) -> int:
    """Most for a term that was said, then by the telling words that its gloss shares with what was said."""
    if re.search(rf"(?<!\w){re.escape(entry.term.casefold())}(?!\w)", said):
        return SAID_WEIGHT
    spoken = set(_TELLING_WORD.findall(said))
    return len(spoken.intersection(_TELLING_WORD.findall((entry.gloss or "").casefold())))


def _alternating(turns: Iterable[ChatMessage]) -> list[ChatMessage]:
    messages: list[ChatMessage] = []
    for turn in turns:
        content = turn.content.strip()
        if not content or (not messages and turn.role == "assistant"):
            continue
        if messages and messages[-1].role == turn.role:
            content = f"{messages.pop().content}\n{content}"
        messages.append(ChatMessage(turn.role, content))
    return messages


def _text(tokenizer: ChatTokenizer, messages: Sequence[ChatMessage], add_generation_prompt: bool) -> str:
    safe = [ChatMessage(message.role, _defused(tokenizer, message.content)) for message in messages]
    if not tokenizer.chat_template:
        return _fallback_text(tokenizer, safe, add_generation_prompt)
    try:
        text = _template_text(tokenizer, safe, add_generation_prompt)
        if not safe or safe[0].role != "system" or safe[0].content.strip() in text:
            return text
    except TemplateError as error:
        if not safe or safe[0].role != "system":
            raise _refused(error) from error
    try:
        return _template_text(tokenizer, _system_folded(safe), add_generation_prompt)
    except TemplateError as error:
        raise _refused(error) from error


def _template_text(tokenizer: ChatTokenizer, messages: Sequence[ChatMessage], add_generation_prompt: bool) -> str:
    conversation = [{"role": message.role, "content": message.content} for message in messages]
    text: str = tokenizer.apply_chat_template(
        conversation, tokenize=False, add_generation_prompt=add_generation_prompt, enable_thinking=False
    )
    return text


def _refused(error: TemplateError) -> ModelError:
    return ModelError(f"The tokenizer's chat template refuses these messages: {error}.")


def _system_folded(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    system, *rest = messages
    if rest and rest[0].role == "user":
        return [ChatMessage("user", f"{system.content}\n\n{rest[0].content}"), *rest[1:]]
    return [ChatMessage("user", system.content), *rest]


def _fallback_text(tokenizer: ChatTokenizer, messages: Sequence[ChatMessage], add_generation_prompt: bool) -> str:
    if not tokenizer.eos_token:
        raise ModelError("The tokenizer has neither a chat template nor an end token; use an instruct model as base.")
    turns = "".join(f"<|{message.role}|>\n{message.content}{tokenizer.eos_token}\n" for message in messages)
    return (tokenizer.bos_token or "") + turns + ("<|assistant|>\n" if add_generation_prompt else "")


def _encode(tokenizer: ChatTokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


def _defused(tokenizer: ChatTokenizer, content: str) -> str:
    return _control_tokens(tokenizer).sub(lambda found: f"{found[0][0]} {found[0][1:]}", content)


@lru_cache(maxsize=4)
def _control_tokens(tokenizer: ChatTokenizer) -> re.Pattern[str]:
    """Matches what the tokenizer would read as one control token; added words, emoji and white space stay."""
    marked = (token for token in tokenizer.get_added_vocab() if token.startswith(("<", "[")))
    tokens = {*marked, *tokenizer.all_special_tokens, *ROLE_MARKERS}
    longest_first = sorted((token for token in tokens if len(token.strip()) > 1), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)))
