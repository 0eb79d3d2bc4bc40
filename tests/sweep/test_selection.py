"""Select, then report: the best setting of each group on one split, fresh seeds of it on another."""

import json
from types import SimpleNamespace

import pytest

from harness.errors import Paused
from harness.record import store
from harness.sweep.selection import choose, fresh_seeds
from tests.support.runs import command, overrides, records_of, write_rows
from tests.support.stored_records import fail, started
from tests.support.sweeps import finish_record, make_cell


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture
def sweep(random_qwen2, rows, tmp_path):
    return lambda *words: command("-m", *overrides(random_qwen2, rows, tmp_path / "runs"), *words)


def select(**settings):
    return SimpleNamespace(**{"split": "validation", "per": "method", "seeds": 2, "score": "loss", **settings})


def scored(cell, **after):
    return finish_record(cell, scores={"before": {}, "after": after, "signatures": {}, "cut": {}})


def cells_of(tmp_path, model, *settings):
    return [make_cell(tmp_path, model, *words.split()) for words in settings]


def test_seeds_of_the_report_are_none_of_the_choice():
    assert fresh_seeds({0, 2}, 3) == [1, 3, 4]
    assert fresh_seeds(set(), 2) == [0, 1]


def test_the_best_mean_over_seeds_wins(tmp_path, weightless):
    cells = cells_of(tmp_path, weightless, *(f"lora.r={r} seed={seed}" for r in (2, 4) for seed in (0, 1)))
    for cell, loss in zip(cells, (1.0, 3.0, 1.9, 1.9), strict=True):
        scored(cell, loss=loss)
    [(place, winner)] = choose(cells, select())
    assert (place, winner.candidates, winner.per) == (2, 2, "lora")
    assert winner.chosen == tuple(cell.plan.fingerprint for cell in cells[2:])


def test_a_score_that_is_better_when_it_is_higher_is_maximized(tmp_path, weightless):
    cells = cells_of(tmp_path, weightless, "lora.r=2", "lora.r=4")
    scored(cells[0], loss=1.0, exact_match=20.0)
    scored(cells[1], loss=0.5, exact_match=10.0)
    assert [place for place, _ in choose(cells, select(score="exact_match"))] == [0]


def test_there_is_a_winner_for_each_value_of_the_fields(tmp_path, weightless):
    settings = [f"lora.r={r} trainer.learning_rate={rate}" for r in (2, 4) for rate in (0.1, 0.2)]
    cells = cells_of(tmp_path, weightless, *settings)
    for cell, loss in zip(cells, (2.0, 1.0, 1.5, 3.0), strict=True):
        scored(cell, loss=loss)
    assert [(place, winner.per) for place, winner in choose(cells, select(per=["method", "lora.r"]))] == [
        (1, "lora, 2"),
        (2, "lora, 4"),
    ]


def test_settings_with_an_unfinished_run_do_not_count(tmp_path, weightless, caplog):
    cells = cells_of(tmp_path, weightless, "lora.r=2", "lora.r=4")
    scored(cells[1], loss=9.0)
    assert [place for place, _ in choose(cells, select())] == [1]
    assert choose(cells[:1], select()) == []


def test_pruned_settings_count_as_candidates_and_need_no_second_word(tmp_path, weightless, caplog):
    cells = cells_of(tmp_path, weightless, "lora.r=2", "lora.r=4")
    scored(cells[1], loss=9.0)
    fail(tmp_path, started(cells[0]), Paused("paused"))
    record = cells[0].read_record()
    store.write_record(tmp_path, record | {"status": "pruned", "error": None, "pruned": {}})
    [(place, winner)] = choose(cells, select())
    assert (place, winner.candidates) == (1, 2)
    assert "cannot be chosen" not in caplog.text


