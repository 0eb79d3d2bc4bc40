"""Low-rank products and scales of several runs at one module: forward, gradients, dropout, and what is refused."""

import pytest
import torch
from torch import nn

from harness.training.packed.layers import (
    Arrangement,
    LowRankProducts,
    LowRankTerm,
    NotPackable,
    PackedLayer,
    ScaleTerm,
)

WIDTH, OUT, ROWS, LENGTH = 5, 4, 2, 3


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def term(rank: int, seed: int, dropout: float = 0.0) -> LowRankTerm:
    a, b = drawn(rank, WIDTH, seed=seed), drawn(OUT, rank, seed=seed + 100)
    return LowRankTerm(nn.Parameter(a), nn.Parameter(b), 0.5 + seed, dropout)


def packed(terms: dict[str, object], shapes=None, seed: int = 0) -> PackedLayer:
    base = nn.Linear(WIDTH, OUT).double().requires_grad_(False)
    generators = {name: torch.Generator().manual_seed(seed) for name in terms}
    layer = PackedLayer(base, Arrangement(tuple(terms), ROWS, shapes or [(ROWS, LENGTH)] * len(terms), generators))
    for name, each in terms.items():
        if each is not None:
            layer.take(name, each)
    return layer


def rows_of(x: torch.Tensor, at: int) -> torch.Tensor:
    return x[at * ROWS : (at + 1) * ROWS]


@pytest.mark.parametrize("where", [None, [0, 2]])
def test_products_have_the_gradients_of_their_formula(where):
    ranks = (1, 3, 2) if where is None else (3, 1)
    count = 3
    place = None if where is None else torch.tensor(where)
    masks = (drawn(len(ranks), 4, WIDTH, seed=3) > 0).double() * 2
    scales = torch.tensor([0.5, 2.0, 3.0][: len(ranks)], dtype=torch.float64)[:, None, None]
    weights = [drawn(rank, WIDTH, seed=rank) for rank in ranks] + [drawn(OUT, rank, seed=9) for rank in ranks]
    inputs = [drawn(count, 4, WIDTH), drawn(count, 4, OUT, seed=1), *weights]
    inputs = [each.requires_grad_() for each in inputs]

    def products(x, y, *given):
        return LowRankProducts.apply(x, y, masks, scales, place, torch.float64, *given)

    assert torch.autograd.gradcheck(products, inputs)


def test_each_run_gets_its_own_terms_and_a_run_without_one_the_base_layer():
    terms = {"a": term(1, 1), "b": None, "c": term(3, 2)}
    layer, x = packed(terms), drawn(3 * ROWS, LENGTH, WIDTH)
    got = layer(x)
    for at, each in enumerate(terms.values()):
        own = rows_of(x, at)
        expected = layer.base_layer(own)
        if each is not None:
            expected = expected + own @ each.a.T @ each.b.T * each.scale
        assert torch.allclose(rows_of(got, at), expected, rtol=1e-6)


@pytest.mark.parametrize("on_input", [True, False])
def test_scales_reach_their_own_rows_only(on_input):
    scale = nn.Parameter(drawn(1, WIDTH) if on_input else drawn(OUT, 1))
    layer, x = packed({"a": ScaleTerm(scale, on_input), "b": None}), drawn(2 * ROWS, LENGTH, WIDTH)
    got = layer(x)
    own = rows_of(x, 0)
    expected = layer.base_layer(own * scale.flatten()) if on_input else layer.base_layer(own) * scale.flatten()
    assert torch.equal(rows_of(got, 0), expected)
    assert torch.equal(rows_of(got, 1), layer.base_layer(rows_of(x, 1)))


def test_dropout_is_drawn_as_torch_draws_it_in_the_shape_of_the_runs_own_batch():
    layer = packed({"a": term(2, 1, dropout=0.4), "b": term(2, 2)}, shapes=[(1, 2), (ROWS, LENGTH)], seed=7)
    x = drawn(2 * ROWS, LENGTH, WIDTH)
    got, own = layer(x), layer.terms["a"]
    torch.manual_seed(7)
    dropped = nn.functional.dropout(x[:1, :2], 0.4)
    assert torch.allclose(got[:1, :2], layer.base_layer(x[:1, :2]) + dropped @ own.a.T @ own.b.T * own.scale)


def test_a_value_that_is_not_finite_stays_with_its_run():
    terms = {"a": term(2, 1), "b": term(3, 2)}
    layer, x = packed(terms), drawn(2 * ROWS, LENGTH, WIDTH)
    with torch.no_grad():
        terms["a"].b[0, 0] = float("nan")
    got = layer(x)
    assert not torch.isfinite(rows_of(got, 0)).all()
    assert torch.isfinite(rows_of(got, 1)).all()
    got.sum().backward()
    assert torch.isfinite(terms["b"].a.grad).all()
    assert torch.isfinite(terms["b"].b.grad).all()


def test_a_module_that_gets_something_else_than_rows_is_refused():
    with pytest.raises(NotPackable, match="instead of 1 x 2 rows"):
        packed({"a": term(1, 1)})(drawn(7, WIDTH))


def test_models_find_the_weights_of_the_layer_below():
    layer = packed({"a": term(1, 1)})
    assert layer.weight is layer.base_layer.weight
    assert layer.bias is layer.base_layer.bias
