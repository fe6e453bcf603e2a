"""The noise of `device_noise` as one Triton kernel: counter in, noisy pictures out.

The integers are those of Philox4x64-10. Phi^-1 is Cephes' `ndtri`, whose coefficients SciPy and
torch use too, operation by operation in float64 and without fused multiply-adds, so that nothing
but the device's logarithm can differ from what a CPU computes by the same formulas.

Importing this module imports triton, which not every build of torch brings: whoever wants the
kernel asks `smoothapi.denoise.device_noise.choose_generator`, which checks it first.
"""

# Triton compiles what is annotated with names of its own, so annotations must stay expressions.
# ruff: noqa: ANN001, ANN202
# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
import torch
import triton
import triton.language as tl
from torch import Tensor

NAME = "triton-philox/1"
"""What the noise of this kernel is called: a change of any bit needs another name."""

_BLOCKS = 128
"""Counters a program: 512 values, 4 to each of its threads."""

_FACTOR_0 = tl.constexpr(0xD2E7470EE14C6C93)
_FACTOR_1 = tl.constexpr(0xCA5A826395121157)
_WEYL_0 = tl.constexpr(0x9E3779B97F4A7C15)
_WEYL_1 = tl.constexpr(0xBB67AE8584CAA73B)
_EXP_MINUS_2 = tl.constexpr(0.13533528323661269189)
_ROOT_2_PI = tl.constexpr(2.50662827463100050242)
_TOP = tl.constexpr(1.0 - 2.0**-53)
_STEP = tl.constexpr(2.0**-53)
_GRID = tl.constexpr(2.0**-20)
_ROUNDING = tl.constexpr(1.5 * 2.0**52)


def words(keys: Tensor, count: int) -> Tensor:
    """Return what `numpy.random.Philox(key=seed).random_raw(count)` does, for each key.

    Args:
        keys: int64 (N, 2), the lower and the upper half of each seed.
        count: words of each.

    Returns:
        int64 (N, count), whose bits are those of the unsigned words.
    """
    out = torch.empty((len(keys), count), dtype=torch.int64, device=keys.device)
    _words_kernel[_grid(len(keys), count)](out, keys, count, BLOCKS=_BLOCKS, enable_fp_fusion=False)
    return out


def normal(uniform: Tensor) -> Tensor:
    """Return Phi^-1 of float64 numbers in (0, 1), in one dimension."""
    out = torch.empty_like(uniform)
    size = 4 * _BLOCKS
    _normal_kernel[(triton.cdiv(len(uniform), size),)](
        out, uniform, len(uniform), SIZE=size, enable_fp_fusion=False
    )
    return out


def draw(out: Tensor, pixels: Tensor, scale: Tensor, keys: Tensor) -> None:
    """Write a working image under the noise of each key.

    Args:
        out: float32 (N, height, width, 3), contiguous; filled with multiples of 2**-20.
        pixels: float64 (height, width, 3), contiguous, multiples of 2**-20.
        scale: float64 (1,), sigma * 2**20: a tensor, since Triton takes numbers as float32.
        keys: int64 (N, 2), the lower and the upper half of each seed.
    """
    count = pixels.numel()
    _pictures_kernel[_grid(len(keys), count)](
        out, pixels, scale, keys, count, BLOCKS=_BLOCKS, enable_fp_fusion=False
    )


def _grid(rows: int, count: int) -> tuple[int, int]:
    return triton.cdiv(count, 4 * _BLOCKS), rows


# The size is not specialised on, so that what is checked is the very code that draws.
@triton.jit(do_not_specialize=["count"])
def _pictures_kernel(out, pixels, scale, keys, count, BLOCKS: tl.constexpr):  # noqa: N803, PLR0917
    place = tl.program_id(0) * (4 * BLOCKS) + tl.arange(0, 4 * BLOCKS)
    row = tl.program_id(1).to(tl.int64)
    inside = place < count
    bits = _philox(keys, row, BLOCKS) >> 11
    uniform = (bits.to(tl.int64).to(tl.float64) + 0.5) * _STEP
    # The half is rounded, at the very top to 1.
    uniform = tl.where(uniform > _TOP, _TOP, uniform)
    noise = _ndtri(uniform) * tl.load(scale)
    # Adding so large a number and taking it away rounds to whole numbers, halves to even ones.
    noise = (noise + _ROUNDING) - _ROUNDING
    units = tl.load(pixels + place, mask=inside, other=0.0) * (1.0 / _GRID)
    # float32 holds the sum exactly.
    noisy = ((noise + units) * _GRID).to(tl.float32)
    tl.store(out + row * count + place, noisy, mask=inside)


@triton.jit(do_not_specialize=["count"])
def _words_kernel(out, keys, count, BLOCKS: tl.constexpr):  # noqa: N803
    place = tl.program_id(0) * (4 * BLOCKS) + tl.arange(0, 4 * BLOCKS)
    row = tl.program_id(1).to(tl.int64)
    bits = _philox(keys, row, BLOCKS).to(tl.int64, bitcast=True)
    tl.store(out + row * count + place, bits, mask=place < count)


