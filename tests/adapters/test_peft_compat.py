"""What PEFT would do silently is refused or corrected."""

from __future__ import annotations

import pytest

from harness.errors import ModelFault
from tests.support.method_cases import (
    build,
)


def test_butterfly_factors_that_peft_would_drop_are_refused():
    with pytest.raises(ModelFault, match="CUDA kernel"):
        build("boft", "qwen2", boft_n_butterfly_factor=2)
