"""A budget sets each method's size, as near as its knob can come."""

import json
import shutil
from types import MappingProxyType

import pytest

from harness.errors import ConfigFault, ModelFault
from harness.estimate import budget, costs
from harness.estimate.budget import BudgetFitter, nearest
from harness.methods.knobs import FLOPS, STORED, TRAINABLE
from harness.methods.registry import METHODS
from harness.plan.read import read_config
from harness.sweep.grid import grid_cells
from harness.sweep.sizes import Sizes
from tests.support.configs import overridden
from tests.support.runs import command, overrides, write_rows

LLAMA = {
    "model_type": "llama", "hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}  # fmt: skip
SIZED = sorted(name for name, method in METHODS.items() if method.knobs)
FITTER = BudgetFitter()


@pytest.fixture(scope="module")
def llama(tmp_path_factory, random_qwen2):
    """A folder with a small Llama's configuration and a tokenizer, and no weights."""
    folder = tmp_path_factory.mktemp("llama")
    for file in random_qwen2.glob("token*"):
        shutil.copy(file, folder)
    (folder / "config.json").write_text(json.dumps(LLAMA))
    return folder


@pytest.fixture(scope="module")
def words(llama):
    return (f"model.path={llama}", "data.max_tokens=64", "scoring.metrics=[]")


def read(method, *words, typed=()):
    sizes = Sizes()
    return read_config(overridden(*words, onto=(f"peft={method}",)), size=sizes.of(typed or words))


def near(plan, fit):
    """Whether the fit is within 5 %, or within half a step of its knob."""
    if abs(fit.off) <= 0.05:
        return True
    knob = next(
        each for each in budget.serving(plan, fit.quantity) if set(each.setting(plan.settings, 1)) == set(fit.settings)
    )
    values = budget.values_of(plan, knob)
    chosen = fit.settings["settings"][knob.key.partition(".")[2]] if "." in knob.key else fit.settings[knob.key]
    place = values.index(chosen)
    beside = []
    for index in (place - 1, place + 1):
        if 0 <= index < len(values):
            try:
                beside.append(FITTER.measured(budget.at(plan, knob, values[index]), fit.quantity))
            except ModelFault:
                continue
    # The budget lies between the fit and a neighbor, and nearer to the fit.
    return any(
        min(fit.reached, other) <= fit.wanted <= max(fit.reached, other)
        and abs(fit.wanted - fit.reached) <= abs(fit.wanted - other)
        for other in beside
    )


@pytest.mark.parametrize("method", SIZED)
def test_a_method_comes_as_near_to_a_budget_as_its_knob_allows(words, method):
    plan, _ = read(method, *words)
    size = FITTER.measured(plan, TRAINABLE)
    wanted = round(size * 1.4 if method != "road" else size * 1.6)
    sized, options = read(method, *words, f"budget.trainable_params={wanted}")
    assert FITTER.measured(sized, TRAINABLE) == options.budget.reached
    assert near(plan, options.budget), options.budget.words


@pytest.mark.slow
def test_at_least_twenty_methods_come_near_on_the_embedded_model():
    found = {}
    for method in SIZED:
        plan, _ = read(method)
        _, options = read(method, "budget.trainable_params=50000")
        found[method] = near(plan, options.budget)
    assert sum(found.values()) >= 20, found
    # Of the embedded model's four layers one has six times as many, and RoAd has three sizes.
    assert {method for method, fits in found.items() if not fits} <= {"partial", "road"}


@pytest.mark.parametrize("method", ["lora", "lokr", "vera", "adapter", "adalora", "prefix_tuning", "p_tuning", "oft"])
def test_a_budget_of_bytes_is_met_by_what_is_stored(words, method):
    plan, _ = read(method, *words)
    wanted = round(costs.stored_bytes(plan) * 1.4)
    sized, options = read(method, *words, f"budget.adapter_bytes={wanted}")
    assert costs.stored_bytes(sized) == options.budget.reached
    assert near(plan, options.budget), options.budget.words


@pytest.mark.parametrize("method", ["adapter", "partial", "prompt_tuning"])
def test_a_budget_of_operations_is_met_by_a_counted_pass(method, llama, tmp_path):
    rows = write_rows(tmp_path / "rows")
    small = [*overrides(llama, rows, tmp_path), "trainer.max_steps=3"]
    small.remove("data=alpaca")
    onto = (f"peft={method}", "data=alpaca")
    sizes = Sizes()
    plan, _ = read_config(overridden(*small, onto=onto), size=sizes.of())
    wanted = costs.train_flops(plan) * 1.2
    _, options = read_config(overridden(*small, f"budget.train_flops={wanted:.0f}", onto=onto), size=sizes.of())
    assert near(plan, options.budget), options.budget.words


def test_operations_are_those_that_a_real_pass_counts(tmp_path, random_qwen2):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from harness.adapters.attach import attach, build_context
    from harness.models.base import load_base

    rows = write_rows(tmp_path / "rows", constant=True)
    small = [*overrides(random_qwen2, rows, tmp_path), "trainer.max_steps=3", "trainer.batch_size=2"]
    small.remove("data=alpaca")
    small.remove("trainer.batch_size=8")
    small.append("model.attn_implementation=eager")  # torch does not count its fused attention on a CPU
    plan, _ = read_config(overridden(*small, onto=("peft=lora", "data=alpaca")))
    _, length, completion = costs.mean_lengths(plan)
    base = load_base(plan.model)
    model = attach(base.model, "lora", plan.settings, build_context(plan, base.model.config, "", 3)).train()
    with FlopCounterMode(display=False) as counter:
        output = model(input_ids=torch.zeros((2, length), dtype=torch.long), use_cache=False)
        output.logits[:, -completion:].sum().backward()
    assert costs.train_flops(plan) == pytest.approx(3 * counter.get_total_flops(), rel=0.03)


def test_stored_bytes_are_those_of_a_saved_adapter(tmp_path, random_qwen2):
    rows = write_rows(tmp_path / "rows")
    small = overrides(random_qwen2, rows, tmp_path / "runs")
    assert command("-m", *small, "peft=lora,vera,prefix_tuning", "scoring.metrics=[]").code == 0
    from harness.plan.spec import plan_from_dict

    records = [json.loads(file.read_text()) for file in (tmp_path / "runs").glob("*/record.json")]
    assert len(records) == 3
    for record in records:
        assert costs.stored_bytes(plan_from_dict(record["plan"])) == 4 * record["parameters"]["stored"]


def test_a_sized_plan_is_the_plan_of_that_size(words):
    sized, options = read("lora", *words, "budget.trainable_params=50000")
    rank = options.budget.settings["r"]
    assert sized.fingerprint == read("lora", *words, f"lora.r={rank}")[0].fingerprint
    assert sized.learning_rate == read("lora", *words, f"lora.r={rank}")[0].learning_rate


def test_a_rate_that_depends_on_the_rank_follows_the_rank(words):
    more = (*words, "lora.use_rslora=true")
    sized, options = read("lora", *more, "budget.trainable_params=50000")
    rank = options.budget.settings["r"]
    assert rank != 16
    assert sized.learning_rate == read("lora", *more, f"lora.r={rank}")[0].learning_rate


@pytest.mark.parametrize(
    ("method", "given"),
    [("lora", "lora.r=16"), ("lora", "+lora.rank_pattern={q_proj: 2}"), ("adapter", "adapter.reduction_factor=4"),
     ("adapter", "adapter.bottleneck_size=16"), ("adalora", "adalora.target_r=8"), ("oft", "oft.r=2"),
     ("randlora", "randlora.randlora_alpha=100"), ("library", "+library.settings={r: 4}")],
)  # fmt: skip
def test_a_size_beside_a_budget_is_refused(words, method, given):
    key = given.lstrip("+").partition("=")[0]
    more = ("adapter.bottleneck_size=null",) if "reduction" in given else ()
    with pytest.raises(ConfigFault, match=f"{key}.* is given, and budget.trainable_params sets the size"):
        read(method, *words, given, *more, "budget.trainable_params=50000")


def test_a_size_from_a_file_is_refused_without_being_typed(words):
    with pytest.raises(ConfigFault, match=r"lora\.r is given"):
        read("lora", *words, "lora.r=3", "budget.trainable_params=50000", typed=("budget.trainable_params=50000",))


def test_the_size_of_another_method_does_not_matter(words):
    assert read("lora", *words, "loha.r=3", "budget.trainable_params=50000")[1].budget


@pytest.mark.parametrize("method", sorted(set(METHODS) - set(SIZED)))
def test_a_method_without_a_knob_is_refused(words, method):
    with pytest.raises(ConfigFault, match=f"peft={method} has no setting that decides its size"):
        read(method, *words, "budget.trainable_params=50000")


def test_two_budgets_are_refused(words):
    with pytest.raises(ConfigFault, match="different measures of one size"):
        read("lora", *words, "budget.trainable_params=50000", "budget.adapter_bytes=50000")


def test_a_budget_below_one_is_refused(words):
    with pytest.raises(ConfigFault, match=r"budget\.trainable_params=0 is too small"):
        read("lora", *words, "budget.trainable_params=0")


def test_a_method_beyond_the_tolerance_is_refused(words):
    with pytest.raises(ConfigFault, match=r"peft=partial cannot come closer .* beyond budget\.tolerance=0\.1"):
        read("partial", *words, "budget.trainable_params=1000", "budget.tolerance=0.1")


def test_a_stage_that_runs_nothing_ignores_the_budget(words):
    assert read("ia3", *words, "stage=report", "budget.trainable_params=50000")[1].budget is None


def test_a_reader_that_cannot_count_refuses_a_budget(words):
    with pytest.raises(ConfigFault, match="this command does not count"):
        read_config(overridden(*words, "budget.trainable_params=50000"))


def test_a_sweep_sizes_each_cell_and_collects_the_faults(words):
    def cell(method, size):
        typed = (f"peft={method}", f"budget.trainable_params={size}")
        return typed, lambda: overridden(*words, typed[1], onto=typed[:1])

    cells = grid_cells([cell(method, size) for method in ("lora", "loha") for size in (8000, 16000)], "mine")
    assert len({each.plan.fingerprint for each in cells}) == 4
    with pytest.raises(ConfigFault) as caught:
        grid_cells([cell("ia3", 8000), cell("bitfit", 8000)], "mine")
    assert "peft=ia3" in str(caught.value)
    assert "peft=bitfit" in str(caught.value)


def test_a_run_says_how_near_it_comes(tmp_path, random_qwen2):
    small = overrides(random_qwen2, write_rows(tmp_path / "rows"), tmp_path / "runs")
    done = command(*small, "peft=lora", "budget.trainable_params=3000", "scoring.metrics=[]")
    assert done.code == 0, done.err
    [file] = (tmp_path / "runs").glob("*/record.json")
    record = json.loads(file.read_text())
    kept = record["inferred"]["budget"]
    assert (kept["quantity"], kept["wanted"]) == ("trainable_params", 3000)
    assert kept["reached"] == record["parameters"]["trainable"]
    assert record["plan"]["settings"]["r"] == kept["settings"]["r"]
    [note] = [note for note in record["notes"] if "budget" in note]
    assert note in done.err


def test_nearest_takes_the_nearer_of_two_neighbors():
    assert nearest(range(1, 1000), lambda value: 10.0 * value, 44) == (4, 40, True)
    assert nearest(range(1, 1000), lambda value: 10.0 * value, 46) == (5, 50, True)


def test_nearest_needs_few_measures_of_a_straight_line():
    asked = []
    assert nearest(range(1, 1 << 24), lambda value: asked.append(value) or 7.0 * value + 100, 700_123)[0] == 100_003
    assert len(asked) < 12


def test_nearest_says_when_no_value_reaches():
    assert nearest(range(1, 9), lambda value: float(value), 100) == (8, 8, False)
    assert nearest(range(5, 9), lambda value: float(value), 1) == (5, 5, False)


def test_nearest_survives_a_plateau_and_curves():
    assert nearest(range(1, 4096), lambda value: float(min(value, 10)), 50)[1:] == (10, False)
    assert nearest(range(1, 4096), lambda value: float(value**3), 1_000_000)[0] == 100


def test_nearest_treats_what_the_model_refuses_as_too_large():
    def measure(value):
        if value > 30:
            raise ModelFault("too wide")
        return float(value)

    assert nearest(range(1, 4096), measure, 100) == (30, 30, False)
    with pytest.raises(ModelFault, match="too wide"):
        nearest(range(40, 4096), measure, 100)


def test_nearest_skips_small_values_that_the_model_refuses():
    def measure(value):
        if value < 4:
            raise ModelFault("nothing to train")
        return float(value)

    assert nearest([1, 2, 4, 8], measure, 5) == (4, 4, True)


def test_a_fit_survives_a_pickle(words):
    import pickle

    fit = read("lora", *words, "budget.trainable_params=50000")[1].budget
    again = pickle.loads(pickle.dumps(fit))
    assert again == fit
    assert isinstance(again.settings, MappingProxyType)


def test_quantities_are_settings_of_the_schema():
    from harness.config.schema import Budget

    assert {TRAINABLE, STORED, FLOPS} < set(Budget.__annotations__)
