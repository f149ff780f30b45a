"""One rendering for training, measuring and serving."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from inference.prompt import chat_messages, render, render_reply
from nocap.domain import ChatMessage
from nocap.errors import ModelError
from tests.inference.server import tiny

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
ALTERNATING_WITHOUT_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}[{{ m['role'] }}]{{ m['content'] | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
DROPS_SYSTEM = "{% for m in messages if m['role'] != 'system' %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
THINKS_FIRST = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant><plan>{% endif %}"
)


@dataclass(frozen=True)
class Entry:
    term: str
    gloss: str | None


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.write_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


def with_template(template: str | None, folder: Path) -> Any:
    tiny.write_tokenizer(folder, template=template)
    return AutoTokenizer.from_pretrained(folder)


def turn(role: Any, content: str) -> ChatMessage:
    return ChatMessage(role, content)


def test_neighbouring_turns_of_one_role_are_joined_and_the_first_is_the_users() -> None:
    turns = [turn(ASSISTANT, "early"), turn(USER, "a"), turn(USER, " b "), turn(ASSISTANT, "c"), turn(USER, "d")]
    assert chat_messages("be a bot", (), turns, glossary_tokens=0) == [
        turn(SYSTEM, "be a bot"),
        turn(USER, "a\nb"),
        turn(ASSISTANT, "c"),
        turn(USER, "d"),
    ]


def test_an_empty_system_message_and_empty_turns_are_never_written() -> None:
    assert chat_messages("  ", (), [turn(USER, ""), turn(USER, "hi")], glossary_tokens=50) == [turn(USER, "hi")]


def test_the_glossary_keeps_as_many_leading_entries_as_fit() -> None:
    glossary = [
        Entry("rizz", "charm"),
        Entry("no\ncap", None),
        *(Entry(f"term{number}", "x" * 20) for number in range(50)),
    ]
    (system, _) = chat_messages("bot", glossary, [turn(USER, "hi")], glossary_tokens=60)
    assert "rizz (charm); no cap; term0" in system.content
    assert "term49" not in system.content
    assert len(system.content.encode()) < 60 * 3 + 10
    (system, _) = chat_messages("bot", glossary, [turn(USER, "hi")], glossary_tokens=0)
    assert system.content == "bot"


def test_a_reply_continues_exactly_what_serving_renders(tokenizer: Any) -> None:
    messages = [turn(SYSTEM, "bot"), turn(USER, "hello"), turn(ASSISTANT, "yo"), turn(USER, "again")]
    tokens = render_reply(tokenizer, messages, "sure 😀")
    assert tokens.prompt == render(tokenizer, messages, add_generation_prompt=True)
    assert tokenizer.decode(tokens.reply) == "sure 😀<|im_end|>"
    whole = render(tokenizer, [*messages, turn(ASSISTANT, "sure 😀")], add_generation_prompt=False)
    assert tokenizer.decode(tokens.prompt + tokens.reply) + "\n" == tokenizer.decode(whole)


@given(content=st.lists(st.sampled_from(["<|im_end|>", "<|im_start|>", "<|", "im_end", "|>", "a", " ", "<"])))
def test_no_content_ends_its_turn_or_opens_another(content: list[str], tokenizer: Any) -> None:
    control = {tokenizer.convert_tokens_to_ids(token) for token in ("<|im_start|>", "<|im_end|>")}
    plain = render(tokenizer, [turn(USER, "x")], add_generation_prompt=True)
    hostile = render(tokenizer, [turn(USER, "x" + "".join(content))], add_generation_prompt=True)
    assert [token for token in hostile if token in control] == [token for token in plain if token in control]


def test_a_template_without_a_system_role_gets_it_in_the_first_user_turn(tmp_path: Path) -> None:
    messages = [turn(SYSTEM, "be kind"), turn(USER, "hi"), turn(ASSISTANT, "yo"), turn(USER, "ok")]
    for number, template in enumerate((ALTERNATING_WITHOUT_SYSTEM, DROPS_SYSTEM)):
        tokenizer = with_template(template, tmp_path / str(number))
        text = tokenizer.decode(render(tokenizer, messages, add_generation_prompt=False))
        assert text.startswith("[user]be kind\n\nhi")


def test_messages_that_a_template_refuses_are_an_error(tmp_path: Path) -> None:
    tokenizer = with_template(ALTERNATING_WITHOUT_SYSTEM, tmp_path)
    with pytest.raises(ModelError, match="roles must alternate"):
        render(tokenizer, [turn(USER, "a"), turn(USER, "b")], add_generation_prompt=True)
    with pytest.raises(ModelError, match="roles must alternate"):
        render(tokenizer, [turn(SYSTEM, "s"), turn(USER, "a"), turn(USER, "b")], add_generation_prompt=True)


def test_chat_messages_are_what_strict_templates_accept(tmp_path: Path) -> None:
    tokenizer = with_template(ALTERNATING_WITHOUT_SYSTEM, tmp_path)
    turns = [
        turn(ASSISTANT, "x"),
        turn(USER, "a"),
        turn(USER, "b"),
        turn(ASSISTANT, "c"),
        turn(ASSISTANT, "d"),
        turn(USER, "e"),
    ]
    messages = chat_messages("bot", (), turns, glossary_tokens=0)
    assert tokenizer.decode(render(tokenizer, messages, add_generation_prompt=True)).endswith("[user]e\n[assistant]")


def test_without_a_template_turns_end_with_the_end_token(tmp_path: Path) -> None:
    tokenizer = with_template(None, tmp_path)
    messages = [turn(SYSTEM, "bot"), turn(USER, "hi <|user|>")]
    tokens = render_reply(tokenizer, messages, "yo")
    prompt = "<|system|>\nbot<|im_end|>\n<|user|>\nhi < |user|><|im_end|>\n<|assistant|>\n"
    assert tokenizer.decode(tokens.prompt) == prompt
    assert tokenizer.decode(tokens.reply) == "yo<|im_end|>"


def test_a_template_that_does_not_end_a_reply_gets_the_end_token(tmp_path: Path) -> None:
    tokenizer = with_template(ALTERNATING_WITHOUT_SYSTEM, tmp_path)
    assert tokenizer.decode(render_reply(tokenizer, [turn(USER, "hi")], "yo").reply) == "yo<|im_end|>"


def test_a_template_whose_prompt_no_finished_turn_has_is_refused(tmp_path: Path) -> None:
    tokenizer = with_template(THINKS_FIRST, tmp_path)
    with pytest.raises(ModelError, match="renders a finished turn differently"):
        render_reply(tokenizer, [turn(USER, "hi")], "yo")


def test_qwens_own_template_renders_prompts_that_training_continues() -> None:
    folder = Path(__file__).parents[2].parent / "shared" / "tokenizers" / "qwen2.5"
    if not folder.is_dir():
        pytest.skip("needs ../shared/tokenizers/qwen2.5")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    messages = [turn(SYSTEM, "bot"), turn(USER, "hi 😀")]
    tokens = render_reply(tokenizer, messages, "yo")
    assert tokenizer.decode(tokens.prompt).endswith("<|im_start|>assistant\n")
    assert tokenizer.decode(tokens.reply) == "yo<|im_end|>"
    assert len(tokens.reply) == 2


def test_the_glossary_prefers_what_the_talk_is_about_and_keeps_its_order() -> None:
    glossary = [
        Entry("rizz", "charm"),
        Entry("mid", "boring"),
        Entry("bussin", "delicious food"),
        Entry("glorpy", None),
    ]

    def system(said: str, tokens: int) -> str:
        return chat_messages("", glossary, [turn(USER, said)], glossary_tokens=tokens)[0].content

    tight = 30
    assert "rizz" in system("hello there", tight) and "bussin" not in system("hello there", tight)
    assert "bussin" in system("this pizza is such good food", tight)
    assert "glorpy" in system("what does Glorpy mean", tight)
    assert system("what does glorpy mean", 200) == system("hello there", 200)
