"""Uploads beyond 1 MiB, to an app that declares them."""

import gc
import hashlib
from errno import ENOENT
from io import BufferedRandom, BytesIO
from threading import Thread
from typing import Any, Final

import pytest
from flask import jsonify, request
from werkzeug.datastructures import FileStorage
from werkzeug.test import TestResponse, encode_multipart

from pat_service.embed import EmbeddedApp
from pat_service.http import payload
from pat_service.http.payload import MAX_FILES, MAX_SPOOLED_BYTES
from pat_service.rules.access import Viewer
from tests.support.people import ORDERS, SUPPORT, Frame, Service, problem_of

MB: Final = 1024 * 1024
TOO_LARGE: Final = "The body is larger than this address accepts: at most {}."
JSON: Final = {"Accept": "application/json"}


@pytest.fixture
def stored(service: Service, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Orders takes uploads of 3 MB. The list has the files that it got."""
    files: list[Any] = []
    embedded = EmbeddedApp(max_upload="3 MB")

    @embedded.form("store", page="index")
    @embedded.data("store", methods=["POST"])
    def store(viewer: Viewer) -> Any:
        sent = request.files["file"] if request.files else None
        content = sent.stream if sent else BytesIO(request.get_data())
        files.append((request._get_current_object(), content))  # type: ignore[attr-defined]
        return jsonify(digest=hashlib.sha256(content.read()).hexdigest(), form=request.form)

    registry = service.app.extensions["pat_service.registry"]
    monkeypatch.setitem(registry._apps, "orders", embedded)
    registry.apply_limits(development=False)
    return files


def multipart(content: bytes, **fields: str) -> dict[str, Any]:
    boundary, body = encode_multipart(fields | {"file": FileStorage(BytesIO(content), "stock.bin")})
    return {"body": body, "content_type": f"multipart/form-data; boundary={boundary}"}


def send(
    service: Service,
    frame: Frame,
    body: bytes,
    content_type: str = "application/octet-stream",
    path: str = "data/store",
    **environ: Any,
) -> TestResponse:
    """Send the body as a server passes it on. `environ` changes what the caller says about it."""
    return service.client.post(
        f"/embed-apps/{ORDERS}/{path}",
        headers=frame.bearer | JSON,
        content_type=content_type,
        input_stream=environ.pop("stream", BytesIO(body)),
        environ_overrides={"CONTENT_LENGTH": str(len(body))} | environ,
    )


CHUNKED: Final = {"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
CONTENT: Final = bytes(range(256)) * (2 * MB // 256)
DIGEST: Final = hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize("path", ["data/store", "pages/store"])
@pytest.mark.parametrize("environ", [{}, CHUNKED], ids=["with its length", "chunked"])
def test_ana_uploads_a_file_of_two_megabytes(
    service: Service, stored: list[Any], path: str, environ: dict[str, Any]
) -> None:
    answer = send(service, service.frame(), **multipart(CONTENT, note="two"), path=path, **environ)
    assert answer.get_json() == {"digest": DIGEST, "form": {"note": "two"}}
    ((sent, content),) = stored
    # Neither the body nor the file was in memory, and both files are gone.
    assert sent.on_disk.closed
    assert content.closed
    assert not isinstance(content, BytesIO)


@pytest.mark.parametrize("environ", [{}, CHUNKED], ids=["with its length", "chunked"])
def test_an_upload_may_be_a_plain_body(service: Service, stored: list[Any], environ: dict[str, Any]) -> None:
    assert send(service, service.frame(), CONTENT, **environ).get_json()["digest"] == DIGEST


@pytest.mark.parametrize("environ", [{}, CHUNKED], ids=["with its length", "chunked"])
@pytest.mark.parametrize("path", ["data/store", "pages/store"])
def test_a_larger_upload_is_413_and_names_the_limit(
    service: Service, stored: list[Any], path: str, environ: dict[str, Any]
) -> None:
    answer = send(service, service.frame(), **multipart(bytes(3 * MB)), path=path, **environ)
    assert problem_of(answer, 413, "payload_too_large")["detail"] == TOO_LARGE.format("3 MB")
    assert answer.headers["Upload-Limit"] == f"max-size={3 * MB}"
    assert stored == []


def test_an_app_that_declares_nothing_keeps_its_limit(service: Service, stored: list[Any]) -> None:
    frame = service.frame()
    service.app.extensions["pat_service.registry"]._apps["orders"].limits = EmbeddedApp().limits
    for environ in ({}, CHUNKED):
        answer = send(service, frame, **multipart(bytes(MB)), **environ)  # type: ignore[arg-type]
        assert problem_of(answer, 413, "payload_too_large")["detail"] == TOO_LARGE.format("1 MB")
    assert stored == []


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        # All fields of these are in memory.
        ("application/x-www-form-urlencoded", b"a=" + b"b" * 2 * MB, "at most 1 MB"),
        ("application/x-www-form-urlencoded", b"a&" * 600_000, "at most 1 MB"),
        ("application/x-www-form-urlencoded", b"a&" * 2000, "at most 1000 fields"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"b" * 2 * MB + b"\r\n--x--\r\n",
            "larger than this address accepts",
        ),
        (
            "multipart/form-data; boundary=x",
            b"--x\r\nA: " + b"b" * 2 * MB + b"\r\n\r\n\r\n--x--\r\n",
            "headers of all parts may have 131072 bytes",
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 40_000,
            "headers of all parts may have 131072 bytes",
        ),
    ],
)
@pytest.mark.parametrize("environ", [{}, CHUNKED], ids=["with its length", "chunked"])
def test_only_files_may_be_large(
    service: Service, stored: list[Any], kind: str, body: bytes, text: str, environ: dict[str, Any]
) -> None:
    answer = send(service, service.frame(), body, kind, path="pages/store", **environ)
    assert text in problem_of(answer, 413, "payload_too_large")["detail"]
    # Only a limit in bytes is one that the viewer can use.
    assert ("Upload-Limit" in answer.headers) == ("at most 1 MB" in text)
    assert stored == []


def test_a_body_that_is_shorter_than_it_says_is_400(service: Service, stored: list[Any]) -> None:
    answer = send(service, service.frame(), CONTENT, CONTENT_LENGTH=str(len(CONTENT) + 1))
    problem_of(answer, 400, "invalid_payload")
    assert stored == []


def test_a_body_that_is_longer_than_it_says_is_cut_off(service: Service, stored: list[Any]) -> None:
    answer = send(service, service.frame(), CONTENT, CONTENT_LENGTH=str(MB + 1))
    assert answer.get_json()["digest"] == hashlib.sha256(CONTENT[: MB + 1]).hexdigest()


def test_many_files_need_neither_the_memory_nor_all_file_descriptors(
    service: Service, stored: list[Any]
) -> None:
    def form(files: int, size: int) -> bytes:
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        return (head + bytes(size) + b"\r\n") * files + b"--x--\r\n"

    frame, kind, rolled = service.frame(), "multipart/form-data; boundary=x", 2 * MAX_SPOOLED_BYTES
    send(service, frame, form(MAX_FILES, rolled), kind)
    ((sent, _),) = stored
    assert len(sent.files.getlist("file")) == MAX_FILES
    assert all(file.stream._rolled for file in sent.files.getlist("file"))
    answer = send(service, frame, form(MAX_FILES + 1, rolled), kind, path="pages/store")
    assert "may have 100 files" in problem_of(answer, 413, "payload_too_large")["detail"]
    # A form in memory needs no files.
    assert send(service, frame, form(MAX_FILES + 1, 100), kind).status_code == 200


class FullDisk(BufferedRandom):
    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__(open("/dev/full", "r+b", buffering=0))  # noqa: SIM115


def no_folder(*_: Any, **__: Any) -> None:
    raise FileNotFoundError(ENOENT, "No usable temporary directory found")


@pytest.mark.parametrize("fault", [FullDisk, no_folder])
@pytest.mark.parametrize("place", ["TemporaryFile", "SpooledTemporaryFile"])
@pytest.mark.parametrize("path", ["data/store", "pages/store"])
def test_a_full_disk_is_503_and_in_the_log(
    service: Service,
    stored: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: Any,
    place: str,
    path: str,
) -> None:
    frame = service.frame()
    monkeypatch.setattr(payload, place, fault)
    answer = send(service, frame, **multipart(CONTENT), path=path)
    found = problem_of(answer, 503, "unavailable")
    assert found["detail"] == "The service has no space for this body. Nothing was done; try again later."
    assert stored == []
    assert "a body cannot be stored: " in caplog.text
    gc.collect()


class Unreadable(BytesIO):
    def read(self, *_: Any) -> bytes:
        raise AssertionError("this body must not be read")


@pytest.mark.parametrize("token", ["", "garbage", "of another app"])
def test_a_large_body_is_not_received_without_a_genuine_session(
    service: Service, stored: list[Any], token: str
) -> None:
    bearer = {
        "": {},
        "garbage": {"Authorization": "Bearer eyJ.x.y"},
        "of another app": service.frame(SUPPORT).bearer,
    }[token]
    answer = service.client.post(
        f"/embed-apps/{ORDERS}/data/store",
        headers=bearer | JSON,
        input_stream=Unreadable(),
        environ_overrides={"CONTENT_LENGTH": str(2 * MB)},
    )
    assert answer.status_code == 401
    assert stored == []


def test_a_session_that_ends_while_the_body_arrives_is_refused(service: Service, stored: list[Any]) -> None:
    frame = service.frame()
    path, bearer = f"/embed-apps/{ORDERS}/session", frame.bearer

    class Slow(BytesIO):
        def end(self) -> None:
            if self.tell() == 0:
                # As another request, in a thread of its own.
                ending = Thread(
                    target=service.app.test_client().delete, args=[path], kwargs={"headers": bearer}
                )
                ending.start()
                ending.join()

        def read(self, *args: Any) -> bytes:
            self.end()
            return super().read(*args)

        def readinto(self, buffer: Any) -> int:
            self.end()
            return super().readinto(buffer)

    answer = send(service, frame, CONTENT, stream=Slow(CONTENT))
    problem_of(answer, 401, "session_revoked")
    assert stored == []
    gc.collect()  # an open file would be a warning, and so an error
