"""Builds the embedded base model: a byte-level BPE and a small Qwen3, trained on the grammar alone.

Imports torch and transformers: nothing but the command that rebuilds the model, and its tests, imports this module.
"""

from __future__ import annotations

import math
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from nocap.demo.grammar import BOT_TOPICS, Exchange, echo, exchange, on_topic, system_text

PAD, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

DEFAULT_STEPS = 5000
"""Far past the grammar's loss floor: taking up the prompt's subject is learned late."""

Progress = Callable[[int, int, float], None]
"""Called after every step with (steps done, steps in all, loss)."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Sizes and rates of the shipped model; every linear layer's sizes are multiples of 64, so NF4 blocks fit."""

    vocabulary: int = 2048
    hidden_size: int = 128
    intermediate_size: int = 384
    layers: int = 4
    heads: int = 4
    key_value_heads: int = 2
    head_size: int = 32
    positions: int = 512
    batch_examples: int = 32
    learning_rate: float = 3e-3
    warm_up_steps: int = 100
    weight_decay: float = 0.05
    bot_share: float = 0.06
    """Share of the examples in which the bot is greeted, or asked what it is."""
    echo_share: float = 0.05
    """Share of the examples that are said after the asker, so that every token is somebody's answer."""
    system_share: float = 0.35
    """Share of the examples that begin with a system message."""
    tokenizer_exchanges: int = 30_000


@dataclass(frozen=True, slots=True)
class OnTopicReport:
    """How many held-out prompts were answered on topic; `answers` holds (prompt, answer, is on topic)."""

    prompts: int
    on_topic: int
    answers: tuple[tuple[str, str, bool], ...]

    @property
    def share(self) -> float:
        return self.on_topic / self.prompts


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did; losses are nats per reply token, averaged over the first and the last tenth of the steps."""

    parameters: int
    steps: int
    seconds: float
    first_loss: float
    last_loss: float
    on_topic_share: float
    evaluated_prompts: int
    bytes: int


def build_base(
    out: Path,
    *,
    steps: int = DEFAULT_STEPS,
    seed: int = 1,
    progress: Progress | None = None,
    recipe: Recipe | None = None,
    evaluated_prompts: int = 300,
) -> BuildReport:
    """Trains tokenizer and model from the grammar and puts the finished folder at `out`, replacing what was there.

    The same seed, thread count and library versions give the same weights.
    """
    started = time.monotonic()
    chosen = recipe or Recipe()
    tokenizer = train_tokenizer(chosen, seed)
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(_config(chosen, tokenizer))
    losses = _train(model, _batches(tokenizer, chosen, random.Random(seed)), steps, chosen, progress)
    _save(model, tokenizer, out)
    found = evaluate_on_topic(out, prompts=evaluated_prompts, seed=seed)
    tenth = max(1, steps // 10)
    return BuildReport(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        steps=steps,
        seconds=time.monotonic() - started,
        first_loss=sum(losses[:tenth]) / tenth,
        last_loss=sum(losses[-tenth:]) / tenth,
        on_topic_share=found.share,
        evaluated_prompts=found.prompts,
        bytes=sum(file.stat().st_size for file in out.iterdir()),
    )


def train_tokenizer(recipe: Recipe, seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of the grammar's text with the ChatML tokens and template; encodes any text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=[PAD, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_tokenizer_text(recipe, random.Random(seed)), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=TURN_END, pad_token=PAD, model_max_length=recipe.positions
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _draw(recipe: Recipe, rng: random.Random) -> Exchange:
    """An example of the mix: small talk mostly, something about the bot, or something to say after the asker."""
    kind = rng.random()
    if kind < recipe.echo_share:
        return echo(rng)
    return exchange(rng, rng.choice(BOT_TOPICS) if kind < recipe.echo_share + recipe.bot_share else None)


def _tokenizer_text(recipe: Recipe, rng: random.Random) -> Iterator[str]:
    yield "system\nuser\nassistant\n"
    for _ in range(recipe.tokenizer_exchanges):
        drawn = _draw(recipe, rng)
        yield f"{drawn.prompt}\n{drawn.reply}\n"
        if rng.random() < 0.1:
            yield system_text(rng)


def _config(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.key_value_heads,
        head_dim=recipe.head_size,
        max_position_embeddings=recipe.positions,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


@dataclass(frozen=True, slots=True)
class _Batch:
    tokens_B_T: torch.Tensor
    is_reply_B_T: torch.Tensor


def messages_of(drawn: Exchange, system: str | None) -> list[dict[str, str]]:
    """The exchange's prompt as chat messages, the system text and the earlier turns first."""
    first = [{"role": "system", "content": system}] if system else []
    earlier = [{"role": role, "content": content} for role, content in drawn.context]
    return [*first, *earlier, {"role": "user", "content": drawn.prompt}]


def _prompt_text(tokenizer: Any, drawn: Exchange, system: str | None) -> str:
    return str(tokenizer.apply_chat_template(messages_of(drawn, system), tokenize=False, add_generation_prompt=True))


def _batches(tokenizer: PreTrainedTokenizerFast, recipe: Recipe, rng: random.Random) -> Iterator[_Batch]:
    """Endless batches of fresh examples; rows of like length share a batch."""
    while True:
        rows = sorted(_pool(tokenizer, recipe.batch_examples * 16, recipe, rng), key=lambda row: len(row[0]))
        starts = list(range(0, len(rows), recipe.batch_examples))
        rng.shuffle(starts)
        for start in starts:
            yield _pad(rows[start : start + recipe.batch_examples], tokenizer.pad_token_id)


