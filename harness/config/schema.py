"""Types of the configuration. Values live in ``conf/``: a field here has no default.

Each dataclass mirrors one node of the composed config. Hydra merges the YAML files into these classes,
so that a misspelled key or a wrong type fails before anything runs. ``Any`` is used if PEFT takes
"a string or a list of strings", which structured configs cannot express; ``plan`` checks those. Settings that take a
path, a name or other free text are marked with ``text()``: the command line takes them as typed.
"""

from dataclasses import dataclass, make_dataclass
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any

from harness.frozen import ConfigNode, Text, named, text
from harness.methods.registry import METHODS


class Stage(Enum):
    """What one command does."""

    run = "run"  # train and score, the default
    plan = "plan"  # print the grid with its trainable parameters and its costs, train nothing
    generate = "generate"  # answer one prompt before and after tuning
    export = "export"  # merge a run's adapter into its base and write a plain model
    score = "score"  # score an exported model beside its run, or adapters from elsewhere
    push = "push"  # send an adapter with its model card to the hub
    report = "report"  # compare what is on record: a page, tables and findings
    diff = "diff"  # what differs between two runs
    archive = "archive"  # move runs out of runs_dir
    import_results = "import_results"  # read published result files into records
    bundle = "bundle"  # one archive of runs, with all that it takes to repeat them
    verify = "verify"  # repeat the runs of a bundle, and compare their figures
    status = "status"  # how far a sweep has come, seen from another terminal
    chat = "chat"  # talk to base and tuned model in this terminal
    serve = "serve"  # talk to them on a page in the browser
    claim = "claim"  # judge whether one setting is better than another, or equal to it


class ModelSource(StrEnum):
    """Where base weights come from."""

    hub = "hub"  # a name on the Hugging Face hub
    folder = "folder"  # a local folder in transformers' format
    gguf = "gguf"  # a local GGUF file, converted once and cached
    package = "package"  # Python distributions that carry a GGUF file, tried after the hub


class DType(Enum):
    """Precision of the base weights and of the arithmetic."""

    auto = "auto"  # bfloat16 on a GPU that has it, float16 on other GPUs, float32 on a CPU
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Quantization(Enum):
    """How the base's linear layers are stored, by bitsandbytes."""

    none = "none"  # as model.dtype says
    nf4 = "nf4"  # 4 bits, double quantization (QLoRA)
    int8 = "int8"  # 8 bits (LLM.int8())


class Gguf(Enum):
    """Type of the weights in a GGUF file, by the names of llama.cpp's converter."""

    none = "none"  # no such file
    f32 = "f32"
    f16 = "f16"
    bf16 = "bf16"
    q8_0 = "q8_0"


class RowFormat(StrEnum):
    """Shape of a data row."""

    alpaca = "alpaca"  # instruction, input, output
    preference = "preference"  # a prompt with a chosen and a rejected answer
    messages = "messages"  # a list of {role, content}, the last one by the assistant
    snips = "snips"  # files of the SNIPS benchmark: utterances by intent, as columns input and output
    tcm_ner = "tcm_ner"  # Chinese medical text, tagged by character or as instructions; columns input and output


class TrainOn(Enum):
    """Which turns of a conversation are trained."""

    last = "last"  # the assistant's last one, which is also what is scored
    all = "all"  # every one by the assistant; what is scored stays the last


class Template(StrEnum):
    """How a row becomes a prompt; the same in training and in scoring."""

    lesson = "lesson"  # Instruction: / Input: / Answer:
    lesson_exact = "lesson_exact"  # as published: ends in a blank, which the answer's first token then lacks
    alpaca = "alpaca"  # Stanford Alpaca's two templates, with a newline before the answer
    alpaca_exact = "alpaca_exact"  # as published: the answer follows the colon directly
    chat = "chat"  # the tokenizer's own chat template


class ChoiceBy(Enum):
    """What decides which option a model chooses."""

    raw = "raw"  # the log-probability of the option after the prompt
    tokens = "tokens"  # that, per token of the option
    characters = "characters"  # per character, as acc_norm of lm-evaluation-harness
    bytes = "bytes"  # per byte of UTF-8
    unconditional = "unconditional"  # minus that of the option without a prompt (PMI)


class OnBadRow(Enum):
    """What an unusable data row causes."""

    error = "error"
    skip = "skip"


