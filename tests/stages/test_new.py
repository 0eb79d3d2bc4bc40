"""peft-harness new: what it writes, and what it refuses."""

import ast

import pytest
import yaml

from harness.errors import ConfigFault
from harness.stages.new import FILES, new_study


def test_a_study_has_a_method_a_metric_a_template_a_test_and_a_readme(tmp_path):
    written = new_study(["my_study"], tmp_path)
    assert len(written) == len(FILES)
    for path in written:
        text = path.read_text(encoding="utf-8")
        assert "@name@" not in text
        assert "@method@" not in text
        if path.suffix == ".py":
            ast.parse(text)
        if path.suffix == ".yaml":
            yaml.safe_load(text)
    study = tmp_path / "my_study"
    assert (study / "my_study/conf/peft/my_study_lora.yaml").read_text().startswith("# @package _global_\n")
    assert 'my_study_lora = "my_study.methods:my_study_lora"' in (study / "pyproject.toml").read_text()
    assert "class MyStudyLora(Targeted):" in (study / "my_study/methods.py").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "new: no name is not one name; usage: peft-harness new NAME"),
        (["a", "b"], "new: a b is not one name"),
        (["--help"], "usage: peft-harness new NAME"),
        (["My-Study"], "new: My-Study cannot be a Python package; use lower-case letters"),
        (["../up"], "cannot be a Python package"),
        (["class"], "cannot be a Python package"),
        (["lora"], "new: lora is already the name of something in the harness; choose another one, such as my_lora"),
        (["alpaca"], "already the name"),
        (["harness"], "already the name"),
    ],
)
def test_a_wrong_name_says_what_to_type(tmp_path, arguments, message):
    with pytest.raises(ConfigFault) as fault:
        new_study(arguments, tmp_path)
    assert message in str(fault.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
@pytest.mark.posix
def test_nothing_is_overwritten(tmp_path, kind):
    place = tmp_path / "my_study"
    if kind == "folder":
        place.mkdir()
    elif kind == "file":
        place.write_text("mine")
    else:
        place.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigFault, match="exists, and nothing in it is overwritten"):
        new_study(["my_study"], tmp_path)
    assert not place.is_dir() or list(place.iterdir()) == []
