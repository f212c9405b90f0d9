"""Several people who use one service at the same time."""

from concurrent.futures import ThreadPoolExecutor

from tests.support.people import Service, changed, provision

#: People who use the service at the same time.
CROWD = [f"user{number}@acme.test" for number in range(8)]


def use_at_once(service: Service) -> set[int]:
    """Let the crowd mint, open and make requests at the same time; return the statuses."""

    def visit(email: str) -> set[int]:
        own, statuses = Service(service.app.test_client()), set()
        for _ in range(6):
            frame = own.frame(email=email)
            answers = [own.get(frame, path) for path in ("session", "pages/index", "session")]
            statuses |= {answer.status_code for answer in answers}
            assert {answer.get_json()["user"]["email"] for answer in answers[::2]} == {email}
        return statuses

    people = [{"email": email, "workspaces": {"acme": "end-user"}} for email in CROWD]
    provision(service.app, {"users": people} | changed("apps", "orders", users=["ana@acme.test", *CROWD]))
    with ThreadPoolExecutor(len(CROWD)) as threads:
        return set().union(*threads.map(visit, CROWD))