class Objective(Enum):
    """Training loss."""

    completion = "completion"  # cross-entropy on the completion and its end-of-text token
    lesson = "lesson"  # the published lesson's labels, misaligned and padded, for comparison only
    full_sequence = "full_sequence"  # cross-entropy on the prompt, too; validated and scored on the completion alone
    dpo = "dpo"  # of two answers the chosen one likelier than the rejected one, relative to a reference
    distill = "distill"  # the completion's cross-entropy, mixed with the divergence from a teacher


class OnOom(Enum):
    """What running out of memory in training causes."""

    fail = "fail"
    # The run starts again with half the rows per pass and twice the accumulation: the same but for rounding and random
    # draws. Refused for losses that depend on the passes.
    halve = "halve"


class Schedule(Enum):
    """Learning-rate schedule after warm-up, by transformers' names."""

    linear = "linear"
    cosine = "cosine"
    constant = "constant_with_warmup"


class Strategy(Enum):
    """How the processes of one run share its training."""

    none = "none"  # one process
    ddp = "ddp"  # each has the whole model
    fsdp = "fsdp"  # each has a shard of it (FSDP2)
    deepspeed = "deepspeed"  # ZeRO, by the configuration beside it


class Kernels(Enum):
    """How the passes of training are computed."""

    auto = "auto"  # frequent combinations of operations written out as one; results differ by rounding
    plain = "plain"  # as PEFT and transformers compose them


class Scale(Enum):
    """How large an experiment is made."""

    smoke = "smoke"  # the embedded model, seconds
    cpu = "cpu"  # a small published model and real rows, hours on two cores
    paper = "paper"  # the paper's model and data, by their names on the hub


class Prune(Enum):
    """Which runs of a sweep end early."""

    none = "none"
    halving = "halving"  # successive halving on validation loss, within each method


class Tracking(StrEnum):
    """Experiment tracker."""

    none = "none"
    wandb = "wandb"
    trackio = "trackio"
    tensorboard = "tensorboard"


class Reuse(Enum):
    same_code = "same_code"  # finished records of this code version only
    any = "any"  # of other code versions, too


class Keep(Enum):
    """What a finished run keeps on disk besides its record and predictions."""

    adapter = "adapter"
    record = "record"  # nothing: the adapter is deleted when the scores are final
    all = "all"  # the adapter and the checkpoints


class Relation(Enum):
    """What a claim says about the mean difference ``better - than``, in the direction in which scores are better."""

    better = "better"  # it is above the margin
    equal = "equal"  # it is within the margin, on either side


class Retry(Enum):
    """What becomes of a plan whose record says ``failed``."""

    failed = "failed"  # run again, like whatever else is not finished
    none = "none"  # left alone and shown


@dataclass(kw_only=True)
class Package(ConfigNode):
    """One Python distribution that carries (a part of) a model file."""

    requirement: str  # name==version
    member: str  # path of the file inside the installed or unpacked distribution
    sha256: str


@dataclass(kw_only=True)
class Model(ConfigNode):
    """Base model and how it is loaded."""

    name: str = text()
    source: str = named(ModelSource)  # or an import path of a function that makes a folder
    path: str | None = text()  # hub name, folder or GGUF file, by source
    revision: str | None = text()
    packages: list[Package]  # source=package: parts in order; their bytes are concatenated
    sha256: str | None  # of the whole GGUF file
    config_only: Any = text()  # config.json path or its content: count parameters without weights (stage=plan)
    dtype: DType
    quantization: Quantization
    prune: float  # share of the linear weights set to zero before tuning
    device: str  # auto, cpu, cuda, cuda:1, ...
    device_map: str | None  # auto, balanced, ... spreads the layers over devices
    attn_implementation: str | None  # null: what transformers picks
    trust_remote_code: bool


@dataclass(kw_only=True)
class Peft(ConfigNode):
    """The method of the run; its settings stand in the sheet of the same name."""

    method: str


@dataclass(kw_only=True)
class SplitNames(ConfigNode):
    """File names inside ``data.path``, or split names on the hub; null cuts the split from ``train``."""

    train: str | None = text()
    validation: str | None = text()
    test: str | None = text()


@dataclass(kw_only=True)
class Fractions(ConfigNode):
    """Fractions of the rows that become a split if the source does not name one."""

    validation: float
    test: float


@dataclass(kw_only=True)
class Limits(ConfigNode):
    """At most so many rows of each split, drawn by ``data.split_seed``; null: all."""

    train: int | None
    validation: int | None
    test: int | None


