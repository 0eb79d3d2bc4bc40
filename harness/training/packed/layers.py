"""Target modules of a packed pass: the base layer once over all rows, and to each run's rows its own adapter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


class NotPackable(Exception):
    """Why a run cannot train together with others."""


@dataclass(frozen=True)
class LowRankTerm:
    """LoRA at one module: ``scale * B A``, with dropout on what A reads."""

    a: nn.Parameter  # (rank, in)
    b: nn.Parameter  # (out, rank)
    scale: float
    dropout: float


@dataclass(frozen=True)
class ScaleTerm:
    """IA3 at one module: a learned scale of its input or its output."""

    scale: nn.Parameter  # (1, in) or (out, 1)
    on_input: bool


Term = LowRankTerm | ScaleTerm


@dataclass
class Arrangement:
    """Which runs a pass stacks, and how; all modules of a host read the same one.

    Attributes:
        members: keys of the runs, in the order of their rows.
        rows: of each run, with those that fill up a short batch.
        shapes: rows and length of each run's own batch, in which its dropout is drawn.
        generators: of each run's dropout.
    """

    members: tuple[str, ...] = ()
    rows: int = 0
    shapes: Sequence[tuple[int, int]] = ()
    generators: Mapping[str, torch.Generator] = field(default_factory=dict)


@dataclass(frozen=True)
class _Layout:
    """What a module computes for the runs of a pass; the same for every pass of these runs."""

    terms: Sequence[Term | None]
    low: Sequence[int]  # places of the runs with a low-rank term
    weights: Sequence[nn.Parameter]  # every A of them, then every B
    scales: torch.Tensor  # (k, 1, 1), float32
    where: torch.Tensor | None  # ``low``; None: all runs have one
    drops: bool


class PackedLayer(nn.Module):
    """A linear layer of the base, with the terms of all runs of a pack.

    Args:
        base_layer: the layer, whose weights are frozen.
        arrangement: of the pass; changed from pass to pass.
    """

    def __init__(self, base_layer: nn.Module, arrangement: Arrangement) -> None:
        super().__init__()
        self.base_layer, self.arrangement = base_layer, arrangement
        self.terms: dict[str, Term] = {}  # by run
        self._layouts: dict[tuple[str, ...], _Layout] = {}

    @property
    def weight(self) -> Any:
        """The base layer's, at which some models look."""
        return self.base_layer.weight

    @property
    def bias(self) -> Any:
        """The base layer's."""
        return self.base_layer.bias

    def take(self, member: str, term: Term) -> None:
        """Add the term of a run."""
        self.terms[member] = term
        self._layouts.clear()

    def drop(self, member: str) -> None:
        """Forget the term of a run."""
        self.terms.pop(member, None)
        self._layouts.clear()

    def forward(self, x_btd: torch.Tensor) -> torch.Tensor:
        """``x_btd``: (runs x rows, time, in)."""
        now = self.arrangement
        count = len(now.members)
        if x_btd.dim() != 3 or x_btd.shape[0] != count * now.rows:
            raise NotPackable(
                f"a target module gets {tuple(x_btd.shape)} instead of {count} x {now.rows} rows, as in mixtures of "
                "experts"
            )
        layout = self._layouts.get(now.members) or self._lay_out(x_btd.device)
        read = _scaled(x_btd, layout.terms, on_input=True)
        y_btd: torch.Tensor = self.base_layer(read)
        if layout.low:
            x_nmd, y_nmo = (each.reshape(count, -1, each.shape[-1]) for each in (x_btd, y_btd))
            kind = x_nmd.device.type
            dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else layout.weights[0].dtype
            masks = self._masks(x_nmd, layout, dtype) if layout.drops else None
            y_nmo = LowRankProducts.apply(x_nmd, y_nmo, masks, layout.scales, layout.where, dtype, *layout.weights)
            y_btd = y_nmo.view(y_btd.shape)
        return _scaled(y_btd, layout.terms, on_input=False)

    def _lay_out(self, device: torch.device) -> _Layout:
        members = self.arrangement.members
        terms = [self.terms.get(member) for member in members]
        low = [at for at, term in enumerate(terms) if isinstance(term, LowRankTerm)]
        chosen = [term for term in terms if isinstance(term, LowRankTerm)]
        made = self._layouts[members] = _Layout(
            terms,
            low,
            [term.a for term in chosen] + [term.b for term in chosen],
            torch.tensor([term.scale for term in chosen], device=device, dtype=torch.float32)[:, None, None],
            None if len(low) == len(members) else torch.tensor(low, device=device),
            any(term.dropout for term in chosen),
        )
        return made

    def _masks(self, x_nmd: torch.Tensor, layout: _Layout, dtype: torch.dtype) -> torch.Tensor:
        """What dropout multiplies the input of A with: ones for runs without it, and for what fills up a batch."""
        now, low = self.arrangement, layout.low
        rows, length, width = now.rows, x_nmd.shape[1] // now.rows, x_nmd.shape[2]
        masks = torch.ones((len(low), rows, length, width), device=x_nmd.device, dtype=dtype)
        for place, at in enumerate(low):
            member, (own_rows, own_length) = now.members[at], now.shapes[at]
            term = layout.terms[at]
            if isinstance(term, LowRankTerm) and term.dropout:
                # As torch's dropout draws it on the CPU, in the shape of the run's own batch.
                noise = torch.empty((own_rows, own_length, width), device=x_nmd.device, dtype=x_nmd.dtype)
                noise.bernoulli_(1 - term.dropout, generator=now.generators[member]).div_(1 - term.dropout)
                masks[place, :own_rows, :own_length] = noise
        return masks.view(len(low), -1, width)


