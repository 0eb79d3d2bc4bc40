#!/usr/bin/env python
"""Measure training on one GPU against what else is installed there, in about ten minutes.

    python scripts/bench/gpu.py --data-dir <folder with e2e_nlg and gsm8k> --out docs/results/gpu.json
    python scripts/bench/gpu.py --page docs/results/gpu.json        # writes docs/benchmarks-gpu.md; needs no GPU

Every way trains the same LoRA (rank 8, all linear layers) on the same tokenized rows with the same number of rows a
step, in bfloat16 over a bfloat16 base: this harness as it is (``auto``) and with ``trainer.kernels=plain``, a bare
PyTorch loop over the same batches, and TRL's SFTTrainer if it is installed. Each trains some steps to warm up; then
they take turns, ``--rounds`` times, and tell tokens of text a second, the peak of allocated memory (the base included),
and the mean loss of the last steps. Six cells of a sweep train one after another and packed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WORKLOADS = {
    "SmolLM2-135M, E2E, 8 rows": ("model=smollm2_135m", "data=e2e", "trainer.batch_size=8"),
    "SmolLM2-135M, GSM8K, 8 rows": ("model=smollm2_135m", "data=gsm8k", "trainer.batch_size=8"),
    "SmolLM2-135M, GSM8K, 64 rows": ("model=smollm2_135m", "data=gsm8k", "trainer.batch_size=64"),
    "Gemma 3 270M, GSM8K, 16 rows": ("model=gemma3_270m", "data=gsm8k", "trainer.batch_size=16"),
}
FOLDERS = {"data=e2e": "e2e_nlg", "data=gsm8k": "gsm8k"}
WAYS = ("auto", "plain", "bare", "trl")
WARM, MEASURED = 6, 24
SWEEP = ("model=smollm2_135m", "data=e2e", "trainer.batch_size=8", "trainer.max_steps=60")


def main() -> None:
    """Measure everything, one workload in this process, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=560, help="nothing new is started after that")
    parser.add_argument("--page", type=Path, help="write the page from this file")
    parser.add_argument("--one", metavar="WORKLOAD", help="train every way of it here; for this script")
    given = parser.parse_args()
    if given.page:
        write_page(json.loads(given.page.read_text(encoding="utf-8")))
    elif given.one:
        train_all(given.one, given.data_dir, given.rounds)
    else:
        measure(given.data_dir, given.out, given.rounds, given.seconds)