@triton.jit(do_not_specialize=["count"])
def _normal_kernel(out, uniform, count, SIZE: tl.constexpr):  # noqa: N803
    place = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    inside = place < count
    share = tl.load(uniform + place, mask=inside, other=0.25)
    tl.store(out + place, _ndtri(share), mask=inside)


@triton.jit
def _philox(keys, row, BLOCKS: tl.constexpr):  # noqa: N803
    """Return the 4 * BLOCKS words of this program's counters, as NumPy orders them."""
    key_0 = tl.load(keys + 2 * row).to(tl.uint64, bitcast=True)
    key_1 = tl.load(keys + 2 * row + 1).to(tl.uint64, bitcast=True)
    # NumPy counts up before it draws, so that its first counter is 1.
    counter = tl.program_id(0) * BLOCKS + tl.arange(0, BLOCKS) + 1
    word_0 = counter.to(tl.uint64)
    word_1 = tl.zeros_like(word_0)
    word_2 = tl.zeros_like(word_0)
    word_3 = tl.zeros_like(word_0)
    for _ in tl.static_range(10):
        high_0 = tl.umulhi(word_0, tl.full([BLOCKS], _FACTOR_0, tl.uint64))
        high_1 = tl.umulhi(word_2, tl.full([BLOCKS], _FACTOR_1, tl.uint64))
        low_0 = word_0 * _FACTOR_0
        low_1 = word_2 * _FACTOR_1
        word_0 = high_1 ^ word_1 ^ key_0
        word_2 = high_0 ^ word_3 ^ key_1
        word_1 = low_1
        word_3 = low_0
        key_0 = key_0 + _WEYL_0
        key_1 = key_1 + _WEYL_1
    pairs = tl.join(tl.join(word_0, word_2), tl.join(word_1, word_3))
    return tl.reshape(pairs, [4 * BLOCKS])


@triton.jit
def _ndtri(share):
    upper = share > (1.0 - _EXP_MINUS_2)
    lower = tl.where(upper, 1.0 - share, share)
    # The middle: a rational function of the distance from 1/2.
    centred = lower - 0.5
    square = centred * centred
    ratio = square * _p0(square) / _q0(square)
    middle = (centred + centred * ratio) * _ROOT_2_PI
    # The tails: one of -2 log(share), in two pieces.
    x = tl.sqrt(-2.0 * tl.log(lower))
    z = 1.0 / x
    near = x < 8.0
    over = tl.where(near, _p1(z), _p2(z))
    under = tl.where(near, _q1(z), _q2(z))
    tail = (x - tl.log(x) / x) - z * over / under
    tail = tl.where(upper, tail, -tail)
    return tl.where(lower > _EXP_MINUS_2, middle, tail)


@triton.jit
def _p0(x):
    p = x * -5.99633501014107895267e1 + 9.80010754185999661536e1
    p = p * x + -5.66762857469070293439e1
    p = p * x + 1.39312609387279679503e1
    return p * x + -1.23916583867381258016e0


@triton.jit
def _q0(x):
    q = x + 1.95448858338141759834e0
    q = q * x + 4.67627912898881538453e0
    q = q * x + 8.63602421390890590575e1
    q = q * x + -2.25462687854119370527e2
    q = q * x + 2.00260212380060660359e2
    q = q * x + -8.20372256168333339912e1
    q = q * x + 1.59056225126211695515e1
    return q * x + -1.18331621121330003142e0


@triton.jit
def _p1(x):
    p = x * 4.05544892305962419923e0 + 3.15251094599893866154e1
    p = p * x + 5.71628192246421288162e1
    p = p * x + 4.40805073893200834700e1
    p = p * x + 1.46849561928858024014e1
    p = p * x + 2.18663306850790267539e0
    p = p * x + -1.40256079171354495875e-1
    p = p * x + -3.50424626827848203418e-2
    return p * x + -8.57456785154685413611e-4


@triton.jit
def _q1(x):
    q = x + 1.57799883256466749731e1
    q = q * x + 4.53907635128879210584e1
    q = q * x + 4.13172038254672030440e1
    q = q * x + 1.50425385692907503408e1
    q = q * x + 2.50464946208309415979e0
    q = q * x + -1.42182922854787788574e-1
    q = q * x + -3.80806407691578277194e-2
    return q * x + -9.33259480895457427372e-4


@triton.jit
def _p2(x):
    p = x * 3.23774891776946035970e0 + 6.91522889068984211695e0
    p = p * x + 3.93881025292474443415e0
    p = p * x + 1.33303460815807542389e0
    p = p * x + 2.01485389549179081538e-1
    p = p * x + 1.23716634817820021358e-2
    p = p * x + 3.01581553508235416007e-4
    p = p * x + 2.65806974686737550832e-6
    return p * x + 6.23974539184983293730e-9


@triton.jit
def _q2(x):
    q = x + 6.02427039364742014255e0
    q = q * x + 3.67983563856160859403e0
    q = q * x + 1.37702099489081330271e0
    q = q * x + 2.16236993594496635890e-1
    q = q * x + 1.34204006088543189037e-2
    q = q * x + 3.28014464682127739104e-4
    q = q * x + 2.89247864745380683936e-6
    return q * x + 6.79019408009981274425e-9