def _scaled(x_btd: torch.Tensor, terms: Sequence[Term | None], on_input: bool) -> torch.Tensor:
    """Each run's rows times its scale of IA3; rows of other runs times one, which changes no bit."""
    own = [term.scale if isinstance(term, ScaleTerm) and term.on_input is on_input else None for term in terms]
    given = [scale for scale in own if scale is not None]
    if not given:
        return x_btd
    ones = torch.ones_like(given[0].detach()).flatten()
    scales_nd = torch.stack([ones if scale is None else scale.flatten() for scale in own])
    x_nmd = x_btd.reshape(len(terms), -1, x_btd.shape[-1])
    return (x_nmd * scales_nd[:, None]).to(x_btd.dtype).view(x_btd.shape)


class LowRankProducts(torch.autograd.Function):
    """``y + scale * dropout(x) A^T B^T`` for several adapters at once, each over its own rows.

    Written out because it saves the nodes that stacking and filling up would add for every adapter and module.

    Shapes: n runs, k of them with a term here, m rows of tokens each, r the largest rank.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_nmd: torch.Tensor,
        y_nmo: torch.Tensor,
        masks_kmd: torch.Tensor | None,
        scales_k11: torch.Tensor,
        where: torch.Tensor | None,
        dtype: torch.dtype,
        *weights: torch.Tensor,
    ) -> torch.Tensor:
        """``where``: which runs have a term; None: all. ``weights``: every A (r, in), then every B (out, r)."""
        count = len(weights) // 2
        a_krd = _stacked(weights[:count], dtype)
        b_kro = _stacked([weight.T for weight in weights[count:]], dtype)
        x_kmd = (x_nmd if where is None else x_nmd[where]).to(dtype)
        if masks_kmd is not None:
            x_kmd = x_kmd * masks_kmd
        h_kmr = (torch.bmm(x_kmd, a_krd.transpose(1, 2)) * scales_k11).to(dtype)  # scales are float32
        ctx.save_for_backward(x_kmd, masks_kmd, h_kmr, a_krd, b_kro, scales_k11, where)
        ctx.ranks, ctx.x_dtype, ctx.dtypes = (
            [weight.shape[0] for weight in weights[:count]],
            x_nmd.dtype,
            [weight.dtype for weight in weights],
        )
        if where is None and y_nmo.dtype == dtype:
            return torch.baddbmm(y_nmo, h_kmr, b_kro)
        low_kmo = torch.bmm(h_kmr, b_kro)
        if where is None:
            return (y_nmo + low_kmo).to(y_nmo.dtype)
        return y_nmo.index_add(0, where, low_kmo.to(y_nmo.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        [g_nmo] = grads
        x_kmd, _, h_kmr, _, b_kro, scales_k11, where = ctx.saved_tensors
        g_kmo = (g_nmo if where is None else g_nmo[where]).to(h_kmr.dtype)
        needs, count = ctx.needs_input_grad, len(ctx.ranks)
        needs_a, needs_b = needs[6 : 6 + count], needs[6 + count :]
        own: list[torch.Tensor | None] = [None] * (2 * count)
        gh_kmr = (torch.bmm(g_kmo, b_kro.transpose(1, 2)) * scales_k11).to(g_kmo.dtype)
        if any(needs_a):
            ga_krd = torch.bmm(gh_kmr.transpose(1, 2), x_kmd)
            for at, rank in enumerate(ctx.ranks):
                own[at] = ga_krd[at, :rank].to(ctx.dtypes[at]) if needs_a[at] else None
        if any(needs_b):
            gb_kro = torch.bmm(h_kmr.transpose(1, 2), g_kmo)
            for at, rank in enumerate(ctx.ranks):
                own[count + at] = gb_kro[at, :rank].T.to(ctx.dtypes[count + at]) if needs_b[at] else None
        gx_nmd = _gradient_of_input(ctx, gh_kmr, len(g_nmo)) if needs[0] else None
        return gx_nmd, g_nmo if needs[1] else None, None, None, None, None, *own


def _gradient_of_input(ctx: Any, gh_kmr: torch.Tensor, count: int) -> torch.Tensor:
    _, masks_kmd, _, a_krd, _, _, where = ctx.saved_tensors
    gx_kmd = torch.bmm(gh_kmr, a_krd)
    if masks_kmd is not None:
        gx_kmd = gx_kmd * masks_kmd
    gx_kmd = gx_kmd.to(ctx.x_dtype)
    if where is None:
        return gx_kmd
    return gx_kmd.new_zeros((count, *gx_kmd.shape[1:])).index_copy_(0, where, gx_kmd)


def _stacked(weights: Sequence[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """The weights, each of shape (rank, width), as one tensor; ranks are filled up with zeros."""
    return nn.utils.rnn.pad_sequence([weight.to(dtype) for weight in weights], batch_first=True)
