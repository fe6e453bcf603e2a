"""Existing code, certified: `wrap(client)` returns the client that it was given, as a proxy.

What a wrapped call does
    1. The call is made as the caller wrote it, about the caller's own picture, through the SDK.
       Its answer is the response that is returned; its errors are the SDK's own.
    2. The labels in that answer, fixed before any vote, are put to the vote: noisy copies of the
       working image are labelled by the same operation, and of each label it is tested whether it
       stays. All labels are tested on the same votes and share alpha.
    3. In the response, each label's score becomes the share of the votes in which it was present;
       a label that cannot be certified is left out, or marked.

What the answer means
    With probability at least 1 - alpha over the noise, for every label left: no change of the
    working image of L2 norm below the radius makes the majority of noisy copies lose it. Nothing
    is claimed about labels that are not there: an empty list, of a moderation too, says that no
    label could be certified, and not that none applies (`uncertified="mark"` keeps them all). All
    else in the response (boxes, colours, captions) is what the service said to the one call.

What it costs
    One query for the call itself, and up to `max_votes` more, 1,000 by default: at $1.00 per
    1,000 up to a dollar and a tenth of a cent, where the plain call costs that tenth of a cent.
    The run goes on until the slowest label is decided. That is why a budget must be given. Answers
    to noisy copies are kept, so that the same picture costs one query the next time, unless the
    service's model has changed since: then they are asked for anew.
"""

from smoothapi.wrapping.certifier import CertifiedResponse, Certifier
from smoothapi.wrapping.protocol import Call, Item, OwnCall, Remote, Verdict, Wrapper
from smoothapi.wrapping.proxy import certificate_of, wrap

__all__ = [
    "Call",
    "CertifiedResponse",
    "Certifier",
    "Item",
    "OwnCall",
    "Remote",
    "Verdict",
    "Wrapper",
    "certificate_of",
    "wrap",
]
