"""The texts of the frame's own pages: English in the code, other languages in `translations/`."""

from collections.abc import Callable
from functools import cache
from gettext import GNUTranslations, NullTranslations
from io import BytesIO
from pathlib import Path
from typing import Final

TRANSLATIONS: Final = Path(__file__).parent.parent / "translations"
#: What the texts in the code are written in.
SOURCE: Final = "en"


def _catalog_file(language: str) -> Path:
    return TRANSLATIONS / language / "LC_MESSAGES" / "messages.po"


#: By primary subtag (`es`), the source first.
LANGUAGES: Final = (SOURCE, *sorted(found.name for found in TRANSLATIONS.iterdir() if found.is_dir()))
_RIGHT_TO_LEFT: Final = frozenset(("ar", "ckb", "dv", "fa", "he", "ps", "sd", "ug", "ur", "yi"))


def mark(text: str) -> str:
    """Return the text as it is; imported as `_`, it marks what `make texts` puts into the catalogs."""
    return text


def translator(language: str) -> Callable[[str], str]:
    """Return what translates a text of the code into one of LANGUAGES."""
    return _catalog(language).gettext


def direction(language: str) -> str:
    """Return `ltr` or `rtl`, as the attribute `dir` has it."""
    return "rtl" if language in _RIGHT_TO_LEFT else "ltr"


@cache
def _catalog(language: str) -> NullTranslations:
    if language == SOURCE:
        return NullTranslations()
    # Not at the start: a worker that is never asked for another language need not have it in memory.
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    compiled = BytesIO()
    with _catalog_file(language).open("rb") as file:
        write_mo(compiled, read_po(file, locale=language))
    compiled.seek(0)
    return GNUTranslations(compiled)
