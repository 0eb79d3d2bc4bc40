"""The console: no width cuts a number, and columns left out are named."""

import pytest
from rich.cells import cell_len

from harness.report.cells import TableCell
from harness.report.table import build_table
from tests.support.records import a_record, six
from tests.support.tables import printed


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120, 140, 200])
def test_no_width_cuts_a_number(width):
    table = six()
    text = printed(table, width)
    assert "…" not in text
    words = [line.split() for line in text.splitlines()]
    assert all(len([line for line in words if number in line]) == 6 for number in ("1.2M", "2.500"))
    for column in table.columns:
        if column.label in text.partition("baseline")[0] and not column.is_text:
            assert column.show(table.rows[0]) in text
    shown = text.partition("baseline")[0]
    missing = [column.label for column in table.columns if column.label not in shown]
    named = "".join(text.split()).partition("leftoutatthiswidth:")[2]
    assert all("".join(label.split()) in named for label in missing)


@pytest.mark.parametrize("width", [100, 140])
def test_usual_terminals_show_every_figure_without_long_lines(width):
    text = printed(six(), width)
    assert max(len(line) for line in text.splitlines()) <= width
    for label in ("trainable", "share %", "train s", "tokens/s", "peak MiB", "val. loss", "rouge_l", "loss"):
        assert label in text.partition("baseline")[0]


def test_long_settings_fold_and_wide_characters_stay_aligned():
    setting = "lora.target_modules=[q_proj,k_proj,v_proj,o_proj] data.path=医学问答.jsonl"
    cells = [TableCell("", "a", "lora", setting), TableCell("", "b", "lora", "短")]
    text = printed(build_table(cells, {key: a_record(key) for key in "ab"}), 100)
    block = text.partition("\n\n")[0].splitlines()
    assert len(block) > 3
    assert max(cell_len(line) for line in block) <= 100
    first, second = (line for line in block if "1.2M" in line)
    assert cell_len(first.partition("1.2M")[0]) == cell_len(second.partition("1.2M")[0])
    start = block[0].index("setting")
    width = block[0].index("state") - start if "state" in block[0] else block[0].index("trainable") - start
    folded = "".join("".join(line[start : start + width].split()) for line in block[1:-1])
    assert folded.startswith("lora.target_modules=[q_proj,k_proj,v_proj,o_proj]")


@pytest.mark.parametrize("width", [80, 100])
def test_usual_terminals_break_no_word_and_keep_the_fingerprint(width):
    settings = ["trainer.learning_rate=0.0005 r=16", "trainer.learning_rate=0.005 r=8 seed=12"]
    fingerprints = ["0123456789ab", "ba9876543210"]
    cells = [TableCell("", name, "adalora", text) for name, text in zip(fingerprints, settings, strict=True)]
    shown = printed(build_table(cells, {name: a_record(name) for name in fingerprints}), width)
    table = shown.partition("baseline")[0]
    assert max(len(line) for line in table.splitlines()) <= width
    assert all(word in table for text in (*settings, *fingerprints) for word in text.split())


def test_brackets_in_settings_are_not_console_markup():
    cell = TableCell("", "a", "lora", "[bold]x[/bold]")
    assert "[bold]x[/bold]" in printed(build_table([cell], {"a": a_record("a")}), 200)
