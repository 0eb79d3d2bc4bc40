"""stage=status: the claims of a folder, decided or not."""

import io
import json

import pytest
from rich.console import Console

from harness.record.files import write_json
from harness.report.claims import NAME
from harness.stages.claims_view import claims_table, view_claims
from harness.stages.sweep_view import find_sweep
from harness.sweep import manifest
from tests.support.claims import CLEAR, result_of


@pytest.fixture
def claims(tmp_path):
    """A decided claim, one with pairs to come, and one whose arms are being tuned."""
    decided, open_ = result_of(CLEAR, stopped="refuted"), result_of([0.5, -0.4, 0.6])
    write_json(tmp_path / "claims" / "decided" / NAME, decided.to_plain())
    write_json(tmp_path / "claims" / "open" / NAME, open_.to_plain())
    write_json(tmp_path / "claims" / "young" / manifest.MANIFEST_NAME, {"name": "young", "cells": []})
    return tmp_path


def test_each_claim_has_its_verdict_or_its_pairs_so_far_and_its_cost(claims):
    decided, open_, young = view_claims(claims)
    assert (decided.name, decided.state, decided.pairs) == ("decided", "refuted", "5")
    assert decided.cost == "16 runs, 5 min"
    assert decided.text == "peft=lora > peft=ia3 on loss"
    assert open_.state == "open"
    assert open_.pairs.startswith("3")
    assert (young.state, young.pairs) == ("tuning", "")


def test_claims_without_a_readable_file_are_listed_as_such(claims):
    (claims / "claims" / "decided" / NAME).write_text("{")
    (claims / "claims" / "open" / NAME).write_text(json.dumps({"claim": None}))
    assert [each.state for each in view_claims(claims)] == ["unreadable", "unreadable", "tuning"]
    assert view_claims(claims / "elsewhere") == []


def test_the_table_names_claims_and_breaks_no_verdict(claims):
    console = Console(width=70, file=io.StringIO())
    console.print(claims_table(view_claims(claims)))
    shown = console.file.getvalue()
    assert all(word in shown for word in ("decided", "refuted", "open", "tuning", "16 runs"))


def test_the_sweep_of_a_claim_is_found_by_the_claims_name(claims):
    assert find_sweep(claims, "young") == claims / "claims" / "young"
