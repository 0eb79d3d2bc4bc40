"""Types of the methods' sheets: the settings of each method, under PEFT's own field names.

A sheet's values, its recommended learning rate among them, stand in ``conf/peft/knobs/<method>.yaml``.
"""

from dataclasses import dataclass
from typing import Any

from harness.settings import Settings


@dataclass
class Full(Settings):
    """Full fine-tuning: every weight is trained."""

    learning_rate: float
    keep_base: bool


@dataclass
class Partial(Settings):
    """Partial fine-tuning: the last N layers, named modules, all norms."""

    learning_rate: float
    last_layers: int | None
    target_modules: Any
    norms: bool


@dataclass
class Lora(Settings):
    """LoRA, Hu et al. 2021; PEFT's ``LoraConfig``."""

    learning_rate: float
    r: int
    lora_alpha: float
    lora_dropout: float
    target_modules: Any
    exclude_modules: Any
    bias: str
    use_rslora: bool
    use_dora: bool
    init_lora_weights: Any
    modules_to_save: list[str] | None
    layers_to_transform: list[int] | None
    rank_pattern: dict[str, int]
    alpha_pattern: dict[str, float]


@dataclass
class LoHa(Settings):
    """LoHa, Hyeon-Woo et al. 2022 (FedPara); PEFT's ``LoHaConfig``."""

    learning_rate: float
    r: int
    alpha: int
    rank_dropout: float
    module_dropout: float
    target_modules: Any
    exclude_modules: Any
    modules_to_save: list[str] | None
    layers_to_transform: list[int] | None


@dataclass
class LoKr(Settings):
    """LoKr, Yeh et al. 2024 (LyCORIS); PEFT's ``LoKrConfig``."""

    learning_rate: float
    r: int
    alpha: int
    rank_dropout: float
    module_dropout: float
    decompose_both: bool
    decompose_factor: int
    target_modules: Any
    exclude_modules: Any
    modules_to_save: list[str] | None
    layers_to_transform: list[int] | None


@dataclass
class AdaLora(Settings):
    """AdaLoRA, Zhang et al. 2023; PEFT's ``AdaLoraConfig``. ``total_step`` is the run's own."""

    learning_rate: float
    init_r: int
    target_r: int
    warmup_share: float  # of the optimizer steps before pruning starts (tinit)
    final_share: float  # of the optimizer steps after pruning ends (tfinal)
    deltaT: int
    beta1: float
    beta2: float
    orth_reg_weight: float
    lora_alpha: float
    lora_dropout: float
    target_modules: Any
    exclude_modules: Any
    modules_to_save: list[str] | None


@dataclass
class Ia3(Settings):
    """IA3, Liu et al. 2022; PEFT's ``IA3Config``."""

    learning_rate: float
    target_modules: Any
    feedforward_modules: Any
    exclude_modules: Any
    modules_to_save: list[str] | None


@dataclass
class PromptTuning(Settings):
    """Prompt tuning, Lester et al. 2021; PEFT's ``PromptTuningConfig``."""

    learning_rate: float
    num_virtual_tokens: int
    prompt_tuning_init: str  # RANDOM, SAMPLE_VOCAB or TEXT
    prompt_tuning_init_text: str | None


@dataclass
class PrefixTuning(Settings):
    """Prefix tuning, Li and Liang 2021, with the reparameterising MLP; PEFT's ``PrefixTuningConfig``."""

    learning_rate: float
    num_virtual_tokens: int
    encoder_hidden_size: int | None  # null: the model's hidden size
    prefix_projection: bool


@dataclass
class PTuning(Settings):
    """P-tuning, Liu et al. 2021; PEFT's ``PromptEncoderConfig``."""

    learning_rate: float
    num_virtual_tokens: int
    encoder_reparameterization_type: str  # MLP or LSTM
    encoder_hidden_size: int | None
    encoder_num_layers: int
    encoder_dropout: float


@dataclass
class PTuningV2(Settings):
    """P-tuning v2, Liu et al. 2022: deep prompts at every layer, no reparameterisation."""

    learning_rate: float
    num_virtual_tokens: int
    init_weights: str | None  # zero starts as the base model
