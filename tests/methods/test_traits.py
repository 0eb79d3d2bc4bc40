"""What a reader must know about a method reaches the record."""

from tests.support.runs import prepared, write_rows


def test_caveat_of_a_method_is_in_the_notes_of_the_record(random_qwen2, tmp_path):
    rows = write_rows(tmp_path / "rows", train_rows=8, others=4)
    lily = prepared(random_qwen2, rows, tmp_path, "peft=library", "library.type=lily", "+library.settings={r: 4}")
    assert [note for note in lily.attached.notes if "scores depend on batch sizes" in note]
    assert not prepared(random_qwen2, rows, tmp_path, "peft=ia3").attached.notes
