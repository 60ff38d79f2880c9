"""Mail over SMTP: one message, to everybody of one target."""

import smtplib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from enum import StrEnum
from typing import Final

from .sending import SEND_SEC, Sent

PERMANENT: Final = range(500, 600)
DOMAIN: Final = "qmtl.invalid"  # Of message ids: reserved, so nobody else's.


class Tls(StrEnum):
    """How the connection is made private; NONE is for loopback only."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailbox:
    """Where mail is handed in, and who it is from and to.  `password` is in no `repr`."""

    host: str
    port: int
    tls: Tls
    sender: str
    to: tuple[str, ...]
    user: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"Mailbox({self.host}:{self.port}, to {len(self.to)})"


def letter(
    box: Mailbox, message_id: str, subject: str, paragraphs: Sequence[str], at: datetime
) -> EmailMessage:
    """The message.  Its Message-ID is the notice's, so that a second copy is known as one."""
    message = EmailMessage()
    message["From"] = box.sender
    message["To"] = ", ".join(box.to)
    message["Subject"] = " ".join(subject.split())
    message["Date"] = format_datetime(at)
    message["Message-ID"] = f"<{message_id}@{DOMAIN}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content("\n\n".join(paragraphs) + "\n")
    return message


def send(box: Mailbox, message: EmailMessage) -> Sent:
    """One attempt."""
    try:
        with _connected(box) as smtp:
            if box.user is not None and box.password is not None:
                smtp.login(box.user, box.password)
            refused = smtp.send_message(message)
    except smtplib.SMTPResponseException as error:
        code = error.smtp_code
        return Sent(False, f"the mail server refused: {code}", code)
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _ in error.recipients.values()]
        final = all(code in PERMANENT for code in codes)
        return Sent(False, f"no recipient was taken: {max(codes)}", max(codes), final=final)
    except (smtplib.SMTPException, ssl.SSLError) as error:
        return Sent(False, f"the mail server broke off: {type(error).__name__}")
    except TimeoutError:
        return Sent(False, f"no answer within {SEND_SEC:g} s")
    except OSError as error:
        return Sent(False, f"the mail server is not reached: {type(error).__name__}")
    if refused:  # The others have it: to send it again would be to send it to them again.
        return Sent(True, f"taken, but not for {len(refused)} of {len(box.to)}")
    return Sent(True, "taken")


def _connected(box: Mailbox) -> smtplib.SMTP:
    if box.tls is Tls.TLS:
        secure = ssl.create_default_context()
        return smtplib.SMTP_SSL(box.host, box.port, timeout=SEND_SEC, context=secure)
    smtp = smtplib.SMTP(box.host, box.port, timeout=SEND_SEC)
    if box.tls is Tls.STARTTLS:
        try:
            smtp.starttls(context=ssl.create_default_context())
        except (smtplib.SMTPException, OSError):
            smtp.close()
            raise
    return smtp
