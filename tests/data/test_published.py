"""The data sets of conf/data that are published elsewhere: made samples of each form, and the real files if present."""

import csv
import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from harness.config import schema
from harness.data.dataset import SplitRows, read_splits
from harness.data.splits import SPLITS
from tests.support.configs import composed_once
from tests.support.data_cases import jsonl, shared


def read(option: str, folder: Path, *words: str) -> SplitRows:
    """What this option reads from the folder."""
    composed = composed_once(f"data={option}", f"data.path='{folder}'", *words)
    data = OmegaConf.to_object(composed.data)
    assert isinstance(data, schema.Data)
    return read_splits(data)


def sizes(rows: SplitRows) -> list[int]:
    return [len(rows.splits[name]) for name in SPLITS]


def write_gsm8k(folder: Path) -> None:
    rows = [{"question": f"How much is {n}+1?", "answer": f"{n}+1={n + 1}\n#### {n + 1}"} for n in range(40)]
    jsonl(folder, rows[:30], "train.jsonl")
    jsonl(folder, rows[30:], "test.jsonl")


def write_e2e(folder: Path) -> None:
    for name, places in (("devset", range(20)), ("testset_w_refs", range(20, 25))):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["mr", "ref"])
            writer.writerows(
                [f"name[Inn {n}], area[riverside]", f"Text {k} of inn {n}."] for n in places for k in range(3)
            )


def write_snips(folder: Path) -> None:
    for kind, count in (("train_{}_full", 20), ("validate_{}", 3)):
        for intent in ("PlayMusic", "GetWeather"):
            parts = [[{"text": "say "}, {"text": f"x{n}{intent}", "entity": "thing"}] for n in range(count)]
            file = folder / f"{kind.format(intent)}.json"
            file.write_text(json.dumps({intent: [{"data": data} for data in parts]}), encoding="utf-8")


def write_tcm_ner(folder: Path) -> None:
    for name, count in (("train", 6), ("dev", 2), ("test", 2)):
        sentences = [f"服 O\n桂 B-中药\n枝 I-中药\n{n} O\n\n" for n in range(count)]
        (folder / f"medical.{name}").write_text("".join(sentences), encoding="utf-8")


def test_gsm8k_reads_questions_and_worked_answers(tmp_path: Path) -> None:
    write_gsm8k(tmp_path)
    rows = read("gsm8k", tmp_path)
    assert sizes(rows) == [28, 2, 10]
    row = rows.splits["test"][0]
    assert (row.instruction, row.input, row.output) == ("How much is 30+1?", "", "30+1=31\n#### 31")


def test_e2e_trains_on_pairs_and_scores_meanings_with_all_their_references(tmp_path: Path) -> None:
    write_e2e(tmp_path)
    rows = read("e2e", tmp_path)
    assert sizes(rows) == [54, 2, 5]
    held_out = [*rows.splits["validation"], *rows.splits["test"]]
    assert {len(row.all_references) for row in held_out} == {3}
    assert {row.input for row in rows.splits["train"]}.isdisjoint(row.input for row in held_out)
    assert rows.splits["train"][0].instruction.startswith("Describe the restaurant")
    assert rows.duplicates_across_splits == 0


def test_e2e_of_the_hub_has_the_same_rows_under_other_names(tmp_path: Path) -> None:
    for name in SPLITS:
        row = {"meaning_representation": f"name[{name}]", "human_reference": f"It is {name}."}
        jsonl(tmp_path, [row, {**row, "human_reference": "Another."}], f"{name}.jsonl")
    rows = read("e2e_hub", tmp_path, "data.revision=null")
    assert sizes(rows) == [2, 1, 1]
    assert rows.splits["test"][0].all_references == ("It is test.", "Another.")


def test_snips_reads_all_intents_and_keeps_the_published_validation_for_the_test(tmp_path: Path) -> None:
    write_snips(tmp_path)
    rows = read("snips", tmp_path)
    assert sizes(rows) == [38, 2, 6]
    row = rows.splits["test"][0]
    assert row.input == "say x0GetWeather"
    assert row.output == '{"intent": "GetWeather", "slots": {"thing": "x0GetWeather"}}'


def test_tcm_ner_reads_tagged_characters(tmp_path: Path) -> None:
    write_tcm_ner(tmp_path)
    rows = read("tcm_ner", tmp_path)
    assert sizes(rows) == [6, 2, 2]
    row = rows.splits["test"][0]
    assert row.instruction.startswith("找出句子中的")
    assert (row.input, row.output) == ("服桂枝0", "上述句子中的实体包含：\n中药实体：桂枝")


@pytest.mark.parametrize(
    ("option", "folder", "expected"),
    [
        ("gsm8k", "gsm8k", [7099, 374, 1319]),
        ("e2e", "e2e_nlg", [4211, 58, 630]),
        ("snips", "snips", [13095, 689, 700]),
        ("tcm_ner", "tcm_ner", [5259, 657, 658]),
    ],
)
def test_the_real_files_read_whole(option: str, folder: str, expected: list[int]) -> None:
    rows = read(option, shared(folder))
    assert sizes(rows) == expected
    assert not rows.bad


def test_the_real_test_set_of_e2e_has_about_seven_references_a_meaning() -> None:
    rows = read("e2e", shared("e2e_nlg")).splits["test"]
    texts = {(row.input, text) for row in rows for text in row.all_references}
    with (shared("e2e_nlg") / "testset_w_refs.csv").open(encoding="utf-8", newline="") as stream:
        assert texts == {(line["mr"], line["ref"]) for line in csv.DictReader(stream)}
    assert len(texts) / len(rows) > 7
