"""What every method keeps, on tiny random models; each trait is what the method does.

Models are trained once per case and architecture and read by many tests, which leave them as they are.
"""

from __future__ import annotations

import copy
import dataclasses
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from harness.adapters import save_load
from harness.adapters.attach import attach, inferred, load_peft_model
from harness.adapters.block_sizes import RULES
from harness.config import schema
from harness.data.collate import with_needed_logits
from harness.errors import ConfigFault, ModelFault
from harness.methods import library
from harness.methods.context import SEEDS
from harness.methods.lora import LoraHooks
from harness.methods.registry import METHODS, caveat, changes_base, hooks_of, prompt_learning, traits_of
from harness.methods.traits import Traits
from harness.plan.read import read_config
from harness.scoring.losses import can_skip_logits
from harness.shipped import shipped_folder
from tests.support.configs import compose
from tests.support.method_cases import (
    ARCHITECTURES,
    CASES,
    LIBRARY,
    SEED,
    SHEETS,
    answers,
    batches,
    build,
    finish,
    logits,
    parts,
    sheet,
    situation,
    train,
    trained,
)
from tests.support.tuners_models import VOCAB, base_model

# Attention that is not Llama's, which no trait tells.
UNFIT = {("llama_adapter", "gemma3_text")}
UNFIT |= {(case, "gpt2") for case in CASES if not traits_of(*parts(case)[:2]).conv1d}
QWEN2 = [(case, "qwen2") for case in CASES]
# EVA, FRoD and pVeRA take seconds for what Qwen2 has shown.
SLOW = ("lora:eva", "library:frod", "library:pvera")
FIT = QWEN2 + [
    (case, kind)
    for case in CASES
    for kind in ARCHITECTURES[1:]
    if (case, kind) not in UNFIT and (case in SHEETS or (kind != "llama" and case not in SLOW))
]
QUICK = [case for case in CASES if case != "lora:eva"]  # whose start takes seconds
EXACT = 1e-5  # float32 sums in another order
KEEP_ALL = ("cpt",)  # computes a loss of its own, from all logits

every_case = pytest.mark.parametrize("case", CASES)
every_quick_case = pytest.mark.parametrize("case", QUICK)
every_sheet = pytest.mark.parametrize("method", SHEETS)
two_kinds = pytest.mark.parametrize(
    ("case", "kind"), QWEN2 + [(case, kind) for case, kind in FIT if kind == "gemma3_text" and case in SHEETS]
)
every_fit = pytest.mark.parametrize(("case", "kind"), FIT)


def traits(case: str) -> Traits:
    method, settings, _ = parts(case)
    return traits_of(method, settings)


# ---------------------------------------------------------------- the table


def test_methods_sheets_options_and_defaults_are_one_list():
    names = list(METHODS)
    assert names == list(schema.SHEETS)
    folder = shipped_folder("conf") / "peft"
    assert sorted(names) == sorted(path.stem for path in folder.glob("*.yaml"))


@every_sheet
def test_a_sheet_holds_only_fields_of_pefts_configuration(method):
    own = {"learning_rate", "warmup_share", "final_share", "lora_fa", "loraplus_lr_ratio", "frequent_tokens"}
    kind = {"p_tuning_v2": "prefix_tuning", "llama_adapter": "adaption_prompt"}.get(method, method)
    assert set(sheet(method)) - own <= set(library.library_fields(kind))


@pytest.mark.parametrize("method", [name for name in METHODS if name != "library"])
def test_every_builder_names_its_paper_or_says_what_it_is(method):
    assert METHODS[method].build.__doc__


@pytest.mark.parametrize(("case", "kind"), sorted(UNFIT))
def test_a_method_that_does_not_fit_the_architecture_is_refused_with_the_reason(case, kind):
    reason = "nn.Linear alone, and transformer.h.0.* is a Conv1D" if kind == "gpt2" else "Unsupported model type"
    with pytest.raises(ModelFault, match=f"does not fit this model: .*{reason}"):
        build(case, kind)


