"""What the apps of one process share. Tests build about 300 apps."""

from collections.abc import Callable
from types import CodeType
from typing import Any, Final

from jinja2.bccache import Bucket, BytecodeCache
from werkzeug.routing import Rule

_compile_builder = Rule._compile_builder


class _Templates(BytecodeCache):
    """Compiled templates, by the file and its source."""

    def __init__(self) -> None:
        self._codes: dict[tuple[str, str], CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._codes.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        assert bucket.code is not None
        self._codes[bucket.key, bucket.checksum] = bucket.code


TEMPLATES: Final = _Templates()


def compile_addresses_later() -> None:
    """Let each rule compile the code that builds its addresses when it first builds one.

    Werkzeug compiles it for every rule of every app: 0.02 of the 0.035 seconds that an app takes.
    """

    def compile_later(rule: Rule, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        name = "_build_unknown" if append_unknown else "_build"

        def build(rule: Rule, **values: Any) -> tuple[str, str]:
            compiled = _compile_builder(rule, append_unknown).__get__(rule)
            setattr(rule, name, compiled)
            address: tuple[str, str] = compiled(**values)
            return address

        return build

    Rule._compile_builder = compile_later  # type: ignore[assignment, method-assign]
