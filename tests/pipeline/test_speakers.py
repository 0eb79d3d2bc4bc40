"""Who can be asked: runs by their records, and how each is asked."""

import json
from dataclasses import replace
from unittest import mock

import pytest

from harness.data import dataset
from harness.errors import ConfigFault
from harness.pipeline import speakers as pipeline_speakers
from harness.pipeline.speakers import choose_run, chosen_generation, label_of, runs_on_base, with_adapter
from tests.support.runs import plan_of


@pytest.fixture
def runs(three_runs):
    return three_runs


def options_of(runs, *words):
    return plan_of(*runs[1], "stage=chat", *words)[1]


def keep_records(folder, records, **changes):
    """The records in another folder, by place: changed as the keyword ``r<place>`` says."""
    for place, record in enumerate(records):
        changed = record | changes.get(f"r{place}", {})
        (folder / record["fingerprint"]).mkdir(parents=True)
        (folder / record["fingerprint"] / "record.json").write_text(json.dumps(changed), encoding="utf-8")
    return folder


def test_without_a_name_the_newest_finished_run_answers_and_the_others_are_named(runs):
    records = runs[2]
    chosen = choose_run(options_of(runs))
    assert chosen.speaker.key == records[-1]["fingerprint"]
    assert chosen.note.startswith(f"run={records[-1]['fingerprint']}: the newest of 3 finished runs")
    assert all(record["fingerprint"][:8] in chosen.note for record in records)


def test_a_name_chooses_without_a_word_and_a_wrong_one_says_which_runs_exist(runs):
    wanted = runs[2][0]["fingerprint"]
    chosen = choose_run(options_of(runs, f"run='{wanted[:7]}'"))
    assert (chosen.speaker.key, chosen.note) == (wanted, None)
    with pytest.raises(ConfigFault, match=f"matches no run in .* .it has .*{wanted}"):
        choose_run(options_of(runs, "run=zzz"))


def test_unfinished_runs_and_those_without_adapters_are_passed_over_and_named_if_nothing_is_left(runs, tmp_path):
    records = runs[2]
    some = keep_records(tmp_path / "some", records, r1={"kept": "record"}, r2={"status": "failed"})
    assert [each["fingerprint"] for each in with_adapter(some)] == [records[0]["fingerprint"]]
    others = {"r0": {"external": {"name": "org/x"}}, "r1": {"kept": "record"}, "r2": {"status": "failed"}}
    none = keep_records(tmp_path / "none", records, **others)
    with pytest.raises(ConfigFault) as raised:
        choose_run(options_of(runs, f"runs_dir={none}"))
    said = str(raised.value)
    assert f"{records[0]['fingerprint']} (scores of an adapter from elsewhere: use adapter_path)" in said
    assert f"{records[1]['fingerprint']} (finished with keep=record)" in said
    assert f"{records[2]['fingerprint']} (failed)" in said
    with pytest.raises(ConfigFault, match="kept no adapter"):
        choose_run(options_of(runs, f"runs_dir={none}", f"run='{records[1]['fingerprint']}'"))
    with pytest.raises(ConfigFault, match="has no finished run with an adapter; train one first"):
        choose_run(options_of(runs, f"runs_dir={tmp_path / 'empty'}"))


def test_runs_of_one_base_are_offered_together_and_others_left_out(runs, tmp_path):
    runs_dir, _, records = runs
    model, inputs = records[0]["plan"]["model"], records[0]["plan"]["inputs"]
    found = runs_on_base(runs_dir, model, inputs)
    assert [speaker.key for speaker in found] == [record["fingerprint"] for record in records[::-1]]
    other = records[1]["plan"] | {"inputs": inputs | {"model": "0" * 64}}
    elsewhere = records[2]["plan"] | {"model": model | {"device": "cuda:1"}}
    folder = keep_records(tmp_path, records, r1={"plan": other}, r2={"plan": elsewhere})
    left = [records[2]["fingerprint"], records[0]["fingerprint"]]
    assert [speaker.key for speaker in runs_on_base(folder, model, inputs)] == left


def test_a_label_has_what_sets_a_run_apart(runs):
    records = runs[2]
    labels = [label_of(record, records) for record in records]
    assert labels[0].startswith("lora r=4")
    assert " · exact_match " in labels[0]
    assert labels[1].startswith("lora r=8")
    assert labels[2].startswith("prompt_tuning · ")
    assert label_of(records[0], records[:1]).startswith("lora · ")


def test_the_command_changes_the_settings_of_decoding_that_it_names():
    own = plan_of("scoring.generation.max_new_tokens=7")[0].scoring.generation
    asked = replace(own, max_new_tokens=50, do_sample=True, temperature=0.5)
    words = ["run=abc", "scoring.generation.do_sample=true", "+scoring.generation.temperature=0.5", "seed=3"]
    assert chosen_generation(own, asked, words) == replace(own, do_sample=True, temperature=0.5)
    assert chosen_generation(own, asked, []) == own


def test_rows_that_are_gone_or_large_give_no_examples(runs):
    speaker = choose_run(options_of(runs)).speaker
    assert speaker.manner.instruction == "Colour?"
    assert len(speaker.manner.examples) == 4
    for name, value in (("READ_AT_MOST", 10), ("locate_data", mock.Mock(side_effect=OSError))):
        with (
            mock.patch.object(pipeline_speakers, name, value),
            mock.patch.object(pipeline_speakers, "read_splits", side_effect=dataset.read_splits) as read,
        ):
            again = choose_run(options_of(runs)).speaker
            assert (again.manner.instruction, again.manner.examples) == ("", ())
            assert read.call_count == 0
