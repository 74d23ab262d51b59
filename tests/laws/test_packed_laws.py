"""Packed products, as laws: whatever the shapes, the groups and the numbers."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from circius.kernels import native
from circius.kernels.packed import UNIT, PackedMatrix, pack
from circius.kernels.packed_linear import packed_linear, packed_linears

pytestmark = pytest.mark.skipif(not native.available(), reason="the native library was not built")


@dataclass(frozen=True)
class Case:
    x: Tensor
    matrix: PackedMatrix


@st.composite
def cases(draw: st.DrawFn) -> Case:
    group_units, n_groups = draw(st.integers(1, 5)), draw(st.integers(1, 12))
    n_rows, n_outputs = draw(st.integers(1, 40)), draw(st.integers(1, 70))
    kind = draw(st.sampled_from(["symmetric4", "minima4", "symmetric8"]))
    dtype = draw(st.sampled_from([torch.float16, torch.bfloat16]))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    n_inputs = UNIT * group_units * n_groups
    low, high, codes_dtype = (-127, 128, torch.int8) if kind == "symmetric8" else (0, 16, torch.uint8)
    codes = torch.randint(low, high, (n_outputs, n_inputs), generator=random).to(codes_dtype)
    scales = torch.rand(n_outputs, n_groups, generator=random).to(dtype)
    mins = torch.randn(n_outputs, n_groups, generator=random).to(dtype) if kind == "minima4" else None
    # Rows of very different sizes, with a few channels that stand out, as those of real models do.
    x = torch.randn(n_rows, n_inputs, generator=random) * 10 ** torch.randn(n_rows, 1, generator=random)
    x[:, torch.randint(0, n_inputs, (3,), generator=random)] *= 30
    return Case(x, pack(codes, scales, mins))


@settings(max_examples=60, deadline=None)
@given(cases(), st.sampled_from(["int8", "float"]), st.data())
def test_neighbours_change_no_bit(case: Case, activations: str, data: st.DataObject) -> None:
    """Of rows that are not rounded this holds as far as the native product takes them; torch promises it for none."""
    x = case.x if activations == "int8" else case.x[:12]
    together = packed_linear(x, case.matrix, activations)  # type: ignore[arg-type]
    cut = data.draw(st.integers(0, len(x)))
    parts = [packed_linear(part, case.matrix, activations) for part in (x[:cut], x[cut:])]  # type: ignore[arg-type]
    if activations == "int8" or native.library().circius_has_float_linear():
        assert torch.cat(parts).equal(together)
    else:
        torch.testing.assert_close(torch.cat(parts), together)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_instructions_change_no_bit(case: Case) -> None:
    with native.forced("portable"):
        plain = packed_linear(case.x, case.matrix)
    assert packed_linear(case.x, case.matrix).equal(plain)


@settings(max_examples=30, deadline=None)
@given(cases(), st.integers(2, 6))
def test_threads_and_company_change_no_bit(case: Case, n_threads: int) -> None:
    alone = packed_linear(case.x, case.matrix)
    torch.set_num_threads(n_threads)
    try:
        together = packed_linears(case.x, [case.matrix] * 3)
    finally:
        torch.set_num_threads(1)
    assert all(found.equal(alone) for found in together)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_only_the_rounding_of_x_is_lost(case: Case) -> None:
    """An input is off by at most half a step of its unit, which is a 254th of the greatest there; beyond that there is
    only the rounding of float32."""
    weight, x = case.matrix.unpack().double(), case.x.double()
    units = x.view(len(x), -1, UNIT)
    step = units.abs().amax(-1, keepdim=True).expand_as(units).flatten(1) / 127
    # Code and minimum are rounded apart, and may nearly cancel: so the rounding is of 20 at least, not of the weight.
    least = 20.0 if case.matrix.mins is not None else 0.0
    allowed = (0.5001 * step) @ weight.abs().T + 1e-5 * (x.abs() @ (weight.abs() + least).T)
    assert ((packed_linear(case.x, case.matrix).double() - x @ weight.T).abs() <= allowed).all()


@settings(max_examples=30, deadline=None)
@given(cases(), st.integers(-20, 20))
def test_powers_of_two_and_signs_pass_through(case: Case, exponent: int) -> None:
    found = packed_linear(case.x, case.matrix)
    assert packed_linear(case.x * 2.0**exponent, case.matrix).equal(found * 2.0**exponent)
    assert packed_linear(-case.x, case.matrix).equal(-found)