@dataclass(kw_only=True)
class Columns(ConfigNode):
    """Column names in the source; null: the format has no such column here."""

    instruction: str | None = text()
    input: str | None = text()
    output: str | None = text()
    messages: str | None = text()
    target: str | None = text()  # short answer that the completion must name, for scoring.metrics=names_target
    keep: list[str] = text()  # further columns, for metrics and templates of your own
    options: str | None = text()  # a list of texts one of which is the output, for the choice_ metrics
    rejected: str | None = text()  # format=preference: the answer that is worse than the output
    weight: str | None = text()  # a number above 0: how much the row counts in training


@dataclass(kw_only=True)
class Data(ConfigNode):
    """Rows, splits and the prompt template."""

    name: str = text()
    format: str = named(RowFormat)  # or an import path of a function that converts each row
    path: str = text()  # a file, a folder or a hub name
    revision: str | None = text()
    subset: str | None = text()  # configuration name on the hub
    splits: SplitNames
    fractions: Fractions
    split_seed: int
    limits: Limits
    columns: Columns
    instruction: str | None = text()  # of rows that have none of their own
    options: list[str] | None = text()  # of all rows: the output is one of them, or its number from 0
    class_weights: Any  # {output: weight}: how much such rows count in training, times their own weight; null: alike
    train_on: TrainOn
    group_by_prompt: bool  # validation and test: rows with one prompt are one row with several references
    template: str = named(Template)  # or text for Jinja, or an import path of either that text or a function
    max_tokens: int
    truncate: bool
    on_bad_row: OnBadRow
    metrics: list[str]  # that fit this data; scoring.metrics is these unless it is overridden
    max_new_tokens: int  # that an answer may need; likewise scoring.generation.max_new_tokens
    tokenize: str  # for its language; likewise scoring.tokenize


@dataclass(kw_only=True)
class Fsdp(ConfigNode):
    """Fully sharded training; transformers' names."""

    reshard_after_forward: bool
    cpu_offload: bool
    transformer_layer_cls_to_wrap: list[str] | None = text()  # null: the model's own blocks


@dataclass(kw_only=True)
class Parallel(ConfigNode):
    """Several processes for one run, one a device; torchrun or accelerate starts them."""

    strategy: Strategy
    processes: int
    find_unused_parameters: bool  # strategy=ddp
    fsdp: Fsdp
    deepspeed: dict[str, Any]


@dataclass(kw_only=True)
class EarlyStopping(ConfigNode):
    """When training ends before its last step, because the validation loss no longer falls."""

    patience: int | None  # evaluations in a row without a lower loss; null: train to the end
    min_change: float  # by which a loss must be lower to count, in nats per completion token


@dataclass(kw_only=True)
class Dpo(ConfigNode):
    """Direct preference optimization, for objective=dpo."""

    beta: float  # how dear it is to leave the reference
    label_smoothing: float  # share of pairs that are the wrong way round, 0 to below 0.5


@dataclass(kw_only=True)
class Trainer(ConfigNode):
    """Optimization; fields mean what they mean in transformers."""

    objective: Objective
    teacher: str | None = text()  # objective=distill: a model folder, a hub name or a run's fingerprint
    continue_from: str | None = text()  # a run's fingerprint, an adapter's folder or hub name; null: from the start
    distill_temperature: float
    distill_weight: float  # of the teacher's term, 0 to 1
    dpo: Dpo
    epochs: float
    max_steps: int | None  # optimizer steps; null: by epochs
    batch_size: int  # rows per device and forward pass
    gradient_accumulation_steps: int
    learning_rate: float | None  # null: the method's own, from its sheet
    weight_decay: float
    schedule: Schedule
    warmup_share: float
    max_grad_norm: float
    gradient_checkpointing: bool
    evaluations: int  # times the validation split is scored during training
    keep_best: bool  # end with the weights of the lowest validation loss
    early_stopping: EarlyStopping
    log_every: int | None  # optimizer steps between two points of the curve; null: about 50 points
    neftune_alpha: float | None  # of noise on the embeddings while training; null: none
    deterministic: bool
    kernels: Kernels
    threads: int | None  # CPU threads; null: one per core that is free when the command starts
    checkpoint_minutes: float | None  # between two checkpoints; null: only when the process is told to stop
    checkpoint_steps: int | None  # optimizer steps between two checkpoints, besides
    on_oom: OnOom
    parallel: Parallel


