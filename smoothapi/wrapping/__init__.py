"""Existing code, certified: `wrap(client)` returns the client that it was given, as a proxy.

What a wrapped call does
    1. The call is made as the caller wrote it, about the caller's own picture, through the SDK.
       Its answer is the response that is returned; its errors are the SDK's own.
    2. The labels in that answer that have the score that decides, fixed before any vote, are put
       to the vote: noisy copies of the working image are labelled by the same operation, and for
       each label it is found which score it keeps (`smoothapi.certify.scores`). All labels are
       tested on the same votes and share alpha.
    3. In the response, each label's score becomes its certified score; a label that cannot be
       certified is left out, or marked.

What the answer means
    With probability at least 1 - alpha over the noise, for every label left and every threshold up
    to its score: no change of the working image of L2 norm below the radius brings the label's
    median score over noisy copies below that threshold. Nothing is claimed about labels that are
    not there: an empty list, of a moderation too, says that no label could be certified, and not
    that none applies (`uncertified="mark"` keeps them all). All else in the response (boxes,
    colours, captions) is what the service said to the one call.

    A certified score may be higher than the score in the one answer: the copies may be surer.

What it costs
    One query for the call itself, and up to `max_votes` more, 1,000 by default: at $1.00 per
    1,000 up to a dollar and a tenth of a cent, where the plain call costs that tenth of a cent.
    The run goes on until the slowest label is decided: certified at the score that decides, or
    given up. No vote is bought for a label below that score. That is why a budget must be given.
    Answers to noisy copies are kept, so that the same picture costs one query the next time,
    unless the service's model has changed since: then they are asked for anew.
"""

from smoothapi.wrapping.attached import certificate_of, finding_of
from smoothapi.wrapping.certifier import CertifiedResponse, Certifier
from smoothapi.wrapping.finding import Finding, FoundLabel
from smoothapi.wrapping.policy import CallPolicy
from smoothapi.wrapping.portal import Portal
from smoothapi.wrapping.protocol import (
    AsyncWrapper,
    Call,
    Item,
    OwnCall,
    Passed,
    Remote,
    Verdict,
    Wrapper,
)
from smoothapi.wrapping.proxy import with_options, wrap

__all__ = [
    "AsyncWrapper",
    "Call",
    "CallPolicy",
    "CertifiedResponse",
    "Certifier",
    "Finding",
    "FoundLabel",
    "Item",
    "OwnCall",
    "Passed",
    "Portal",
    "Remote",
    "Verdict",
    "Wrapper",
    "certificate_of",
    "finding_of",
    "with_options",
    "wrap",
]
