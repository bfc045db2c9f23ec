"""Every limit of the wire in one place. gRPC ignores a misspelt option in silence, so a test checks each name."""

from collections.abc import Mapping

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

FEED_SILENCE_SECONDS = 600.0
"""How long a running operation waits for a whole batch, or for an answer to be taken. Long, for a loader may think or
tokenize, and the largest batch may come over a slow line; others wait in its lane meanwhile."""

PROTOCOL_VERSIONS = range(1, 2)

MAX_BATCH_BYTES = 1 << 30
"""Of all tensors of a batch. The index sets of the largest mixtures of experts take a quarter of it."""

MAX_BATCH_TENSORS = 100_000
"""Index sets come in one batch, and each expert of each layer may have its own."""

MAX_OPERATIONS = 64
"""Queued and running."""

STARTS_PER_SECOND = 500
"""Some times what one client can start that waits for each to end."""

STARTS_AT_ONCE = 1000

FAILED_TOKENS_PER_SECOND = 0.5
FAILED_TOKENS_AT_ONCE = 20
"""Calls without a known token that are answered and logged one by one. A known token is let in whatever others do."""

RPC_THREADS = 256
"""Each open stream holds one thread, which sleeps most of the time."""

STREAMS_AT_A_TIME: Mapping[str, int] = {
    "/prunebridge.v1.OperationService/Watch": 96,
    "/prunebridge.v1.FeedService/Feed": 72,
    "/prunebridge.v1.OperationService/ReadResult": 16,
    "/grpc.health.v1.Health/Watch": 8,
}
"""More than every operation needs. With the calls below fewer than there are threads, so that none waits for one."""

UNARY_CALLS_AT_A_TIME = 12
"""Of each method. One that sends no request holds its thread."""

FIRST_REQUEST_SECONDS = 5.0
"""For a call to send its request, or its first: clients do so with the call itself."""

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
    # For TLS and the first words of HTTP/2. Whoever says nothing for so long is no client.
    ("grpc.server_handshake_timeout_ms", 5_000),
    # A token, and what gRPC itself sends. Above the first some calls are refused, above the second all.
    ("grpc.max_metadata_size", 8 << 10),
    ("grpc.absolute_max_metadata_size", 16 << 10),
    ("grpc.max_concurrent_streams", 4 * RPC_THREADS),
    # Two shims must never share an address.
    ("grpc.so_reuseport", 0),
)
