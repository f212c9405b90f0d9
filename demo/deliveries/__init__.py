"""An app that existed before: Brackenford's delivery desk, in plain Flask.

It knows nothing of pat-service. Like many internal apps it trusts the header X-Forwarded-Email of the proxy
in front, keeps a session cookie, and forbids frames of other sites. Try it alone:

    curl -H 'X-Forwarded-Email: ana@acme.test' http://127.0.0.1:8501/
    flask --app demo.deliveries run --port 8501
"""

import csv
import io
import itertools
import json
import secrets
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from flask import Flask, Response, abort, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

WINDOWS: Final = {"morning": "8:00–12:00", "afternoon": "12:00–17:00"}
DAYS_AHEAD: Final = 7
MAX_NOTE: Final = 80
MAX_BOOKINGS: Final = 12  # of one person
#: A van's round: it passes these stops, then starts again.
STOPS: Final = ("Depot", "Harbour Rd", "Mill Lane", "Castle St", "Station Sq", "Orchard Way")
SECONDS_PER_STOP: Final = 8
ROUND_SECONDS: Final = SECONDS_PER_STOP * len(STOPS)

app = Flask(__name__)
# Messages after a booking are in a cookie; they may end with this process.
app.secret_key = secrets.token_bytes()


@dataclass(frozen=True)
class Delivery:
    """A delivery of one person."""

    number: str
    day: date
    window: str
    goods: str
    status: str


_numbers = itertools.count(4812)
_booked: defaultdict[str, list[Delivery]] = defaultdict(list)


def _person() -> str:
    """Return the email that the proxy in front has checked."""
    email = request.headers.get("X-Forwarded-Email", "")
    if "@" not in email:
        abort(401, "The proxy in front sent no X-Forwarded-Email.")
    return email


def _days() -> dict[str, str]:
    today = date.today()
    days = [today + timedelta(days=ahead) for ahead in range(1, DAYS_AHEAD + 1)]
    return {day.isoformat(): _name(day) for day in days if day.weekday() < 5}


@app.template_filter("day")
def _name(day: date) -> str:
    return "Today" if day == date.today() else f"{day:%a} {day.day} {day:%b}"


def _deliveries(person: str) -> list[Delivery]:
    today = date.today()
    own = [
        Delivery("D-4790", today - timedelta(days=2), "morning", "Pallet of copy paper", "Delivered"),
        Delivery("D-4803", today, "morning", "24 desk lamps", "Delivered"),
        Delivery("D-4807", today, "afternoon", "6 standing desks", "On the road"),
        Delivery("D-4811", today + timedelta(days=1), "morning", "Shelving, 3 boxes", "Planned"),
    ]
    return sorted([*own, *_booked[person]], key=lambda delivery: (delivery.day, delivery.window != "morning"))


@app.get("/")
def board() -> str:
    """Show the person's deliveries, and the form for another one."""
    person = _person()
    found = _deliveries(person)
    return render_template(
        "board.html",
        person=person,
        deliveries=found,
        counts={status: sum(d.status == status for d in found) for status in ("On the road", "Planned")},
        days=_days(),
        windows=WINDOWS,
        stops=STOPS,
        max_note=MAX_NOTE,
    )


@app.post("/")
def book() -> BaseResponse:
    """Book a delivery."""
    person, sent = _person(), request.form
    day, window, goods = sent.get("day", ""), sent.get("window", ""), " ".join(sent.get("goods", "").split())
    if day not in _days() or window not in WINDOWS or not 1 <= len(goods) <= MAX_NOTE:
        abort(400, "Choose a day and a window, and say what to deliver.")
    if len(_booked[person]) >= MAX_BOOKINGS:
        flash("Your book is full. Call the desk for more.")
    else:
        delivery = Delivery(f"D-{next(_numbers)}", date.fromisoformat(day), window, goods, "Planned")
        _booked[person].append(delivery)
        flash(f"{delivery.number} is booked for {_days()[day]}, {WINDOWS[window]}.")
    return redirect(url_for("board"), 303)


@app.get("/deliveries.csv")
def download() -> Response:
    """Return the person's deliveries as a file."""
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["number", "day", "window", "goods", "status"])
    for each in _deliveries(_person()):
        rows.writerow([each.number, each.day.isoformat(), WINDOWS[each.window], each.goods, each.status])
    headers = {"Content-Disposition": "attachment; filename=deliveries.csv"}
    return Response(text.getvalue(), mimetype="text/csv", headers=headers)


@app.get("/live")
def live() -> Response:
    """Stream the time, and the position of the van, once a second."""
    _person()

    def events() -> Iterator[str]:
        while True:
            now = time.time()
            position = {"time": time.strftime("%H:%M:%S"), "progress": now % ROUND_SECONDS / ROUND_SECONDS}
            yield f"data: {json.dumps(position)}\n\n"
            time.sleep(1 - now % 1)

    return Response(events(), mimetype="text/event-stream", headers={"Cache-Control": "no-store"})


@app.after_request
def forbid_frames(response: Response) -> Response:
    """Forbid frames, as many apps do. The proxy in front replaces this by the service's own list."""
    response.headers["X-Frame-Options"] = "DENY"
    return response
