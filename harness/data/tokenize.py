"""Rows as token ids, with the length of the prompt.

A row's ids are those of its whole text, because that is what the model has read in pretraining. Generation knows only
the prompt, whose ids must be the same in both; so the templates put the border where no token spans it. A row in which
one would (an answer that begins with a newline) is counted, and its completion is tokenized on its own.

What is trained: the completion and one end, the token that ends the template's turn or else the text. The labels of
prompt and padding are -100.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config.schema import Data, OnBadRow, RowFormat, Template, TrainOn
from harness.data import token_cache
from harness.data.dataset import SplitRows, bad_rows_fault
from harness.data.json_rows import parse_json
from harness.data.rows import BadRow, Row
from harness.data.splits import SPLITS
from harness.data.templates import end_token, render_row, require_template
from harness.errors import DataFault, ModelFault

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # the label that torch's cross-entropy leaves out


@dataclass(frozen=True)
class TokenizedRow:
    """Ids of prompt, completion and end token, length t; the first ``prompt_length`` (>= 1) are prompt."""

    input_ids: tuple[int, ...]
    prompt_length: int
    row: Row
    prompt: str
    cut: bool = False  # the end of the completion, with its end token, did not fit
    start: int = 0  # 1 if the first id is the start token that the tokenizer adds
    spanned: bool = False  # in its whole text, a token spans the border; its completion is tokenized on its own
    turns: tuple[tuple[int, int], ...] = ()  # of the prompt, start and end of earlier turns that are trained too
    rejected_ids: tuple[int, ...] = ()  # like ``input_ids``, with the rejected answer; empty: none
    place: int = -1  # among the training rows, where that matters
    options: tuple[tuple[int, ...], ...] = ()  # ids of each of the row's options after the prompt, without an end

    @property
    def answer_ids(self) -> tuple[int, ...]:
        """The completion's ids without its end token."""
        return self.input_ids[self.prompt_length : None if self.cut else -1]

    def trained_whole(self) -> "TokenizedRow":
        """The row with its prompt trained, too; nothing predicts the first id."""
        return replace(self, turns=((1, self.prompt_length),)) if self.prompt_length > 1 else self

    def with_rejected(self) -> "TokenizedRow":
        """The row with its rejected answer in place of the chosen one."""
        return replace(self, input_ids=self.rejected_ids, rejected_ids=())

    @property
    def labels(self) -> tuple[int, ...]:
        """Length t like ``input_ids``, not shifted (the model's loss shifts)."""
        labels = [IGNORED] * self.prompt_length
        for start, end in self.turns:
            labels[start:end] = self.input_ids[start:end]
        return (*labels, *self.input_ids[self.prompt_length :])


@dataclass(frozen=True)
class TokenizedSplits:
    """The rows of each split in their order."""

    splits: dict[str, list[TokenizedRow]]
    bad: tuple[BadRow, ...]  # left out here, of all splits
    cut: int  # rows whose completion was cut, of all splits
    spanned: int  # rows in whose whole text a token spans the border, of all splits
    end_id: int  # the end that is trained
    apart: int = 0  # earlier turns that are rows of their own, because their conversation shows them otherwise later


