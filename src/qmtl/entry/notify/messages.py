"""A notice as each kind of target reads it: signed JSON, a chat's message, a letter.

Whatever others named or wrote (strategies, reasons) stays text: it marks nothing up, calls nobody,
and adds no header.
"""

import re
from datetime import datetime
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote

from qmtl.adapters.codec import dumps
from qmtl.core.notices import About, Notice
from qmtl.core.times import rfc3339
from qmtl.core.words import one_line

MESSAGE_HEX: Final = 32
CUT_SIGN: Final = re.compile(r"&[a-z]{0,3}$")  # An escaped sign that the limit cut in two.
CHAT_CHARS_MAX: Final = 2_900  # A section of Slack's takes 3,000.
LINK_SAYS: Final = {
    About.APPROVAL: "Look at the evidence, and decide there",
    About.BLOCKED: "See what the gate says",
}
LINK_ELSE: Final = "Open the world"
ONLY_LOOKS: Final = "The link opens a page; it approves nothing by itself."

Message = dict[str, Any]


def message_id(notice: Notice) -> str:
    """Names what is told, whoever is told and however often."""
    told = f"{notice.world_id}\0{notice.about}\0{notice.key}"
    return f"msg_{sha256(told.encode()).hexdigest()[:MESSAGE_HEX]}"


def link(pages: str, notice: Notice) -> str:
    """The page to look at: the candidate's, where it is about one; it acts on nothing."""
    world = f"{pages}/ui/worlds/{quote(notice.world_id, safe='')}"
    if notice.candidate_id is None:
        return world
    return f"{world}/candidates/{quote(notice.candidate_id, safe='')}"


def message(notice: Notice, pages: str) -> Message:
    """All that is told, as plain values; kept, so that another attempt tells the same."""
    return {
        "type": f"qmtl.{notice.about}",
        "timestamp": rfc3339(notice.at),
        "data": {
            "world_id": notice.world_id,
            "strategy_id": notice.strategy_id,
            "candidate_id": notice.candidate_id,
            "seq": notice.seq,
            "title": one_line(notice.title),
            "sentences": [one_line(each) for each in notice.sentences],
            "reasons": [str(reason) for reason in notice.reasons],
            "url": link(pages, notice),
        },
    }


def test_message(pages: str, at: datetime) -> Message:
    """What `qmtl notify test` sends."""
    return {
        "type": "qmtl.test",
        "timestamp": rfc3339(at),
        "data": {
            "world_id": "",
            "strategy_id": None,
            "candidate_id": None,
            "seq": None,
            "title": "A test",
            "sentences": ["qmtl notify test sent this: nothing happened."],
            "reasons": [],
            "url": f"{pages}/ui",
        },
    }


def as_json(told: Message) -> bytes:
    return dumps(told)


def as_chat(told: Message) -> bytes:
    """Slack's incoming webhooks, and whatever understands them: a text, and the same in blocks."""
    data = told["data"]
    head = f"[{data['world_id']}] {data['title']}" if data["world_id"] else data["title"]
    said = "\n".join(map(_escaped, data["sentences"]))[:CHAT_CHARS_MAX]
    body = CUT_SIGN.sub("", said)
    where = f"<{data['url']}|{_says(told)}>"
    sections = [f"*{_escaped(head)}*", body, f"{where}"]
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": s}} for s in sections if s]
    return dumps({"text": _escaped(head), "blocks": blocks})


def as_letter(told: Message) -> tuple[str, list[str]]:
    """Subject and paragraphs."""
    data = told["data"]
    world = f" {data['world_id']}:" if data["world_id"] else ""
    paragraphs = [data["title"] + ".", *data["sentences"], f"{_says(told)}:\n{data['url']}"]
    if told["type"] == f"qmtl.{About.APPROVAL}":
        paragraphs.append(ONLY_LOOKS)
    return f"[qmtl]{world} {data['title']}", paragraphs


def _says(told: Message) -> str:
    kind = told["type"].removeprefix("qmtl.")
    if told["data"]["candidate_id"] is None or kind not in set(About):
        return LINK_ELSE
    return LINK_SAYS.get(About(kind), LINK_ELSE)


def _escaped(text: str) -> str:
    """Slack's three characters: without them nobody is called and nothing is linked."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
