"""The report as values: groups, configurations over seeds, marks, facts, failures."""

import pytest

from harness.report.build import Winner
from harness.report.run_rows import missing_run
from harness.report.texts import short_path
from tests.support.reports import code, report_of, three_methods, write_run


def test_runs_that_differ_in_their_seed_alone_are_one_row(tmp_path):
    three_methods(tmp_path)
    [group] = report_of(tmp_path).groups
    rows = {row.label if row.method != "full" else f"full {row.learning_rate}": row for row in group.configurations}
    assert list(rows) == ["full 0.001", "full 0.01", "lora r=4", "lora r=8", "ia3"]
    row = rows["lora r=8"]
    assert (row.seeds, len(row.runs), row.number) == ((0, 1, 2), 3, 4)
    assert row.scores["exact_match"].mean == pytest.approx(76.0)
    assert row.scores["exact_match"].sd == pytest.approx(1.0)
    assert row.changes["exact_match"] == pytest.approx(76.0)
    assert row.costs["train_s"] == pytest.approx(11.0)
    assert row.values["r"] == 8
    assert group.scores[0] == "exact_match"
    assert "validation_loss" in group.scores
    assert group.baseline["loss"] == 4.0


def test_numbers_in_settings_are_sorted_by_their_size(tmp_path):
    for r in (16, 2, 8):
        write_run(tmp_path, "lora", 0, f"lora.r={r}")
    [group] = report_of(tmp_path).groups
    assert [row.setting for row in group.configurations] == ["r=2", "r=8", "r=16"]


def test_models_data_and_protocols_are_never_pooled(tmp_path):
    write_run(tmp_path, "lora", 0)
    write_run(tmp_path, "lora", 1, "scoring.split=validation")
    write_run(tmp_path, "lora", 2, "data.template=alpaca")
    write_run(tmp_path, "lora", 3, "model.prune=0.5")
    write_run(tmp_path, "lora", 4, "data.limits.train=50")
    write_run(tmp_path, "lora", 5, "trainer.epochs=2")
    groups = report_of(tmp_path).groups
    assert sorted(len(group.configurations) for group in groups) == [1, 1, 4]
    titles = [group.title for group in groups]
    assert len(set(titles)) == 3
    assert any("validation split" in title for title in titles)
    assert any("data.template=" in title for title in titles)
    settings = {row.setting for group in groups for row in group.configurations if len(group.configurations) == 4}
    assert settings == {
        "data.limits.train=null trainer.epochs=6.0",
        "data.limits.train=50 trainer.epochs=6.0",
        "data.limits.train=null trainer.epochs=2.0",
        "model.prune=0.5 data.limits.train=null trainer.epochs=6.0",
    }


def test_rows_of_other_code_precision_or_weights_are_marked_and_not_pooled(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, "lora", seed)
        write_run(tmp_path, "ia3", seed)
    write_run(tmp_path, "lora", 2, code=code("0123456789abcdef"))
    write_run(tmp_path, "lora", 3, inferred={"dtype": "bfloat16", "base_weights": "w" * 64})
    write_run(tmp_path, "lora", 4, inferred={"dtype": "float32", "base_weights": "x" * 64})
    report = report_of(tmp_path)
    [group] = report.groups
    marks = {row.seeds: row.marks for row in group.configurations if row.method == "lora"}
    assert marks == {
        (0, 1): (),
        (2,): ("code 0123456789ab",),
        (3,): ("dtype bfloat16",),
        (4,): (f"base weights {'x' * 12}",),
    }
    assert any("rows differ in code (results of different versions)" in note for note in group.notes)
    assert any("1 run made by code 0123456789abcdef, not by the present code" in note for note in report.notes)


def test_one_plan_under_other_numerics_is_no_replicate(tmp_path):
    write_run(tmp_path, "lora", 0)
    write_run(tmp_path, "lora", 1)
    other = write_run(tmp_path, "lora", 1, "model.attn_implementation=eager", score=51.0)
    [group] = report_of(tmp_path).groups
    [row] = group.configurations
    assert row.seeds == (0, 1)
    assert other["fingerprint"] not in row.runs
    assert row.marks == ("1 more under other numerics",)


def test_what_all_runs_share_is_said_once(tmp_path):
    write_run(tmp_path, "lora", 0)
    write_run(tmp_path, "ia3", 0, "scoring.split=validation")
    report = report_of(tmp_path)
    facts = {fact.name: fact.value for fact in report.facts}
    assert (facts["model.name"], facts["data.name"], facts["seed"]) == ("tiny", "medicine", "0")
    assert "scoring.split" not in facts
    for group in report.groups:
        own = {fact.name: fact.value for fact in group.facts}
        assert own.keys().isdisjoint(facts)
        assert own["scoring.split"] in ("test", "validation")


def test_runs_without_a_result_keep_their_place_and_their_reason(tmp_path):
    write_run(tmp_path, "lora", 0)
    error = {"type": "E", "message": "no memory\nsecond line", "hint": "lower it", "traceback": ""}
    write_run(tmp_path, "ia3", 0, status="failed", error=error)
    report = report_of(tmp_path, missing=(missing_run("f" * 12, "full", ["peft=full"]),))
    assert [(run.method, run.state, run.error, run.hint) for run in report.failures] == [
        ("ia3", "failed", "no memory", "lower it"),
        ("full", "not run", "", ""),
    ]
    [group] = report.groups
    assert [row.method for row in group.configurations] == ["lora"]
    assert all(run.after == {} for run in group.runs if run.state == "failed")


def test_a_mean_over_fewer_seeds_than_its_neighbors_is_left_out(tmp_path):
    record = write_run(tmp_path, "lora", 0)
    scores = record["scores"]
    write_run(tmp_path, "lora", 1, scores=scores | {"after": {"loss": 2.0}})
    [group] = report_of(tmp_path).groups
    [row] = group.configurations
    assert "loss" in row.scores
    assert "exact_match" not in row.scores


def test_winners_say_from_how_many_they_were_chosen(tmp_path):
    chosen = write_run(tmp_path, "lora", 0, "scoring.split=validation")["fingerprint"]
    final = write_run(tmp_path, "lora", 1)["fingerprint"]
    winner = Winner((chosen,), (final,), 4, "loss", "validation", "lora")
    remarks = {
        row.runs[0]: row.selected
        for group in report_of(tmp_path, winners=(winner,)).groups
        for row in group.configurations
    }
    assert remarks == {
        chosen: "chosen for lora, of 4 by loss on validation",
        final: "chosen: best of 4 by loss on validation",
    }


def test_cells_that_share_a_run_are_named(tmp_path):
    record = write_run(tmp_path, "ia3", 0)
    cells = {record["fingerprint"]: ("peft=ia3 lora.r=4", "peft=ia3 lora.r=8")}
    [group] = report_of(tmp_path, cells=cells).groups
    assert group.configurations[0].cells == cells[record["fingerprint"]]
    assert any("answers 2 cells of the sweep" in note for note in group.notes)


def test_a_record_of_a_version_with_other_settings_is_shown(tmp_path):
    plan = {"method": "lora", "settings": {"r": 8}, "learning_rate": 0.1, "seed": 0, "model": {"name": "old"}}
    write_run(tmp_path, "lora", 0, plan=plan)
    [group] = report_of(tmp_path).groups
    assert group.title == "old on unknown data"


def test_path_below_the_working_folder_is_shown_relative_to_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert short_path(tmp_path / "runs") == "runs"
    assert short_path(tmp_path.parent) == str(tmp_path.parent)
