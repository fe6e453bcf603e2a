"""Which setting suits a provider best: a paired race, and evidence before anything is changed.

Each photo is shown under the same noise through the neutral setting and through each setting that
is still in the race. What is compared is the *soft vote* for the photo's label: its score over
the sum of its score and the best other label's. It is above 1/2 exactly where the label would get
the vote, and tells far more from one query: between two settings few votes differ, but nearly
every score does (measured: an eighth of the variance at the same mean difference).

A vote counts once, however clear it is. So the difference of two soft votes is cut off at 0.15 on
either side: what goes beyond says no more of votes, and a few such photos would decide, or hide
what all others say.

Let D in [-1, 1] be that difference over 0.15. For each c in (0, 1) the product of
1 + c D over the photos is a nonnegative supermartingale while E[D] <= 0, and so is the mean over
several c (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting",
JRSS B 2024). Where D is -1, 0 or 1, this is the mixture of likelihood ratios of
`smoothapi.certify.evalue` on the discordant pairs, against a share of 1/2. By Ville's inequality,
P(it ever reaches 1 / a) <= a: it may be looked at after each photo, and the race be stopped at
any time. All settings together get the chance a: one is taken if its value reaches K / a, K being
how many there are beside the neutral one.

The field is thinned by successive halving (Karnin, Koren and Somekh, ICML 2013), which decides
about cost alone: a setting that is dropped is not taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from smoothapi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_CUT = 0.15
"""The difference of two soft votes that counts in full."""

_STAKES = (np.arange(20) + 0.5) / 20
"""The values of c: evenly spread, so that the mean is a mixture with a uniform prior."""


@dataclass(frozen=True, slots=True)
class Vote:
    """What one answer says about a photo's label.

    Attributes:
        soft: the label's share of its own and the best other score, in [0, 1].
        right: whether it would get the vote.
    """

    soft: float
    right: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """How one setting did beside the neutral one, on the photos that both were shown.

    Attributes:
        photos: how many.
        right: of these, with a vote for the label.
        neutral_right: the same of the neutral setting.
        gain: mean difference of the soft votes.
        log_evidence: logarithm of the e-value for "better than neutral".
    """

    photos: int
    right: int
    neutral_right: int
    gain: float
    log_evidence: float

    @property
    def evidence(self) -> float:
        """The e-value, not above 1e12: what it is must fit into JSON."""
        return math.exp(min(self.log_evidence, math.log(1e12)))


class Race:
    """A race of settings against the neutral one, which is number 0.

    Args:
        settings: how many there are beside the neutral one.
        chance: that any is taken although it is not better than the neutral one, in (0, 1).
        halvings: numbers of photos after which the worse half of the field is dropped.

    Attributes:
        live: the settings that are still in it.
        photos: how many were counted.
        needed: the e-value at which a setting is taken.

    Raises:
        UsageError: a value is out of range.
    """

    def __init__(
        self, settings: int, *, chance: float = 0.1, halvings: tuple[int, ...] = ()
    ) -> None:
        if settings < 1 or not 0.0 < chance < 1.0:
            raise UsageError(
                f"A race of {settings} settings at a chance of {chance}: it takes at least one "
                "setting beside the neutral one, and the chance is between 0 and 1."
            )
        self.live = tuple(range(1, settings + 1))
        self.needed = settings / chance
        self.photos = 0
        self._halvings = halvings
        self._counts = np.zeros((settings + 1, 3), dtype=np.int64)
        self._gains = np.zeros(settings + 1)
        self._capital = np.zeros((settings + 1, len(_STAKES)))

    @property
    def field(self) -> tuple[int, ...]:
        """The settings that the next photo is to be shown through, the neutral one first."""
        return (0, *self.live)

    @property
    def ahead(self) -> int | None:
        """How many further photos are shown through the same field; None if it is the last."""
        return next((until - self.photos for until in self._halvings if until > self.photos), None)

    @property
    def over(self) -> bool:
        """Whether no further photo can change what is taken, but for the worse."""
        return not self.live or (len(self.live) == 1 and self._enough(self.live[0]))

    def add(self, votes: Mapping[int, Vote]) -> None:
        """Count one photo.

        Args:
            votes: of each setting of `field`.
        """
        neutral = votes[0]
        for setting in self.live:
            vote = votes[setting]
            gain = vote.soft - neutral.soft
            self._counts[setting] += (1, vote.right, neutral.right)
            self._gains[setting] += gain
            counted = min(max(gain / _CUT, -1.0), 1.0)
            self._capital[setting] += np.log1p(_STAKES * counted)
        self.photos += 1
        if self.photos in self._halvings:
            best = sorted(self.live, key=lambda setting: (-self._gains[setting], setting))
            self.live = tuple(sorted(best[: math.ceil(len(best) / 2)]))

    def standing(self, setting: int) -> Standing:
        """Return how a setting did, as far as it was in the race."""
        photos, right, neutral = (int(count) for count in self._counts[setting])
        return Standing(
            photos=photos,
            right=right,
            neutral_right=neutral,
            gain=float(self._gains[setting]) / max(photos, 1),
            log_evidence=float(
                np.logaddexp.reduce(self._capital[setting]) - math.log(len(_STAKES))
            ),
        )

    @property
    def taken(self) -> int:
        """The setting that is taken: the best with enough evidence, else the neutral one, 0.

        Higher scores alone do not count: a setting that lost votes for the label is not taken.
        """
        proved = [setting for setting in self.live if self._enough(setting)]
        return max(proved, key=lambda setting: self.standing(setting).gain, default=0)

    def _enough(self, setting: int) -> bool:
        standing = self.standing(setting)
        enough = standing.log_evidence >= math.log(self.needed)
        return enough and standing.right >= standing.neutral_right
