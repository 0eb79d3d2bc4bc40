"""The label audit."""

import hashlib

import pytest

from harness.data.audit import label_audit
from harness.data.collate import collate
from harness.data.tokenize import TokenizedRow
from harness.errors import DataFault
from tests.support.data_cases import (
    PROMPT,
    byte_tokenizer,
    tokenized,
)


def test_the_audit_counts_what_is_trained_and_hashes_it() -> None:
    rows = tokenized("ab", "c")
    found = label_audit(rows, refused_rows=3)
    eos = byte_tokenizer().eos_token_id
    lines = [" ".join(str(number) for number in [*byte_tokenizer()(text)["input_ids"], eos]) for text in ("ab", "c")]
    assert found == {
        "supervised_tokens": 5,
        "prompt_tokens": 2 * PROMPT,
        "rows": 2,
        "refused_rows": 3,
        "cut_rows": 0,
        "supervised_sha256": hashlib.sha256(("\n".join(lines) + "\n").encode()).hexdigest(),
    }
    assert label_audit(rows[::-1])["supervised_sha256"] != found["supervised_sha256"]


def test_a_row_with_no_supervised_token_is_an_error() -> None:
    (row,) = tokenized("ab")
    empty = TokenizedRow(row.input_ids[:PROMPT], PROMPT, row.row, row.prompt)
    with pytest.raises(DataFault, match="row 1: no token of its completion is trained on"):
        label_audit([empty])
    with pytest.raises(DataFault, match="no row of this batch"):
        collate([empty], 0, "right")
