"""What floating-point arithmetic takes off a certificate, and how numbers are rounded for people.

Randomized smoothing is a theorem about real numbers. Adding Gaussian noise in floating point
rounds the sum, the rounding depends on the photo, and false certificates have been built on that
(Voracek and Hein, "Sound Randomized Smoothing in Floating-Point Arithmetic", ICLR 2023; Jin,
Ohrimenko and Rubinstein, "Getting a-Round Guarantees", 2022). smoothapi therefore rounds photo and
noise to multiples of `GRID` *before* they meet. Rounding a sum to the grid is the same as rounding
the noise alone when the photo already lies on it, so what the labeller sees is a function of
`photo + real Gaussian noise`, and the theorem applies. Two things are left to pay for, and this
module says how much: the photo's own rounding (`rounding_radius`), and the rare noise value that
float64 rounds to another multiple than real arithmetic would (`share_deduction`).
"""

from __future__ import annotations

import math

from smoothapi.errors import UsageError

GRID = 2.0**-20
"""Photo and noise are multiples of this; float64 and float32 hold their sum exactly."""

_STEP = 2.0**-53
"""Distance of neighbouring values of the uniform number that noise is made from."""

_REACH = 8.125890664701908
"""-Phi^-1(2 * _STEP): beyond so many sigmas 53 bits end."""

_NDTRI_ERROR = 2.0**-48
"""Relative error allowed for ndtri and the product with sigma / GRID.

Three times the largest seen against 40 digits (2^-49.8, at exp(-2), where its formulas change).
"""

RESIZE_ERROR = 2.0**-22
"""Allowance for float32 in the resize, per channel value and photo, in units of [0, 1].

The resize adds up in float64 and stores float32 twice: half a unit in the last place below 2 is
2^-24, the second pass may enlarge the first's error by 1.27 (the largest sum of absolute weights
of one output), and the photo itself may have been float64: 2^-24 * (1 + 1.27 + 1.62) < 2^-22.
"""


def noise_delta(pixels: int, sigma: float) -> float:
    """Return a bound on how far float64 noise can move the share of votes of any label.

    With probability at least 1 - noise_delta the computed noise, rounded to the grid, equals what
    real arithmetic would have given in every one of `pixels` channel values. So the shares of
    votes under the computed and under the real noise differ by at most this much, for any photo.

    Derivation, for one value. The computed noise is GRID * rint(fl(sigma * ndtri(u)) / GRID) with
    u = (i + 1/2) * 2^-53, rounded to float64, and i of 53 random bits. Couple it with the real
    noise made from U, uniform in [i, i+1) * 2^-53. Then

    - |u - U| <= 2^-53, whichever way i + 1/2 was rounded;
    - ndtri and the product err by at most e = 2^-48 relative; at z = Phi^-1(u) that is a shift of
      at most e |z| phi(z) in u.

    The two can be rounded to different multiples only if a boundary between multiples,
    b = (j + 1/2) * GRID, lies between them; in u the boundary is at v = Phi(b / sigma), so U must
    be within 2^-53 + e |z| phi(z) of v. There are at most 2 T sigma / GRID + 1 boundaries with
    |b| <= T sigma, T = -Phi^-1(2^-52) (`_REACH`), and summed over them

        chance <= (2 T sigma / GRID + 1) * 2^-52  +  2 e (sigma / GRID * E|Z| + 1),

    with E|Z| = sqrt(2 / pi), the integral of |z| phi(z). What lies beyond T, where 53 bits end, is
    given up as a whole: 2 * 2^-52. A union bound over the values multiplies by `pixels`.

    Args:
        pixels: number of channel values of the working image (height * width * channels).
        sigma: noise level, in units of the [0, 1] range.

    Returns:
        A probability; about 2.5e-9 * pixels at sigma 0.25.

    Raises:
        UsageError: `pixels` is not positive or `sigma` is not a positive number.
    """
    if pixels < 1:
        raise UsageError(f"pixels={pixels}: a working image has at least one channel value.")
    if not (math.isfinite(sigma) and sigma > 0.0):
        raise UsageError(f"sigma={sigma}: the noise level is a positive number.")
    scale = sigma / GRID
    discrete = (2.0 * _REACH * scale + 1.0) * 2.0 * _STEP
    inexact = 2.0 * _NDTRI_ERROR * (scale * math.sqrt(2.0 / math.pi) + 1.0)
    tail = 4.0 * _STEP
    # A part in 10^6 covers second-order terms and this function's own rounding.
    return min(1.0, pixels * (discrete + inexact + tail) * (1.0 + 1e-6))


