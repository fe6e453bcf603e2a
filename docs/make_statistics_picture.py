"""Draw docs/pictures/evalue.png: evidence that may be looked at after every vote.

Three photos whose top label has another share of the votes, and what the test makes of the same
votes: the e-value on its way to 1 / level, and the lower bound of the share beside that of a fixed
sample. The votes are drawn from a seed: python docs/make_statistics_picture.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np

from smoothapi.certify import SequentialCertify, clopper_pearson_lower, joint_level, required_p
from smoothapi.certify.evalue import log_evalue, p_lower

mpl.use("agg")
from matplotlib import pyplot as plt

SIGMA, RADIUS, ALPHA, CAP = 0.25, 0.25, 0.001, 1000
SHARES = ((1.0, "#1c7e3e"), (0.95, "#2f5fa8"), (0.75, "#a82828"))
OUT = Path(__file__).parent / "pictures" / "evalue.png"


def votes(share: float) -> np.ndarray:
    """Return votes for the label (1) and against it (0), up to the cap."""
    return (np.random.default_rng(14).random(CAP) < share).astype(int)


def counted(hits: np.ndarray) -> tuple[int, bool]:
    """Return how many of these votes the test takes, and whether it certifies."""
    test = SequentialCertify(sigma=SIGMA, alpha=ALPHA, max_votes=CAP, radius=RADIUS)
    for hit in hits:
        test.add("bus" if hit else "van")
        if test.done:
            break
    decision = test.result()
    return decision.votes, not decision.abstained


def main() -> None:
    """Draw the picture."""
    q = required_p(RADIUS, SIGMA)
    level = joint_level(RADIUS, SIGMA, ALPHA, 0.0)
    figure, (above, below) = plt.subplots(2, 1, figsize=(6.6, 7.6), constrained_layout=True)
    for share, color in SHARES:
        hits = votes(share)
        taken, certified = counted(hits)
        n = np.arange(1, taken + 1)
        k = np.cumsum(hits)[:taken]
        end = "certified" if certified else "given up"
        text = f"share {share:g}: {end} after {taken} votes"
        above.plot(n, log_evalue(k, n, q) / np.log(10.0), color=color, label=text)
        above.plot(taken, log_evalue(k[-1], taken, q) / np.log(10.0), "o", color=color)
        if certified:
            bound = [
                p_lower(int(wins), int(m), level) or np.nan for wins, m in zip(k, n, strict=True)
            ]
            below.plot(
                n, np.fmax.accumulate(bound), color=color, label=f"share {share:g}, every vote"
            )
            fixed = clopper_pearson_lower(int(hits.sum()), CAP, ALPHA)
            below.plot(
                CAP, fixed, "D", color=color, label=f"share {share:g}, fixed sample of {CAP:,}"
            )
    above.axhline(-np.log10(level), color="black", linewidth=1)
    above.annotate(
        "1 / level: certified", (2, -np.log10(level)), (2, 5), textcoords="offset points"
    )
    above.set(xscale="log", ylim=(-4, 4), xlabel="votes", ylabel="log10 of the e-value")
    above.set_title("Evidence that the share exceeds q, looked at after every vote", fontsize=11)
    above.legend(loc="lower left", fontsize=9)
    below.axhline(q, color="black", linewidth=1)
    below.annotate(
        f"q = {q:.4f}, needed for radius {RADIUS:g}", (11, q), (0, 5), textcoords="offset points"
    )
    below.set(xscale="log", ylim=(0.5, 1.01), xlabel="votes", ylabel="lower bound of the share")
    below.set_title("What is proved meanwhile, and by a fixed sample", fontsize=11)
    below.legend(loc="lower right", fontsize=9)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(OUT, dpi=110)


if __name__ == "__main__":
    main()
