"""Methods that PEFT lacks, as tuners registered into PEFT.

After ``register()`` they work with ``get_peft_model``, ``save_pretrained``, ``PeftModel.from_pretrained``,
``disable_adapter``, several adapters and, where the method allows it, ``merge_and_unload``:

============== =================================== ====================================================
PEFT type      configuration                       paper
============== =================================== ====================================================
ADAPTER        ``adapter.AdapterConfig``           Houlsby et al. 2019; Pfeiffer et al. 2021; He et al. 2022
BITFIT         ``bitfit.BitFitConfig``             Ben Zaken et al. 2022
DIFF_PRUNING   ``diff_pruning.DiffPruningConfig``  Guo et al. 2021
PARTIAL        ``partial.PartialConfig``           -
FULL           ``full.FullConfig``                 -
============== =================================== ====================================================

Importing this package imports neither torch nor PEFT.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peft import PeftType

# PEFT type -> module in this package, configuration class, tuner class
TUNERS = {
    "ADAPTER": ("adapter", "AdapterConfig", "AdapterModel"),
    "BITFIT": ("bitfit", "BitFitConfig", "BitFitModel"),
    "DIFF_PRUNING": ("diff_pruning", "DiffPruningConfig", "DiffPruningModel"),
    "PARTIAL": ("partial", "PartialConfig", "PartialModel"),
    "FULL": ("full", "FullConfig", "FullModel"),
}


def register() -> None:
    """Register the tuners of this package with PEFT. Calling it again changes nothing.

    Call it before ``PeftModel.from_pretrained``; creating any of the configurations calls it too.
    Raises ``RuntimeError`` if PEFT already has another method of the same name.
    """
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from peft.utils import register_peft_method

    for name, (module_name, config_name, model_name) in TUNERS.items():
        module = import_module(f"{__name__}.{module_name}")
        config_cls, model_cls = getattr(module, config_name), getattr(module, model_name)
        known = PEFT_TYPE_TO_CONFIG_MAPPING.get(peft_type(name))
        if known is config_cls:
            continue
        if known is not None:
            raise RuntimeError(
                f"PEFT already has a method {name} ({known.__module__}.{known.__name__}); "
                f"use that, and remove {name} from harness.tuners.TUNERS"
            )
        register_peft_method(name=name.lower(), config_cls=config_cls, model_cls=model_cls, prefix=model_cls.prefix)


def peft_type(name: str) -> PeftType:
    """The ``PeftType`` member ``name``, appended to the enum if PEFT lacks it.

    PEFT looks methods up by enum member and refuses names outside the enum. Python forbids subclassing an enum that has
    members, so the member is created the way ``EnumType`` itself does: an instance of the class, then an entry in
    each of the three lookup tables.
    """
    from peft import PeftType

    if name in PeftType.__members__:
        return PeftType[name]
    member = str.__new__(PeftType, name)
    member._name_ = name
    member._value_ = name
    setattr(PeftType, name, member)  # before the tables: EnumType refuses to rebind a listed member
    PeftType._member_names_.append(name)
    PeftType._member_map_[name] = member
    PeftType._value2member_map_[name] = member
    return member
