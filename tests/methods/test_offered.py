"""Methods of other packages: what is offered, what is refused, and with which words."""

import dataclasses
import textwrap
from types import SimpleNamespace
from unittest import mock

import pytest

from harness.config import schema
from harness.extensions import entry_points, sources
from harness.extensions.entry_points import Offer
from harness.methods import offered
from harness.methods.registry import BUILT_IN
from tests.support.own_code import importable, write

GOOD = """
from dataclasses import dataclass
from harness.methods.fields import Sheet, count
from harness.methods.method import Method
from harness.methods.traits import Traits

@dataclass(kw_only=True)
class Small(Sheet):
    r: int = count()

def build(settings, context): ...

small = Method(Small, build, Traits())
three = 3
odd = Method(Small, build, "merges")
class Loose: ...
loose = Method(Loose, build, Traits())
turned = Method(Small, build, Traits(), knobs=("r",))
"""
VALUES = """# @package _global_
peft: {method: small}
small: {learning_rate: 1e-3, r: 2}
"""


@pytest.fixture
def package(tmp_path):
    sources.module_file.cache_clear()
    write(tmp_path, own_k__methods=GOOD, own_solo=GOOD)
    (tmp_path / "own_k" / "__init__.py").write_text("")
    values(tmp_path, "small", VALUES)
    with importable(tmp_path):
        yield tmp_path
    sources.module_file.cache_clear()


def values(folder, name, text):
    file = folder / "own_k" / "conf" / "peft" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text))


def found(*offers, faults=()):
    with mock.patch.object(entry_points, "offers", return_value=(offers, faults)):
        return offered.offered_methods(BUILT_IN)


def test_a_method_with_its_values_is_offered(package):
    methods, faults = found(Offer("small", "own_k.methods:small", "own-k 1.0"))
    assert faults == []
    assert methods["small"].path == "own_k.methods:small"
    assert methods["small"].conf == package / "own_k" / "conf"


@pytest.mark.parametrize(
    ("name", "path", "message"),
    [
        (
            "lora",
            "own_k.methods:small",
            "peft_harness.methods: lora=own_k.methods:small: lora is a method of the harness",
        ),
        ("trainer", "own_k.methods:small", "trainer is a setting of the harness; give the entry point another name"),
        ("Small-1", "own_k.methods:small", "the name must be lower-case letters, digits and _"),
        ("small", "own_k.methods", "is not an import path; write peft_harness.methods: small=my_pkg.methods:small"),
        ("small", "own_k.methods:missing", "own_k.methods has no missing"),
        ("small", "own_missing:small", "there is no module own_missing"),
        ("small", "own_k.methods:three", "is int 3; it must be a harness.methods.method.Method(sheet, build, traits)"),
        ("small", "own_k.methods:odd", "its traits is str 'merges'"),
        ("small", "own_k.methods:loose", "its sheet Loose must be a @dataclass(kw_only=True) that extends"),
        ("small", "own_k.methods:turned", "among its knobs is not a harness.methods.knobs.Knob"),
        ("small", "own_solo:small", "its values are missing; write own_solo/conf/peft/small.yaml"),
        ("other", "own_k.methods:small", "write own_k/conf/peft/other.yaml"),
    ],
)
def test_what_cannot_be_offered_names_the_entry_point_and_its_owner(package, name, path, message):
    methods, faults = found(Offer(name, path, "own-k 1.0"))
    assert not methods
    [fault] = faults
    assert message in fault
    assert fault.endswith("(own-k 1.0)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "small: {learning_rate: 1e-3, r: 2}\n",
            "must begin with `# @package _global_` and hold peft: {method: small}",
        ),
        ("# values\npeft: {method: small}\nsmall: {learning_rate: null, r: 2}\n", "must begin with the line"),
        ("# @package _global_\npeft: {method: small}\nsmall: {r: 2}\n", "lacks learning_rate; give every field"),
        (
            "# @package _global_\npeft: {method: small}\nsmall: {learning_rate: null, r: 2, q: 1}\n",
            "has q, which the sheet lacks",
        ),
        (
            "# @package _global_\npeft: {method: small}\nsmall: {learning_rate: null, r: many}\n",
            "correct the value",
        ),
        ("# @package _global_\n{", "cannot be read"),
    ],
)
def test_values_that_do_not_fit_the_sheet_are_refused(package, text, message):
    values(package, "small", text)
    methods, [fault] = found(Offer("small", "own_k.methods:small", "own-k 1.0"))
    assert not methods
    assert message in fault


def test_two_packages_that_offer_one_name_are_both_refused(package):
    one, other = Offer("small", "own_k.methods:small", "own-k 1.0"), Offer("small", "own_z:small", "own-z 2.0")
    methods, faults = found(one, other)
    assert not methods
    assert "own-z 2.0 offers own_z:small under the same name" in faults[0]
    assert len(faults) == 2


def test_the_reserved_names_are_those_of_the_configuration():
    settings = {each.name for each in dataclasses.fields(schema.Common)}
    assert {*offered.RESERVED} == settings | {"experiment", "hydra"}


def test_a_project_file_and_an_installed_package_offer_a_method_once(tmp_path, monkeypatch):
    text = '[project]\nname = "k"\n[project.entry-points."peft_harness.methods"]\nsmall = "own_k.methods:small"\n'
    (tmp_path / "pyproject.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    installed = SimpleNamespace(
        name="small",
        value="own_k.methods:small",
        dist=SimpleNamespace(metadata={"Name": "own-k"}, version="1.0"),
    )
    monkeypatch.setattr(entry_points.metadata, "entry_points", lambda group: [installed])
    entry_points.offers.cache_clear()
    try:
        [offer], faults = entry_points.offers()
    finally:
        entry_points.offers.cache_clear()
    assert (offer.name, offer.path, faults) == ("small", "own_k.methods:small", ())


def test_a_project_file_that_cannot_be_read_is_a_fault(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text("[project")
    monkeypatch.chdir(tmp_path)
    entry_points.offers.cache_clear()
    try:
        _, faults = entry_points.offers()
    finally:
        entry_points.offers.cache_clear()
    assert "cannot be read" in faults[0]