@pytest.mark.parametrize("case", [case for case, kind in sorted(UNFIT) if kind == "gpt2"])
def test_what_is_refused_on_gpt2_fails_there_in_peft(case, monkeypatch):
    monkeypatch.setattr("harness.adapters.block_sizes.refuse_conv1d", lambda *_: None)
    with pytest.raises((ModelFault, RuntimeError)):
        train(build(case, "gpt2"), case, steps=1)


# ---------------------------------------------------------------- start, training, base


@every_fit
def test_the_start_is_the_base_model_where_claimed(case, kind):
    distance = trained(case, kind).distance
    assert (distance < EXACT) == traits(case).identity_at_start, f"differs by {distance}"


@every_fit
def test_only_what_is_trainable_changes_and_the_loss_falls(case, kind):
    run = trained(case, kind)
    assert run.changed
    assert run.changed <= run.trainable
    assert run.losses[-1] < run.losses[0]


@every_fit
def test_logits_that_no_label_needs_may_be_left_out(case, kind):
    model, batch = trained(case, kind).model, next(batches())
    assert can_skip_logits(model) == (case not in KEEP_ALL)
    if case in KEEP_ALL:
        return
    found = []
    for given in (batch, with_needed_logits(batch)):
        model.zero_grad()
        outcome = model(**given)
        if outcome.loss.requires_grad:  # diff pruning has finished and trains no more
            outcome.loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        found.append((outcome.loss.item(), torch.cat([each.flatten() for each in gradients] or [torch.zeros(1)])))
    model.zero_grad()
    assert outcome.logits.shape[1] == 6  # before each of five labels, and after the last
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-6)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-4, atol=1e-6)


@every_fit
def test_the_base_is_bit_identical_with_the_adapter_disabled(case, kind):
    model = trained(case, kind).model
    if case == "full":
        with pytest.raises(RuntimeError, match="keep_base"), model.disable_adapter():
            pass
        return
    with model.disable_adapter():
        same = torch.equal(logits(model), logits(base_model(kind)))
    assert same != traits(case).rewrites_base


