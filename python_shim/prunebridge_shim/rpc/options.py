"""Every limit of the wire in one place. gRPC ignores a misspelt option in silence, so a test checks each name."""

MIB = 1 << 20

MAX_MESSAGE_BYTES = 16 * MIB
CHUNK_BYTES = MIB
"""With the flow-control window below, 2.5 to 3 times the throughput of gRPC's defaults."""

FEED_DEPTH = 4
"""Batches of a feed that wait: enough to hide a sender's pauses, little enough for memory."""

ANSWER_DEPTH = 2
"""Answers of a feed that wait to be read: whole logits can outweigh the model."""

FEED_OPENING_SECONDS = 20.0
"""How long an operation waits for its feed's stream, which a client opens in the same breath."""

PROTOCOL_VERSIONS = range(1, 2)

RPC_THREADS = 64
"""Each open stream holds one thread, which sleeps most of the time."""

HEARTBEAT_SECONDS = 10.0
"""Silence on a watch, after which a sign of life is sent."""

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.http2.lookahead_bytes", 4 * MIB),
    # The client pings every 30 s, idle or not; more often than every 10 s would be a fault.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Two shims must never share an address.
    ("grpc.so_reuseport", 0),
)