def _pool(
    tokenizer: PreTrainedTokenizerFast, count: int, recipe: Recipe, rng: random.Random
) -> list[tuple[list[int], int]]:
    """`count` rows of token ids, each with the position at which its reply begins."""
    drawn = [_draw(recipe, rng) for _ in range(count)]
    systems = [system_text(rng) if rng.random() < recipe.system_share else None for _ in drawn]
    prompts = [_prompt_text(tokenizer, one, system) for one, system in zip(drawn, systems, strict=True)]
    heads = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    tails = tokenizer([one.reply + TURN_END for one in drawn], add_special_tokens=False)["input_ids"]
    return [(head + tail, len(head)) for head, tail in zip(heads, tails, strict=True)]


def _pad(rows: list[tuple[list[int], int]], pad: int) -> _Batch:
    length = max(len(tokens) for tokens, _ in rows)
    tokens_B_T = torch.full((len(rows), length), pad)
    is_reply_B_T = torch.zeros((len(rows), length), dtype=torch.bool)
    for index, (tokens, reply_start) in enumerate(rows):
        tokens_B_T[index, : len(tokens)] = torch.tensor(tokens)
        is_reply_B_T[index, reply_start : len(tokens)] = True
    return _Batch(tokens_B_T, is_reply_B_T)


def _train(
    model: Qwen3ForCausalLM, batches: Iterator[_Batch], steps: int, recipe: Recipe, progress: Progress | None
) -> list[float]:
    """AdamW with warm-up and a cosine to a hundredth of the rate; the loss of the replies at every step."""
    model.train()
    optimizer = torch.optim.AdamW(_decay_groups(model, recipe.weight_decay), lr=recipe.learning_rate, betas=(0.9, 0.98))
    warm_up = min(recipe.warm_up_steps, max(1, steps // 10))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, warm_up, steps))
    losses = []
    for step in range(1, steps + 1):
        loss = _reply_loss(model, next(batches))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
        if progress:
            progress(step, steps, losses[-1])
    model.eval()
    return losses


def _decay_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _rate(step: int, warm_up: int, steps: int) -> float:
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _reply_loss(model: Qwen3ForCausalLM, batch: _Batch) -> torch.Tensor:
    """Mean cross-entropy of the replies' tokens. Padding comes after the text, so the causal mask suffices."""
    hidden_B_T_C = model.model(input_ids=batch.tokens_B_T[:, :-1], use_cache=False).last_hidden_state
    is_target_B_T = batch.is_reply_B_T[:, 1:]
    logits_N_V = model.lm_head(hidden_B_T_C[is_target_B_T])
    return torch.nn.functional.cross_entropy(logits_N_V, batch.tokens_B_T[:, 1:][is_target_B_T])


def _save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """The folder in half precision, renamed into place when it is whole."""
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.generation_config.update(
        do_sample=True,
        temperature=0.8,
        top_p=0.95,
        top_k=0,
        max_new_tokens=96,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.half().save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    model.float()
    for file in partial.iterdir():
        file.chmod(0o644)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


def evaluate_on_topic(
    folder: Path,
    *,
    prompts: int = 300,
    seed: int = 1,
    system: str | None = None,
    lower_case: bool = False,
    batch_prompts: int = 100,
) -> OnTopicReport:
    """How often the model in `folder` takes up the subject of held-out prompts, sampled as in chat.

    Temperature 0.8, top-p 0.95, float32. `lower_case` asks only with prompts in lower case without punctuation.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return judge_answers(model, tokenizer, held_out(prompts, seed, lower_case), seed, system, batch_prompts)


def held_out(count: int, seed: int, lower_case: bool = False) -> list[Exchange]:
    """`count` exchanges of held-out compositions."""
    rng = random.Random(seed)
    found: list[Exchange] = []
    while len(found) < count:
        drawn = exchange(rng, split="held_out")
        if not lower_case or drawn.prompt == drawn.prompt.lower():
            found.append(drawn)
    return found


def judge_answers(
    model: Any, tokenizer: Any, asked: list[Exchange], seed: int, system: str | None, batch_prompts: int = 100
) -> OnTopicReport:
    """Samples an answer to each exchange's prompt and judges it; the caller's random state is left as it was."""
    answers: list[str] = []
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(seed)
        for start in range(0, len(asked), batch_prompts):
            texts = [_prompt_text(tokenizer, one, system) for one in asked[start : start + batch_prompts]]
            encoded = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
            output = model.generate(
                input_ids=encoded["input_ids"],
                attention_mask=encoded["attention_mask"],
                do_sample=True,
                temperature=0.8,
                top_p=0.95,
                top_k=0,
                max_new_tokens=48,
            )
            new_tokens = output[:, encoded["input_ids"].shape[1] :]
            answers += tokenizer.batch_decode(new_tokens, skip_special_tokens=True)
    judged = tuple((one.prompt, answer, on_topic(one, answer)) for one, answer in zip(asked, answers, strict=True))
    return OnTopicReport(len(judged), sum(good for _, _, good in judged), judged)
