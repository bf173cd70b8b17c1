"""Converters that others have made for many formats at once: markitdown, docling. Both give Markdown."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from rag_opt.documents.parsed import MomentaryError, Parsed
from rag_opt.documents.texts import mark_headings

MODELS = "DOCLING_ARTIFACTS_PATH"
"""The environment variable that names docling's folder of models, as docling itself reads it."""


def parse_by_markitdown(data: bytes, ending: str) -> Parsed:
    """Whatever markitdown makes of a file, as Markdown with its headings; no pages."""
    try:
        from markitdown import MarkItDown, StreamInfo
    except ImportError as error:
        raise MomentaryError("parser=markitdown needs pip install -e '.[markitdown]'") from error
    try:
        # By the ending, since bytes have no name from which markitdown could tell the format.
        found: Any = MarkItDown(enable_plugins=False).convert_stream(
            io.BytesIO(data), stream_info=StreamInfo(extension=ending)
        )
    except Exception as error:
        # What any of its converters may raise, also where a part of it is not installed.
        raise MomentaryError(f"markitdown can't read it: {' '.join(str(error).split())[:300]}") from error
    parsed = mark_headings(found.markdown)
    return Parsed(parsed.text, parsed.marks, found.title or parsed.title)


def parse_by_docling(data: bytes, ending: str) -> Parsed:
    """Whatever docling makes of a file, as Markdown with its headings; its models come from the folder in MODELS."""
    try:
        from docling.datamodel.base_models import DocumentStream
        from docling.document_converter import DocumentConverter
    except ImportError as error:
        raise MomentaryError("parser=docling needs pip install -e '.[docling]'") from error
    folder = os.environ.get(MODELS)
    if ending == ".pdf" and not (folder and Path(folder).is_dir()):
        raise MomentaryError(f"docling reads PDF with models: name their folder in {MODELS} (docling-tools models)")
    # What the folder lacks is to fail here, not to be fetched from the hub.
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        found = DocumentConverter().convert(DocumentStream(name=f"file{ending}", stream=io.BytesIO(data)))
    except Exception as error:
        raise MomentaryError(f"docling can't read it: {' '.join(str(error).split())[:300]}") from error
    return mark_headings(found.document.export_to_markdown())
