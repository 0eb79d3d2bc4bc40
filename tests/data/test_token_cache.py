"""Cached ids are those of the tokenizer, for these texts and this tokenizer alone."""

import os

import pytest

from harness.data import token_cache
from harness.data.dataset import SplitRows
from harness.data.rows import Message, Row
from harness.data.tokenize import tokenize_splits
from tests.support.data_cases import settings
from tests.support.model_cases import tokenizer

TEXTS = ["the sky", "", "other 天空", "the the"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFT_HARNESS_CACHE", str(tmp_path))
    monkeypatch.setattr(token_cache, "LARGE", 1)
    return tmp_path / "tokens"


def ids(texts=TEXTS, made_by=None, special=True):
    """The ids, and whether the tokenizer was asked."""
    made_by, asked = made_by or tokenizer(), []

    def tokenized():
        asked.append(True)
        return made_by(list(texts), add_special_tokens=special)["input_ids"]

    return token_cache.ids_of(texts, made_by, special, tokenized), bool(asked)


def test_the_second_time_ids_are_read_and_are_the_same(folder):
    first, asked = ids()
    assert asked
    assert ids() == (first, False)
    assert first == tokenizer()(TEXTS)["input_ids"]
    assert [path.suffix for path in folder.iterdir()] == [".arrow"]


def test_other_texts_order_borders_special_tokens_or_tokenizer_are_tokenized_again():
    ids()
    assert ids(TEXTS[::-1])[1]
    assert ids(["the skyo", "", "ther 天空", "the the"])[1]
    assert ids(special=False)[1]
    other = tokenizer()
    other.add_tokens(["sky"])
    assert ids(made_by=other)[1]
    assert ids(made_by=tokenizer(eos_token="<|im_end|>"))[1]
    assert not ids()[1]


def test_a_tokenizer_that_changes_after_its_hash_was_taken_is_noticed():
    made_by = tokenizer()
    before = token_cache.tokenizer_digest(made_by)
    assert token_cache.tokenizer_digest(made_by) == before
    made_by.add_tokens(["sky"])
    assert token_cache.tokenizer_digest(made_by) != before


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize("damage", [cut, lambda content: b"", lambda content: b"x" * len(content)])
def test_a_damaged_file_is_made_again(folder, damage, caplog):
    first, _ = ids()
    [path] = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert ids() == (first, True)
    assert "not a valid file of token ids" in caplog.text
    assert path.read_bytes() == whole


def test_a_changed_id_is_noticed(folder, caplog):
    first, _ = ids()
    [path] = folder.iterdir()
    flat = b"".join(number.to_bytes(4, "little") for row in first for number in row)
    content = path.read_bytes()
    at = content.index(flat)
    path.write_bytes(content[:at] + b"\x07" + content[at + 1 :])
    assert ids() == (first, True)
    assert "other ids than were written" in caplog.text


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path, folder, caplog):
    folder.write_text("a file is in its place", encoding="utf-8")
    assert ids()[1]
    assert ids()[1]
    assert "cannot keep token ids" in caplog.text


def test_small_data_and_slow_tokenizers_leave_no_file(folder, monkeypatch):
    class Slow:
        def __call__(self, texts, **_):
            return {"input_ids": [[1]] * len(texts)}

    assert ids(made_by=Slow())[1]
    monkeypatch.setattr(token_cache, "LARGE", 10**6)
    assert ids()[1]
    assert not folder.exists()


def test_the_files_that_were_not_read_for_longest_go_first(folder, monkeypatch):
    for number, texts in enumerate((["a"], ["b"], ["c"])):
        ids(texts)
        for path in folder.iterdir():
            if path.stat().st_mtime > 1000:
                os.utime(path, (number, number))
    ids(["a"])  # read again
    size = next(folder.iterdir()).stat().st_size
    monkeypatch.setattr(token_cache, "MOST", 2 * size)
    ids(["d"])
    assert [ids([text])[1] for text in ("a", "d")] == [False, False]
    assert len(list(folder.iterdir())) == 2


def test_rows_are_the_same_cached_and_uncached_at_any_limit(folder, monkeypatch):
    made_by = tokenizer(eos_token="<|endoftext|>")
    rows = tuple(
        Row(number, "x", ask, "", answer, (Message("user", ask), Message("assistant", answer)), None)
        for number, (ask, answer) in enumerate([("the sky", "the blue"), ("grass" * 9, "green " * 9)], start=1)
    )
    split = SplitRows({"train": rows, "validation": (), "test": ()}, (), 0)

    def tokenized(limit):
        return tokenize_splits(split, settings("x", max_tokens=limit, truncate=True), made_by)

    cached = [tokenized(limit) for limit in (200, 110, 200)]
    assert list(folder.iterdir())
    monkeypatch.setattr(token_cache, "LARGE", 10**9)
    assert cached == [tokenized(limit) for limit in (200, 110, 200)]
    assert cached[0] == cached[2] != cached[1]
