"""Types of the methods' sheets: the settings of each method, under PEFT's own field names.

A sheet's values, its recommended learning rate among them, stand in ``conf/peft/knobs/<method>.yaml``; the
papers are named where the methods are built. ``null`` in a sheet leaves the choice to PEFT, to the model's
dimensions, or, for a seed, to the run.
"""

from dataclasses import dataclass
from typing import Any

from harness.settings import Settings


@dataclass
class Placed(Settings):
    """What most methods of PEFT share: which layers they sit on."""

    learning_rate: float
    target_modules: Any
    exclude_modules: Any
    modules_to_save: list[str] | None
    layers_to_transform: list[int] | None


@dataclass
class Targeted(Settings):
    """The same for methods that exclude nothing and know no layer numbers."""

    learning_rate: float
    target_modules: Any
    modules_to_save: list[str] | None


# Methods that train weights of the base itself, or a part of them.


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
    modules: Any
    norms: bool
    modules_to_save: list[str] | None


@dataclass
class BitFit(Settings):
    """BitFit: biases."""

    learning_rate: float
    modules: Any
    add_missing: bool
    modules_to_save: list[str] | None


@dataclass
class DiffPruning(Settings):
    """Diff pruning: a sparse difference to the base weights."""

    learning_rate: float
    modules: Any
    target_sparsity: float
    final_share: float
    l0_weight: float
    structured: bool
    alpha_init: float
    gate_speed: float
    stretch_lower: float
    stretch_upper: float
    modules_to_save: list[str] | None


@dataclass
class LnTuning(Settings):
    """LN tuning: ``LNTuningConfig``."""

    learning_rate: float
    target_modules: Any
    exclude_modules: Any
    modules_to_save: list[str] | None


@dataclass
class TrainableTokens(Settings):
    """Rows of the embedding: ``TrainableTokensConfig``."""

    learning_rate: float
    token_indices: list[int] | None
    frequent_tokens: int
    target_modules: Any


@dataclass
class Shira(Targeted):
    """SHiRA: ``ShiraConfig``."""

    r: int
    mask_type: str
    random_seed: int | None


# Methods that add a small network.


@dataclass
class Adapter(Settings):
    """Bottleneck adapters."""

    learning_rate: float
    bottleneck_size: int | None
    reduction_factor: int | None
    placement: str
    activation: str
    scaling: float | None
    init_std: float
    adapter_layer_norm: bool
    train_layer_norms: bool
    target_modules: Any
    modules_to_save: list[str] | None


# Methods that add a low-rank or otherwise small update to weights.


@dataclass
class Lora(Placed):
    """LoRA: ``LoraConfig``, its initialisations and its optimizers."""

    r: int
    lora_alpha: float
    lora_dropout: float
    bias: str
    use_rslora: bool
    use_dora: bool
    init_lora_weights: Any
    eva_config: dict[str, Any]
    corda_config: dict[str, Any]
    lora_ga_config: dict[str, Any]
    loftq_config: dict[str, Any]
    lora_fa: bool
    loraplus_lr_ratio: float | None
    rank_pattern: dict[str, int]
    alpha_pattern: dict[str, float]


@dataclass
class AdaLora(Settings):
    """AdaLoRA: ``AdaLoraConfig``. ``total_step`` is the run's own."""

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
class LoHa(Placed):
    """LoHa: ``LoHaConfig``."""

    r: int
    alpha: int
    rank_dropout: float
    module_dropout: float


@dataclass
class LoKr(Placed):
    """LoKr: ``LoKrConfig``."""

    r: int
    alpha: int
    rank_dropout: float
    module_dropout: float
    decompose_both: bool
    decompose_factor: int


@dataclass
class Vera(Targeted):
    """VeRA: ``VeraConfig``."""

    r: int
    projection_prng_key: int | None
    save_projection: bool
    vera_dropout: float
    d_initial: float
    bias: str
    layers_to_transform: list[int] | None


@dataclass
class RandLora(Targeted):
    """RandLoRA: ``RandLoraConfig``."""

    r: int
    randlora_alpha: int
    projection_prng_key: int | None
    save_projection: bool
    sparse: bool
    very_sparse: bool
    randlora_dropout: float
    bias: str
    layers_to_transform: list[int] | None