@dataclass(kw_only=True)
class Generation(ConfigNode):
    """Decoding of the answers that are scored."""

    batch_size: int
    max_new_tokens: int
    do_sample: bool
    temperature: float
    top_p: float


@dataclass(kw_only=True)
class Choices(ConfigNode):
    """How the choice_ metrics read the probabilities of a row's options."""

    by: ChoiceBy  # of choice_f1 and choice_ece, and of the choice in the predictions
    bins: int  # of confidence, equally wide, for choice_ece


@dataclass(kw_only=True)
class LmEval(ConfigNode):
    """Tasks of EleutherAI's lm-evaluation-harness, run on the base and on the tuned model."""

    tasks: list[str] = text()  # its tasks, groups and tags, or your own of include_path; empty: none
    include_path: str | None = text()  # folder with task files of your own
    num_fewshot: int | None  # null: what each task says
    limit: int | None  # rows of each task; null: all
    batch_size: int
    chat_template: bool  # the tokenizer's own around each prompt
    bootstrap_iters: int  # for the standard errors of scores that are no means


@dataclass(kw_only=True)
class Judge(ConfigNode):
    """A second model that grades answers, for scoring.metrics=judge."""

    model: str | None = text()  # a file of conf/model, a folder or a name on the hub
    prompt: str = text(Text.verbatim)  # with {question}, {reference} and {answer}
    grades: list[str] = text()  # the worst first
    template: str = named(Template)  # around the prompt
    batch_size: int


@dataclass(kw_only=True)
class Scoring(ConfigNode):
    """The protocol: the same prompts before and after tuning."""

    split: str  # test or validation
    metrics: list[str]
    tokenize: str  # auto, zh, char, jieba, 13a; a plan holds what auto resolves to
    generation: Generation
    choices: Choices
    judge: Judge
    lm_eval: LmEval
    loss_batch_size: int
    template: str | None = named(Template)  # of the scored prompts; null: data.template, with which the run is trained
    forgetting: str | None = text()  # JSONL file with a `text` column; null: not measured
    forgetting_limit: int | None


@dataclass(kw_only=True)
class Tracker(ConfigNode):
    """Where curves and scores are shown besides the local record."""

    name: str = named(Tracking)  # or an import path of a class
    project: str = text()
    entity: str | None = text()  # wandb: user or team; null: that of the login
    mode: str  # wandb: offline or online
    dir: str = text()  # files of the tracker
    tags: list[str] = text()
    notes: str | None = text(Text.verbatim)
    job_type: str | None = text()
    system_metrics: bool  # wandb, trackio: sample CPU, memory and GPU while the run lasts
    artifact: bool  # wandb, trackio: send the adapter, too


@dataclass(kw_only=True)
class Export(ConfigNode):
    """A tuned model without PEFT, for stage=export and stage=score."""

    dir: str | None = text()  # folder to write, or to score
    quantization: Quantization
    gguf: Gguf  # also as one GGUF file in that folder, by llama.cpp's converter
    converter: str | None = text()  # convert_hf_to_gguf.py; null: the one on the PATH


@dataclass(kw_only=True)
class Push(ConfigNode):
    """An adapter and its model card on the hub, for stage=push."""

    repo: str | None = text()  # user/name
    really: bool  # false: print what would be sent
    private: bool


@dataclass(kw_only=True)
class Halving(ConfigNode):
    """The rule of sweep.prune=halving."""

    keep: float  # share of the configurations of a method that go on after each rung
    first: float  # share of its training after which a run reaches the first rung; the next ones follow at first / keep
    # A configuration also goes on if its loss is at most this share above the last one that does; null: 0.01 in a grid,
    # none in a study.
    margin: float | None


@dataclass(kw_only=True)
class Budget(ConfigNode):
    """One cost for every method: it sets the setting that decides the method's size; at most one is given."""

    trainable_params: int | None  # numbers that are trained
    adapter_bytes: int | None  # of the numbers that the saved adapter holds
    train_flops: float | None  # of the whole training
    tolerance: float | None  # refuse a method that comes no nearer than this share; null: take it, and say so


