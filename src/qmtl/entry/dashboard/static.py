"""What pages load: one style sheet, one script, and three libraries, all of them from here.

htmx, its SSE extension and uPlot are vendored as they were published, licences beside them.
"""

from functools import cache
from hashlib import sha256
from pathlib import Path as File
from typing import Annotated, Final

from fastapi import Path, Response
from fastapi.routing import APIRoute

from qmtl.core.errors import Unknown

FOLDER: Final = File(__file__).parent / "static"
TYPES: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
TYPES_MORE: Final = {".svg": "image/svg+xml"}
FOR_GOOD: Final = "public, max-age=31536000, immutable"  # Its address has its digest.


@cache
def files() -> dict[str, bytes]:
    """Every file that is served, by name.  Licences are for who reads the source."""
    served = TYPES | TYPES_MORE
    return {p.name: p.read_bytes() for p in sorted(FOLDER.iterdir()) if p.suffix in served}


@cache
def url(name: str) -> str:
    """Where a file is, and which: another content has another address."""
    return f"/ui/static/{name}?v={sha256(files()[name]).hexdigest()[:12]}"


def get(name: Annotated[str, Path(max_length=80)], v: str = "") -> Response:
    """One file; kept for good by who names its digest."""
    content = files().get(name)
    if content is None:
        raise Unknown(name)
    kept = FOR_GOOD if url(name).endswith(f"?v={v}") else "no-cache"
    kind = (TYPES | TYPES_MORE)[File(name).suffix]
    return Response(content, 200, {"Cache-Control": kept}, kind)


ROUTE: Final = APIRoute("/ui/static/{name}", get, methods=["GET"], include_in_schema=False)
