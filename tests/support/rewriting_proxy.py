"""A proxy that rewrites HTML as some CDNs do. It stands in for a CDN in front of the service."""

import http.client
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Rewrite = Callable[[str], str]


def defer_scripts(page: str) -> str:
    """Give every script another type, and add a loader that would run them later."""
    page = re.sub(r"<script(?! type)", '<script type="later-text/javascript"', page)
    return page.replace("</body>", '<script src="/cdn/loader.js" defer></script></body>')


def add_analytics(page: str) -> str:
    """Add a script that counts visitors."""
    return page.replace("</body>", '<script src="https://count.example/beacon.js" defer></script></body>')


def hide_emails(page: str) -> str:
    """Replace each email outside of scripts by an element that a script would decode."""
    parts = re.split(r"(<script\b.*?</script>)", page, flags=re.DOTALL)
    hidden = '<a class="hidden-email" data-email="1f">[email protected]</a>'
    return "".join(
        part if part.startswith("<script") else re.sub(r"[\w.+-]+@[\w-]+\.[\w.]+", hidden, part)
        for part in parts
    )


def minify(page: str) -> str:
    """Remove the blanks between elements."""
    return re.sub(r">\s+<", "><", page)


@contextmanager
def rewriting_proxy(upstream: int, rewrites: Sequence[Rewrite], *, obeys: bool) -> Iterator[int]:
    """Run the proxy in front of a loopback port, and yield its own port.

    `obeys`: it leaves answers with `Cache-Control: no-transform` unchanged (RFC 9111).
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            connection = http.client.HTTPConnection("127.0.0.1", upstream, timeout=30)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            fixed = obeys and "no-transform" in answer.getheader("Cache-Control", "")
            if answer.getheader("Content-Type", "").startswith("text/html") and not fixed:
                page = content.decode()
                for rewrite in rewrites:
                    page = rewrite(page)
                content = page.encode()
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815 - the name that http.server calls

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
