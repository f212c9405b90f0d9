"""A portal in Flask: a signed-in person sees the app Orders as themselves."""

import os
from base64 import b64encode
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, Request

from flask import Flask, Response, json, redirect, render_template, request, session

SERVICE = os.environ["PAT_SERVICE"]
CLIENT = f"{os.environ['CLIENT_ID']}:{os.environ['CLIENT_SECRET']}"
APPS = ["orders"]

# Without a handler for redirects, no other address gets the client's secret.
service = OpenerDirector()
for handler in (HTTPHandler(), HTTPSHandler()):
    service.add_handler(handler)

app = Flask(__name__)
app.secret_key = os.environ.get("PORTAL_KEY") or os.urandom(32)
app.config["SESSION_COOKIE_SAMESITE"] = "Lax"


@app.get("/")
def home():
    return render_template("page.html", service=SERVICE, email=session.get("email"))


@app.post("/sign-in")
def sign_in():
    session["email"] = "ana@acme.test"  # replace with a password, single sign-on, …
    return redirect("/")


@app.post("/embed-token")
def embed_token():
    """Mint for the signed-in person. The client's secret stays here."""
    # A page of another site can make this browser post a form with our cookie, but cannot send these
    # headers.
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin" or not request.is_json:
        return {"detail": "Send JSON from one of the portal's own pages."}, 403
    if "email" not in session:
        return {"detail": "Sign in first."}, 401
    if request.json.get("app") not in APPS:
        return {"detail": "This portal does not have this app."}, 404
    body = {"email": session["email"], "appSlug": request.json["app"], "sessionExpiry": 60, "patExpiry": 300}
    mint = Request(
        f"{SERVICE}/api/ext/users/personal-access-token",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Basic {b64encode(CLIENT.encode()).decode()}"},
    )
    try:
        with service.open(mint, timeout=10) as answer:
            minted, status, wait = answer.read(), answer.status, answer.headers["Retry-After"]
    except OSError:
        return {"detail": "The service cannot be reached."}, 502
    # The page's script handles a refusal. A 401 concerns our secret, so the script must not see it.
    status = 502 if status == 401 or 300 <= status < 400 else status
    headers = {"Cache-Control": "no-store"} | ({"Retry-After": wait} if wait else {})
    return Response(minted, status, headers, content_type="application/json")
