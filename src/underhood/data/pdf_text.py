"""Text layer of PDF files, page by page, through pypdf (the optional extra ``pdf``).

A PDF stores glyphs and positions, not paragraphs: lines come as they are printed, and tables as lines of words. Scanned
pages have no text layer; they need optical character recognition first.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path

from underhood.core.errors import UserError
from underhood.core.text_files import mend_surrogates, read_content

_HYPHENATED = re.compile(r"(?<=[a-zß-ÿ])-\n(?=[a-zß-ÿ])")


def pdf_pages(path: Path) -> Iterator[tuple[int, str]]:
    """Number (from 1) and text of every page that has text; words cut at the end of a line are joined.

    Raises:
        UserError: pypdf is missing, no such file, an encrypted or damaged one, or one without a text layer.
    """
    data = read_content(path)
    try:
        import pypdf
        from pypdf.errors import PyPdfError
    except ImportError as error:
        fix = "Install it with pip install 'underhood[pdf]' (the package pypdf)"
        raise UserError(f"can't read {path}: PDF files need an optional package", fix=fix) from error
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # remarks on slightly wrong files, one a line
    empty = True
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise UserError(f"{path} is encrypted", fix="Save a copy without a password")
        for number, page in enumerate(reader.pages, 1):
            text = _HYPHENATED.sub("", mend_surrogates(page.extract_text())).strip()
            if text:
                empty = False
                yield number, text
    except UserError:
        raise
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise UserError(f"{path} is not a readable PDF file ({' '.join(str(error).split())[:100]})") from error
    if empty:
        fix = "If it was scanned, run text recognition over it first, e.g. ocrmypdf"
        raise UserError(f"{path} has no text layer", expected="a PDF whose text can be marked and copied", fix=fix)
