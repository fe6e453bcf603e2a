"""What a call of a wrapped client is to give: decided once in `wrap`, or anew for some calls."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, TypedDict, Unpack, get_args

from smoothapi.certify.targets import MostSpecific, Presence, Scores, parse_target
from smoothapi.errors import UsageError
from smoothapi.options import resolve
from smoothapi.parts import choose_budgets, choose_label_space
from smoothapi.store.allowance import Allowance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smoothapi.certify.labels import LabelSpace
    from smoothapi.certify.targets import Target
    from smoothapi.options import Classes, Radius
    from smoothapi.session import Session
    from smoothapi.store import Budget

Otherwise: TypeAlias = Literal["raise", "plain", "none"]
Uncertified: TypeAlias = Literal["drop", "mark"]
RemotePictures: TypeAlias = Literal["refuse", "pass"]

DEFAULT_SCORE = 0.5
"""The score that decides where neither the options nor the call say one."""


class CallOptions(TypedDict, total=False):
    """What `with_options` may change; each as for `wrap`, None for what holds already."""

    score: float | None
    radius: Radius | None
    max_votes: int | None
    target: Target | None
    classes: Classes | None
    budget: Budget | str | Sequence[Budget] | None
    otherwise: Otherwise | None
    within: float | None
    uncertified: Uncertified | None
    remote: RemotePictures | None
    attach: bool | None
    abandon_on_cancel: bool | None


@dataclass(frozen=True)
class CallPolicy:
    """What a call is to give; as the arguments of `wrap`, which explains them.

    Attributes:
        score: the least score that is wanted; None for the call's own.
        radius: to certify; None for the session's.
        max_votes: most votes for one picture; None for the session's.
        target: what is certified instead of the scores of the answer's labels.
        space: only labels that belong to one of its classes are asked about.
        budget: what each call may spend, on top of the budgets of the session.
        otherwise: what a call gives when it ends before the votes do.
        within: seconds after which nothing more is sent for a call; None for no limit.
        uncertified: what becomes of labels that cannot be certified.
        remote: what becomes of calls whose picture is elsewhere.
        attach: whether a response carries what was found, or it is kept beside.
        abandon_on_cancel: whether a cancelled call leaves what is under way to a thread.
        allowance: what is left of `budget` for the call under way; see `of_one_call`.
    """

    score: float | None = None
    radius: Radius | None = None
    max_votes: int | None = None
    target: Target | None = None
    space: LabelSpace | None = None
    budget: tuple[Budget, ...] = ()
    otherwise: Otherwise = "raise"
    within: float | None = None
    uncertified: Uncertified = "drop"
    remote: RemotePictures = "refuse"
    attach: bool = True
    abandon_on_cancel: bool = False
    allowance: Allowance | None = None

    def __post_init__(self) -> None:
        _one_of("otherwise", self.otherwise, get_args(Otherwise))
        _one_of("uncertified", self.uncertified, get_args(Uncertified))
        _one_of("remote", self.remote, get_args(RemotePictures))
        if self.score is not None and not (_is_number(self.score) and 0.0 < self.score <= 1.0):
            raise UsageError(
                f"score={self.score!r}: the least score that is wanted is in (0, 1], also where "
                "the SDK gives percents."
            )
        if self.within is not None and not (
            _is_number(self.within) and 0.0 < self.within < float("inf")
        ):
            raise UsageError(f"within={self.within!r}: a call's deadline is in seconds, above 0.")
        for name in ("attach", "abandon_on_cancel"):
            if not isinstance(value := getattr(self, name), bool):
                raise UsageError(f"{name}={value!r}: True or False.")
        Allowance(self.budget)  # refuses what is not one call's
        if self.target is None:
            return
        if not isinstance(self.target, (Scores, Presence, MostSpecific)):
            raise UsageError(
                "A response shows labels with scores, so a wrapped client certifies Scores, "
                "Presence or MostSpecific. For another target use Smoother."
            )
        for name, value in (("score", self.score), ("classes", self.space)):
            if value is not None:
                raise UsageError(
                    f"{name} says which labels of an answer are asked about; target names them "
                    "itself. Give one of the two."
                )

    def changed(self, **options: Unpack[CallOptions]) -> Self:
        """Return a policy in which these options hold, where they are not None.

        A target takes the place of score and classes that held before, and the other way round.

        Raises:
            UsageError: a value is out of range, or two contradict each other.
        """
        given: dict[str, Any] = {name: v for name, v in options.items() if v is not None}
        if "classes" in given:
            given["space"] = choose_label_space(given.pop("classes"))
        if "target" in given:
            given["target"] = parse_target(given["target"])
            given = {"score": None, "space": None, **given}
        elif given.keys() & {"score", "space"}:
            given["target"] = None
        if "budget" in given:
            given["budget"] = tuple(choose_budgets(given["budget"]))
        if given.keys() & {"radius", "max_votes"}:
            resolve(None, {name: given.get(name) for name in ("radius", "max_votes")})
        return replace(self, **given)

    def least(self, own: float | None) -> float:
        """Return the score that decides, given that of the call itself."""
        if self.score is not None:
            return float(self.score)
        return DEFAULT_SCORE if own is None else own

    def of_one_call(self) -> Self:
        """Return the policy for one call, with an allowance of its own."""
        return replace(self, allowance=Allowance(self.budget)) if self.budget else self

    def applied(self, session: Session) -> Session:
        """Return the session with the most votes, and the allowance, of this policy."""
        if self.allowance is not None:
            session = replace(session, dispatcher=session.dispatcher.within(self.allowance))
        if self.max_votes is None:
            return session
        settings = session.settings.model_copy(update={"max_votes": self.max_votes})
        return replace(session, settings=settings)


def _one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        *some, last = map(repr, choices)
        raise UsageError(f"{name}={value!r}: choose {', '.join(some)} or {last}.".replace("'", '"'))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
