"""Distributions: how a number with a density is drawn, one class for each.

A class is what a pack may write (`draw: {normal: {mean: 40, sd: 12}}`), checked by pydantic,
and what the sampler needs: its support, its quantile function (inverse distribution function),
and its distribution function, which `personas check` compares people with.

To add a distribution, add a class here and to `DISTRIBUTIONS`; a user's own is added with
`simforge.personas.pack.add_distribution`. scipy is imported by the functions that need it: it takes
longer than a small run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from pydantic import Field, model_validator

from simforge.catalog.documents import Strict

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]


Number = Annotated[float, Field(allow_inf_nan=False)]


Positive = Annotated[Number, Field(gt=0)]


Weight = Annotated[Number, Field(ge=0)]


class Distribution(Strict):
    """A distribution of numbers. All functions take and return arrays of equal length."""

    @property
    def support(self) -> tuple[float, float]:
        """The numbers between which a draw falls; infinite where there is no bound."""
        raise TypeError(f"{type(self).__name__} defines no support")

    def quantile(self, uniform: Array) -> Array:
        """The numbers below which these shares (in (0, 1)) of people are."""
        raise TypeError(f"{type(self).__name__} defines no quantile")

    def cdf(self, numbers: Array) -> Array:
        """The shares of people below these numbers."""
        raise TypeError(f"{type(self).__name__} defines no cdf")


class WithBounds(Distribution):
    """A distribution with optional bounds."""

    low: Number | None = None
    high: Number | None = None

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        return self

    @property
    def support(self) -> tuple[float, float]:
        low = float("-inf") if self.low is None else self.low
        return low, float("inf") if self.high is None else self.high


class Interval(WithBounds):
    """A number, uniformly distributed between two bounds."""

    low: Number
    high: Number

    def quantile(self, uniform: Array) -> Array:
        return self.low + uniform * (self.high - self.low)

    def cdf(self, numbers: Array) -> Array:
        return np.clip((numbers - self.low) / (self.high - self.low), 0, 1)


class Normal(WithBounds):
    """A normally distributed number, truncated at the bounds if there are any."""

    mean: Number
    sd: Positive

    def quantile(self, uniform: Array) -> Array:
        return _truncated_quantile(uniform, self.mean, self.sd, self.low, self.high)

    def cdf(self, numbers: Array) -> Array:
        return _truncated_cdf(numbers, self.mean, self.sd, self.low, self.high)


class Lognormal(WithBounds):
    """A log-normally distributed number, truncated at the bounds if there are any."""

    median: Positive
    sigma: Positive
    "Standard deviation of the natural logarithm."
    low: Weight | None = None
    high: Positive | None = None

    @property
    def support(self) -> tuple[float, float]:
        return self.low or 0.0, float("inf") if self.high is None else self.high

    @property
    def _of_logarithm(self) -> tuple[float, float, float | None, float | None]:
        """Mean, standard deviation and bounds of the logarithm."""
        low = float(np.log(self.low)) if self.low else None
        high = None if self.high is None else float(np.log(self.high))
        return float(np.log(self.median)), self.sigma, low, high

    def quantile(self, uniform: Array) -> Array:
        logarithms = _truncated_quantile(uniform, *self._of_logarithm)
        return np.asarray(np.exp(logarithms))

    def cdf(self, numbers: Array) -> Array:
        with np.errstate(divide="ignore"):
            logarithms = np.log(np.maximum(numbers, 0))
        return _truncated_cdf(logarithms, *self._of_logarithm)


class Beta(WithBounds):
    """A beta-distributed number, rescaled from 0..1 to low..high."""

    a: Positive
    b: Positive
    low: Number = 0.0
    high: Number = 1.0

    def quantile(self, uniform: Array) -> Array:
        from scipy import special

        stretched = self.low + (self.high - self.low) * special.betaincinv(
            self.a, self.b, uniform
        )
        return np.asarray(np.minimum(stretched, np.nextafter(self.high, -np.inf)))

    def cdf(self, numbers: Array) -> Array:
        from scipy import special

        inside = np.clip((numbers - self.low) / (self.high - self.low), 0, 1)
        return np.asarray(special.betainc(self.a, self.b, inside))


class Histogram(Distribution):
    """A number, uniformly distributed within bins."""

    edges: Annotated[list[Number], Field(min_length=2)]
    "Bin edges, ascending, one more than weights."
    weights: Annotated[list[Weight], Field(min_length=1)]
    "Share of each bin; they sum to 1."

    @model_validator(mode="after")
    def _check_bins(self) -> Histogram:
        if len(self.edges) != len(self.weights) + 1:
            raise ValueError(
                f"{len(self.weights)} weights need {len(self.weights) + 1} edges, not "
                f"{len(self.edges)}"
            )
        if sorted(set(self.edges)) != self.edges:
            raise ValueError("edges must ascend")
        check_sum(self.weights)
        return self

    @property
    def support(self) -> tuple[float, float]:
        return self.edges[0], self.edges[-1]

    @property
    def _heights(self) -> Array:
        """Share of people below each edge."""
        heights = np.concatenate([[0.0], np.cumsum(self.weights)])
        return np.asarray(heights / heights[-1])

    def quantile(self, uniform: Array) -> Array:
        return np.asarray(np.interp(uniform, self._heights, np.array(self.edges)))

    def cdf(self, numbers: Array) -> Array:
        return np.interp(numbers, np.array(self.edges), self._heights)


DISTRIBUTIONS: dict[str, type[Distribution]] = {
    "uniform": Interval,
    "normal": Normal,
    "lognormal": Lognormal,
    "beta": Beta,
    "histogram": Histogram,
}
"By the key of a draw that names them; an integer trait takes the floor of the number."


def check_sum(weights: Iterable[float]) -> None:
    """Raise `ValueError` if shares do not sum to 1."""
    total = sum(weights)
    if abs(total - 1) > 0.005:
        raise ValueError(f"the shares sum to {total:.4g}, not 1")


def _truncated_quantile(
    uniform: Array, mean: float, sd: float, low: float | None, high: float | None
) -> Array:
    """The quantile function of a normal distribution that is truncated at bounds."""
    from scipy import special

    if low is not None and low > mean:
        # floats near 1 cannot resolve the upper tail: take the lower tail of the mirror image
        mirrored_high = None if high is None else -high
        return -_truncated_quantile(1 - uniform, -mean, sd, mirrored_high, -low)
    least, most = _tails(mean, sd, low, high)
    values = mean + sd * special.ndtri(least + uniform * (most - least))
    below_high = np.inf if high is None else np.nextafter(high, -np.inf)
    return np.asarray(np.clip(values, -np.inf if low is None else low, below_high))


def _truncated_cdf(
    numbers: Array, mean: float, sd: float, low: float | None, high: float | None
) -> Array:
    """The distribution function of a normal distribution that is truncated at bounds."""
    from scipy import special

    if low is not None and low > mean:
        mirrored_high = None if high is None else -high
        return 1 - _truncated_cdf(-numbers, -mean, sd, mirrored_high, -low)
    least, most = _tails(mean, sd, low, high)
    return np.asarray(
        np.clip((special.ndtr((numbers - mean) / sd) - least) / (most - least), 0, 1)
    )


def _tails(
    mean: float, sd: float, low: float | None, high: float | None
) -> tuple[float, float]:
    """Shares of the untruncated distribution below the two bounds."""
    from scipy import special

    least = 0.0 if low is None else float(special.ndtr((low - mean) / sd))
    most = 1.0 if high is None else float(special.ndtr((high - mean) / sd))
    return least, most
