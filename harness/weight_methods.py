"""Methods that train weights, a part of them, or an update to them: from a sheet to a PEFT configuration.

In each, ``given`` reads the sheet: null leaves a choice to PEFT, a null seed is the run's. Block sizes that
must divide a layer's dimensions are settled by ``harness.fitting`` when the model is at hand.
"""

from typing import TYPE_CHECKING, Any

from harness.errors import ModelFault
from harness.situation import Settings, Situation, frequent_tokens, given, no_wider_than
from harness.starts import require_loftq

if TYPE_CHECKING:
    from peft import PeftConfig


def full(settings: Settings, situation: Situation) -> "PeftConfig":
    """Full fine-tuning: every weight of the base."""
    from harness.tuners.full import FullConfig

    return FullConfig(**settings)


def partial(settings: Settings, situation: Situation) -> "PeftConfig":
    """The last layers, named modules, all norms."""
    from harness.tuners.partial import PartialConfig

    return PartialConfig(**settings)


def bitfit(settings: Settings, situation: Situation) -> "PeftConfig":
    """BitFit (Ben Zaken et al. 2022, arXiv:2106.10199): biases only."""
    from harness.tuners.bitfit import BitFitConfig

    return BitFitConfig(**settings)


def diff_pruning(settings: Settings, situation: Situation) -> "PeftConfig":
    """Diff pruning (Guo et al. 2021, arXiv:2012.07463): a difference to the base that an L0 penalty makes sparse.

    The last ``final_share`` of the steps trains the differences that magnitude has chosen (section 3.2).
    """
    from harness.tuners.diff_pruning import DiffPruningConfig

    fields = {name: value for name, value in settings.items() if name != "final_share"}
    final = round(settings["final_share"] * situation.optimizer_steps)
    return DiffPruningConfig(**fields, project_step=situation.optimizer_steps - final if final else None)


def ln_tuning(settings: Settings, situation: Situation) -> "PeftConfig":
    """LN tuning (Zhao et al. 2024, arXiv:2312.11420): the norms of the transformer blocks."""
    from peft import LNTuningConfig

    return LNTuningConfig(**given(settings, situation))


def trainable_tokens(settings: Settings, situation: Situation) -> "PeftConfig":
    """Trainable tokens: chosen rows of the embedding, and of a head that is tied to it (PEFT's own; no paper)."""
    from peft import TrainableTokensConfig

    rest = given(settings, situation)
    number = rest.pop("frequent_tokens")
    if "token_indices" not in rest:
        counting = situation.batches is None
        rest["token_indices"] = list(range(number)) if counting else frequent_tokens(situation, number)
    return TrainableTokensConfig(**rest)


def shira(settings: Settings, situation: Situation) -> "PeftConfig":
    """SHiRA (Bhardwaj et al. 2024, arXiv:2406.13175): a few weights of each matrix, scattered at random."""
    from peft import ShiraConfig

    return ShiraConfig(**given(settings, situation))


def adapter(settings: Settings, situation: Situation) -> "PeftConfig":
    """Bottleneck adapters (Houlsby et al. 2019, arXiv:1902.00751): small networks inside each block.

    Pfeiffer et al. 2021 (arXiv:2005.00247), Lin et al. 2020 (arXiv:2004.03829) and the parallel adapter of He et
    al. 2022 (arXiv:2110.04366) are settings of it.
    """
    from harness.tuners.adapter import AdapterConfig

    return AdapterConfig(**settings)


def lora(settings: Settings, situation: Situation) -> "PeftConfig":
    """LoRA (Hu et al. 2021, arXiv:2106.09685, sec. 4.1): W + (alpha / r) B A.

    Settings of it: rsLoRA (arXiv:2312.03732), DoRA (arXiv:2402.09353); the initialisations PiSSA
    (arXiv:2404.02948), OLoRA (arXiv:2406.01775), EVA (arXiv:2410.07170), CorDA (arXiv:2406.05223), LoRA-GA
    (arXiv:2407.05000), LoftQ (arXiv:2310.08659) and MiCA; the optimizers LoRA-FA (arXiv:2308.03303) and LoRA+
    (arXiv:2402.12354).
    """
    from peft import LoraConfig

    rest = given(settings, situation)
    rest.pop("lora_fa", None)  # these two choose the optimizer
    rest.pop("loraplus_lr_ratio", None)
    no_wider_than(rest["r"], "lora.r", situation)
    if rest.get("init_lora_weights") == "loftq":
        require_loftq()
    return LoraConfig(**_with_start(rest))


