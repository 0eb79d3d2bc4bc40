"""Weight decay spares biases and the norms of every architecture, however a method holds them."""

import pytest
from torch import nn

from harness.training.trainer import HarnessTrainer
from tests.support.tuners_models import SHAPES, base_model, wrap

HOLDERS = {
    "adapter": ("adapter_houlsby", {}),
    "partial norms": ("partial_norms", {}),
    "partial layers": ("partial_layers", {}),
    "diff pruning": ("diff_pruning", {}),
    "full": ("full", {}),
}


def norms_of(model_type: str) -> set[str]:
    """Names of the norms of the bare model."""
    return {
        name
        for name, module in base_model(model_type).named_modules()
        if (isinstance(module, nn.LayerNorm) or type(module).__name__.endswith("Norm")) and [*module.parameters()]
    }


@pytest.mark.parametrize("how", HOLDERS)
@pytest.mark.parametrize("model_type", SHAPES)
def test_norms_and_biases_are_not_decayed_and_all_else_is(model_type, how):
    method, changes = HOLDERS[how]
    try:
        model = wrap(model_type, method, **changes)
    except ValueError as error:
        pytest.skip(str(error))
    decayed = set(HarnessTrainer.get_decay_parameter_names(None, model))
    norms = norms_of(model_type)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained
    of_norm = {
        name for name in trained if any(name.removeprefix("base_model.model.").startswith(f"{norm}.") for norm in norms)
    }
    if how in ("adapter", "partial norms", "full"):  # these train all norms; OLMo's have no weights
        assert (of_norm != set()) == (norms != set())
    assert decayed & of_norm == set()
    # The only others that are spared are biases: of layers, and of the adapters' own projections.
    assert {name for name in trained - of_norm - decayed if "bias" not in name} == set()
