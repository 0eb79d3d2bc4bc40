"""Trackers: one run per plan, closed with its true state, readable back, silent, and without secrets."""

import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from harness.config.schema import Tracker, Tracking
from harness.errors import RunFault
from harness.trackers.base import TrackerRun, start_tracker
from tests.support.paths import ROOT

CONF = ROOT / "conf" / "tracker"


def tracker(name: str, folder: Path, mode: str = "offline") -> Tracker:
    return Tracker(name=Tracking(name), project="toy", mode=mode, dir=str(folder))


def start(settings: Tracker, **changes) -> TrackerRun:
    values = {
        "fingerprint": "f" * 64, "config": {"lora": {"r": 4}, "text": "中文"}, "group": "sweep-1",
        "name": "peft=lora lora.r=4", "tags": ["lora", "tiny"], "run_id": None,
    }  # fmt: skip
    return start_tracker(settings, **{**values, **changes})


def play(run: TrackerRun, ok: bool) -> None:
    for step in (1, 2, 3):
        run.log(step, {"train/loss": 1.0 / step})
    run.summary({"after/exact_match": 0.625})
    run.table("predictions", ["prompt", "after"], [["问题|one\nline", "<b>答案</b>"], ["two", None]])
    run.finish(ok)


# --- W&B


def records(file: Path):
    """Records of an offline run: LevelDB's log format behind a 7-byte header."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:  # the rest of a block is padding
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, or last
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def closed(file: Path) -> list:
    """All records, once the last is there: W&B's own process writes it some milliseconds after ``finish``."""
    deadline = time.monotonic() + 20
    while True:
        seen = list(records(file))
        if any(record.HasField("exit") for record in seen):
            return seen
        assert time.monotonic() < deadline, f"{file} was never closed"
        time.sleep(0.01)


def items(updates) -> dict[str, str]:
    return {item.key or "/".join(item.nested_key): item.value_json for item in updates}


def offline_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/offline-run-*/*.wandb"))


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
        "from pathlib import Path; from tests.test_trackers import *;"
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
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(RunFault, match=r"tracker.mode=online, but this machine is not logged in"):
        start(tracker("wandb", tmp_path, mode="online"))


# --- TensorBoard, and none


def test_tensorboard_folder_holds_the_figures_and_a_continued_run_adds_to_it(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = start(tracker("tensorboard", tmp_path))
    play(run, ok=False)
    more = start(tracker("tensorboard", tmp_path), run_id=run.id)
    more.log(4, {"train/loss": 0.25})
    more.finish(True)
    assert [path.name for path in tmp_path.iterdir()] == [run.id]
    events = EventAccumulator(str(tmp_path / run.id))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")][-1] == (4, 0.25)
    assert [e.value for e in events.Scalars("summary/after/exact_match")] == [0.625]
    texts = {tag: events.Tensors(f"{tag}/text_summary") for tag in ("about", "predictions", "state")}
    text = {tag: [e.tensor_proto.string_val[0].decode() for e in found] for tag, found in texts.items()}
    assert "sweep-1" in text["about"][0]
    assert "问题\\|one<br>line|&lt;b&gt;答案&lt;/b&gt;|" in text["predictions"][0]
    assert text["state"][0] == "failed"


def test_none_writes_nothing_and_imports_nothing(tmp_path):
    run = start(tracker("none", tmp_path / "none"))
    play(run, ok=True)
    assert run.id is None
    assert not (tmp_path / "none").exists()
    code = "import sys, harness.trackers; sys.exit(bool({'wandb', 'tensorboard', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_unwritable_folder_names_the_key(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFault, match=r"tracker.dir=.*file/x cannot be made"):
        start(tracker(name, tmp_path / "file" / "x"))


@pytest.mark.parametrize("name", [each.value for each in Tracking])
def test_tracker_file_gives_every_field(name):
    own = OmegaConf.create({"runs_dir": "runs", "tracker": OmegaConf.load(CONF / f"{name}.yaml")})
    values = OmegaConf.to_container(own, resolve=True)["tracker"]
    loaded = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Tracker), values))
    assert (loaded.name, loaded.mode, loaded.dir) == (Tracking(name), "offline", "runs/tracker")
