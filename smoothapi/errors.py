"""Every error a user of smoothapi can meet.

::

    SmoothAPIError
    ├── UsageError                 a value that cannot work; nothing was sent           (exit 2)
    │   ├── ImageError             the photo cannot be used
    │   ├── UnreachableRadiusError no run of votes within the cap reaches the radius
    │   ├── UnknownProviderError   no adapter of that name
    │   ├── UnknownLabelError      a label that the provider never gives
    │   ├── MissingExtraError      packages of an extra are not installed, such as torch
    │   ├── SigningKeyError        a key of signatures cannot be read, made or used
    │   └── CertificateError       a certificate does not hold                          (exit 6)
    │       ├── UnreadableCertificateError   there is none, or it cannot be read        (exit 5)
    │       └── UntrustedCertificateError    no trusted key has signed it               (exit 7)
    ├── DenoiserError              weights, device or output of the denoiser            (exit 2)
    ├── StoreError                 answers cannot be kept                               (exit 2)
    ├── ClusterError               machines that share the work, or the way to them     (exit 2)
    │   └── ProcessesLostError     several processes died over one photo
    ├── BudgetExceededError        the next attempt would pass the budget               (exit 3)
    ├── StoppedError               the run was stopped; what was answered is kept     (exit 130)
    └── ProviderError              the service, or the way to it                        (exit 4)
        ├── TransientError         try the same variant again
        │   └── ThrottledError     try again, and slow down
        ├── PermanentError         this payload will never be answered
        ├── FatalError             no payload will be: credentials, permission, quota
        ├── ModelChangedError      the provider's model changed between the votes
        └── TooManyFailuresError   so many variants failed that paying on is pointless

Each message says what happened, why, and what to do. None carries a key, a secret or image
bytes, nor a character that could steer a terminal.
"""

from __future__ import annotations

import traceback

from smoothapi.text import printable_lines


class SmoothAPIError(Exception):
    """Base of every error that smoothapi raises on purpose.

    Attributes:
        exit_code: what the command line exits with.
        attempts: requests for a picture that had been sent when the error ended the run, retries
            included.
        cost: dollars that those attempts cost by the price list.
        retries: of the attempts, those that repeated an earlier one.
        waited: seconds of the clock in which a request waited between attempts.
    """

    exit_code = 2
    attempts: int = 0
    cost: float = 0.0
    retries: int = 0
    waited: float = 0.0

    def __init__(self, *args: object) -> None:
        # Whoever prints a traceback prints its message, and messages quote what is from outside.
        super().__init__(*(printable_lines(arg) if isinstance(arg, str) else arg for arg in args))


class UsageError(SmoothAPIError, ValueError):
    """A value was given that cannot work. Nothing was sent."""


class ImageError(UsageError):
    """The photo cannot be decoded, or is nothing that smoothapi takes."""


class UnreachableRadiusError(UsageError):
    """Even an unbroken run of votes within the cap could not certify the radius.

    Attributes:
        largest: L2 radius around the working image that the votes allowed can certify; 0 where
            there is none, or it is not known.
    """

    def __init__(self, message: str, *, largest: float = 0.0) -> None:
        super().__init__(message)
        self.largest = largest


class UnknownProviderError(UsageError):
    """No adapter is registered under the name."""


class UnknownLabelError(UsageError):
    """A label is asked for by name that the provider never gives, so that no vote could be for it.

    Attributes:
        labels: as they were asked for.
    """

    def __init__(self, message: str, *, labels: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.labels = labels


class MissingExtraError(UsageError, ImportError):
    """A package that is an optional extra is needed and not installed."""


class SigningKeyError(UsageError):
    """A key that signs certificates, or verifies them, cannot be read, made or used."""


class CertificateError(UsageError):
    """A certificate does not hold: it is malformed, or its claims do not follow from its votes."""

    exit_code = 6


class UnreadableCertificateError(CertificateError):
    """There is no certificate to check: no such file, or nothing in it that is one."""

    exit_code = 5


class UntrustedCertificateError(CertificateError):
    """A certificate holds, but none of the keys that were given has signed it."""

    exit_code = 7


class DenoiserError(SmoothAPIError):
    """The denoiser's weights, its device or what it returned cannot be used."""


class StoreError(SmoothAPIError):
    """Answers cannot be kept, so none may be bought."""


class ClusterError(SmoothAPIError):
    """The machines that share the work cannot be reached, or too many of them died.

    What was answered is kept; the same call continues where this one ended.
    """


class ProcessesLostError(ClusterError):
    """Several processes of a cluster died, one after the other, while they worked on one photo."""


class BudgetExceededError(SmoothAPIError):
    """The next attempt would pass the budget, so it was not made."""

    exit_code = 3


class StoppedError(SmoothAPIError):
    """The run was stopped from outside: its Smoother was closed, or its task cancelled.

    What was under way was awaited and is kept; `attempts` and `cost` say what was spent. The same
    call continues where this one ended.
    """

    exit_code = 130  # as if by Ctrl-C


class ProviderError(SmoothAPIError):
    """The provider, or the way to it, failed.

    Attributes:
        provider: the adapter's name, once known.
        request_id: the provider's id of the failed request, if it gave one.
        sent: whether the request may have left this machine; if not, it is not charged.
    """

    exit_code = 4

    def __init__(
        self, message: str, *, sent: bool = True, provider: str = "", request_id: str = ""
    ) -> None:
        super().__init__(message)
        self.sent = sent
        self.provider = provider
        self.request_id = request_id


class TransientError(ProviderError):
    """The same variant may be answered if it is sent again.

    Where it was not even sent (`sent=False`: no connection) and nothing has been answered before,
    that is taken for a wrong setting, and ends the run within seconds.

    Attributes:
        retry_after: seconds that the provider asked to wait, or None if it did not say.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        sent: bool = True,
        provider: str = "",
        request_id: str = "",
    ) -> None:
        super().__init__(message, sent=sent, provider=provider, request_id=request_id)
        self.retry_after = None if retry_after is None else max(0.0, float(retry_after))


class ThrottledError(TransientError):
    """The provider asks to be called less often."""


class PermanentError(ProviderError):
    """This payload will never be answered: its vote is "no answer"."""


class FatalError(ProviderError):
    """No payload will be answered (credentials, permission, quota): the run stops at once."""


class ModelChangedError(ProviderError):
    """The votes of one certificate came from two versions of the provider's model."""


class TooManyFailuresError(ProviderError):
    """More than the allowed share of variants got no answer."""


def let_go(error: BaseException) -> None:
    """Clear what the frames that an error came through hold: photos, payloads, the error itself.

    For one that goes no further, where it is answered for. Its trace stays. An error that is held
    by a variable of a frame that it came through, as in a thread's future, would else keep all of
    that in memory until Python next looks for such circles.
    """
    seen: set[int] = set()
    chain: list[BaseException | None] = [error]
    while chain:
        one = chain.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        traceback.clear_frames(one.__traceback__)
        chain += [one.__cause__, one.__context__]
