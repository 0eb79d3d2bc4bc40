"""W&B: one run per plan, closed with its true state, readable back, silent, and without secrets."""

import socket
import subprocess
import sys
import time

import pytest
from omegaconf import OmegaConf

from harness.errors import RunFault
from harness.trackers.wandb import RECORD
from tests.support.paths import ROOT
from tests.support.trackers import play, start, tracker
from tests.support.wandb_files import closed, items, offline_files


def test_offline_run_file_holds_config_curves_summary_table_and_state(tmp_path):
    run = start(tracker("wandb", tmp_path))
    play(run, ok=True)
    (file,) = offline_files(tmp_path)
    seen = closed(file)
    (head,) = [record.run for record in seen if record.HasField("run")]
    assert (head.run_id, head.project, head.run_group) == (run.id, "toy", "sweep-1")
    assert (head.display_name, list(head.tags)) == ("peft=lora lora.r=4", ["lora", "tiny"])
    config = items(head.config.update)
    assert config["fingerprint"] == f'"{"f" * 64}"'
    assert config["lora"] == '{"r":4}'
    curves = [items(record.history.item) for record in seen if record.HasField("history")]
    losses = {int(point["_step"]): float(point["train/loss"]) for point in curves if "train/loss" in point}
    assert losses == {1: 1.0, 2: 0.5, 3: pytest.approx(1 / 3)}
    summary = [items(record.summary.update) for record in seen if record.HasField("summary")]
    assert any(figures.get("after/exact_match") == "0.625" for figures in summary)
    assert any("predictions/_type" in point for point in curves)
    (table,) = file.parent.glob("files/media/table/*.json")
    assert OmegaConf.create(table.read_text())["data"][0] == ["问题|one\nline", "<b>答案</b>"]
    assert [record.exit.exit_code for record in seen if record.HasField("exit")] == [0]


def test_run_has_axes_notes_tags_and_the_loss_that_was_kept(tmp_path):
    """Its last validation loss is not the result."""
    chosen = tracker("wandb", tmp_path, tags=["paper"], notes="why", job_type="grid", entity="team")
    run = start(chosen, tags=["lora"])
    run.log(1, {"validation/loss": 2.0, "progress/step": 1, "progress/tokens": 10, "progress/epoch": 0.5})
    run.log(2, {"validation/loss": 3.0, "progress/step": 2, "progress/tokens": 20, "progress/epoch": 1.0})
    run.summary({"validation/loss": 2.0, "device/name": "a cpu"})
    run.finish(True)
    seen = closed(offline_files(tmp_path)[0])
    (head,) = [record.run for record in seen if record.HasField("run")]
    assert (head.entity, head.notes, head.job_type, list(head.tags)) == ("team", "why", "grid", ["lora", "paper"])
    metrics = {r.metric.name or r.metric.glob_name: r.metric for r in seen if r.HasField("metric")}
    assert {"progress/step", "progress/tokens", "progress/epoch"} <= metrics.keys()
    assert [metrics[name].step_metric for name in ("train/*", "validation/loss")] == ["progress/step"] * 2
    assert metrics["validation/loss"].summary.none
    figures = {key: value for r in seen if r.HasField("summary") for key, value in items(r.summary.update).items()}
    assert (figures["validation/loss"], figures["device/name"]) == ("2.0", '"a cpu"')


def test_adapter_and_record_go_with_the_run_and_the_record_stays_as_written(tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "record.json").write_text('{"sha256": "ab"}')
    run = start(tracker("wandb", tmp_path))
    run.record(tmp_path / "record.json")
    run.artifact("adapter-ffff", tmp_path / "adapter", {"method": "lora"})
    run.finish(True)
    (file,) = offline_files(tmp_path)
    assert (file.parent / "files" / RECORD).read_text() == '{"sha256": "ab"}'
    seen = closed(file)
    assert RECORD in [each.path for r in seen if r.HasField("files") for each in r.files.files]
    (made,) = [r.request.log_artifact.artifact for r in seen if r.request.HasField("log_artifact")] or [
        r.artifact for r in seen if r.HasField("artifact")
    ]
    assert (made.name, made.type) == ("adapter-ffff", "adapter")
    assert [entry.path for entry in made.manifest.contents] == ["adapter_config.json"]


def test_system_metrics_are_sampled_only_if_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_X_STATS_SAMPLING_INTERVAL", "0.1")
    for name, asked in (("off", False), ("on", True)):
        run = start(tracker("wandb", tmp_path / name, system_metrics=asked))
        time.sleep(0.8)
        run.finish(True)
    off, on = (closed(offline_files(tmp_path / name)[0]) for name in ("off", "on"))
    assert not any(record.HasField("stats") for record in off)
    assert any(record.HasField("stats") for record in on)
    assert not any(socket.gethostname() in str(record) for record in on)


def test_many_runs_of_one_process_stay_apart_and_keep_their_states(tmp_path):
    ids = []
    for ok in (True, False, True):
        run = start(tracker("wandb", tmp_path))
        ids.append(run.id)
        play(run, ok)
    files = {file.stem.removeprefix("run-"): file for file in offline_files(tmp_path)}
    assert set(files) == set(ids)
    exits = [[r.exit.exit_code for r in closed(files[each]) if r.HasField("exit")] for each in ids]
    assert exits == [[0], [1], [0]]


def test_run_opened_while_another_is_open_is_its_own(tmp_path):
    first, second = start(tracker("wandb", tmp_path)), start(tracker("wandb", tmp_path))
    first.log(1, {"a": 1.0})
    second.log(1, {"b": 2.0})
    first.finish(True)
    second.finish(True)
    keys = [{key for r in closed(file) for key in items(r.history.item)} for file in offline_files(tmp_path)]
    assert sorted(len(each & {"a", "b"}) for each in keys) == [1, 1]


def test_continued_run_keeps_its_id(tmp_path):
    first = start(tracker("wandb", tmp_path / "a"))
    first.log(1, {"train/loss": 1.0})
    first.finish(False)
    again = start(tracker("wandb", tmp_path / "b"), run_id=first.id)
    again.log(2, {"train/loss": 0.5})
    again.finish(True)
    assert again.id == first.id
    (file,) = offline_files(tmp_path / "b")
    assert file.name == f"run-{first.id}.wandb"


def test_wandb_is_silent_and_keeps_secrets_host_and_code_out(tmp_path):
    code = (
        "from pathlib import Path; from tests.support.trackers import *;"
        f"play(start(tracker('wandb', Path({str(tmp_path)!r}))), True)"
    )
    hidden = {"WANDB_API_KEY": "0123456789" * 4, "MY_PASSWORD": "hunter2-hunter2"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **hidden},
    )  # fmt: skip
    assert done.stdout + done.stderr == ""
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    (file,) = offline_files(tmp_path)
    assert [record.run.host for record in closed(file) if record.HasField("run")] == [""]
    assert not list(file.parent.glob("files/wandb-metadata.json"))
    for path, content in written.items():
        for secret in hidden.values():
            assert secret.encode() not in content, (path, secret)
        assert path.suffix != ".py"


def test_online_without_login_is_refused_and_never_asks(tmp_path, monkeypatch):
    import wandb

    wandb.teardown()  # another test of this process may have logged in
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(RunFault, match=r"tracker.mode=online, but this machine is not logged in"):
        start(tracker("wandb", tmp_path, mode="online"))
