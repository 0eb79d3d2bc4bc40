"""The table of methods.

To add a method, write two files: put its sheet, check, builder, traits and hooks into the module of its family,
with one row in that module's ``METHODS``; and put its values into ``conf/peft/<method>.yaml``. The schema, the
configuration group, ``--help`` and the tests read this table. Other packages add rows by entry points (``offered``).
"""

from harness.methods import base_weights, bottleneck, library, lora, low_rank, multiplicative, soft_prompts
from harness.methods.context import SheetValues
from harness.methods.hooks import Hooks
from harness.methods.method import Method
from harness.methods.offered import offered_methods
from harness.methods.rates import RateRule
from harness.methods.traits import Traits

FAMILIES = (base_weights, bottleneck, lora, low_rank, multiplicative, soft_prompts, library)
BUILT_IN: dict[str, Method] = {name: method for family in FAMILIES for name, method in family.METHODS.items()}
OFFERED, OFFER_FAULTS = offered_methods(BUILT_IN)
METHODS: dict[str, Method] = BUILT_IN | {name: each.method for name, each in OFFERED.items()}


def traits_of(method: str, settings: SheetValues) -> Traits:
    """What the method can do at these settings."""
    if method == "library":
        kind, chosen = settings["type"].lower(), settings["settings"]
        if kind in library.LIBRARY:
            return library.LIBRARY[kind]
        sheet = library.method_of_type(kind)
        return traits_of(sheet, chosen) if sheet in METHODS else METHODS["library"].traits
    return METHODS[method].traits_at(METHODS[method].traits, settings)


def hooks_of(method: str, settings: SheetValues) -> Hooks:
    """What the method does during training; a type of ``peft=library`` does what the method of that name does."""
    if method == "library":
        method = library.method_of_type(settings["type"].lower())
    return METHODS[method].hooks if method in METHODS else Hooks()


def rate_rule(method: str, settings: SheetValues) -> RateRule | None:
    """The rule of the learning rate; a type of ``peft=library`` has that of the method of the same name."""
    if method == "library":
        kind = library.method_of_type(settings["type"].lower())
        if kind in METHODS and kind != "library":
            return METHODS[kind].rate
    return METHODS[method].rate


def hooks_of_type(peft_type: str) -> Hooks:
    """The same for an adapter of which only PEFT's name of its type is known."""
    return hooks_of("library", {"type": peft_type})


def why_unquantized(method: str, settings: SheetValues, kind: str) -> str | None:
    """Why the method cannot work over a base stored as ``kind`` (none, nf4, int8); None if it can."""
    traits = traits_of(method, settings)
    fits = {"none": True, "nf4": traits.nf4, "int8": traits.int8}[kind]
    return None if fits else traits.why_unquantized


def prompt_learning(method: str, settings: SheetValues) -> bool:
    """Whether left padding changes the method's answers, so that batches must hold rows of equal length."""
    return traits_of(method, settings).prompt_learning


def keeps_prefix(method: str, settings: SheetValues) -> bool:
    """Whether the method's own keys and values stand before the text, in the cache of every layer."""
    return traits_of(method, settings).keeps_prefix


def caveat(method: str, settings: SheetValues) -> str | None:
    """What a reader of this method's scores must know."""
    return library.CAVEATS.get(settings["type"].lower()) if method == "library" else None


def changes_base(method: str, settings: SheetValues) -> bool:
    """Whether the method writes into base weights, so that it needs a copy of its own."""
    return traits_of(method, settings).rewrites_base
