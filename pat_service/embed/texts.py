"""The texts of the frame's own pages: English in the code, other languages in `translations/`."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

TRANSLATIONS: Final = Path(__file__).parent.parent / "translations"
#: The language of the texts in the code.
SOURCE: Final = "en"


#: By primary subtag (`es`), the source first.
LANGUAGES: Final = (SOURCE, *sorted(found.name for found in TRANSLATIONS.iterdir() if found.is_dir()))
_RIGHT_TO_LEFT: Final = frozenset(("ar", "ckb", "dv", "fa", "he", "ps", "sd", "ug", "ur", "yi"))


def mark(text: str) -> str:
    """Return the text unchanged. Imported as `_`, it marks texts for `make texts`."""
    return text


@cache
def translator(language: str) -> Callable[[str], str]:
    """Return the function that translates a text into one of LANGUAGES."""
    if language == SOURCE:
        return mark
    # Imported here, so that a worker that only serves English does not load Babel.
    from babel.messages.pofile import read_po

    with (TRANSLATIONS / language / "LC_MESSAGES" / "messages.po").open("rb") as file:
        translations = {str(message.id): str(message.string) for message in read_po(file) if message.string}
    return lambda text: translations.get(text, text)


def direction(language: str) -> str:
    """Return the value of the attribute `dir`: `ltr` or `rtl`."""
    return "rtl" if language in _RIGHT_TO_LEFT else "ltr"
