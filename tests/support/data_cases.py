"""Settings, tokenizers and files that the tests of the data package share."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from harness.config import schema
from harness.data.dataset import SplitRows, read_splits
from harness.data.messages import Message
from harness.data.rows import Row
from harness.data.splits import SPLITS
from harness.data.tokenize import TokenizedRow, tokenize_splits
from harness.errors import DataFault
from tests.support.paths import SHARED as SHARED_FOLDER

SHARED = SHARED_FOLDER / "data"
ALPACA = {"instruction": "instruction", "input": "input", "output": "output"}
MESSAGES = {"messages": "messages"}
ROWS = [{"instruction": f"q{i}", "input": "", "output": f"a{i}"} for i in range(20)]
PROMPT = len("Instruction: q\nAnswer: ")  # tokens of the lesson's prompt for the question q, one per byte
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def settings(path: object, columns: dict[str, str] = ALPACA, **changes: Any) -> schema.Data:
    """``schema.Data`` of one file that is split into three, with ``changes`` (nested nodes as tuples or values)."""
    names: dict[str, str | None] = dict.fromkeys(
        ("instruction", "input", "output", "messages", "target", "options", "rejected", "weight")
    )
    values: dict[str, Any] = {
        "name": "test",
        "format": "messages" if "messages" in columns else "alpaca",
        "path": str(path),
        "revision": None,
        "subset": None,
        "splits": (None, None, None),
        "fractions": (0.1, 0.1),
        "split_seed": 0,
        "limits": (None, None, None),
        "instruction": None,
        "options": None,
        "class_weights": None,
        "train_on": "last",
        "group_by_prompt": True,
        "template": "lesson_exact",  # its texts can be counted by hand
        "max_tokens": 512,
        "truncate": False,
        "on_bad_row": "error",
        "metrics": ["token_f1"],
        "max_new_tokens": 16,
        "tokenize": "auto",
        **changes,
    }
    values["train_on"] = schema.TrainOn(values["train_on"])
    values["on_bad_row"] = schema.OnBadRow(values["on_bad_row"])
    values["splits"] = schema.SplitNames(**dict(zip(SPLITS, values["splits"], strict=True)))
    values["fractions"] = schema.Fractions(**dict(zip(SPLITS[1:], values["fractions"], strict=True)))
    values["limits"] = schema.Limits(**dict(zip(SPLITS, values["limits"], strict=True)))
    return schema.Data(columns=schema.Columns(**{**names, "keep": [], **columns}), **values)


def jsonl(folder: Path, rows: list, name: str = "rows.jsonl") -> Path:
    """A file with one row per line."""
    file = folder / name
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def fault(source: object, columns: dict = ALPACA, **changes: object) -> str:
    """The message of the DataFault that reading ``source`` ends in."""
    with pytest.raises(DataFault) as caught:
        read_splits(settings(source, columns, **changes))
    return str(caught.value)


def flat(rows: SplitRows) -> list[Row]:
    """All rows in the order of their numbers."""
    return sorted((row for split in rows.splits.values() for row in split), key=lambda row: row.number)


def turns(*pairs: tuple[str, str]) -> tuple[Message, ...]:
    """Messages without other fields."""
    return tuple(Message(role, content) for role, content in pairs)


def rows_of(*outputs: str, instruction: str = "q") -> SplitRows:
    """Training rows with these outputs."""
    made = tuple(
        Row(number, "rows.jsonl", instruction, "", output, turns(("user", instruction), ("assistant", output)), None)
        for number, output in enumerate(outputs, start=1)
    )
    return SplitRows({"train": made, "validation": (), "test": ()}, (), 0)


def tokenized(*outputs: str, tokenizer: Any = None, **changes: Any) -> list[TokenizedRow]:
    """The same rows tokenized, by bytes unless a tokenizer is given."""
    tokenizer = tokenizer or byte_tokenizer()
    return tokenize_splits(rows_of(*outputs), settings("x", **changes), tokenizer).splits["train"]


def byte_tokenizer(
    bos: bool = False, eos: str | None = "</s>", merges: Sequence[tuple[str, str]] = (), **more: Any
) -> Any:
    """One token per byte, so that lengths can be counted by hand, but for ``merges`` of two of them.

    ``bos`` adds a start token like Llama's.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = [*alphabet, *("".join(merge) for merge in merges)]
    inner = Tokenizer(models.BPE({text: number for number, text in enumerate(vocabulary)}, list(merges)))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>" if bos else None, eos_token=eos, pad_token="<pad>", **more
    )
    if bos:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
        )
    return tokenizer


def qwen_tokenizer() -> Any:
    """The real Qwen1.5 tokenizer with its chat template."""
    return _load(shared("qwen15_tokenizer"))


@cache
def _load(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def shared(name: str) -> Path:
    """A real file that is not part of the project; skips the test if it is absent."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs {name} in {SHARED}, which is not part of the checkout")
    return path
