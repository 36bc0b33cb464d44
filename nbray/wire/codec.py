"""Messages to bytes and back: msgpack through msgspec, validated and bounded on arrival."""

from __future__ import annotations

import msgspec

from nbray.config import MESSAGE_LIMIT
from nbray.wire import messages
from nbray.wire.messages import Message

#: Element-wise decoding checks every field against its declared type and bounds; nothing is executed.
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(messages.AnyMessage)
_batch_decoder: msgspec.msgpack.Decoder[list[Message]] = msgspec.msgpack.Decoder(list[messages.AnyMessage])  # type: ignore[valid-type]
_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
#: Begins a frame with several messages: the one byte that msgpack never uses.
BATCH = b"\xc1"


class ProtocolError(ValueError):
    """Bytes that are no message of this protocol. Whoever sent them is wrong, not we."""


def encode_batch(batch: list[Message]) -> bytes:
    """Several messages to one mailbox in one frame: a frame costs its receiver more than a message does."""
    return BATCH + encode(batch)


def decode_frame(frame: bytes) -> list[Message]:
    """The messages in `frame`, in order. Raises ProtocolError."""
    if frame[:1] != BATCH:
        return [decode(frame)]
    if len(frame) > MESSAGE_LIMIT:
        raise ProtocolError(f"a frame of {len(frame):,} bytes is over the limit of {MESSAGE_LIMIT:,}")
    try:
        return _batch_decoder.decode(memoryview(frame)[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"{len(frame)} bytes are no batch of messages: {error}") from None


def decode(frame: bytes | memoryview) -> Message:
    """The message in `frame`. Raises ProtocolError for anything else: too long, not msgpack, unknown tag, wrong field."""
    if len(frame) > MESSAGE_LIMIT:
        raise ProtocolError(f"a frame of {len(frame):,} bytes is over the limit of {MESSAGE_LIMIT:,}")
    try:
        return _decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"{len(frame)} bytes are no message: {error}") from None
