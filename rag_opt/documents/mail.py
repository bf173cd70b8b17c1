"""Messages as mail programs save them."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage

from rag_opt.documents.parsed import Parsed, UnreadableFileError, Writer
from rag_opt.documents.texts import normalise_text
from rag_opt.documents.web import parse_html


def parse_mail(data: bytes) -> Parsed:
    """A message: its subject as heading, who wrote to whom and when, its text; attachments are named, not read."""
    # By default email follows an older policy, which leaves headers encoded and has no get_body.
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    writer = Writer()
    writer.title = str(message["subject"] or "")
    writer.add_heading(writer.title, 1)
    writer.add(
        "\n".join(f"{head}: {message[head.lower()]}" for head in ("From", "To", "Date") if message[head.lower()])
    )
    # The plain form first: where a message has both, they say the same.
    body = message.get_body(("plain", "html"))
    if body is not None:
        content = body.get_content()
        if body.get_content_subtype() == "html":
            writer.add_text(parse_html(str(content).encode("utf-8")))
        else:
            writer.add(normalise_text(str(content)))
    left = [part.get_filename() or part.get_content_type() for part in message.iter_attachments()]
    if left:
        writer.notes.append(f"{len(left)} attachments were not read: {', '.join(left[:5])}")
    if body is None and not left:
        raise UnreadableFileError("it is no mail: it has neither a text nor an attachment")
    return writer.finish()
