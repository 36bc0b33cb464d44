"""Messages to bytes and back: msgpack through msgspec, validated and bounded on arrival."""

from __future__ import annotations

import msgspec

from nbray.config import MESSAGE_LIMIT
from nbray.wire import messages
from nbray.wire.messages import Message

#: Element-wise decoding checks every field against its declared type and bounds; nothing is executed.
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(messages.AnyMessage)
encode = msgspec.msgpack.Encoder().encode


class ProtocolError(ValueError):
    """Bytes that are no message of this protocol. Whoever sent them is wrong, not we."""


def decode(frame: bytes | memoryview) -> Message:
    """The message in `frame`. Raises ProtocolError for anything else: too long, not msgpack, unknown tag, wrong field."""
    if len(frame) > MESSAGE_LIMIT:
        raise ProtocolError(f"a frame of {len(frame):,} bytes is over the limit of {MESSAGE_LIMIT:,}")
    try:
        return _decoder.decode(frame)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolError(f"{len(frame)} bytes are no message: {error}") from None