@dataclass(kw_only=True)
class SweepSettings(ConfigNode):
    """How a sweep runs its plans."""

    name: str | None = text()  # null: from the overrides
    max_failures: int | None  # failed runs of one command beyond which no further run starts
    max_hours: float | None  # of one command; then runs stop with a checkpoint, and no further run starts
    prune: Prune
    halving: Halving
    pause_after: int | None  # evaluations of the validation loss; a sweep sets it
    retry: Retry
    reuse: Reuse
    watch: bool | None  # stage=status: redraw until the sweep ends; null: only on a terminal


@dataclass(kw_only=True)
class ReportSettings(ConfigNode):
    """Which records a report shows, and where it is written."""

    where: str | None = text(Text.verbatim)  # "method in [lora, ia3] and seed < 3"; null: every record
    sweep: str | None = text()  # name or folder of a sweep; null: whatever is in the folders
    runs: Any = text()  # fingerprints or their first characters; null: all
    runs_dirs: Any = text()  # folders with records; null: runs_dir
    dir: str | None = text()  # folder for the files; null: <runs_dir>/report
    reference: str | None = text(Text.verbatim)  # the method or run that others are compared with; null: none
    wandb: bool  # also as a report in W&B
    sections: list[str] = text()  # import paths of functions, each of which adds a section
    minimum_effect: float | None  # smallest difference of a score that matters; null: 1 point, or 0.01 of a loss


@dataclass(kw_only=True)
class SelectSettings(ConfigNode):
    """Choose settings on one split, then report fresh seeds of the chosen ones on another."""

    split: str | None  # validation: choose on it; null: no selection
    per: Any = text()  # what each winner is chosen for: method, or fields such as lora.r; always within model and data
    score: str  # of select.split, by which settings are chosen
    seeds: int  # runs of each winner, with seeds that the choice has not seen


@dataclass(kw_only=True)
class RefineSettings(ConfigNode):
    """After a grid: fresh seeds at the best learning rate of each setting, and at the rates beside it."""

    seeds: int | None  # runs of each of these rates; null: the grid alone
    rates: int  # of the grid, on each side of the best one; 0: the best one alone


@dataclass(kw_only=True)
class ClaimBudget(ConfigNode):
    """What a claim may cost, tuning included; then it ends undecided."""

    runs: int | None  # null: no limit
    seconds: float | None  # of all its runs together, as their records say; null: no limit


@dataclass(kw_only=True)
class ClaimSettings(ConfigNode):
    """A claim about two arms, and how it is judged, for stage=claim."""

    better: str | None = text(Text.verbatim)  # overrides of the arm that is claimed to be better
    than: str | None = text(Text.verbatim)  # overrides of the other arm
    relation: Relation | None  # null: better
    metric: str | None  # a score; null: loss
    margin: float | None  # in the unit of the score; null: 0, which relation=equal does not take
    equal_budget: bool  # refuse arms whose trainable parameters differ by more than 5 %
    name: str | None = text()  # of its folder; null: from the claim
    split: str  # rows by which each arm's learning rate is chosen
    rates: list[float]  # tried for each arm, as multiples of the rate it would have
    seeds: int  # of the choice; no pair has one of them
    budget: ClaimBudget
    text: str | None = text(Text.verbatim)  # "lora > ia3 on names_target", instead of the first six settings


@dataclass(kw_only=True)
class PlanSettings(ConfigNode):
    """What stage=plan says besides parameters."""

    device: Any = text()  # null, here, a device's name, or its description: costs on that device
    tokens: int | None  # of the longest row; null: as the training rows have it
    capacity: bool  # read the training rows with the base: the bits that the adapter has to store


@dataclass(kw_only=True)
class DiffSettings(ConfigNode):
    """Two runs to compare, for stage=diff."""

    runs: Any = text()  # two fingerprints or their first characters


@dataclass(kw_only=True)
class ArchiveSettings(ConfigNode):
    """Where stage=archive moves the runs that ``report`` chooses."""

    dir: str | None = text()  # null: <runs_dir>/archive
    delete: bool  # delete them instead, which needs confirm=true


@dataclass(kw_only=True)
class ImportSettings(ConfigNode):
    """Published results, for stage=import_results."""

    path: str | None = text()  # a result file of PEFT's method_comparison, or a folder of them


