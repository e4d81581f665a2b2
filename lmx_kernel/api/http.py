"""For API surfaces: bodies and streams. Imports falcon."""

from lmx_kernel.http.json_body import (
    parse,
    read_body,
    send,
    wrong_field,
)
from lmx_kernel.http.sse import (
    COMMENT,
    AnswerStream,
    FrameWriter,
    close_with_request,
    encode_event,
    send_stream,
    stream_answer,
)

__all__ = [
    "COMMENT",
    "AnswerStream",
    "FrameWriter",
    "close_with_request",
    "encode_event",
    "parse",
    "read_body",
    "send",
    "send_stream",
    "stream_answer",
    "wrong_field",
]
