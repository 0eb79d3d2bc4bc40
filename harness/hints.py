"""What a user may do about an error."""

import errno
import re

_UNREACHABLE = ("ConnectionError", "ConnectTimeout", "ReadTimeout", "ConnectError", "LocalEntryNotFoundError")
_HINTS: tuple[tuple[str, str], ...] = (
    (
        r"OutOfMemoryError|out of memory|MemoryError|TerminatedWorkerError|CUBLAS_STATUS_ALLOC_FAILED",
        "out of memory: lower trainer.batch_size and raise trainer.gradient_accumulation_steps by the same "
        "factor (trainer.on_oom=halve does), set trainer.gradient_checkpointing=true, or lower data.max_tokens",
    ),
    (
        r"non-?finite|not finite|\bnan\b.*\bloss|loss.*\bnan\b",
        "the loss is not finite: lower trainer.learning_rate, raise trainer.warmup_share, or use "
        "model.dtype=bfloat16 or float32 instead of float16",
    ),
    (
        r"\[Errno (28|122)\]|No space left|Disk quota",
        "the disk is full: free space, or set runs_dir to another disk",
    ),
    (r"\[Errno (13|30)\]", "not allowed to write there: check permissions, or set runs_dir elsewhere"),
    (
        r"GatedRepo|gated repo|\b40[13] Client Error",
        "the hub refuses access: accept the model's terms and log in to it",
    ),
    (
        "|".join(_UNREACHABLE)
        + r"|OfflineMode|couldn't connect to|Max retries exceeded|Name or service not known|Name resolution",
        "the hub cannot be reached: check the network, or use model.source=folder and a local data.path",
    ),
    (
        r"device-side assert|illegal memory access",
        "a CUDA kernel failed: CUDA_LAUNCH_BLOCKING=1 shows which one",
    ),
)


def hint_for(error: BaseException) -> str:
    """What the user may do about an error, judged by it and by what caused it; "" where nothing is known."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "stopped from outside; run the same command again"
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return "the disk is full: free space, or set runs_dir to another disk"
        text = f"{type(cause).__name__}: {cause}"
        for pattern, hint in _HINTS:
            if re.search(pattern, text, re.IGNORECASE):
                return hint
        cause = cause.__cause__ or cause.__context__
    return ""
