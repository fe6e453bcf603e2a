"""The labels of a caller's own answer, put to the vote together."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from smoothapi.certificates import issue
from smoothapi.certify.decision import Reason
from smoothapi.certify.labels import label_key
from smoothapi.certify.planning import reachable_presence
from smoothapi.certify.targets import Presence, Top1
from smoothapi.dispatch import Totals
from smoothapi.plan import refuse_unpayable
from smoothapi.session import Collection
from smoothapi.smoother import asked_radius, certify, start_test

if TYPE_CHECKING:
    from smoothapi.answer import Answer
    from smoothapi.certify.certificate import Certificate
    from smoothapi.image import WorkingImage
    from smoothapi.options import Radius
    from smoothapi.session import Session


def certify_labels(
    session: Session,
    image: WorkingImage,
    answer: Answer,
    radius: Radius | None = None,
    *,
    score: float,
) -> Certificate:
    """Certify of each label of an answer that it stays: all out of the same votes.

    Args:
        session: who is asked, and how.
        image: the working image.
        answer: given before the first vote; its labels are the ones asked about.
        radius: as for `Smoother.certify`.
        score: least score of a label that counts as present, in (0, 1].

    Returns:
        The certificate of `Presence(labels, score, wanted="present")`; its claims are of those
        labels that could be certified. All labels share alpha. If `max_votes` is too small to
        certify all, only the highest-scoring ones are tested. An answer without labels costs no
        query: then the certificate has no votes.
    """
    best = sorted(answer.labels, key=lambda label: (-label.score, label.name))
    names = {label_key(label.name): label.name for label in best if label.score >= score}
    names.pop("", None)  # nothing but spaces is no label to ask about
    if names:
        start = partial(start_test, session, image, radius)
        target = session.target(reachable_presence(list(names.values()), score, start))
        asked = asked_radius(session, radius)
        return certify(session, image, target, partial(start, target), asked=asked)
    nobody = start_test(session, image, radius, Top1()).result()
    nothing = Collection((), None, answer.model_version, Totals(), 0.0)
    return issue(
        "certify",
        image,
        Top1(),
        replace(nobody, reason=Reason.NO_ANSWER),
        nothing,
        session=session,
        asked=asked_radius(session, radius),
    )


def check_labels(
    session: Session, image: WorkingImage, radius: Radius | None = None, *, score: float
) -> None:
    """Refuse what `certify_labels` could not do with any answer, before one is paid for.

    Raises:
        BudgetExceededError: the budget cannot pay for an answer and the votes of one label.
        UnreachableRadiusError, UsageError: as `Smoother.certify` does.
    """
    target = Presence("any", score, wanted="present")
    start = partial(start_test, session, image, radius, target)
    start()  # refuses a radius that is out of reach
    session.variants.check_side(image)
    if not session.settings.partial:
        refuse_unpayable(session, image, target, start, more=1)
