"""What a tuning would ask, how far it is, and what came of it."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from smoothapi._special import special
from smoothapi._version import __version__
from smoothapi.denoise.storage import SHIPPED
from smoothapi.files import replacing
from smoothapi.text import printable

if TYPE_CHECKING:
    from smoothapi.adapting.race import Standing
    from smoothapi.denoise.adaptation import Adaptation
    from smoothapi.denoise.knobs import Knobs


@dataclass(frozen=True, slots=True)
class AdaptPlan:
    """What a tuning would send and cost.

    Attributes:
        provider: who would be asked.
        photos: that can be used.
        left_out: files that cannot be read, are there twice, or have no label.
        tuning: photos of the race, at most.
        held_out: photos that would measure the choice.
        settings: that would be tried beside the neutral one.
        stored: answers that the store already holds, of those that could be needed.
        queries: to be sent, at most.
        dollars: what they cost by the price list.
        budget: the limit, in words.
    """

    provider: str
    photos: int
    left_out: int
    tuning: int
    held_out: int
    settings: tuple[Knobs, ...]
    stored: int
    queries: int
    dollars: float
    budget: str


@dataclass(frozen=True, slots=True)
class AdaptProgress:
    """How far a tuning is.

    Attributes:
        phase: "reading" photos, "tuning" on them, or "measuring" on those that are held out.
        done: photos that are through.
        total: photos there are at most.
        queries: sent so far.
        cached: answers from the store so far.
        cost: dollars so far.
        left: settings that are still in the race.
    """

    phase: Literal["reading", "tuning", "measuring"]
    done: int
    total: int
    queries: int = 0
    cached: int = 0
    cost: float = 0.0
    left: int = 0


@dataclass(frozen=True, slots=True)
class Tried:
    """A setting, and how it did beside the neutral one."""

    knobs: Knobs
    standing: Standing


@dataclass(frozen=True, slots=True)
class BeforeAfter:
    """Votes for the photos' labels before and after, one a photo, on photos held out.

    Attributes:
        photos: how many.
        before: of these, with a vote for the label through the denoiser as it was.
        after: the same through the adapted one, under the same noise.
        gained: photos that have it only after.
        lost: photos that had it only before.
    """

    photos: int
    before: int
    after: int
    gained: int
    lost: int

    @property
    def band(self) -> tuple[float, float]:
        """95% interval of the share of photos gained less that of photos lost.

        From the exact interval (Clopper and Pearson) of gains among the photos that changed.
        """
        changed = self.gained + self.lost
        if not changed:
            return 0.0, 0.0
        low = float(special.betaincinv(self.gained, self.lost + 1, 0.025)) if self.gained else 0.0
        high = float(special.betaincinv(self.gained + 1, self.lost, 0.975)) if self.lost else 1.0
        return (2 * low - 1) * changed / self.photos, (2 * high - 1) * changed / self.photos


@dataclass(frozen=True, slots=True)
class Adapted:
    """What came of a tuning.

    Attributes:
        adaptation: the denoiser, ready to be written.
        base: name of the weights.
        tried: each setting but the neutral one.
        needed: the e-value at which one is taken.
        photos: of the race.
        held_out: before and after; None if nothing was changed or the budget ended before.
        reference: "truth", the labels that were given, or the provider's "plain" answers.
        model_versions: of the provider's model.
        queries: sent in this run.
        cached: answers that the store had.
        dollars: what the attempts of this run cost.
        seconds: how long it took.
        left_out: photos that could not be used.
        stopped: why the budget ended it; "" if it did not.
    """

    adaptation: Adaptation
    base: str
    tried: tuple[Tried, ...]
    needed: float
    photos: int
    held_out: BeforeAfter | None
    reference: Literal["truth", "plain"]
    model_versions: tuple[str, ...]
    queries: int
    cached: int
    dollars: float
    seconds: float
    left_out: int
    stopped: str

    @property
    def changed(self) -> bool:
        """Whether a setting was taken; else the denoiser is what it was."""
        return not self.adaptation.knobs.neutral

    def to_dict(self) -> dict[str, Any]:
        """Return what the adaptation's file says of how it was made, ready for JSON."""
        return {
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "smoothapi": __version__,
            "base": self.base,
            "reference": self.reference,
            "photos": self.photos,
            "needed": self.needed,
            "tried": [
                {
                    **asdict(one.knobs),
                    "photos": one.standing.photos,
                    "right": one.standing.right,
                    "neutral_right": one.standing.neutral_right,
                    "gain": round(one.standing.gain, 5),
                    "evidence": float(f"{one.standing.evidence:.4g}"),
                }
                for one in self.tried
            ],
            "held_out": None if self.held_out is None else asdict(self.held_out),
            "model_versions": list(self.model_versions),
            "queries": self.queries,
            "cached": self.cached,
            "dollars": self.dollars,
            "stopped": self.stopped,
        }

    def write(self, path: str | Path) -> Path:
        """Write the adaptation's file, and the card beside it (.md).

        Returns:
            The path of the card.
        """
        path = Path(path)
        weights = self.adaptation.weights
        if weights not in SHIPPED:
            # So that both may be moved together.
            weights = os.path.relpath(Path(weights).resolve(), path.resolve().parent)
        replace(self.adaptation, weights=weights, about=self.to_dict()).write(path)
        card = path.with_suffix(".md")
        with replacing(card) as stream:
            stream.write(self.card())
        return card

    def card(self) -> str:
        """Return what a person should know of it, as Markdown."""
        adaptation = self.adaptation
        by = {
            "truth": "the labels that were given",
            "plain": "what the provider says of the photo itself",
        }[self.reference]
        models = ", ".join(map(printable, self.model_versions)) or "unknown"
        kept = "" if self.changed else " (no other had enough evidence)"
        facts = {
            "Setting": f"{adaptation.knobs}{kept}",
            "Noise level": f"{adaptation.sigma:g}",
            "Measured against": f"{by}, on {self.photos} photos",
            "Queries sent": f"{self.queries:,} (${self.dollars:.4f})",
            "Answers from the store": f"{self.cached:,}",
            "Model of the provider": models,
            "Weights": f"SHA-256 {adaptation.sha256}",
        }
        if self.stopped:
            facts["Ended early"] = printable(self.stopped)
        needed = f"A setting is taken at an e-value of {self.needed:g}."
        columns = ("setting", "photos", "right", "right, neutral", "gain of score", "e-value")
        lines = [
            f"# {self.base}, adapted to {printable(adaptation.provider)}",
            "",
            *(f"- {name}: {value}" for name, value in facts.items()),
            "",
            *self._before_after(),
            "",
            "## What was tried",
            "",
            f"{needed} Each saw photos on the same noise as the neutral one, while in the race.",
            "",
            f"| {' | '.join(columns)} |",
            "|---" * len(columns) + "|",
        ]
        for one in self.tried:
            standing = one.standing
            lines.append(
                f"| {one.knobs} | {standing.photos} | {standing.right} | "
                f"{standing.neutral_right} | {standing.gain:+.2%} | {standing.evidence:.3g} |"
            )
        return "\n".join(lines) + "\n"

    def _before_after(self) -> list[str]:
        lines = ["## Before and after", ""]
        held = self.held_out
        if held is None or not held.photos:
            why = (
                "The budget ended before photos that were held out could be asked about."
                if self.changed
                else "Nothing was changed, so there is nothing to compare."
            )
            return [*lines, why]
        low, high = held.band
        return [
            *lines,
            (
                f"On {held.photos} photos that had no part in the choice, one noisy copy each: the "
                f"label got the vote on {held.before} before and on {held.after} after "
                f"({held.gained} gained, {held.lost} lost; 95% interval of the difference "
                f"{low:+.1%} to {high:+.1%})."
            ),
        ]