def share_deduction(pixels: int, sigma: float) -> float:
    """Return what a certificate takes off the share of votes for computed noise.

    Twice `noise_delta`, d: once where the votes are drawn and once where the photo may have been
    moved to, so that what is proved is what `predict` says there, of the noise really drawn. With
    p and p' the label's shares under real noise at the photo and at radius r from it, votes that
    prove p + d > Phi(r / sigma) + 2 d give p > Phi(r / sigma) + d, and with rho = r / sigma

        p' >= Phi(Phi^-1(p) - rho) > Phi(Phi^-1(Phi(rho) + d) - rho) >= 1/2 + d,

    the last because d/dv Phi(Phi^-1(v) - rho) = exp(z rho - rho^2 / 2) with z = Phi^-1(v) is at
    least exp(rho^2 / 2) >= 1 for z >= rho. So the label's share of the noise drawn there, at least
    p' - d, is above 1/2.

    Takes, returns and raises what `noise_delta` does.
    """
    return min(1.0, 2.0 * noise_delta(pixels, sigma))


def rounding_radius(pixels: int, *, resize_error: float = RESIZE_ERROR) -> float:
    """Return what rounding the photos costs, in L2 distance between two working images.

    Two photos at distance e before rounding are at most e + rounding_radius apart on the grid:
    each moves by at most GRID / 2 per channel value, and by `resize_error` before that.

    Args:
        pixels: number of channel values of the working image (height * width * channels).
        resize_error: bound on the error of one computed channel value before it is rounded, in
            units of [0, 1]; 0 for a photo that was not resized.

    Returns:
        (GRID + 2 * resize_error) * sqrt(pixels), in units of the [0, 1] range, rounded up.
    """
    if pixels < 1:
        raise UsageError(f"pixels={pixels}: a working image has at least one channel value.")
    if not (math.isfinite(resize_error) and resize_error >= 0.0):
        raise UsageError(f"resize_error={resize_error}: an error bound is a number from 0 up.")
    return (GRID + 2.0 * resize_error) * math.sqrt(pixels) * (1.0 + 1e-12)


def floor_to(value: float, decimals: int) -> float:
    """Return the largest number of so many decimals that is not above `value`.

    For what must not be overstated: radius, p. Applying it again changes nothing, and the result
    prints with at most so many decimals. Raises UsageError for NaN and infinities.
    """
    nearest = _nearest(value, decimals)
    if nearest > value:
        nearest = round(nearest - 10.0**-decimals, decimals)
    return nearest


def ceil_to(value: float, decimals: int) -> float:
    """Return the smallest number of so many decimals that is not below `value`.

    For what must not be understated: cost, alpha. Applying it again changes nothing. Raises
    UsageError for NaN and infinities.
    """
    nearest = _nearest(value, decimals)
    if nearest < value:
        nearest = round(nearest + 10.0**-decimals, decimals)
    return nearest


def _nearest(value: float, decimals: int) -> float:
    if not math.isfinite(value):
        raise UsageError(f"{value} cannot be rounded: it is not finite.")
    if decimals < 0:
        raise UsageError(f"decimals={decimals}: the number of decimals is 0 or more.")
    return round(float(value), decimals)
