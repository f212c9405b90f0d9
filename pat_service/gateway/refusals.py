"""Refusals of the gateway alone. No other answer of the service has these codes."""

from typing import Final

from pat_service import errors
from pat_service.errors import Refused


class SessionMissing(Refused):
    """The request has no cookie of ours. The browser may keep none."""

    status, code, title = 401, "session_missing", "No session"
    detail = "The request has no session of this app. Open the app again from the page that contains it."


class CrossSite(Refused):
    """Another page has sent the request, or the browser does not report which one."""

    status, code, title = 403, "cross_site", "From another page"
    detail = "Only the app's own pages may send this request."


#: The error of each code that a proxy can get.
BY_CODE: Final = errors.BY_CODE | {error.code: error for error in (SessionMissing, CrossSite)}
