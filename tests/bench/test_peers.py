"""The benchmark against peers: what it refuses, keeps, hands to each contestant, and writes on its page."""

import json
import os
import sys
from dataclasses import replace

import pytest

from tests.support.paths import ROOT

KEY = "0123456789ab"
BASE = 6.0  # the held-out loss before training


def run(contestant, number, tokens_per_s, **more):
    """A training of 40 steps as the benchmark keeps it."""
    line = {
        "kind": "run", "workload": "tiny", "key": KEY, "contestant": contestant, "round": number, "seconds": 10.0,
        "cpu_s": 9.0, "first_step_s": 4.5, "training_s": 1000 / tokens_per_s, "training_cpu_s": 900 / tokens_per_s,
        "tokens_per_s": tokens_per_s, "peak_bytes": 2**30, "load": 1.0, "steps": 40, "positions": 1100,
        "tokens_seen": 1000, "tokens": 1000,
    }  # fmt: skip
    return line | more


def loss(contestant, value, workload="tiny"):
    return {"kind": "loss", "workload": workload, "key": KEY, "contestant": contestant, "loss": value, "base": BASE}


def trained(*speeds, contestant, value, **more):
    """A contestant's rounds and its loss."""
    lines = [run(contestant, number, speed, **more) for number, speed in enumerate(speeds)]
    return [*lines, loss(contestant, value, more.get("workload", "tiny"))]


def page_of(bench, lines):
    return "\n".join(bench("peer_bench.page").page(lines))


