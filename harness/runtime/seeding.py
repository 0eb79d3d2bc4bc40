"""Seeds of every random generator."""

import torch


def seed_everything(seed: int, deterministic: bool) -> None:
    """Seed every generator. Called before the adapter is made, so that two runs with the same seed start alike."""
    from transformers import enable_full_determinism, set_seed

    if deterministic:
        enable_full_determinism(seed)
    else:
        torch.use_deterministic_algorithms(False)  # an earlier run of this process may have turned them on
        torch.backends.cudnn.deterministic = False
        set_seed(seed)
