"""An error, and all that it came of."""

from __future__ import annotations


def chain(
    error: BaseException, *, short_of: tuple[type[BaseException], ...] = ()
) -> list[BaseException]:
    """Return an error and all that it came of or wraps, itself first.

    That is what Python links it to, what it holds in its arguments or as a group, and what the
    libraries on the way keep in places of their own: `reason` of urllib3, `inner_exception` of
    azure-core and msrest.

    Args:
        error: where to begin.
        short_of: errors that are left out, with what they came of.
    """
    found: list[BaseException] = []
    seen: set[int] = set()
    ahead: list[object] = [error]
    while ahead:
        link = ahead.pop()
        if not isinstance(link, BaseException) or isinstance(link, short_of) or id(link) in seen:
            continue
        seen.add(id(link))
        found.append(link)
        ahead += [link.__cause__, link.__context__, *link.args]
        ahead += getattr(link, "exceptions", ())
        ahead += [getattr(link, name, None) for name in ("reason", "inner_exception")]
    return found
