"""The same command on a GPU: precisions, quantized bases, memory, stops, packs, against the CPU where it can be."""

import json
import math

import pytest
import torch

from tests.support.runs import CASES, command, overrides, write_rows

STEPS = ("trainer.max_steps=12", "trainer.evaluations=2", "trainer.learning_rate=0.01")
FOURTEEN = (*CASES, "adapter", "bitfit", "diff_pruning")
QUANTIZED = ("lora", "ia3", "adalora", "prompt_tuning", "bitfit")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"), 48, 8)


@pytest.fixture
def train(random_qwen2, rows, tmp_path):
    """Run a small command and return its record."""

    def run(*words: str, folder: str = "runs") -> dict:
        runs_dir = tmp_path / folder
        done = command(*overrides(random_qwen2, rows, runs_dir), *STEPS, *words)
        assert done.code == 0, done.err[-3000:]
        [file] = runs_dir.glob("*/record.json")
        return json.loads(file.read_text(encoding="utf-8"))

    return run


def losses(record: dict) -> list[float]:
    """Loss before and after training, and every one measured between."""
    measured = [point["loss"] for point in record["training"]["validation"]]
    return [record["scores"]["before"]["loss"], *measured, record["scores"]["after"]["loss"]]


def test_auto_is_the_gpu_in_bfloat16(train):
    record = train("peft=lora")
    assert record["device"]["type"] == "cuda"
    assert record["inferred"]["dtype"] == "bfloat16"
    assert record["memory_bytes"]["kind"] == "cuda_allocated"
    assert record["scores"]["after"]["loss"] < record["scores"]["before"]["loss"]


@pytest.mark.parametrize("method", ["lora", "ia3", "full", "prefix_tuning", "adapter"])
def test_float32_on_the_gpu_agrees_with_the_cpu(train, method):
    gpu = train(f"peft={method}", "model.dtype=float32", folder="gpu")
    cpu = train(f"peft={method}", "model.device=cpu", folder="cpu")
    assert losses(gpu) == pytest.approx(losses(cpu), rel=2e-3)


@pytest.mark.parametrize(("dtype", "within"), [("bfloat16", 0.05), ("float16", 0.02)])
@pytest.mark.parametrize("method", ["lora", "ia3", "prefix_tuning"])
def test_half_precision_agrees_with_float32(train, method, dtype, within):
    half = train(f"peft={method}", f"model.dtype={dtype}", folder="half")
    whole = train(f"peft={method}", "model.dtype=float32", folder="whole")
    assert half["inferred"]["dtype"] == dtype
    assert losses(half) == pytest.approx(losses(whole), rel=within)


@pytest.mark.parametrize("case", FOURTEEN)
def test_every_method_trains_in_bfloat16(train, case):
    words = CASES.get(case) or [f"peft={case}"]
    record = train(*words, *(["bitfit.add_missing=true"] if case == "bitfit" else []), "trainer.learning_rate=null")
    assert all(math.isfinite(loss) for loss in losses(record))


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("method", QUANTIZED)
def test_quantized_bases_train(train, method, quantization):
    pytest.importorskip("bitsandbytes")
    words = ["bitfit.add_missing=true"] if method == "bitfit" else []
    record = train(f"peft={method}", f"model.quantization={quantization}", *words)
    assert all(math.isfinite(loss) for loss in losses(record))
    assert record["scores"]["after"]["loss"] < record["scores"]["before"]["loss"]


def test_checkpointed_activations_change_nothing(train):
    with_them = train("peft=lora", "model.dtype=float32", "trainer.gradient_checkpointing=true", folder="with")
    without = train("peft=lora", "model.dtype=float32", folder="without")
    assert losses(with_them) == pytest.approx(losses(without), rel=1e-4)


def test_deterministic_runs_repeat_bit_for_bit(train):
    words = ("peft=lora", "trainer.deterministic=true", "lora.lora_dropout=0.1")
    assert losses(train(*words, folder="first")) == losses(train(*words, folder="second"))


def test_a_pack_agrees_with_runs_alone(random_qwen2, rows, tmp_path):
    """Float32, no dropout: a GPU draws other random numbers for a stacked batch."""
    words = [*overrides(random_qwen2, rows, tmp_path / "unused"), *STEPS, "model.dtype=float32", "lora.r=2,4,8"]
    found = {}
    for launcher in ("basic", "packed"):
        runs_dir = tmp_path / launcher
        done = command("-m", *words, f"hydra/launcher={launcher}", f"runs_dir={runs_dir}")
        assert done.code == 0, done.err[-3000:]
        records = [json.loads(file.read_text(encoding="utf-8")) for file in runs_dir.glob("*/record.json")]
        found[launcher] = {record["fingerprint"]: losses(record) for record in records}
        if launcher == "packed":
            assert "3 runs" in done.err
    assert found["packed"].keys() == found["basic"].keys()
    for fingerprint, alone in found["basic"].items():
        assert found["packed"][fingerprint] == pytest.approx(alone, rel=1e-3)


def test_memory_that_runs_out_is_halved(train, tmp_path):
    data = tmp_path / "long"
    data.mkdir()
    for name, numbers in (("train", range(96)), ("validation", range(96, 100)), ("test", range(100, 104))):
        rows = [
            {"instruction": "Colour?", "input": f"{number} " + "sky " * 100, "output": "blue"} for number in numbers
        ]
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = (
        *("peft=lora", f"data.path={data}", "data.max_tokens=500", "model.dtype=float32", "trainer.max_steps=2"),
        *("scoring.loss_batch_size=1", "scoring.generation.batch_size=1"),
    )

    def peak(size: int) -> int:
        torch.cuda.empty_cache()
        return train(*words, f"trainer.batch_size={size}", folder=str(size))["memory_bytes"]["train_peak"]

    small, large = peak(6), peak(48)
    assert large > 1.5 * small  # otherwise the limit between them would say nothing
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((small + large) / 2 / total)
    try:
        record = train(*words, "trainer.batch_size=48", "trainer.on_oom=halve", folder="halved")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert record["inferred"]["batch_size"] < 48
    assert record["inferred"]["batch_size"] * record["inferred"]["gradient_accumulation_steps"] == 48


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("method", ["lora", "ia3", "full", "p_tuning"])
def test_fused_passes_agree_with_plain_ones(train, method, dtype):
    words = (f"peft={method}", f"model.dtype={dtype}")
    auto = train(*words, folder="auto")
    plain = train(*words, "trainer.kernels=plain", folder="plain")
    assert losses(auto) == pytest.approx(losses(plain), rel=1e-3 if dtype == "float32" else 0.02)
