"""Settings distinguish the cells of a grid, and the records of a folder."""

import pytest

from harness.report.cells import cells_from_records, setting_of, shared_overrides
from tests.support.records import a_record


@pytest.mark.parametrize(
    ("overrides", "method", "shared", "setting"),
    [
        ("peft=lora lora.r=4", "lora", (), "r=4"),
        ("peft=ia3 lora.r=4", "ia3", (), "(lora.r=4)"),
        ("peft=ia3", "ia3", (), ""),
        ("peft=lora seed=1 +data=x lora.r=4", "lora", ("+data=x",), "seed=1 r=4"),
        ("peft=lora lora.r=4 seed=1", "lora", ("lora.r=4", "seed=1"), ""),
        ("peft=lora lora.target_modules=[q_proj, v_proj]", "lora", (), "target_modules=[q_proj, v_proj]"),
        (
            "peft=lora trainer.learning_rate=1e-3 sweep.name='a b'",
            "lora",
            (),
            "trainer.learning_rate=1e-3 sweep.name='a b'",
        ),
        (("peft=lora", "lora.r=4"), "lora", (), "r=4"),
    ],
)
def test_a_setting_is_what_distinguishes_cells(overrides, method, shared, setting):
    assert setting_of(overrides, method, shared) == setting


def test_shared_overrides_are_those_of_every_cell():
    assert shared_overrides(["peft=lora seed=1 data=x", "peft=ia3 seed=2 data=x"]) == {"data=x"}
    assert shared_overrides(["peft=lora data=x"]) == frozenset()


def test_records_without_a_command_are_distinguished_by_their_plans():
    def plan(method, rate, seed, **settings):
        model = {"name": method, "path": method}
        return {"method": method, "settings": settings, "learning_rate": rate, "seed": seed, "model": model}

    records = [
        a_record("a", plan=plan("lora", 1e-3, 1, r=4, alpha=8)),
        a_record("b", plan=plan("lora", 1e-4, 1, r=8, alpha=8)),
        a_record("c", "ia3", plan=plan("ia3", 1e-2, 2)),
    ]
    settings = [cell.setting for cell in cells_from_records(records)]
    assert settings == [
        "r=4 learning_rate=0.001 seed=1 model.name=lora",
        "r=8 learning_rate=0.0001 seed=1 model.name=lora",
        "seed=2 model.name=ia3",
    ]
