"""docs/operate/configuration.md and .env.example list the settings of config.py, with their defaults."""

import re
import shlex
from pathlib import Path

from config import RELAY_SETTINGS, SETTINGS, Config, RelayConfig
from tests.support.documents import text_of

PAGE = text_of("docs/operate/configuration.md")
ALL = SETTINGS | RELAY_SETTINGS
EXAMPLE = text_of(".env.example")


def test_the_table_lists_every_setting_once_in_the_order_of_the_code() -> None:
    assert re.findall(r"^\| `([A-Z_]+)` \|[^|]+\|[^|]+\|$", PAGE, re.MULTILINE) == list(ALL)


def test_the_table_gives_every_default_that_is_a_number_or_a_limit() -> None:
    table = dict(re.findall(r"^\| `([A-Z_]+)` \| ([^|]+) \|", PAGE, re.MULTILINE))
    defaults = {name: setting.default for name, setting in ALL.items() if setting.default}
    assert len(defaults) > 8
    for name, default in defaults.items():
        texts = default if isinstance(default, tuple) else [default]
        shown = "on" if default is True else ",".join(map(str, texts))
        assert table[name].strip("`") == shown, name


def test_the_example_lists_every_setting_with_a_comment() -> None:
    found = re.findall(r"^# .+\n(?:# )?([A-Z_]+)='", EXAMPLE, re.MULTILINE)
    assert found == list(ALL)


def test_the_example_sets_the_defaults(tmp_path: Path) -> None:
    environ = dict(word.split("=", 1) for word in shlex.split(EXAMPLE, comments=True))
    assert set(ALL) - set(environ) == {"PORT"}
    assert Config.from_environment(environ, tmp_path) == Config.from_environment({}, tmp_path)
    upstreams = {"RELAY_UPSTREAMS": "http://10.0.0.7:8501"}
    assert RelayConfig.from_environment(environ | upstreams) == RelayConfig.from_environment(upstreams)
    assert "# PORT='8000'" in EXAMPLE
