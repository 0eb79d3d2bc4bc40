"""Published files that are not rows yet: SNIPS and tagged Chinese medical text."""

import json
from pathlib import Path

import pytest

from harness.config.schema import RowFormat
from harness.data.corpora import snips, tcm_instructions, tcm_tags
from harness.data.dataset import read_splits
from harness.data.formats import read_file
from harness.data.json_rows import BrokenRow
from harness.data.unreadable import Unreadable
from tests.support.data_cases import fault, settings, shared

INPUT = {"input": "input", "output": "output"}

ANA = {"text": "Ana", "entity": "artist"}
UTTERANCES = {
    "PlayMusic": [
        {"data": [{"text": "play "}, {"text": "Música", "entity": "track"}, {"text": " by "}, ANA]},
        {"data": [ANA, {"text": " and "}, {"text": "Bo ", "entity": "artist"}]},
    ]
}

TAGS = "头 B-临床表现\r\n痛 I-临床表现\r\n用 O\r\n桂 B-中药\r\n枝 I-中药\r\n芍 B-中药\r\n药 I-中药\r\n\r\n好 O\r\n"


def test_snips_becomes_utterance_and_json_with_slots_in_their_order() -> None:
    (_, first), (_, second) = snips(json.dumps(UTTERANCES).encode())
    assert first["input"] == "play Música by Ana"
    assert first["output"] == '{"intent": "PlayMusic", "slots": {"track": "Música", "artist": "Ana"}}'
    assert json.loads(second["output"])["slots"] == {"artist": ["Ana", "Bo"]}
    assert second["input"] == "Ana and Bo"


def test_snips_reads_utf8_and_latin1_in_one_file() -> None:
    rest = b'"entity": "track"}]}]}'
    utf8, latin = '[{"text": "Música", '.encode(), '[{"text": "Música", '.encode("latin-1")
    content = b'{"PlayMusic": [{"data": ' + utf8 + b'"entity": "track"}]}, {"data": ' + latin + rest
    assert [row["input"] for _, row in snips(content)] == ["Música", "Música"]
    halves = b"\xed\xa0\xbc\xed\xbd\x95"
    assert [row["input"] for _, row in snips(b'{"X": [{"data": [{"text": "' + halves + b'"}]}]}')] == ["\U0001f355"]


def test_a_file_that_is_not_snips_says_so() -> None:
    for content in (b'[{"a": 1}]', b'{"a": 1}', b"{"):
        with pytest.raises(Unreadable):
            list(snips(content))
    assert [type(row) for _, row in snips(b'{"X": [{"data": [{"text": 1}]}, 5]}')] == [BrokenRow, BrokenRow]


def test_tagged_characters_become_sentences_and_their_entities() -> None:
    (first, row), (second, without) = tcm_tags(TAGS.encode())
    assert (first, second) == (1, 2)
    assert row["input"] == "头痛用桂枝芍药"
    assert row["output"] == "上述句子中的实体包含：\n临床表现实体：头痛\n中药实体：桂枝\n中药实体：芍药"
    assert without == {"input": "好", "output": "上述句子中没有实体"}
    [(_, broken)] = tcm_tags("头 X-临床\n".encode())
    assert isinstance(broken, BrokenRow)
    assert "'X-临床' is not O, B-type or I-type" in broken.reason


def test_instruction_files_keep_their_own_prompt() -> None:
    rows = [{"input": "找出：\\n头痛\\n答：", "target": "临床表现实体：头痛", "sample_id": "1"}, {"input": "x"}]
    (_, row), (_, broken) = tcm_instructions(json.dumps(rows).encode())
    assert row == {"instruction": "找出：\n头痛\n答：", "output": "临床表现实体：头痛"}
    assert isinstance(broken, BrokenRow)


def test_rows_without_an_instruction_get_the_one_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "x.train").write_text((TAGS + "\r\n") * 3, encoding="utf-8")
    columns = {**INPUT, "instruction": "instruction"}
    chosen = settings(tmp_path / "x.train", columns, format="tcm_ner", instruction="找出实体：", fractions=(0, 0))
    assert {row.instruction for row in read_splits(chosen).splits["train"]} == {"找出实体："}
    assert "data.columns.instruction=null but data.format=tcm_ner needs it" in fault(
        tmp_path / "x.train", INPUT, format="tcm_ner"
    )
    (tmp_path / "y.json").write_text(json.dumps([{"input": "问", "target": "答"}]), encoding="utf-8")
    own = settings(tmp_path / "y.json", columns, format="tcm_ner", instruction="找出实体：", fractions=(0, 0))
    assert [(row.instruction, row.input) for row in read_splits(own).splits["train"]] == [("问", "")]


def test_the_real_tcm_files_agree_in_both_forms() -> None:
    tags = read_file(shared("tcm_ner/medical.dev"), RowFormat.tcm_ner)
    instructions = read_file(shared("tcm_ner/dev.json"), RowFormat.tcm_ner)
    assert len(tags) == len(instructions) == 657
    for (_, tagged), (_, row) in zip(tags, instructions, strict=True):
        assert tagged["input"] in row["instruction"]
        # The published targets leave a B- before 34 entities.
        assert tagged["output"] == row["output"].replace("\nB-", "\n")
    assert len(read_file(shared("tcm_ner/medical.train"), RowFormat.tcm_ner)) == 5259


def test_the_real_snips_files_are_whole() -> None:
    files = sorted(shared("snips").glob("*.json"))
    rows = [row for file in files for _, row in read_file(file, RowFormat.snips)]
    assert len(rows) == 13_784 + 700
    assert all(json.loads(row["output"])["intent"] for row in rows)
    assert not any("\ufffd" in row["input"] or "\x80" <= char < "\xa0" for row in rows for char in row["input"])
