"""The DVME module: shapes, exact starts, gradients everywhere, symmetry in the models, low precision."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mt.errors import InputError
from mt.fuse.dvme.module import DVME
from mt.fuse.dvme.start import start_from_linear

DIMS = (7, 5, 9)


def _inputs(rows: int = 6, dims: tuple[int, ...] = DIMS) -> list[torch.Tensor]:
    return [torch.randn(rows, dim, generator=torch.Generator().manual_seed(dim)) for dim in dims]


@pytest.mark.parametrize("form", [DVME, DVME.plain])
@pytest.mark.parametrize("dims", [(7,), (7, 5), DIMS])
def test_shapes_and_attention_sum_to_one(form: type[DVME] | Callable[..., DVME], dims: tuple[int, ...]) -> None:
    model = form(dims, 4, width=32, heads=4)
    logits, attention = model.with_attention(_inputs(dims=dims))
    assert logits.shape == (6, 4)
    assert attention.shape == (6, 4, len(dims), len(dims))
    torch.testing.assert_close(attention.sum(-1), torch.ones(6, 4, len(dims)))


@pytest.mark.parametrize("form", [DVME, DVME.plain])
def test_every_parameter_receives_a_gradient(form: type[DVME] | Callable[..., DVME]) -> None:
    torch.manual_seed(0)
    model = form(DIMS, 3, width=32, heads=4)
    model(_inputs()).square().sum().backward()
    for name, parameter in model.named_parameters():
        if name == "attention.key.bias":  # adds the same score to every model, which the softmax takes away
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("form", [DVME, DVME.plain])
def test_permuting_models_with_their_weights_changes_nothing(form: type[DVME] | Callable[..., DVME]) -> None:
    torch.manual_seed(0)
    order, width = [2, 0, 1], 32
    model = form(DIMS, 3, width=width, heads=4).eval()
    twin = form([DIMS[i] for i in order], 3, width=width, heads=4).eval()
    twin.attention.load_state_dict(model.attention.state_dict())
    twin.head.load_state_dict(model.head.state_dict())
    with torch.no_grad():
        for place, i in enumerate(order):
            twin.projections[place].load_state_dict(model.projections[i].state_dict())
        blocks = torch.split(model.fusion.weight, width, dim=1)
        twin.fusion.weight.copy_(torch.cat([blocks[i] for i in order], dim=1))
        twin.fusion.bias.copy_(model.fusion.bias)
    inputs = _inputs()
    torch.testing.assert_close(twin([inputs[i] for i in order]), model(inputs))


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("outputs", [1, 4, 20, 32])
@pytest.mark.parametrize("dims", [(7,), DIMS])
def test_logistic_start_is_the_linear_classifier(residual: bool, outputs: int, dims: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    coef, intercept = torch.randn(outputs, sum(dims), dtype=torch.float64), torch.randn(outputs).double()
    coef[0] = 0
    model = DVME(dims, outputs, width=32, heads=4, residual=residual).double().eval()
    start_from_linear(model, coef, intercept)
    inputs = [x.double() for x in _inputs(dims=dims)]
    torch.testing.assert_close(model(inputs), torch.cat(inputs, 1) @ coef.T + intercept, rtol=1e-12, atol=1e-12)


def test_logistic_start_lets_attention_learn() -> None:
    torch.manual_seed(0)
    model = DVME(DIMS, 2, width=32, heads=4, input_dropout=0)
    start_from_linear(model, torch.randn(2, sum(DIMS)), torch.zeros(2))
    logits, attention = model.with_attention(_inputs())
    torch.testing.assert_close(attention, torch.full_like(attention, 1 / 3))
    torch.autograd.backward(logits.square().sum())
    gradient = model.attention.key.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_uniform_attention_is_an_ablation() -> None:
    model = DVME(DIMS, 2, width=32, heads=4, uniform=True)
    _, attention = model.with_attention(_inputs())
    torch.testing.assert_close(attention, torch.full_like(attention, 1 / 3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", [DVME, DVME.plain])
def test_low_precision_stays_close(form: type[DVME] | Callable[..., DVME], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = form(DIMS, 3, width=32, heads=4).eval()
    expected = model(_inputs())
    low = model.to(dtype)([x.to(dtype) for x in _inputs()])
    assert low.dtype == dtype
    torch.testing.assert_close(low.float(), expected, rtol=0.05, atol=0.05)


def test_input_dropout_acts_in_training_only() -> None:
    model = DVME(DIMS, 3, width=32, heads=4, input_dropout=0.5)
    inputs = _inputs()
    assert not torch.equal(model(inputs), model(inputs))
    model.eval()
    assert torch.equal(model(inputs), model(inputs))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DVME(DIMS, 3, width=30, heads=8), "multiple of its heads"),
        (lambda: DVME((), 3), "needs embeddings"),
        (lambda: DVME(DIMS, 3, width=32)(_inputs(dims=(7, 5))), "fuses 3 models; found 2"),
        (
            lambda: start_from_linear(DVME((40,), 40, width=32), torch.zeros(40, 40), torch.zeros(40)),
            "width of at least",
        ),
    ],
)
def test_wrong_use_is_said_in_one_line(make: Callable[[], object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()