def measure(data_dir: Path, out: Path, rounds: int, seconds: float) -> None:
    """Every workload in a process of its own, then the sweeps; the file is written after each."""
    import torch

    ends = time.monotonic() + seconds
    results: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "runs": []}

    def left() -> bool:
        out.write_text(json.dumps(results, indent=1), encoding="utf-8")
        return time.monotonic() < ends

    for number, name in enumerate(WORKLOADS):
        if number == 2:  # in the middle, so that either half is there if time is short
            results["sweeps"] = measure_sweeps(data_dir, left)
        if not left():
            return
        command = [sys.executable, __file__, "--one", name, "--data-dir", str(data_dir), "--rounds", str(rounds)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            for line in process.stdout or ():
                if line.startswith('{"workload"'):
                    results["runs"].append(json.loads(line))
                    print(line.strip(), flush=True)
                    left()
    left()


def train_all(name: str, data_dir: Path, rounds: int) -> None:
    """Load once, then warm up and measure every way in turn; a line of JSON for each."""
    import torch
    from plans import read_plan

    from harness.models.base import load_base
    from harness.pipeline import steps
    from harness.pipeline.cache import ProcessCache

    workload = WORKLOADS[name]
    size = int(workload[2].partition("=")[2])
    words = (
        *(*workload, f"data.path={data_dir / FOLDERS[workload[1]]}", "peft=lora", "lora.r=8"),
        *("trainer.evaluations=0", "trainer.keep_best=false", "trainer.learning_rate=1e-3"),
        *(f"data.limits.train={size * MEASURED}", "data.limits.validation=1", "data.limits.test=1"),
        *(f"trainer.max_steps={MEASURED}", "trainer.schedule=constant"),
    )
    plans = {kernels: read_plan([*words, f"trainer.kernels={kernels}"])[0] for kernels in ("auto", "plain")}
    base = load_base(plans["plain"].model)
    rows = steps.tokenize(plans["plain"], ProcessCache(), base)
    own: dict[str, Callable[..., dict[str, Any]]] = {"bare": bare_loop, "trl": trl_trainer}
    ways = [way for way in WAYS if way != "trl" or find_spec("trl")]
    for number in range(-1, rounds):  # the first only warms up
        for way in ways if number % 2 == 0 else ways[::-1]:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            run, plan = own.get(way, this_harness), plans.get(way, plans["plain"])
            try:
                found = run(plan, base, rows, WARM if number < 0 else MEASURED)
            except Exception as error:  # a peer that does not run here is a result, too
                found = {"error": repr(error)[:500]}
            found["peak_bytes"] = torch.cuda.max_memory_allocated()
            if number >= 0 or "error" in found:
                print(json.dumps({"workload": name, "way": way, "round": number, **found}), flush=True)


def this_harness(plan: Any, base: Any, rows: Any, count: int) -> dict[str, Any]:
    """As in a run."""
    from dataclasses import replace

    from harness.pipeline import tune
    from harness.training.train import train

    plan = replace(plan, trainer=replace(plan.trainer, max_steps=count))
    attached = tune.attach(plan, base, rows)
    with tempfile.TemporaryDirectory() as folder:
        done = train(attached.model, plan, tune.training_inputs(base, rows), Path(folder))
    losses = [point["loss"] for point in done.curve]
    return {"tokens_per_s": done.tokens_per_s, "seconds": done.step_seconds, "loss": statistics.mean(losses[-10:])}


def bare_loop(plan: Any, base: Any, rows: Any, count: int) -> dict[str, Any]:
    """The loop that a tutorial would write, over the harness's batches of similar length."""
    import torch

    from harness.data.collate import collate
    from harness.data.sampler import LengthSampler
    from harness.pipeline import tune

    model: Any = tune.attach(plan, base, rows).model.train()
    training, size = rows.splits["train"], plan.trainer.batch_size
    order = list(LengthSampler([len(row.input_ids) for row in training], size, plan.seed))
    pad = int(base.tokenizer.pad_token_id)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=plan.learning_rate, weight_decay=0.0)
    losses, tokens = [], 0
    torch.cuda.synchronize()
    started = time.perf_counter()
    for step in range(count):
        batch = collate([training[at] for at in order[step * size : (step + 1) * size]], pad, "right")
        tokens += int(batch["attention_mask"].sum())
        batch = {name: each.to(base.device, non_blocking=True) for name, each in batch.items()}
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    return {"tokens_per_s": tokens / seconds, "seconds": seconds, "loss": float(torch.stack(losses[-10:]).mean())}


def trl_trainer(plan: Any, base: Any, rows: Any, count: int) -> dict[str, Any]:
    """TRL's SFTTrainer on the same tokenized rows, with its defaults but for what makes the work the same."""
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from harness.pipeline import tune

    model: Any = tune.attach(plan, base, rows).model
    data = Dataset.from_list(
        [
            {
                "input_ids": list(row.input_ids),
                "completion_mask": [int(at >= row.prompt_length) for at in range(len(row.input_ids))],
            }
            for row in rows.splits["train"]
        ]
    )
    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            if not times:
                torch.cuda.synchronize()
                times.append(time.perf_counter())

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            torch.cuda.synchronize()
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            output_dir=folder,
            max_steps=count,
            per_device_train_batch_size=plan.trainer.batch_size,
            learning_rate=plan.learning_rate,
            lr_scheduler_type="constant",
            bf16=True,
            gradient_checkpointing=False,
            completion_only_loss=True,
            max_length=None,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = SFTTrainer(model=model, args=settings, train_dataset=data, processing_class=base.tokenizer)
        trainer.add_callback(Clock())
        seen: list[int] = []
        step = trainer.training_step

        def counted(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(inputs["attention_mask"].sum() if "attention_mask" in inputs else inputs["input_ids"].numel())
            return step(model, inputs, *args, **kwargs)

        trainer.training_step = counted
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    seconds = times[-1] - times[0]
    return {
        "tokens_per_s": sum(int(each) for each in seen) / seconds,
        "seconds": seconds,
        "loss": statistics.mean(losses[-10:]),
    }


def measure_sweeps(data_dir: Path, left: Callable[[], bool]) -> dict[str, Any]:
    """Six cells one after another and packed: whole commands, training, memory, largest difference of a loss."""
    found: dict[str, Any] = {}
    losses: dict[str, dict[str, float]] = {}
    for launcher in ("basic", "packed"):
        if not left():
            return {}
        with tempfile.TemporaryDirectory() as folder:
            words = [
                *SWEEP,
                *(f"data.path={data_dir / FOLDERS[SWEEP[1]]}", "peft=lora", "lora.r=4,8,16", "lora.lora_alpha=16,32"),
                *("trainer.evaluations=1", "data.limits.train=480", "data.limits.validation=16", "data.limits.test=16"),
                *("scoring.metrics=[]", "scoring.forgetting=null", "keep=record"),
                *(f"hydra/launcher={launcher}", f"runs_dir={folder}/runs"),
            ]
            started = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-m", "harness", "-m", *words], cwd=ROOT, capture_output=True, text=True
            )
            wall = time.monotonic() - started
            records = [json.loads(file.read_text()) for file in Path(folder, "runs").glob("*/record.json")]
        if done.returncode or len(records) != 6:
            return {"error": done.stderr[-1500:]}
        losses[launcher] = {record["fingerprint"]: record["scores"]["after"]["loss"] for record in records}
        found[launcher] = {
            "wall_s": wall,
            "train_s": sum(record["times_s"]["train"] for record in records),
            "train_longest_s": max(record["times_s"]["train"] for record in records),
            "peak_bytes": max(record["memory_bytes"]["train_peak"] for record in records),
            "said": [line for line in done.stderr.splitlines() if "together" in line or "pass" in line][:6],
        }
    pairs = [(losses["basic"][key], losses["packed"][key]) for key in losses["basic"]]
    found["largest_difference"] = max(abs(one - other) / one for one, other in pairs)
    print("sweeps", found, flush=True)
    return found