@pytest.mark.slow
def test_a_selection_may_prune_and_its_winners_are_not_pruned(sweep, tmp_path):
    done = sweep(
        *("lora.r=2", "trainer.learning_rate=1e-5,1e-3,3e-2", "select.split=validation", "select.seeds=2"),
        *("trainer.max_steps=8", "trainer.evaluations=4", "sweep.prune=halving"),
    )
    assert done.code == 0, done.err
    states = [
        (record["plan"]["scoring"]["split"], record["status"]) for record in records_of(tmp_path / "runs").values()
    ]
    assert sorted(states) == [("test", "finished")] * 2 + [("validation", "finished")] + [("validation", "pruned")] * 2
    assert "the best of 3 settings" in done.err


@pytest.mark.slow
def test_one_command_selects_on_validation_and_reports_fresh_seeds_on_test(sweep, tmp_path):
    words = ("peft=lora,ia3", "trainer.learning_rate=0.0001,0.05", "select.split=validation", "select.seeds=2")
    done = sweep(*words)
    assert done.code == 0, done.err
    records = records_of(tmp_path / "runs").values()
    stages = {"validation": [], "test": []}
    for record in records:
        stages[record["plan"]["scoring"]["split"]].append(record)
    assert (len(stages["validation"]), len(stages["test"])) == (4, 4)
    assert {record["plan"]["seed"] for record in stages["test"]} == {1, 2}
    for method in ("lora", "ia3"):
        tried = [record for record in stages["validation"] if record["method"] == method]
        best = min(tried, key=lambda record: record["scores"]["after"]["loss"])
        rates = {record["plan"]["learning_rate"] for record in stages["test"] if record["method"] == method}
        assert rates == {best["plan"]["learning_rate"]}
    [folder] = (tmp_path / "runs" / "sweeps").iterdir()
    content = json.loads((folder / "report.json").read_text())
    assert len(content["groups"]) == 2
    remarks = [row["selected"] for group in content["groups"] for row in group["configurations"]]
    assert sorted(filter(None, remarks)) == [
        *["chosen for ia3, of 2 by loss on validation"],
        *["chosen for lora, of 2 by loss on validation"],
        *["chosen: best of 2 by loss on validation"] * 2,
    ]
    again = sweep(*words)
    assert again.code == 0, again.err
    assert len(records_of(tmp_path / "runs")) == 8
    shown = command("stage=report", f"runs_dir={tmp_path / 'runs'}", f"report.sweep={folder}")
    assert "chosen: best of 2 by loss on validation" in shown.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["select.split=validation", "scoring.split=validation"], "is also scoring.split"),
        (["select.split=validation", "scoring.split=test,validation"], "is also scoring.split"),
        (
            ["select.split=validation", "select.per=methd"],
            "select.per=methd is not a setting of this grid; did you mean",
        ),
        (["select.split=validation", "select.per=seed"], "select.per=seed: the winners run with other seeds"),
        (["select.split=validation", "select.score=rouge_l"], "select.score=rouge_l is not measured"),
        (["select.split=validation", "select.score=lss"], "select.score=lss is unknown"),
        (["select.split=validation", "select.seeds=0"], "select.seeds=0 is too small"),
        (["select.split=valid"], "select.split=valid is unknown"),
    ],
)
def test_a_selection_that_cannot_work_is_refused_before_anything_runs(sweep, tmp_path, words, message):
    done = sweep("lora.r=1,2", *words)
    assert done.code == 2, done.err
    assert message in done.err
    assert not records_of(tmp_path / "runs")


@pytest.mark.slow
def test_a_selection_needs_a_sweep_and_its_own_chooser(random_qwen2, rows, tmp_path):
    words = [*overrides(random_qwen2, rows, tmp_path / "runs"), "select.split=validation"]
    single = command(*words)
    assert single.code == 2
    assert "chooses among the cells of a sweep; add -m" in single.err
    study = command("-m", *words, "hydra/sweeper=optuna", "lora.r=1,2")
    assert study.code == 2
    assert "Optuna chooses by its own objective" in study.err
