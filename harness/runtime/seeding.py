"""Seeds of every random generator."""

import torch


def seed_everything(seed: int, deterministic: bool) -> None:
    """Seed every generator; before the adapter is made, so that two runs of one seed start alike."""
    from transformers import enable_full_determinism, set_seed

    if deterministic:
        enable_full_determinism(seed)
    else:
        torch.use_deterministic_algorithms(False)  # an earlier run of this process may have asked for them
        torch.backends.cudnn.deterministic = False
        set_seed(seed)
