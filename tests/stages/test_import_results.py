"""stage=import_results, from files to the report."""

import json

import pytest

from tests.support.published import MODEL, write_result
from tests.support.reports import write_run
from tests.support.runs import command


def imported(tmp_path, path=None):
    return command(
        "stage=import_results", f"import_results.path={path or tmp_path / 'results'}", f"runs_dir={tmp_path / 'runs'}"
    )


def own_run(tmp_path, **more):
    words = (f"model.path={MODEL}", "data.name=gsm8k")
    record = write_run(tmp_path / "runs", "lora", 0, "data.name=gsm8k")
    record["plan"]["model"]["path"] = MODEL
    file = tmp_path / "runs" / record["fingerprint"] / "record.json"
    file.write_text(json.dumps(record | more))
    return words


def test_results_stand_beside_a_run_of_their_model_and_data_with_their_confounds(tmp_path):
    own_run(tmp_path)
    write_result(tmp_path / "results")
    write_result(tmp_path / "results", "ia3--tiny.json", run_info__peft_config={"peft_type": "IA3"},
                 run_info__experiment_name="ia3/tiny",
                 run_info__train_config__optimizer_kwargs={"lr": 0.1})  # fmt: skip
    done = imported(tmp_path)
    assert done.code == 0, done.err
    assert "2 results imported" in done.err
    shown = command("stage=report", f"runs_dir={tmp_path / 'runs'}")
    assert shown.code == 0, shown.err
    folder = tmp_path / "runs" / "report"
    report = json.loads((folder / "report.json").read_text())
    [group] = report["groups"]
    assert len(group["configurations"]) == 1
    rows = {row["method"]: row for row in group["published"]}
    assert rows["lora"]["scores"] == {"final_number": 37.5, "forgetting": 0.125}
    confounds = "; ".join(rows["lora"]["confounds"])
    for said in ("seed 0 only", "peft 0.15.0 (here", "torch 2.6.0 (here", "dtype bfloat16 (here float32)",
                 "weight decay 0.1 (here", "training data gsm8k and metamath (here gsm8k)",
                 "20 steps of 4 rows (here 4 steps"):  # fmt: skip
        assert said in confounds
    assert "weight decay not stated" in "; ".join(rows["ia3"]["confounds"])
    assert not any(run["fingerprint"] == rows["lora"]["fingerprint"] for run in group["runs"])
    for name in ("report.md", "report.html", "report.tex"):
        text = (folder / name).read_text()
        assert "Published results (PEFT method" in text, name
        assert "weight decay 0.1" in text, name
    assert "Published results (PEFT method_comparison)" in shown.out


def test_results_of_another_model_are_a_table_of_their_own(tmp_path):
    write_run(tmp_path / "runs", "lora", 0)
    write_result(tmp_path / "results")
    write_result(tmp_path / "results", "b.json", run_info__experiment_name="lora/b",
                 run_info__train_config__optimizer_kwargs={"lr": 0.1})  # fmt: skip
    write_result(tmp_path / "results", "c.json", run_info__experiment_name="lora/c")
    assert imported(tmp_path).code == 0
    assert command("stage=report", f"runs_dir={tmp_path / 'runs'}").code == 0
    own, theirs = json.loads((tmp_path / "runs" / "report" / "report.json").read_text())["groups"]
    assert (own["published"], theirs["runs"]) == ([], [])
    assert theirs["title"].startswith(MODEL)
    decays = {row["experiment"]: [each for each in row["confounds"] if "decay" in each] for row in theirs["published"]}
    assert decays == {
        "lora/tiny-rank4": [],
        "lora/b": ["weight decay not stated (torch's AdamW: 0.01) (most 0.1)"],
        "lora/c": [],
    }


def test_a_folder_of_imported_results_alone_is_reported(tmp_path):
    write_result(tmp_path / "results")
    assert imported(tmp_path).code == 0
    shown = command("stage=report", f"runs_dir={tmp_path / 'runs'}")
    assert shown.code == 0, shown.err
    assert "37.5" in shown.out


def test_importing_again_changes_nothing(tmp_path):
    file = write_result(tmp_path / "results")
    assert imported(tmp_path, file).code == 0
    [record] = (tmp_path / "runs").glob("*/record.json")
    before = record.read_bytes()
    again = imported(tmp_path, file)
    assert again.code == 0
    assert "1 imported before" in again.err
    assert record.read_bytes() == before


def test_a_file_without_a_result_is_named_and_the_others_are_imported(tmp_path):
    write_result(tmp_path / "results")
    write_result(tmp_path / "results", "broken.json", train_info__status="failed")
    (tmp_path / "results" / "other.json").write_text("[]")
    done = imported(tmp_path)
    assert done.code == 0
    assert "1 result imported" in done.err
    assert "left out" in done.err
    assert "broken.json holds no result" in done.err
    assert "other.json is not a result file" in done.err


@pytest.mark.parametrize(
    ("word", "said"),
    [("null", "import_results.path is null"), ("nowhere", "does not exist")],
)
def test_a_path_that_names_nothing_is_refused(tmp_path, word, said):
    done = command("stage=import_results", f"import_results.path={word}", f"runs_dir={tmp_path / 'runs'}")
    assert done.code == 2
    assert said in done.err


def test_a_folder_without_results_is_refused(tmp_path):
    (tmp_path / "results").mkdir()
    assert "holds no JSON file" in imported(tmp_path).err
    write_result(tmp_path / "results", train_info__status="failed")
    done = imported(tmp_path)
    assert done.code == 2
    assert "holds no result" in done.err


def test_an_imported_result_cannot_generate(tmp_path):
    write_result(tmp_path / "results")
    assert imported(tmp_path).code == 0
    [record] = (tmp_path / "runs").glob("*/record.json")
    done = command("stage=generate", f"run={record.parent.name}", "prompt=x", f"runs_dir={tmp_path / 'runs'}")
    assert done.code == 2
    assert "imported without a model" in done.err