def tokenize_splits(rows: SplitRows, data: Data, tokenizer: Any) -> TokenizedSplits:
    """Every row as at most ``data.max_tokens`` ids.

    A row is bad if its prompt fills the window, if it is too long and ``data.truncate`` is off, if the chat template
    refuses it, or if its output has no token, or contains the end that is trained or the end of text. With
    ``data.truncate`` the end of the completion is cut and counted, but never the prompt or the whole completion.

    Raises:
        DataFault: there are bad rows and ``data.on_bad_row=error``, or they leave a split empty.
        ModelFault: the tokenizer lacks an end-of-text token, or the chat template that ``data.template`` needs.
    """
    require_template(data.template, tokenizer)
    if tokenizer.eos_token_id is None:
        name = tokenizer.name_or_path or "this model"
        raise ModelFault(
            f"model: the tokenizer of {name} has no end-of-text token (eos_token), so a tuned model"
            " would never learn to stop; set eos_token in its tokenizer_config.json"
        )
    splits: dict[str, list[TokenizedRow]] = {}
    refused: dict[str, list[BadRow]] = {}
    for name in SPLITS:
        every_turn = name == "train" and data.train_on is TrainOn.all
        tokenize = _tokenize_turns if every_turn else _tokenize
        splits[name], refused[name] = tokenize(rows.splits[name], data, tokenizer)
        if data.format is RowFormat.preference:
            splits[name], stray = _with_rejected(splits[name], data, tokenizer)
            refused[name] += stray
        if name != "train":
            splits[name], stray = _with_options(splits[name], data, tokenizer)
            refused[name] += stray
    # Sorted, because splits cut from one file mix its rows.
    bad = sorted((row for name in SPLITS for row in refused[name]), key=lambda row: (row.source, row.number))
    if bad and data.on_bad_row is OnBadRow.error:
        raise bad_rows_fault(bad, sum(len(rows.splits[name]) for name in SPLITS))
    for name in SPLITS:
        if rows.splits[name] and not splits[name]:
            first = refused[name][0].reason
            setting = f"data.max_tokens={data.max_tokens}"
            raise DataFault(
                (setting if setting in first else f"data.path={data.path}")
                + f": all {len(rows.splits[name])} rows of the {name} split"
                f" are refused (the first: {first}); "
                + ("raise data.max_tokens or fix the data" if setting in first else "fix the data")
            )
    everything = [row for name in SPLITS for row in splits[name]]
    return TokenizedSplits(
        splits,
        tuple(bad),
        cut=sum(row.cut for row in everything),
        spanned=sum(row.spanned for row in everything),
        end_id=end_token(data.template, tokenizer)[1],
        apart=max(0, len(splits["train"]) - len(rows.splits["train"]) + len(refused["train"])),
    )


def prompt_ids(prompts: Sequence[str], template: str, tokenizer: Any) -> list[list[int]]:
    """Ids of rendered prompts as the model sees them in training, scoring and generation.

    The tokenizer's start token is added if it has one, except with ``chat``, whose text already contains it. An
    end-of-text token that some tokenizers append is removed, because the text continues.
    """
    if template is Template.chat:
        return _ids(prompts, tokenizer, special=False)
    ids = _ids(prompts, tokenizer, special=True)
    [probe] = _ids(["a"], tokenizer, special=True)
    return [row[:-1] for row in ids] if probe[-1:] == [tokenizer.eos_token_id] else ids


def option_ids(
    rows: Sequence[Row], template: str, tokenizer: Any
) -> list[tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]]:
    """Of each row, the ids of its prompt, and those of each of its options as the answer, without an end."""
    asked = [render_row(row.answered(text), template, tokenizer) for row in rows for text in row.options]
    prompts = prompt_ids([prompt for prompt, _ in asked], template, tokenizer) if asked else []
    tails = _completion_ids(asked, prompts, template, tokenizer) if asked else []
    pairs = zip(prompts, tails, strict=True)
    found = []
    for row in rows:
        own = [next(pairs) for _ in row.options]
        found.append((tuple(own[0][0]) if own else (), tuple(tuple(ids) for _, (ids, _) in own)))
    return found


def _with_rejected(rows: Sequence[TokenizedRow], data: Data, tokenizer: Any) -> tuple[list[TokenizedRow], list[BadRow]]:
    """The rows with the ids of their rejected answers; and those whose rejected answer cannot be used."""
    answers, faults = _tokenize([row.row.answered(row.row.rejected or "") for row in rows], data, tokenizer)
    bad = {(fault.source, fault.number): fault for fault in faults}
    pairs = zip((row for row in rows if (row.row.source, row.row.number) not in bad), answers, strict=True)
    found = []
    for row, answer in pairs:
        if answer.input_ids == row.input_ids:
            reason = "the chosen and the rejected answer are the same tokens"
            bad[row.row.source, row.row.number] = BadRow(row.row.source, row.row.number, reason)
        else:
            found.append(replace(row, rejected_ids=answer.input_ids, cut=row.cut or answer.cut))
    reasons = [replace(fault, reason=f"its rejected answer: {fault.reason}") for fault in bad.values()]
    return found, reasons