@every_quick_case
def test_training_leaves_the_base_weights_it_shares_as_they_were(case):
    base = base_model("qwen2")
    kept = {name: parameter.detach().clone() for name, parameter in base.named_parameters()}
    shared = copy.deepcopy(base, {id(p): torch.nn.Parameter(p.data, requires_grad=False) for p in base.parameters()})
    method, settings, _ = parts(case)
    torch.manual_seed(SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = attach(shared, method, settings, situation())
    train(model, case, steps=1)
    if not traits(case).rewrites_base:
        assert all(torch.equal(parameter, kept[name]) for name, parameter in base.named_parameters())


# ---------------------------------------------------------------- save, merge, generate


@two_kinds
def test_the_reloaded_adapter_gives_the_same_logits_and_answers(case, kind, tmp_path):
    if case in ("lora:corda", "lora:lora_ga"):
        pytest.skip("these load as saved against their start only, by the test below")
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


@pytest.mark.parametrize("case", ["lora", "vera", "diff_pruning", "cpt"])
def test_a_fresh_process_gives_the_same_answers(case, tmp_path):
    model = trained(case, "qwen2").model
    model.save_pretrained(str(tmp_path))
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\n"
        "from method_cases import answers, base_model\n"
        "from harness import methods\n"
        "print(answers(methods.reload(base_model('qwen2'), Path(sys.argv[1])), [[5, 6, 7]]))"
    )
    here = Path(__file__).parent
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path), str(here), str(here.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(answers(model, [[5, 6, 7]]))


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
def test_left_padding_changes_answers_exactly_where_said(case, kind):
    model = trained(case, kind).model
    options = {"output_logits": True, "return_dict_in_generate": True}
    alone = answers(model, [[8, 9, 10]], **options).logits[0][0]
    padded = answers(model, [[5, 6, 7, 9, 11, 12], [8, 9, 10]], **options).logits[0][1]
    assert bool((alone - padded).abs().max() > 1e-5) == traits(case).prompt_learning
    if case != "library:lily":  # whose routing sees its neighbours
        level = answers(model, [[5, 6, 7], [8, 9, 10]], **options).logits[0][1]
        torch.testing.assert_close(level, alone, atol=EXACT, rtol=0)


# ---------------------------------------------------------------- gradients, seeds


def gradients(case: str, checkpointing: bool) -> list[torch.Tensor | None]:
    model = build(case, "qwen2").train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    torch.manual_seed(1)
    model(**next(batches())).loss.backward()
    return [parameter.grad for parameter in model.parameters() if parameter.requires_grad]


@every_quick_case
def test_gradients_do_not_depend_on_checkpointing_where_it_works(case):
    plain = gradients(case, False)
    if not traits(case).checkpointing:
        with pytest.raises((ValueError, RuntimeError)):
            gradients(case, True)
        return
    for one, other in zip(plain, gradients(case, True), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


@every_case
def test_two_runs_of_one_seed_are_bit_equal(case):
    model = build(case, "qwen2")
    train(model, case)
    finish(model, case)
    assert torch.equal(logits(model), trained(case, "qwen2").logits)


# Their start draws nothing: two seeds of theirs differ by the order of the rows.
SETTLED = {"full", "partial", "bitfit", "diff_pruning", "ln_tuning", "trainable_tokens", "ia3", "miss", "oft", "boft"}
SETTLED |= {"road", "cpt", "lora:olora", "lora:mica", "lora:corda", "lora:pissa"}
SETTLED |= {f"library:{kind}" for kind in ("beft", "osf", "psoft", "supertuning")}


def _moved(case: str, seed: int) -> torch.Tensor:
    """Logits with every trained number moved by as much, so that frozen random parts show."""
    model = build(case, "qwen2", seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05)
    return logits(model)


@every_quick_case
def test_two_seeds_start_apart_unless_the_start_draws_nothing(case):
    assert torch.equal(_moved(case, 7), _moved(case, 8)) == (case in SETTLED)


@pytest.mark.parametrize("method", [name for name in SHEETS if set(SEEDS) & set(sheet(name))])
def test_a_seed_of_the_methods_own_is_the_runs_unless_given(method):
    [field] = set(SEEDS) & set(sheet(method))
    assert sheet(method)[field] is None
    config = build(method, "qwen2", seed=11).peft_config["default"]
    assert getattr(config, field) == 11
    assert getattr(build(method, "qwen2", seed=11, **{field: 5}).peft_config["default"], field) == 5


@pytest.mark.parametrize("kind", [kind for kind in LIBRARY if set(SEEDS) & set(library.library_fields(kind))])
def test_a_library_types_own_seed_is_the_runs_unless_given(kind):
    [field] = set(SEEDS) & set(library.library_fields(kind))
    model = build(f"library:{kind}", "qwen2", seed=11)
    assert getattr(model.peft_config["default"], field) == 11
    _, settings, _ = parts(f"library:{kind}")
    assert inferred(model, settings)[field] == 11
    given = {"settings": LIBRARY[kind] | {field: 5}}
    assert getattr(build(f"library:{kind}", "qwen2", seed=11, **given).peft_config["default"], field) == 5


# ---------------------------------------------------------------- further traits


@every_sheet
def test_dropout_acts_in_training_where_claimed(method):
    fields = [name for name in sheet(method) if name.endswith("dropout")]
    if method == "p_tuning":
        fields = ["encoder_dropout"]
        changes = {"encoder_dropout": 0.5, "encoder_reparameterization_type": "LSTM"}
    else:
        changes = dict.fromkeys(fields[-1:], 0.5)
    assert bool(fields) == METHODS[method].traits.dropout
    if not fields:
        return
    model = build(method, "qwen2", **changes)
    with torch.no_grad():
        for parameter in model.parameters():  # away from an identity that dropout cannot change
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.train()
    assert not torch.equal(logits(model), logits(model))
    model.eval()
    assert torch.equal(logits(model), logits(model))


@every_quick_case
def test_a_second_adapter_leaves_the_first_as_it_was_where_claimed(case):
    model = build(case, "qwen2")
    expected = logits(model)

    def add() -> torch.Tensor:
        """Logits of the second at its start."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.add_adapter("second", copy.deepcopy(model.peft_config["default"]))
        model.set_adapter("second")
        start = logits(model)
        model.set_adapter("default")
        return start

    if traits(case).multi_adapter:
        add()
        assert torch.equal(logits(model), expected)
    elif traits(case).rewrites_base and case not in ("full", "lora:corda"):  # PEFT warns alone
        assert not torch.allclose(add(), expected, atol=1e-3), "both start as the base"
    else:
        with pytest.raises(ValueError, match=r"adapter|task_ids|layer"):
            add()


@every_quick_case
def test_a_tied_embedding_is_trained_with_its_head_where_claimed_and_else_left_alone(case):
    net, base = trained(case, "qwen2").model.get_base_model(), base_model("qwen2")
    with torch.no_grad():  # what the layers do: adapters may wrap them
        embedding = net.get_input_embeddings()(torch.arange(VOCAB))
        head = net.get_output_embeddings()(torch.eye(embedding.shape[1])).T
    assert torch.equal(embedding, head)
    assert torch.equal(embedding, base.get_input_embeddings().weight) != traits(case).tied_embeddings


def test_traits_of_a_types_settings_differ_from_the_row():
    assert changes_base("lora", sheet("lora") | {"init_lora_weights": "pissa_niter_4"})
    assert not changes_base("lora", sheet("lora"))
    assert prompt_learning("library", {"type": "lily", "settings": {}})
    assert "batch" in (caveat("library", {"type": "lily", "settings": {}}) or "")
    assert caveat("lora", sheet("lora")) is None


def test_a_type_of_the_library_that_has_a_sheet_has_its_traits():
    def of(kind: str, **settings: object) -> Traits:
        return traits_of("library", {"type": kind, "settings": settings})

    assert of("PROMPT_TUNING") == METHODS["prompt_tuning"].traits
    assert of("adaption_prompt") == METHODS["llama_adapter"].traits
    assert of("lora") == METHODS["lora"].traits
    assert of("lora", init_lora_weights="pissa").rewrites_base
    assert changes_base("library", {"type": "full", "settings": {}})


def test_every_type_of_the_library_has_traits_of_its_own():
    assert set(library.LIBRARY) == {*LIBRARY, "adamss"}


# ---------------------------------------------------------------- sizes that must fit


@pytest.mark.parametrize("kind", ["OFT", "BOFT", "C3A", "VBLORA", "ROAD"])
def test_an_open_size_becomes_the_largest_that_fits_and_is_reported(kind):
    rule = RULES[kind]
    model = build(kind.lower(), "qwen2")  # dimensions 32, 16 and 48
    common = {"input": 16, "output": 16}[rule.sides[0]]
    expected = min(rule.at_most, common)
    _, settings, _ = parts(kind.lower())
    assert inferred(model, settings)[rule.field] == expected


@pytest.mark.parametrize("kind", ["OFT", "BOFT", "C3A", "VBLORA", "ROAD"])
def test_a_size_that_does_not_fit_is_refused_with_those_that_do(kind):
    rule = RULES[kind]
    with pytest.raises(ModelFault) as caught:
        build(kind.lower(), "qwen2", **{rule.field: 10})
    message = str(caught.value)
    assert f"{kind.lower()}.{rule.field}=10" in message
    assert "of model.layers.0" in message
    assert "8, 16" in message


def test_a_number_of_blocks_is_checked_like_a_size():
    with pytest.raises(ModelFault, match=r"oft\.r=7 does not divide"):
        build("oft", "qwen2", r=7)
    with pytest.raises(ModelFault, match=r"boft\.boft_block_num=7 does not divide"):
        build("boft", "qwen2", boft_block_num=7)
    assert build("oft", "qwen2", r=4).peft_config["default"].oft_block_size == 0


def test_a_layer_with_a_size_of_its_own_does_not_bind_the_others():
    assert build("c3a", "qwen2", block_size_pattern={"down_proj": 16}).peft_config["default"].block_size == 16


def test_gralora_is_held_to_the_layers_through_the_library():
    with pytest.raises(ModelFault, match=r"library\.settings\.gralora_k=3 does not divide"):
        build("library:gralora", "qwen2", settings={"gralora_k": 3, "r": 3})


def test_butterfly_factors_that_peft_would_drop_are_refused():
    with pytest.raises(ModelFault, match="CUDA kernel"):
        build("boft", "qwen2", boft_n_butterfly_factor=2)


# ---------------------------------------------------------------- the library


def test_an_unknown_type_lists_the_types():
    with pytest.raises(ModelFault, match=r"library\.type=nonesuch is unknown; choose one of .*deft"):
        attach(base_model("qwen2"), "library", {"type": "nonesuch", "settings": {}}, situation())


def test_an_unknown_field_lists_the_fields():
    with pytest.raises(ModelFault, match=r"library\.settings\.rank=3 is unknown to DeftConfig; it has r, "):
        build("library:deft", "qwen2", settings={"rank": 3})


def test_xlora_is_refused_with_the_reason():
    assert "trained before" in library.library_faults("xlora", {})[0]


def test_every_type_of_peft_is_reachable():
    tried = {kind.partition(":")[0] for kind in LIBRARY} | {"adamss"}
    named = {"p_tuning_v2": "prefix_tuning", "llama_adapter": "adaption_prompt"}
    assert set(library.library_types()) == tried | {named.get(name, name) for name in SHEETS} | set(library.REFUSED)


def test_adamss_trains_where_scikit_learn_is_installed():
    pytest.importorskip("sklearn", reason="AdaMSS clusters with scikit-learn")
    settings = {"type": "adamss", "settings": {"r": 8, "num_subspaces": 3}}
    model = attach(base_model("qwen2"), "library", settings, situation())
    losses = []
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(10):
        loss = model(**next(batches())).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


# ---------------------------------------------------------------- what rows and settings give


def test_the_context_of_cpt_is_the_end_of_the_first_rows():
    config = build("cpt", "qwen2").peft_config["default"]
    first = next(batches())
    row = first["input_ids"][0].tolist()
    assert config.cpt_token_ids == row[-8:]
    assert config.cpt_tokens_type_mask == [2, 2, 2, 4, 4, 4, 4, 4]


def test_a_context_whose_highest_type_is_no_label_is_refused():
    with pytest.raises(ModelFault, match="label token"):
        build("cpt", "qwen2", cpt_token_ids=[5, 6], cpt_tokens_type_mask=[2, 2])
    model = build("cpt", "qwen2", cpt_token_ids=[5, 6, 7])
    assert torch.isfinite(model(**next(batches())).loss)


def test_trainable_tokens_are_the_most_frequent_of_the_rows():
    model = build("trainable_tokens", "qwen2", frequent_tokens=5)
    chosen = model.peft_config["default"].token_indices
    seen = torch.cat([batch["input_ids"][batch["attention_mask"].bool()] for batch in batches()])
    counts = torch.bincount(seen, minlength=61)
    assert len(chosen) == 5
    assert counts[chosen].min() >= counts[[token for token in range(61) if token not in chosen]].max()


def test_eva_without_rows_is_refused():
    lone = dataclasses.replace(situation(), batches=None)
    with pytest.raises(ModelFault, match="init_lora_weights=eva needs the training rows"):
        attach(base_model("qwen2"), *parts("lora:eva")[:2], lone)


def test_loftq_is_refused_with_everything_that_it_lacks(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelFault, match=r"bitsandbytes is not .*pip install scipy.*no GPU; choose another init"):
        build("lora", "qwen2", init_lora_weights="loftq")


def test_adamss_without_scikit_learn_is_refused_with_the_command_that_installs_it(monkeypatch):
    def lacking(self: object) -> None:
        raise ImportError("scikit-learn is required for AdaMSS. Please install it with: pip install scikit-learn")

    monkeypatch.setattr(library.library_types()["adamss"], "__post_init__", lacking)
    with pytest.raises(ModelFault, match=r"peft=library lacks a package: .*pip install scikit-learn"):
        attach(base_model("qwen2"), "library", {"type": "adamss", "settings": {}}, situation())


def test_lora_fa_freezes_a_and_lora_plus_quickens_b():
    model = build("lora:lora_fa", "qwen2")
    assert LoraHooks().optimizer(model, parts("lora:lora_fa")[1], 1e-3, 0.0) is not None
    assert not any(p.requires_grad for name, p in model.named_parameters() if "lora_A" in name)
    model = build("lora:lora_plus", "qwen2")
    optimizer = LoraHooks().optimizer(model, parts("lora:lora_plus")[1], 1e-3, 0.1)
    rates = {group["lr"] for group in optimizer.param_groups if group["params"]}
    assert rates == {1e-3, 4e-3}
    assert hooks_of("ia3", sheet("ia3")).optimizer(model, sheet("ia3"), 1e-3, 0.0) is None


def test_diff_pruning_ends_sparse_and_others_end_as_they_are():
    model = build("diff_pruning", "qwen2")
    train(model, "diff_pruning", steps=2)
    assert finish(model, "diff_pruning")["sparsity"] == pytest.approx(0.1, abs=0.01)
    assert finish(build("lora", "qwen2"), "lora") == {}


def test_target_modules_that_match_nothing_name_the_layers():
    with pytest.raises(ModelFault, match=r"finds none of target_modules=\['nowhere'\].*q_proj"):
        build("lora", "qwen2", target_modules=["nowhere"])


# ---------------------------------------------------------------- sheets that contradict themselves


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("peft=adapter adapter.reduction_factor=4", "adapter.bottleneck_size=16 and adapter.reduction_factor=4"),
        ("peft=adapter adapter.placement=elsewhere", "adapter.placement=elsewhere is unknown"),
        ("peft=oft oft.r=2 oft.oft_block_size=8", "oft.r=2 and oft.oft_block_size=8"),
        ("peft=boft boft.boft_block_num=2 boft.boft_block_size=8", "boft.boft_block_num=2 and boft.boft_block_size=8"),
        ("peft=vblora vblora.topk=9 vblora.num_vectors=4", "vblora.topk=9 exceeds vblora.num_vectors=4"),
        ("peft=lora lora.lora_fa=true lora.loraplus_lr_ratio=4", "each bring an optimizer"),
        ("peft=lora lora.lora_fa=true lora.use_dora=true", "lora.use_dora=true adds a third"),
        ("peft=lora +lora.eva_config.rho=1.5", "lora.eva_config has no effect without lora.init_lora_weights=eva"),
        ("peft=cpt cpt.cpt_token_ids=[5,6] cpt.cpt_mask=[1]", "cpt.cpt_mask has 1 entries for 2"),
        ("peft=diff_pruning diff_pruning.target_sparsity=0", "diff_pruning.target_sparsity=0"),
        ("peft=diff_pruning diff_pruning.stretch_upper=0.5", "diff_pruning.stretch_upper=0.5"),
        ("peft=road road.variant=road_3", "road.variant=road_3 is unknown"),
        ("peft=fourierft fourierft.n_frequency=0", "fourierft.n_frequency=0 is too small"),
        ("peft=library library.type=xlora", "library.type=xlora mixes LoRA adapters"),
        ("peft=library +library.settings.bogus=1", "library.settings.bogus=1 is unknown to DeloraConfig"),
        ("peft=library library.type=cartridge", "needs library.settings.num_virtual_tokens"),
    ],
)
def test_a_sheet_that_contradicts_itself_is_refused(words, expected):
    with pytest.raises(ConfigFault, match=re.escape(expected)):
        read_config(compose(*words.split()))