@dataclass(kw_only=True)
class BundleSettings(ConfigNode):
    """An archive of runs, for stage=bundle and stage=verify."""

    path: str | None = text()  # the archive; stage=bundle, null: <runs_dir>/bundles/<name>.tar.gz
    claim: str | None = text()  # stage=bundle: name of a claim whose runs are taken
    adapters: bool  # stage=bundle: with the adapters
    dir: str | None = text()  # stage=verify: folder for the repeated runs; null: <runs_dir>/verified/<name>
    files: str | None = text()  # stage=verify: folder with data and models that are not where the runs had them
    runs: int | None  # stage=verify: repeat at most so many runs, the shortest first; null: all
    tolerance: float  # stage=verify: relative difference of two figures that agree


@dataclass(kw_only=True)
class ChatSettings(ConfigNode):
    """A conversation with base and tuned model, for stage=chat and stage=serve."""

    history: bool | None  # false: each message is answered by itself; null: by the run's rows and template


@dataclass(kw_only=True)
class ServeSettings(ConfigNode):
    """The page of stage=serve."""

    host: str = text()  # address to listen on
    port: int  # 0: a free one
    allow_remote: bool  # false: refuse to listen on an address that other machines reach


@dataclass(kw_only=True)
class Paper(ConfigNode):
    """A published finding, and what it leads one to expect of the runs of an experiment; changes no result."""

    claim: str | None = text(Text.verbatim)
    source: str | None = text(Text.verbatim)
    figures: str | None = text(Text.verbatim)  # as published
    expect: list[str] = text()  # rules, as harness.report.shape.grammar reads them
    arms: dict[str, str]  # by name, the overrides that make each; the grid is run for every arm


@dataclass(kw_only=True)
class Levels(ConfigNode):
    """By override, the values that each scale adds to the grid of an experiment, or replaces in it."""

    smoke: dict[str, Any]
    cpu: dict[str, Any]
    paper: dict[str, Any]


@dataclass(kw_only=True)
class Common(ConfigNode):
    """The composed configuration without the sheets."""

    stage: Stage
    seed: int
    runs_dir: str = text()
    rerun: bool
    keep: Keep
    run: str | None = text(Text.verbatim)  # stage=generate, chat, serve, export, score and push: a run's fingerprint
    adapter_path: Any = text()  # stage=score, export, chat and serve: adapters from elsewhere, by folder or hub name
    prompt: str | None = text(Text.verbatim)  # stage=generate, chat and serve: the instruction
    input: str | None = text(Text.verbatim)  # stage=generate: the input beside it
    note: str | None = text(Text.verbatim)  # kept in the records of the runs, and searchable
    tags: list[str] = text()  # likewise
    model: Model
    peft: Peft
    budget: Budget
    data: Data
    trainer: Trainer
    scoring: Scoring
    tracker: Tracker
    sweep: SweepSettings
    select: SelectSettings
    refine: RefineSettings
    claim: ClaimSettings
    plan: PlanSettings
    report: ReportSettings
    export: Export
    push: Push
    diff: DiffSettings
    archive: ArchiveSettings
    import_results: ImportSettings
    bundle: BundleSettings
    chat: ChatSettings
    serve: ServeSettings
    confirm: bool  # stage=archive: do what cannot be undone
    scale: Scale | None  # null: the grid as the experiment has it
    levels: Levels
    paper: Paper


if TYPE_CHECKING:

    class Config(Common):
        """The whole composed configuration: one field for each method's sheet follows the common ones."""

        def __getattr__(self, name: str) -> Any: ...

else:
    Config = make_dataclass(
        "Config",
        [(name, method.sheet) for name, method in METHODS.items()],
        bases=(Common,),
        namespace={"__doc__": "The whole composed configuration.", "__module__": __name__},
    )

SHEETS = tuple(METHODS)  # every method has a sheet, named after it


def zero_stage(deepspeed: dict[str, Any]) -> Any:
    """ZeRO's stage as it stands in DeepSpeed's configuration; None if there is none."""
    zero = deepspeed.get("zero_optimization")
    return zero.get("stage") if isinstance(zero, dict) else None


def shards(strategy: Strategy, deepspeed: dict[str, Any]) -> bool:
    """Whether the weights are sharded in training, so that no process has a whole one."""
    return strategy is Strategy.fsdp or (strategy is Strategy.deepspeed and zero_stage(deepspeed) == 3)


def can_checkpoint(strategy: Strategy) -> bool:
    """Whether a run with this strategy writes checkpoints, from which it resumes; shards are not checkpointed."""
    return strategy in (Strategy.none, Strategy.ddp)
