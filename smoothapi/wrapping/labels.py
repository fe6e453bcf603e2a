"""The labels of a caller's own answer, put to the vote together."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from smoothapi.certificates import issue
from smoothapi.certify.decision import Reason
from smoothapi.certify.labels import label_key
from smoothapi.certify.planning import reachable
from smoothapi.certify.targets import Presence, Scores, Top1
from smoothapi.dispatch import Totals
from smoothapi.method import asked_radius, certify, start_test
from smoothapi.plan import refuse_unpayable
from smoothapi.session import Collection

if TYPE_CHECKING:
    from smoothapi.answer import Answer
    from smoothapi.certify.certificate import Certificate
    from smoothapi.certify.targets import Target
    from smoothapi.image import WorkingImage
    from smoothapi.session import Session
    from smoothapi.wrapping.policy import CallPolicy


def certify_labels(
    session: Session, image: WorkingImage, answer: Answer, policy: CallPolicy, *, least: float
) -> Certificate:
    """Certify the score that each label of an answer keeps: all out of the same votes.

    Args:
        session: who is asked, and how.
        image: the working image.
        answer: given before the first vote; its labels are the ones asked about, unless the policy
            has a target, or classes to which one does not belong.
        policy: what is to be certified.
        least: the score from which on a label is asked about, in (0, 1].

    Returns:
        The certificate of `Scores(labels, least, parents=False)`; its claims are of those labels
        that could be certified. All labels share alpha. If `max_votes` is too small to certify
        all, only the highest-scoring ones are tested. Where the largest radius is asked for, it is
        that of `Presence(labels, least, wanted="present")`. An answer without labels costs no
        query: then the certificate has no votes.
    """
    names = _asked_about(answer, policy, least)
    start = partial(start_test, session, image, policy.radius)
    asked = asked_radius(session, policy.radius)
    target: Target | None = None
    if policy.target is not None:
        target = session.target(policy.target)
    elif names:
        target = reachable(names, partial(_of_answer, session, policy, least=least), start)
    if target is not None:
        by_name = policy.target is not None
        run = partial(start, target)
        return certify(session, image, target, run, asked=asked, by_name=by_name)
    nobody = start(Top1()).result()
    nothing = Collection((), None, answer.model_version, Totals(), 0.0)
    return issue(
        "certify",
        image,
        Top1(),
        replace(nobody, reason=Reason.NO_ANSWER),
        nothing,
        session=session,
        asked=asked,
    )


def check_labels(
    session: Session, image: WorkingImage, policy: CallPolicy, *, least: float
) -> None:
    """Refuse what `certify_labels` could not do with any answer, before one is paid for.

    Raises:
        BudgetExceededError: the budget cannot pay for an answer and the votes of one label.
        UnreachableRadiusError, UnknownLabelError, UsageError: as `Smoother.certify` does.
    """
    target: Target
    if policy.target is not None:
        target = session.target(policy.target)
    else:  # of labels that the answer will have
        target = _of_answer(session, policy, ("any",), least=least)
        if policy.space is not None:
            session.known_labels.check_space(policy.space)
    start = partial(start_test, session, image, policy.radius, target)
    start()  # refuses a radius that is out of reach
    session.variants.check_side(image)
    if not session.settings.partial:
        refuse_unpayable(session, image, target, start, more=1)


def _of_answer(
    session: Session, policy: CallPolicy, labels: tuple[str, ...], *, least: float
) -> Scores | Presence:
    if asked_radius(session, policy.radius) is None:  # score and radius cannot both be searched for
        return Presence(labels, least, wanted="present")
    return Scores(labels, least, parents=False)


def _asked_about(answer: Answer, policy: CallPolicy, least: float) -> list[str]:
    best = sorted(answer.labels, key=lambda label: (-label.score, label.name))
    names = {
        label_key(label.name): label.name
        for label in best
        if label.score >= least and (policy.space is None or policy.space.class_of(label))
    }
    names.pop("", None)  # nothing but spaces is no label to ask about
    return list(names.values())
