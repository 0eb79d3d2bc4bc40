"""Labels are added to, never lost."""

from harness.record.labels import Labels


def test_a_new_note_replaces_the_former_and_tags_are_added():
    former = {"note": "first", "tags": ["a", "b"]}
    assert Labels("second", ("b", "c")).added_to(former) == {"note": "second", "tags": ["a", "b", "c"]}
    assert Labels().added_to(former) == former
    assert Labels().added_to(None) == {"note": None, "tags": []}
