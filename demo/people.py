"""The demo's directory: one invented customer, its people, two apps and two clients.

The customer is Brackenford Supply Co., a wholesaler whose web site embeds the two apps.
"""

from typing import Any, Final

WORKSPACE: Final = "acme"
CUSTOMER: Final = "Brackenford Supply Co."

ANA: Final = "ana@acme.test"
BEN: Final = "ben@acme.test"
CLEO: Final = "cleo@acme.test"
DAN: Final = "dan@acme.test"
#: The owner of the console.
OLA: Final = "ola@acme.test"

# Fixed ids, so that an address in a note or a test names the same app after another load.
ORDERS_ID: Final = "8ba8bf0e-6b8f-4e07-abb9-6fd2d816fabc"
SUPPORT_ID: Final = "3d1c0a52-94e7-4c0b-9f65-2b7f4e8a6d10"
ELSEWHERE_ID: Final = "c7a3f1d8-2b64-4f0e-8d19-5e60a7b3c421"
#: Slugs of the app that runs elsewhere, and its names: the demo's own app, or that of the demo's reader.
DELIVERIES: Final = "deliveries"
YOUR_APP: Final = "your-app"
ELSEWHERE: Final = {DELIVERIES: "Deliveries", YOUR_APP: "Your app"}

PORTAL_CLIENT: Final = "portal"
LIMITED_CLIENT: Final = "portal-limited"


def directory(origin: str) -> dict[str, Any]:
    """Return the demo's provisioning file as a dict. Only pages of `origin` may embed its apps.

    The file has no secrets: the load generates them and stores them in instance/demo.json.
    """
    return {
        "workspaces": [{"slug": WORKSPACE, "name": CUSTOMER, "allowed_origins": [origin]}],
        "users": [
            _user(ANA, "Ana Ruiz"),
            _user(BEN, "Ben Okafor"),
            _user(CLEO, "Cleo Martin"),  # joined today: grants, but no rows
            _user(DAN, "Dan Whitlock"),  # a member without grants
        ],
        "apps": [
            _app(ORDERS_ID, "orders", "Orders", origin),
            _app(SUPPORT_ID, "support", "Support desk", origin),
        ],
        "clients": [
            # A visitor's clicks must not reach the limit. The second client demonstrates the limit.
            {
                "id": PORTAL_CLIENT,
                "workspaces": [WORKSPACE],
                "scopes": ["mint", "mint:workspace"],
                "mint_limit": "600 per minute",
            },
            {"id": LIMITED_CLIENT, "workspaces": [WORKSPACE], "scopes": ["mint", "mint:workspace"]},
        ],
    }


def elsewhere(slug: str, upstream: str, start: str, origin: str) -> dict[str, Any]:
    """Return the provisioning entry of the app that runs elsewhere, at the address `upstream`."""
    return {
        "id": ELSEWHERE_ID,
        "slug": slug,
        "name": ELSEWHERE[slug],
        "workspace": WORKSPACE,
        "upstream": upstream,
        "start": start,
        "allowed_origins": [origin],
        "users": [ANA, BEN, CLEO],
    }


def _user(email: str, name: str) -> dict[str, Any]:
    return {"email": email, "name": name, "status": "active", "workspaces": {WORKSPACE: "end-user"}}


def _app(app_id: str, slug: str, name: str, origin: str) -> dict[str, Any]:
    return {
        "id": app_id,
        "slug": slug,
        "name": name,
        "workspace": WORKSPACE,
        "template": slug,
        "allowed_origins": [origin],
        "users": [ANA, BEN, CLEO],
    }
