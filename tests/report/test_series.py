"""Axes, Pareto fronts and curves."""

import pytest

from harness.report.series import POINTS, curve, front
from tests.support.reports import report_of, three_methods, write_run


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    three_methods(folder, seeds=1)
    [group] = report_of(folder).groups
    return group


def test_each_varied_setting_is_an_axis_with_a_line_for_each_method(group):
    axes = {axis.name: axis for axis in group.axes}
    assert list(axes) == ["r", "learning_rate"]
    assert [(line.method, [value for value, _ in line.points]) for line in axes["r"].lines] == [("lora", [4.0, 8.0])]
    [rates] = axes["learning_rate"].lines
    assert (rates.method, [value for value, _ in rates.points]) == ("full", [0.001, 0.01])
    assert (axes["r"].logarithmic, axes["learning_rate"].logarithmic) == (False, True)


def test_other_settings_part_lines_and_a_rate_by_the_rule_does_not(tmp_path):
    for size in (4, 8):
        for r in (2, 4):
            write_run(tmp_path, "lora", 0, f"lora.r={r}", f"trainer.batch_size={size}")
    [group] = report_of(tmp_path).groups
    axes = {axis.name: axis for axis in group.axes}
    assert sorted(line.label for line in axes["trainer.batch_size"].lines) == ["r=2", "r=4"]
    assert all(len(line.points) == 2 for line in axes["trainer.batch_size"].lines)


def test_the_front_is_what_nothing_beats_at_a_lower_cost(group):
    labels = {row.key: f"{row.label} {row.learning_rate:g}" for row in group.configurations}
    keys = front(group.configurations, "exact_match", "trainable_parameters")
    assert [labels[key].split()[0] for key in keys] == ["ia3", "full"]  # lora costs as much as full here
    assert group.fronts["loss"]["adapter_bytes"]
    assert "tokens_per_s" not in group.fronts["loss"]
    assert front(group.configurations, "unknown", "trainable_parameters") == ()


def test_long_curves_are_thinned_out_to_means():
    points = [{"step": step, "loss": float(step)} for step in range(1, 10 * POINTS + 1)]
    thin = curve(points)
    assert len(thin.steps) == POINTS
    assert (thin.steps[0], thin.losses[0]) == (10.0, 5.5)
    assert curve([{"step": 1, "loss": None}]).losses == (None,)
    assert curve([]) is curve(None) is None