def row(page, beginning):
    """Cells of the first line of a table that begins so."""
    line = next(line for line in page.splitlines() if line.startswith(f"| {beginning}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


# --- the page -----------------------------------------------------------------------------------------------


def test_page_without_results_says_so_of_every_target(bench):
    page = page_of(bench, [])
    assert "Nothing has been measured." in page
    verdicts = [line for line in page.splitlines() if line.startswith("| ") and "at " in line]
    assert len(verdicts) >= 15
    assert all(line.endswith("| not measured | not measured |") for line in verdicts)


def test_ratio_is_the_median_over_rounds_with_its_spread(bench):
    lines = trained(990, 1000, 950, contestant="ours", value=2.0) + trained(
        1000, 1000, 1000, contestant="bare", value=2.0
    )
    page = page_of(bench, lines)
    assert row(page, "Speed of the bare loop on the same batches, embedded")[2:] == [
        "0.99 (0.95 to 1.00, 3 rounds); by CPU time 0.99", "**met** (not in every round)",
    ]  # fmt: skip
    assert row(page, "bare PyTorch loop")[2] == "0.99 (0.95 to 1.00, 3 rounds)"


def test_rounds_are_compared_in_pairs(bench):
    lines = trained(500, 1000, contestant="ours", value=2.0) + trained(500, 1000, contestant="bare", value=2.0)
    assert row(page_of(bench, lines), "bare PyTorch loop")[2] == "1.00 (1.00 to 1.00, 2 rounds)"


def test_comparison_is_void_if_losses_disagree(bench):
    agreeing = trained(1000, contestant="ours", value=2.0) + trained(1000, contestant="bare", value=2.19)
    assert row(page_of(bench, agreeing), "bare PyTorch loop")[-1] == "1 round"
    apart = trained(1000, contestant="ours", value=2.0) + trained(1000, contestant="bare", value=2.21)
    page, reason = page_of(bench, apart), "void: held-out losses lie 0.210 nats apart, 0.200 are allowed"
    assert row(page, "bare PyTorch loop")[2:4] == ["–", "–"]
    assert row(page, "bare PyTorch loop")[-1] == reason
    assert row(page, "Speed of the bare loop on the same batches, embedded")[-1] == reason


def test_comparison_is_void_if_other_tokens_were_read(bench):
    lines = trained(1000, contestant="ours", value=2.0)
    lines += trained(400, contestant="trl", value=2.0, tokens_seen=980)
    assert row(page_of(bench, lines), "TRL")[-1] == "void: TRL 1.16.0 read 980 tokens, the rows have 1000"


def test_comparison_is_void_without_a_loss(bench):
    lines = [*trained(1000, contestant="ours", value=2.0), run("trl", 0, 400)]
    page = page_of(bench, lines)
    assert row(page, "TRL")[-2:] == ["not measured", "void: no held-out loss to compare"]


def test_verdict_tells_where_cpu_time_says_otherwise(bench):
    lines = trained(900, contestant="ours", value=2.0, training_cpu_s=1.0)
    lines += trained(1000, contestant="bare", value=2.0, training_cpu_s=1.0)
    verdict = row(page_of(bench, lines), "Speed of the bare loop on the same batches, embedded")[-1]
    assert verdict == "**not met** (met by CPU time)"


def test_best_peer_is_the_fastest_whose_work_is_the_same(bench):
    mixed = {"workload": "smollm2_gsm8k"}
    lines = trained(300, contestant="ours", value=2.0, **mixed) + trained(100, contestant="trl", value=2.0, **mixed)
    lines += trained(150, contestant="litgpt", value=3.0, **mixed)  # fast, and wrong
    lines += trained(250, contestant="trl_single", value=2.0, **mixed)
    page = page_of(bench, lines)
    default, tuned = (row(page, f"Speed of the best {which}") for which in ("peer at its defaults", "tuned peer"))
    assert default[2:] == ["3.00 (1 round); by CPU time 3.00; TRL 1.16.0", "**met**"]
    assert tuned[2:] == ["1.20 (1 round); by CPU time 1.20; TRL, one row a pass", "**met**"]


def test_tuned_target_is_not_measured_without_tuned_peers(bench):
    mixed = {"workload": "smollm2_gsm8k"}
    lines = trained(300, contestant="ours", value=2.0, **mixed) + trained(100, contestant="trl", value=2.0, **mixed)
    assert row(page_of(bench, lines), "Speed of the best tuned peer")[-1] == "not measured"


def test_only_the_newest_form_of_a_workload_counts(bench):
    older = [line | {"key": "older"} for line in trained(1, contestant="ours", value=2.0)]
    page = page_of(bench, older + trained(1000, contestant="ours", value=2.0))
    assert row(page, "this project")[1] == "1000"


MACHINE = {
    "kind": "machine", "at": "2026-01-02T03:04:05+00:00", "cores": 1, "cpu": "a processor", "memory_bytes": 2**34,
    "system": "Linux x86_64", "python": "3.11.7", "commit": "abc",
}  # fmt: skip


def test_another_run_agrees_or_the_page_says_where_it_does_not(bench):
    page = bench("peer_bench.page").page
    base = trained(1000, 1000, contestant="bare", value=2.0)
    times = {"help": 0.5, "misspelt": 0.9}
    commands = [{"kind": "command", "name": name, "round": 0, "seconds": s, "cpu_s": s} for name, s in times.items()]
    fast = [MACHINE, *base, *commands, *trained(1100, 990, contestant="ours", value=2.0)]
    slow = [MACHINE | {"cpu": "another"}, *base, *commands, *trained(900, 900, contestant="ours", value=2.0)]
    same = "\n".join(page(fast, fast))
    assert "agree in 4 of 4 targets that both runs have measured." in same  # the first step is in the trainings
    text = "\n".join(page(fast, slow))
    assert "on 1 core of another, 16 GiB" in text
    assert "agree in 3 of 4 targets that both runs have measured." in text
    cells = row(text.partition("### Another run")[2], "Speed of the bare loop on the same batches, embedded model")
    assert [cells[2][:4], cells[3][:4], cells[4]] == ["1.04", "0.90", "**differ**"]
    assert row(text.partition("### Another run")[2], "`--help`")[-1] == "both met"
    assert row(text.partition("### Another run")[2], "a misspelled key")[-1] == "neither met"
    assert "### Another run" not in "\n".join(page(fast))


def test_page_names_who_failed_and_why(bench):
    failed = {
        "kind": "failed",
        "workload": "tiny",
        "key": KEY,
        "contestant": "litgpt",
        "round": 0,
        "error": "no | room",
    }
    assert "LitGPT 0.5.13, one row a pass (its default) failed: `no | room`" in page_of(
        bench, [*trained(1000, contestant="ours", value=2.0), failed]
    )


def test_sweep_is_compared_by_its_faster_launcher(bench):
    def sweep(contestant, seconds):
        return {
            "kind": "sweep", "workload": "tiny", "key": KEY, "contestant": contestant, "round": 0, "seconds": seconds,
            "cpu_s": seconds, "peak_bytes": 2**30, "load": 1.0, "steps": 20, "cells": 6,
        }  # fmt: skip

    lines = trained(1000, contestant="ours", value=2.0) + trained(400, contestant="litgpt", value=2.0)
    lines += [sweep("ours", 30.0), sweep("ours_packed", 15.0), sweep("litgpt", 60.0)]
    page = page_of(bench, lines)
    target = row(page, "Six cells against six launches of the fastest peer, the embedded")
    assert target[2].startswith("0.25 (1 round); by CPU time 0.25; `hydra/launcher=packed`, LitGPT")
    assert target[-1] == "**met**"
    assert row(page, "the embedded model on its questions, 20 steps a cell")[2:] == ["30.0", "30.0", "1024", "1"]


def test_seconds_have_their_limits(bench):
    lines = [
        {"kind": "command", "name": name, "round": 0, "seconds": seconds, "load": 1.0}
        for name, seconds in (("plan", 2.5), ("help", 0.7))
    ]
    page = page_of(bench, lines)
    assert row(page, "`stage=plan` on six cells")[1:] == ["at most 3 s", "2.50 (1 round)", "**met**"]
    assert row(page, "`--help`")[-1] == "**not met**"
    assert row(page, "a misspelled key")[-1] == "not measured"


def test_scoring_is_a_ratio_of_seconds(bench):
    where = {"workload": "tiny", "key": KEY, "round": 0}
    page = page_of(
        bench,
        [
            {"kind": "scoring", **where, "batched_s": 2.0, "single_s": 8.0},
            {"kind": "merged", **where, "lora_s": 3.0, "base_s": 1.5},
        ],
    )
    assert row(page, "Answers to 200 prompts against one by one, the emb")[2:] == ["4.00 (1 round)", "**met**"]
    assert row(page, "Answers with LoRA at the base model's speed, the emb")[2:] == ["0.50 (1 round)", "**not met**"]


@pytest.mark.parametrize(("load", "told"), [(1.0, False), (4.0, True)])
def test_page_says_how_busy_the_machine_was(bench, load, told):
    machine = {
        "kind": "machine", "at": "2026-11-26T05:51:57+00:00", "commit": "0d4deff44fc6", "cores": 2,
        "cpu": "a processor", "memory_bytes": 24 * 2**30, "system": "Linux x86_64", "python": "3.11.7",
    }  # fmt: skip
    page = page_of(bench, [machine, *trained(1000, contestant="ours", value=2.0, load=load)])
    assert "Measured 2026-11-26 on 2 cores of a processor, 24 GiB" in page
    assert ("Others computed at the same time" in page) is told


# --- growth -------------------------------------------------------------------------------------------------


def grown(axis, points, power, memory=0.0):
    return [
        {"kind": "growth", "axis": axis, "point": x, "round": 0, "cpu_s": x**power, "peak_bytes": 2**20 * x**memory}
        for x in points
    ]


@pytest.mark.parametrize(("power", "word"), [(1.1, "as it must"), (1.3, "**faster than it must**")])
def test_growth_is_judged_by_its_exponent(bench, power, word):
    cells = row(page_of(bench, grown("rows", (96, 192, 384, 768), power)), "training rows")
    assert cells[3] == f"{power:.2f} ({power:.2f})"
    assert cells[-1] == word


def test_growth_is_not_judged_before_all_points_are_there(bench):
    assert row(page_of(bench, grown("rank", (2, 8), 0.1)), "LoRA rank")[-1] == "not measured at every point"


def test_page_is_written_with_the_plot(bench, tmp_path):
    bench("peer_bench.page").write_page(grown("rank", (2, 8, 32, 128), 0.1), tmp_path / "docs" / "benchmarks.md")
    assert "(pictures/growth.png)" in (tmp_path / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert (tmp_path / "docs" / "pictures" / "growth.png").stat().st_size > 1000


# --- what it keeps ------------------------------------------------------------------------------------------


def test_results_go_on_after_a_line_that_was_cut(bench, tmp_path):
    results = bench("peer_bench.results")
    file = tmp_path / "peers.jsonl"
    results.Results(file).add("run", workload="tiny", round=0)
    with file.open("a", encoding="utf-8") as out:
        out.write('{"kind": "run", "workl')
    again = results.Results(file)
    assert again.has("run", workload="tiny", round=0)
    assert not again.has("run", workload="tiny", round=1)
    again.add("run", workload="tiny", round=1)
    assert [line["round"] for line in results.Results(file).lines] == [0, 1]


def test_measured_rounds_are_not_measured_again(bench, tmp_path, monkeypatch):
    measure, workloads = bench("peer_bench.measure"), bench("peer_bench.workloads")
    results = bench("peer_bench.results").Results(tmp_path / "peers.jsonl")
    work = workloads.WORKLOADS["tiny"]
    results.add("run", workload="tiny", key=work.key, contestant="ours", round=0)
    asked = []
    monkeypatch.setattr(measure, "measure_run", lambda bench, work, who, number: asked.append((who.name, number)))
    measure.measure_runs(measure.Bench(results, tmp_path, tmp_path), work, ["ours", "bare"], rounds=2)
    assert asked == [("bare", 0), ("bare", 1), ("ours", 1)]  # another one begins each round


def test_contestant_that_fails_is_kept_as_such_and_asked_once(bench, tmp_path, monkeypatch):
    measure, watch = bench("peer_bench.measure"), bench("peer_bench.watch")
    results = bench("peer_bench.results").Results(tmp_path / "peers.jsonl")

    def failing(bench, work, who, number):
        raise watch.CommandFailed("a command\nended with 1:\nValueError: no room")

    monkeypatch.setattr(measure, "measure_run", failing)
    work = bench("peer_bench.workloads").WORKLOADS["tiny"]
    measure.measure_runs(measure.Bench(results, tmp_path, tmp_path), work, ["trl"], rounds=3)
    assert [line["error"] for line in results.find("failed")] == ["ValueError: no room"]


def test_an_environment_is_made_anew_when_what_it_installs_changes(bench, tmp_path, monkeypatch):
    environments = bench("peer_bench.environments")
    pins = tmp_path / "pins"
    pins.write_text("torch==1")
    asked = []
    monkeypatch.setattr(environments.subprocess, "run", lambda words, **more: asked.append(words[-1]) or Ended())
    monkeypatch.setattr(environments.venv, "create", lambda folder, with_pip: None)
    python = tmp_path / "cache" / "own" / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("")

    def made(*words, files):
        return environments.make(environments.Environment("own", (words,), (), files), tmp_path / "cache")

    assert made("here", files=(pins,)) == python
    assert made("elsewhere", files=(pins,)) == python  # another checkout of the same versions
    assert asked == ["here"]
    pins.write_text("torch==2")
    made("elsewhere", files=(pins,))
    made("peer==1", files=())
    made("peer==1", files=())
    made("peer==2", files=())
    assert asked == ["here", "elsewhere", "peer==1", "peer==2"]


class Ended:
    """Of pip, without fault."""

    returncode = 0


# --- what it refuses ----------------------------------------------------------------------------------------


def refused(bench, monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["peers.py", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        bench("peers").main()
    return str(stop.value.code) if isinstance(stop.value.code, str) else capsys.readouterr().err


def test_absent_data_is_refused_before_anything_is_measured(bench, tmp_path, monkeypatch, capsys):
    out = tmp_path / "peers.jsonl"
    said = refused(bench, monkeypatch, capsys, "--data-dir", tmp_path / "none", "--out", out)
    assert f"--workloads smollm2_gsm8k needs {tmp_path / 'none' / 'gsm8k'}, which is absent" in said
    assert not out.exists()


def test_measuring_is_refused_where_commands_cannot_be_watched(bench, tmp_path, monkeypatch, capsys):
    monkeypatch.delattr(os, "wait4", raising=False)
    said = refused(bench, monkeypatch, capsys, "--workloads", "tiny", "--out", tmp_path / "peers.jsonl")
    assert "measuring needs Linux or macOS" in said


def test_results_are_not_mixed_unasked(bench, tmp_path, monkeypatch, capsys):
    (tmp_path / "peers.jsonl").write_text("")
    said = refused(bench, monkeypatch, capsys, "--workloads", "tiny", "--out", tmp_path / "peers.jsonl")
    assert "exists; add --resume" in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--workloads", "huge"), "huge: not one of tiny"),
        (("--peers", "axolotl"), "axolotl: not one of ours"),
        (("--rounds", "0"), "must be at least 1"),
    ],
)
def test_unknown_words_are_refused(bench, monkeypatch, capsys, words, told):
    assert told in refused(bench, monkeypatch, capsys, *words)


# --- what it hands out --------------------------------------------------------------------------------------


@pytest.fixture
def job(bench, tmp_path):
    """A training of made rows on a made base folder."""
    workloads, contestants = bench("peer_bench.workloads"), bench("peer_bench.contestants")
    folder = tmp_path / "prepared"
    (folder / "base").mkdir(parents=True)
    (folder / "rows").mkdir()
    (tmp_path / "scratch").mkdir()
    (folder / "base" / "config.json").write_text(
        json.dumps({"dtype": "float32", "rope_parameters": {"rope_theta": 5.0}})
    )
    (folder / "base" / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "tokenizer_class": "X"}))
    (folder / "base" / "tokenizer.json").write_text(
        json.dumps({"added_tokens": [{"content": "<s>", "id": 1}, {"content": "</s>", "id": 2}]})
    )
    (folder / "base" / "model.safetensors").write_text("")
    (folder / "tokens.json").write_text(json.dumps({"train": [{"input_ids": [7, 2], "prompt_length": 1}]}))
    (folder / "rows" / "train.jsonl").write_text(json.dumps({"prompt": "Q\u2028:", "completion": " a"}) + "\n")
    prepared = workloads.Prepared(folder, tokens=9, supervised=3, longest=9, pad_id=0, eos_id=2, parameters=1)
    work = workloads.WORKLOADS["tiny"]
    return contestants.Job(work, prepared, tmp_path / "scratch", tmp_path, tmp_path / "bin" / "python", 4, 32)


def settings(job):
    return json.loads((job.folder / "config.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("name", "rows", "passes"), [("trl", 8, 1), ("trl_single", 1, 8), ("llamafactory", 8, 1)])
def test_peers_take_as_many_rows_a_step(bench, job, name, rows, passes):
    who = bench("peer_bench.contestants").CONTESTANTS[name]
    who.command(job, who)
    given = settings(job)
    assert (given["per_device_train_batch_size"], given["gradient_accumulation_steps"]) == (rows, passes)
    assert (given["lora_r"] if "lora_r" in given else given["lora_rank"], given["lora_alpha"]) == (4, 32)


def test_llamafactory_gets_a_folder_that_its_transformers_reads(bench, job):
    who = bench("peer_bench.contestants").CONTESTANTS["llamafactory"]
    command = who.command(job, who)
    base = job.prepared.folder / "llamafactory"
    assert json.loads((base / "config.json").read_text()) == {"torch_dtype": "float32", "rope_theta": 5.0}
    # Rows do not begin with the start token, which it would add.
    assert json.loads((base / "tokenizer_config.json").read_text()) == {"tokenizer_class": "PreTrainedTokenizerFast"}
    [text] = json.loads((job.prepared.folder / "llamafactory_rows" / "rows.json").read_text(encoding="utf-8"))
    assert text == {"prompt": "Q\u2028:", "completion": " a</s>"}
    assert command.environment["DISABLE_VERSION_CHECK"] == "1"


def test_litgpt_names_its_targets_its_own_way(bench, job):
    who = bench("peer_bench.contestants").CONTESTANTS["litgpt"]
    command = who.command(replace(job, workload=replace(job.workload, targets=("q_proj", "up_proj"))), who)
    given = settings(job)
    named = {name: given[f"lora_{name}"] for name in ("query", "key", "value", "projection", "mlp", "head")}
    assert [name for name, chosen in named.items() if chosen] == ["query", "mlp"]
    assert (given["train"]["micro_batch_size"], given["train"]["global_batch_size"]) == (1, 8)
    assert command.convert


def test_our_command_trains_each_row_once(bench, job):
    words = bench("peer_bench.contestants").our_overrides(job, "float32")
    assert {"data.limits.train=320", "trainer.max_steps=40", "trainer.batch_size=8", "lora.r=4"} <= set(words)


@pytest.fixture
def driver(bench, monkeypatch):
    """Imports a script that runs in a process of its own."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "bench" / "peer_bench" / "drivers"))
    yield bench
    for name in ("common", "lesson", "prepare"):
        sys.modules.pop(name, None)


def test_too_few_rows_are_refused(driver):
    prepare = driver("prepare")
    prepare.require_rows(8, 8)
    with pytest.raises(SystemExit, match="have 7 rows to train on, the workload needs 8; lower --steps"):
        prepare.require_rows(7, 8)


def test_lesson_pads_each_row_to_its_length(driver):
    lesson = driver("lesson")

    class Tokenizer:
        eos_token_id, pad_token_id = 2, 0

        def __call__(self, text, add_special_tokens=True):
            return {"input_ids": [1, *map(ord, text)] if add_special_tokens else [*map(ord, text)]}

    made = lesson.padded({"prompt": "Q", "completion": "a"}, Tokenizer())
    assert {len(values) for values in made.values()} == {512}
    assert made["input_ids"][:5] == [1, ord("Q"), ord("a"), 2, 0]
    assert made["labels"][:5] == [-100, -100, ord("a"), 2, -100]
    assert sum(made["attention_mask"]) == 4


# --- how it measures ----------------------------------------------------------------------------------------


@pytest.mark.posix
def test_command_is_watched_to_its_end(bench):
    done = bench("peer_bench.watch").run([sys.executable, "-S", "-c", "print('x'); b = bytearray(60_000_000)"])
    assert done.output.strip() == "x"
    assert done.peak_bytes > 60_000_000
    assert 0 < done.seconds < 30
    assert (done.first_step_s, done.training_s) == (None, None)


@pytest.mark.posix
def test_command_that_fails_is_an_error_with_its_last_lines(bench):
    watch = bench("peer_bench.watch")
    with pytest.raises(watch.CommandFailed, match=r"ended with 3 after \d+ s:\nno room"):
        watch.run([sys.executable, "-S", "-c", "print('no room'); raise SystemExit(3)"])


@pytest.mark.posix
def test_command_that_runs_too_long_is_ended(bench):
    watch = bench("peer_bench.watch")
    with pytest.raises(watch.CommandFailed, match="ended with -15"):
        watch.run([sys.executable, "-S", "-c", "import time; time.sleep(60)"], limit_s=0.2)


@pytest.mark.posix
def test_stopping_the_benchmark_stops_what_it_measures(bench, monkeypatch, tmp_path):
    watch = bench("peer_bench.watch")

    def stopped(seconds):
        if (tmp_path / "id").exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(watch.time, "sleep", stopped)
    code = "import os, time; open('new', 'w').write(str(os.getpid())); os.rename('new', 'id'); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        watch.run([sys.executable, "-S", "-c", code], cwd=tmp_path)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "id").read_text()), 0)


TRAINING = """
import torch
layer, head = torch.nn.Embedding(9, 2), torch.nn.Linear(2, 1)
optimizer = torch.optim.AdamW(head.parameters())
for _ in range(3):
    head(layer(torch.tensor([[1, 2, 0], [3, 0, 0]]))).sum().backward()
    optimizer.step()
layer.eval()(torch.tensor([[1, 2, 3]]))
with torch.no_grad():
    layer.train()(torch.tensor([[1, 2, 3]]))
"""


@pytest.mark.posix
@pytest.mark.slow
def test_hook_sees_batches_and_optimizer_steps_of_any_training(bench):
    done = bench("peer_bench.watch").run([sys.executable, "-c", TRAINING], pad_id=0)
    assert len(done.events.steps) == 3
    assert (done.events.positions, done.events.tokens) == (18, 9)
    assert 0 < done.training_s < done.first_step_s + done.training_s < done.seconds
    assert 0 < done.training_cpu_s < done.cpu_s