def _with_options(rows: Sequence[TokenizedRow], data: Data, tokenizer: Any) -> tuple[list[TokenizedRow], list[BadRow]]:
    """The rows with the ids of their options, which stand where the answer stands; and those that do not fit.

    A pair of answers of which one does not fit has been refused, or cut as it was told to: then it has no options.
    """
    found, bad = [], []
    for row, (_, options) in zip(rows, option_ids([row.row for row in rows], data.template, tokenizer), strict=True):
        fault = _fault_of_options(options, row.prompt_length, data.max_tokens)
        if fault is None:
            found.append(replace(row, options=options))
        elif row.row.options == (row.row.output, row.row.rejected):
            found.append(row)
        else:
            bad.append(BadRow(row.row.source, row.row.number, fault))
    return found, bad


def _fault_of_options(options: Sequence[Sequence[int]], prompt_length: int, max_tokens: int) -> str | None:
    """Why options, as ids, cannot be weighed after a prompt of this length; None if they can."""
    if not all(options):
        return "an option has no token in this model's vocabulary"
    length = prompt_length + max(map(len, options), default=0)
    return f"an option makes it {length} tokens long (data.max_tokens={max_tokens})" if length > max_tokens else None


def _tokenize_turns(rows: Sequence[Row], data: Data, tokenizer: Any) -> tuple[list[TokenizedRow], list[BadRow]]:
    """Rows of which every turn by the assistant is trained, each with its end.

    An earlier turn is trained where it stands in its conversation, if generation would see the same ids before it.
    Where the template shows a turn otherwise once others follow (Qwen3 leaves out its thinking), it is a row of its
    own. A conversation with a turn that cannot be used is left out as a whole.
    """
    tokenized, faults = _tokenize([turn for row in rows for turn in row.turns()], data, tokenizer)
    bad = {(row.source, row.number): row for row in reversed(faults)}
    conversations: dict[tuple[str, int], list[TokenizedRow]] = {}
    for turn in tokenized:
        key = (turn.row.source, turn.row.number)
        if key not in bad:
            conversations.setdefault(key, []).append(turn)
    return [row for turns in conversations.values() for row in _joined(turns)], list(bad.values())


def _joined(turns: Sequence[TokenizedRow]) -> list[TokenizedRow]:
    """The turns of one conversation in as few rows as hold them, in order."""
    rows: list[TokenizedRow] = []
    for turn in reversed(turns):
        ids = turn.input_ids
        for at, row in enumerate(rows):
            longer = len(row.row.messages) > len(turn.row.messages)
            if longer and not turn.cut and row.input_ids[: len(ids)] == ids and len(ids) <= row.prompt_length:
                rows[at] = replace(row, turns=((turn.prompt_length, len(ids)), *row.turns))
                break
        else:
            rows.append(turn)
    return rows[::-1]


def _tokenize(rows: Sequence[Row], data: Data, tokenizer: Any) -> tuple[list[TokenizedRow], list[BadRow]]:
    rendered: list[tuple[Row, str, str]] = []
    bad: list[BadRow] = []
    for row in rows:
        try:
            prompt, completion = render_row(row, data.template, tokenizer)
            # What a template makes of tool calls is the answer that generation can give.
            answer = replace(row, output=completion) if row.messages[-1].fields else row
            rendered.append((answer, prompt, completion))
        except DataFault as fault:
            bad.append(BadRow(row.source, row.number, str(fault)))
    end, end_id = end_token(data.template, tokenizer)
    prompts = prompt_ids([prompt for _, prompt, _ in rendered], data.template, tokenizer)
    completions = _completion_ids([(prompt, tail) for _, prompt, tail in rendered], prompts, data.template, tokenizer)
    tokenized: list[TokenizedRow] = []
    for (row, prompt, _), head, (tail, spanned) in zip(rendered, prompts, completions, strict=True):
        ends = {end_id: end, int(tokenizer.eos_token_id): tokenizer.eos_token}
        if len(tail) == 1 and not _ids([row.output], tokenizer, special=False)[0]:
            tail = []  # nothing but the template's separator
        reason = _why_unusable(head, tail, data, ends)
        if reason:
            bad.append(BadRow(row.source, row.number, reason))
            continue
        ids = (*head, *tail, end_id)
        cut = len(ids) > data.max_tokens
        start = int(tokenizer.bos_token_id is not None and head[0] == tokenizer.bos_token_id)
        tokenized.append(TokenizedRow(ids[: data.max_tokens], len(head), row, prompt, cut, start, spanned))
    return tokenized, bad


