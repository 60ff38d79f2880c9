"""The trace that a request is part of, as W3C Trace Context says it to whoever is asked."""

import sys


def carried() -> dict[str, str]:
    """The headers `traceparent` and `tracestate` of here and now; none where nobody traces.

    Loads nothing of OpenTelemetry: whoever traces has done so.
    """
    if "opentelemetry.trace" not in sys.modules:
        return {}
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    found: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(found)
    return found