def _with_start(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with the sub-configuration of their initialisation alone, which PEFT wants as an object."""
    from peft.tuners.lora.config import CordaConfig, EvaConfig, LoftQConfig, LoraGAConfig

    kinds = {"eva": EvaConfig, "corda": CordaConfig, "lora_ga": LoraGAConfig, "loftq": LoftQConfig}
    for name, kind in kinds.items():
        values = settings.pop(f"{name}_config", None) or {}
        if settings.get("init_lora_weights") == name:
            settings[f"{name}_config"] = kind(**values)
    return settings


def adalora(settings: Settings, situation: Situation) -> "PeftConfig":
    """AdaLoRA (Zhang et al. 2023, arXiv:2303.10512): an SVD-shaped update whose ranks are pruned in training.

    Raises:
        ModelFault: the run has too few optimizer steps for warm-up, pruning and the final phase.
    """
    from peft import AdaLoraConfig

    steps = situation.optimizer_steps
    rest = given(settings, situation)
    tinit, tfinal = int(rest.pop("warmup_share") * steps), int(rest.pop("final_share") * steps)
    if not max(tinit, 1) < steps - tfinal:  # pruning needs the importance that one step before it gave
        raise ModelFault(
            f"peft=adalora has no step left to prune in: {steps} optimizer steps, of which {tinit} warm up and "
            f"{tfinal} follow the pruning; train longer (trainer.max_steps, trainer.epochs) or lower "
            "adalora.warmup_share or adalora.final_share"
        )
    no_wider_than(rest["init_r"], "adalora.init_r", situation)
    return AdaLoraConfig(**{"total_step": steps, "tinit": tinit, "tfinal": tfinal} | rest)


def loha(settings: Settings, situation: Situation) -> "PeftConfig":
    """LoHa (FedPara, Hyeon-Woo et al. 2022, arXiv:2108.06098): Hadamard product of two low-rank updates."""
    from peft import LoHaConfig

    return LoHaConfig(**given(settings, situation))


def lokr(settings: Settings, situation: Situation) -> "PeftConfig":
    """LoKr (LyCORIS, Yeh et al. 2024, arXiv:2309.14859): Kronecker product of two small updates."""
    from peft import LoKrConfig

    return LoKrConfig(**given(settings, situation))


def vera(settings: Settings, situation: Situation) -> "PeftConfig":
    """VeRA (Kopiczko et al. 2024, arXiv:2310.11454): two vectors per layer scale random matrices that all share."""
    from peft import VeraConfig

    return VeraConfig(**given(settings, situation))


def randlora(settings: Settings, situation: Situation) -> "PeftConfig":
    """RandLoRA (Albert et al. 2025, arXiv:2502.00987): full rank, as scaled sums of random low-rank bases."""
    from peft import RandLoraConfig

    return RandLoraConfig(**given(settings, situation))


def vblora(settings: Settings, situation: Situation) -> "PeftConfig":
    """VB-LoRA (Li et al. 2024, arXiv:2405.15179): low-rank factors mixed from one bank of vectors."""
    from peft import VBLoRAConfig

    return VBLoRAConfig(**given(settings, situation))


def miss(settings: Settings, situation: Situation) -> "PeftConfig":
    """MiSS (Kang and Yin 2024, arXiv:2409.15371), once called Bone: one shared matrix, repeated over the input."""
    from peft import MissConfig

    return MissConfig(**given(settings, situation))


def fourierft(settings: Settings, situation: Situation) -> "PeftConfig":
    """FourierFT (Gao et al. 2024, arXiv:2405.03003): an update with a few coefficients in the frequency domain."""
    from peft import FourierFTConfig

    return FourierFTConfig(**given(settings, situation))


def c3a(settings: Settings, situation: Situation) -> "PeftConfig":
    """C3A (Chen et al. 2024, arXiv:2407.19342): an update of circulant blocks, applied by convolution."""
    from peft import C3AConfig

    return C3AConfig(**given(settings, situation))


def ia3(settings: Settings, situation: Situation) -> "PeftConfig":
    """IA3 (Liu et al. 2022, arXiv:2205.05638, sec. 3.3): learnt scales of keys, values and MLP activations."""
    from peft import IA3Config

    return IA3Config(**given(settings, situation))


def oft(settings: Settings, situation: Situation) -> "PeftConfig":
    """OFT (Qiu et al. 2023, arXiv:2306.07280; OFTv2, arXiv:2506.19847): block-diagonal rotations of the input."""
    from peft import OFTConfig

    blocks = given(settings, situation)
    if blocks.get("r"):
        blocks.setdefault("oft_block_size", 0)
    return OFTConfig(**blocks)


def boft(settings: Settings, situation: Situation) -> "PeftConfig":
    """BOFT (Liu et al. 2024, arXiv:2311.06243): rotations as products of butterfly factors."""
    from peft import BOFTConfig

    blocks = given(settings, situation)
    if blocks.get("boft_block_num"):
        blocks.setdefault("boft_block_size", 0)
    return BOFTConfig(**blocks)


def hra(settings: Settings, situation: Situation) -> "PeftConfig":
    """HRA (Yuan et al. 2024, arXiv:2405.17484): a chain of Householder reflections of the input."""
    from peft import HRAConfig

    return HRAConfig(**given(settings, situation))


def road(settings: Settings, situation: Situation) -> "PeftConfig":
    """RoAd (Liao and Monz 2024, arXiv:2409.00119): rotations and scales of pairs of outputs."""
    from peft import RoadConfig

    return RoadConfig(**given(settings, situation))