def _completion_ids(
    texts: Sequence[tuple[str, str]], prompts: Sequence[Sequence[int]], template: str, tokenizer: Any
) -> list[tuple[list[int], bool]]:
    """Ids of each completion, and whether in its whole text a token spans the border.

    What follows the prompt's ids in those of the whole text; the completion's own ids if the whole does not begin with
    the prompt's.
    """
    wholes = prompt_ids([prompt + completion for prompt, completion in texts], template, tokenizer)
    found = [
        (whole[len(head) :], False) if whole[: len(head)] == list(head) else ([], True)
        for whole, head in zip(wholes, prompts, strict=True)
    ]
    spanned = [index for index, (_, spans) in enumerate(found) if spans]
    alone = _ids([texts[index][1] for index in spanned], tokenizer, special=False)
    for index, ids in zip(spanned, alone, strict=True):
        found[index] = (ids, True)
    return found


def _why_unusable(prompt: Sequence[int], completion: Sequence[int], data: Data, ends: dict[int, str]) -> str | None:
    """Why a row cannot be used; None if it can."""
    window = f"data.max_tokens={data.max_tokens}"
    if not prompt:
        return "its prompt has no token in this model's vocabulary"
    if not completion:
        return "its output has no token in this model's vocabulary"
    inside = next((end for number, end in ends.items() if number in completion), None)
    if inside is not None:
        return f"its output contains the end-of-text token {inside!r}, at which generation would stop"
    if len(prompt) >= data.max_tokens:
        return f"its prompt fills the whole window ({len(prompt)} tokens, {window})"
    length = len(prompt) + len(completion) + 1
    if length > data.max_tokens and not data.truncate:
        return f"it is {length} tokens long ({window}; data.truncate=true would cut the end of its output)"
    return None


def _ids(texts: Sequence[str], tokenizer: Any, special: bool) -> list[list[int]]:
    """Ids of each text; those of large data are kept on disk."""
    if not texts:
        return []

    def tokenized() -> list[list[int]]:
        # One call for all, so that fast tokenizers loop themselves. Length is checked here, so no warning about it.
        options = {"add_special_tokens": special, "return_attention_mask": False, "verbose": False}
        ids: list[list[int]] = tokenizer(list(texts), **options)["input_ids"]
        return ids

    return token_cache.ids_of(texts, tokenizer, special, tokenized)


def prompt_of(row: TokenizedRow) -> list[int]:
    """The prompt's token ids: everything before the completion."""
    return list(row.input_ids[: row.prompt_length])


def held_out_rows(
    path: Path, limit: int | None, tokenizer: "PreTrainedTokenizerBase", max_tokens: int
) -> list[TokenizedRow]:
    """General text as rows whose first token is prompt and whose other tokens are scored.

    Raises:
        DataFault: a line is not a JSON object with a ``text`` of at least two tokens.
    """
    rows = []
    # Not splitlines(): JSON strings may contain Unicode's other line separators.
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    for number, line in enumerate(lines[:limit], 1):
        try:
            text = parse_json(line)["text"]
            ids = tuple(tokenizer(text, verbose=False)["input_ids"][:max_tokens])
        except (ValueError, TypeError, KeyError) as error:
            raise DataFault(
                f"scoring.forgetting: {path}, text {number} is not a JSON object with a `text` ({error}); fix the file "
                "or set scoring.forgetting=null"
            ) from error
        if len(ids) < 2:
            raise DataFault(f"scoring.forgetting: {path}, text {number} has no token to predict; leave it out")
        rows.append(TokenizedRow(ids, 1, Row(number, str(path), "", "", text, (), None), ""))
    return rows