def write_page(results: dict[str, Any]) -> None:
    """docs/benchmarks-gpu.md."""
    runs = [run for run in results["runs"] if "error" not in run]
    lines = [
        "# Training on one GPU",
        "",
        "<!-- written by scripts/bench/gpu.py; do not edit -->",
        "",
        f"{results['gpu']}, torch {results['torch']}. LoRA of rank 8 on all linear layers, bfloat16, the same",
        f"tokenized rows for every way; {WARM} steps to warm up, then {MEASURED} measured. `auto` and `plain` are this",
        "harness with `trainer.kernels=auto` and `plain`, `bare` is a plain PyTorch loop over batches of similar",
        "length, `trl` is TRL's SFTTrainer. Medians over rounds; in parentheses the lowest and the highest.",
        "",
        "| workload | way | tokens/s | times `plain` | peak MiB | loss |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for workload in WORKLOADS:
        plain = {run["round"]: run["tokens_per_s"] for run in of(runs, workload, "plain")}
        lines += [row_of(workload, way, mine, plain) for way in WAYS if (mine := of(runs, workload, way))]
    lines += ["", *results.get("notes", [])]
    missing = [workload for workload in WORKLOADS if not of(runs, workload, "auto")]
    lines += ["", f"Not measured: {'; '.join(missing)}."] if missing else []
    sweeps = results.get("sweeps") or {}
    if "packed" in sweeps:
        basic, packed = sweeps["basic"], sweeps["packed"]
        memory = [each["peak_bytes"] / 2**20 for each in (basic, packed)]
        lines += [
            "",
            "Six cells of a sweep (ranks 4, 8, 16; alpha 16, 32; SmolLM2-135M, E2E, 60 steps of 8 rows):",
            "",
            "| launcher | command, s | training of all, s | peak MiB |",
            "|---|--:|--:|--:|",
            f"| one after another | {basic['wall_s']:.0f} | {basic['train_s']:.1f} | {memory[0]:,.0f} |",
            f"| packed | {packed['wall_s']:.0f} | {packed['train_s']:.1f} | {memory[1]:,.0f} |",
            "",
            f"Test losses differ by at most {sweeps['largest_difference']:.1e} of themselves, in bfloat16. A pass",
            "for six runs keeps the activations of six batches: memory grows with the runs wherever the base is small",
            "beside a batch.",
        ]
    (ROOT / "docs" / "benchmarks-gpu.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def of(runs: Sequence[dict[str, Any]], workload: str, way: str) -> list[dict[str, Any]]:
    """The runs of one way of a workload."""
    return [run for run in runs if (run["workload"], run["way"]) == (workload, way)]


def row_of(workload: str, way: str, runs: Sequence[dict[str, Any]], plain: dict[int, float]) -> str:
    """A row of the table; ``plain``: tokens a second by round."""
    ratios = [run["tokens_per_s"] / plain[run["round"]] for run in runs if run["round"] in plain]
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})" if ratios else ""
    tokens, loss = (statistics.median(run[key] for run in runs) for key in ("tokens_per_s", "loss"))
    peak = max(run["peak_bytes"] for run in runs) / 2**20
    return f"| {workload} | {way} | {tokens:,.0f} | {ratio} | {peak:,.0f} | {loss:.3f} |"


if __name__ == "__main__":
    main()