@dataclass
class VbLora(Placed):
    """VB-LoRA: ``VBLoRAConfig``."""

    r: int
    num_vectors: int
    vector_length: int | None
    topk: int
    save_only_topk_weights: bool
    vblora_dropout: float
    bias: str
    init_vector_bank_bound: float
    init_logits_std: float


@dataclass
class Miss(Placed):
    """MiSS: ``MissConfig``."""

    r: int
    mini_r: int
    miss_dropout: float
    init_weights: Any
    bias: str


@dataclass
class FourierFt(Placed):
    """FourierFT: ``FourierFTConfig``."""

    n_frequency: int
    scaling: float
    random_loc_seed: int | None
    init_weights: bool
    bias: str
    n_frequency_pattern: dict[str, int]


@dataclass
class C3a(Targeted):
    """C3A: ``C3AConfig``."""

    block_size: int | None
    block_size_pattern: dict[str, int]
    init_weights: Any
    bias: str
    layers_to_transform: list[int] | None


# Methods that multiply weights or activations.


@dataclass
class Ia3(Settings):
    """IA3: ``IA3Config``."""

    learning_rate: float
    target_modules: Any
    feedforward_modules: Any
    exclude_modules: Any
    modules_to_save: list[str] | None


@dataclass
class Oft(Placed):
    """OFT: ``OFTConfig``; ``r`` blocks, or blocks of ``oft_block_size``."""

    r: int | None
    oft_block_size: int | None
    bias: str
    coft: bool
    eps: float
    block_share: bool
    use_cayley_neumann: bool
    num_cayley_neumann_terms: int


@dataclass
class Boft(Placed):
    """BOFT: ``BOFTConfig``."""

    boft_block_size: int | None
    boft_block_num: int | None
    boft_n_butterfly_factor: int
    boft_dropout: float
    bias: str


@dataclass
class Hra(Placed):
    """HRA: ``HRAConfig``."""

    r: int
    apply_GS: bool
    bias: str


@dataclass
class Road(Targeted):
    """RoAd: ``RoadConfig``."""

    variant: str
    group_size: int | None


# Methods that add to what the model reads.


@dataclass
class PromptTuning(Settings):
    """Prompt tuning: ``PromptTuningConfig``."""

    learning_rate: float
    num_virtual_tokens: int
    prompt_tuning_init: str  # RANDOM, SAMPLE_VOCAB or TEXT
    prompt_tuning_init_text: str | None


@dataclass
class PrefixTuning(Settings):
    """Prefix tuning with the reparameterising MLP: ``PrefixTuningConfig``."""

    learning_rate: float
    num_virtual_tokens: int
    encoder_hidden_size: int | None  # null: the model's hidden size
    prefix_projection: bool


@dataclass
class PTuning(Settings):
    """P-tuning: ``PromptEncoderConfig``."""

    learning_rate: float
    num_virtual_tokens: int
    encoder_reparameterization_type: str  # MLP or LSTM
    encoder_hidden_size: int | None
    encoder_num_layers: int
    encoder_dropout: float


@dataclass
class PTuningV2(Settings):
    """P-tuning v2: ``PrefixTuningConfig`` without a projection."""

    learning_rate: float
    num_virtual_tokens: int
    init_weights: str | None  # zero starts as the base model


@dataclass
class Cpt(Settings):
    """CPT: ``CPTConfig``; the context is given as tokens, or taken from the training rows."""

    learning_rate: float
    num_virtual_tokens: int
    cpt_token_ids: list[int] | None
    cpt_mask: list[int] | None
    cpt_tokens_type_mask: list[int] | None
    opt_weighted_loss_type: str
    opt_loss_decay_factor: float
    opt_projection_epsilon: float
    opt_projection_format_epsilon: float


@dataclass
class LlamaAdapter(Settings):
    """LLaMA-Adapter: ``AdaptionPromptConfig``."""

    learning_rate: float
    adapter_len: int
    adapter_layers: int | None
    target_modules: str | None


# Everything else.


@dataclass
class Library(Settings):
    """Any other type of PEFT, with settings under the names of PEFT's own configuration class."""

    learning_rate: float
    type: str
    settings: dict[str, Any]
