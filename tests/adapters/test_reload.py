"""Every method saved, loaded, merged and asked: the same logits and answers."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import torch

from harness.adapters import save_load
from harness.adapters.attach import load_peft_model
from tests.support.method_cases import (
    EXACT,
    answers,
    build,
    every_case,
    every_quick_case,
    finish,
    logits,
    train,
    trained,
    traits,
    two_kinds,
)
from tests.support.paths import ROOT
from tests.support.tuners_models import base_model


@two_kinds
def test_the_reloaded_adapter_gives_the_same_logits_and_answers(case, kind, tmp_path):
    if case in ("lora:corda", "lora:lora_ga"):
        pytest.skip("these load only as converted against their start, in the test below")
    model = trained(case, kind).model
    model.save_pretrained(str(tmp_path))
    again = load_peft_model(base_model(kind), tmp_path)
    torch.testing.assert_close(logits(again), logits(model), atol=1e-6, rtol=0)
    prompts = [[5, 6, 7], [8, 9, 10]]
    assert answers(again, prompts) == answers(model, prompts)


@pytest.mark.parametrize("case", ["lora:pissa", "lora:olora", "lora:corda", "lora:lora_ga"])
def test_a_start_taken_from_the_base_is_saved_as_plain_lora(case, tmp_path):
    model = build(case, "qwen2")
    write = save_load.adapter_writer(model, tmp_path / "scratch")
    train(model, case, steps=3)
    write(tmp_path / "adapter")
    again = load_peft_model(base_model("qwen2"), tmp_path / "adapter")
    torch.testing.assert_close(logits(again), logits(model), atol=EXACT, rtol=0)
    with again.disable_adapter():
        assert torch.equal(logits(again), logits(base_model("qwen2")))


@pytest.mark.slow
def test_a_fresh_process_gives_the_same_answers(tmp_path):
    cases = ["lora", "vera", "diff_pruning", "cpt"]
    for case in cases:
        trained(case, "qwen2").model.save_pretrained(str(tmp_path / case))
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from harness.adapters.attach import load_peft_model\n"
        "from tests.support.method_cases import answers, base_model\n"
        "for case in sys.argv[2:]:\n"
        "    print(answers(load_peft_model(base_model('qwen2'), Path(sys.argv[1]) / case), [[5, 6, 7]]))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path), *cases]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines() == [str(answers(trained(case, "qwen2").model, [[5, 6, 7]])) for case in cases]


@every_quick_case
def test_merging_gives_the_same_logits_where_claimed(case):
    model = build(case, "qwen2")
    train(model, case, steps=2)
    finish(model, case)
    expected = logits(model)
    if not traits(case).mergeable:
        with pytest.raises((ValueError, AttributeError, NotImplementedError)):
            model.merge_and_unload()
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged = model.merge_and_unload()
    torch.testing.assert_close(logits(merged), expected, atol=1e-4, rtol=0)


@every_case
def test_generating_with_the_cache_equals_generating_without(case):
    model = trained(case, "qwen2").model
    row, expected = [5, 6, 7, 9], []
    with torch.no_grad():
        for _ in range(5):
            following = int(model(input_ids=torch.tensor([row + expected])).logits[0, -1].argmax())
            expected.append(following)
    assert answers(model, [row]) == [expected]


@two_kinds
def test_left_padding_changes_answers_exactly_where_claimed(case, kind):
    model = trained(case, kind).model
    options = {"output_logits": True, "return_dict_in_generate": True}
    alone = answers(model, [[8, 9, 10]], **options).logits[0][0]
    padded = answers(model, [[5, 6, 7, 9, 11, 12], [8, 9, 10]], **options).logits[0][1]
    assert bool((alone - padded).abs().max() > 1e-5) == traits(case).prompt_learning
    if case != "library:lily":  # whose routing sees its neighbors
        level = answers(model, [[5, 6, 7], [8, 9, 10]], **options).logits[0][1]
        torch.testing.assert_close(level, alone, atol=EXACT, rtol=0)
