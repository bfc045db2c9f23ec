from pathlib import Path

from grpc._cython import cygrpc

from prunebridge_shim.rpc import options


def test_every_option_is_spelt_as_grpc_knows_it():
    names = [name for name, _ in options.SERVER_OPTIONS]
    # The library holds each name that it reads; it ignores every other in silence.
    library = Path(cygrpc.__file__).read_bytes()
    assert [name for name in names if name.encode() + b"\0" not in library] == []
    assert len(set(names)) == len(names)


def test_the_clients_keepalive_is_no_offence():
    settings = dict(options.SERVER_OPTIONS)
    client_pings_every_ms = 30_000
    assert settings["grpc.http2.min_ping_interval_without_data_ms"] < client_pings_every_ms
    assert settings["grpc.keepalive_permit_without_calls"] == 1


def test_a_chunk_fits_a_message_and_the_window():
    settings = dict(options.SERVER_OPTIONS)
    assert options.CHUNK_BYTES < settings["grpc.http2.lookahead_bytes"] < settings["grpc.max_receive_message_length"]


def test_calls_that_hang_leave_threads_for_the_others():
    unary_methods = ("Handshake", "Start", "Cancel", "Check")
    held = sum(options.STREAMS_AT_A_TIME.values()) + len(unary_methods) * options.UNARY_CALLS_AT_A_TIME
    assert held < options.RPC_THREADS


def test_every_operation_can_be_watched_and_fed():
    assert options.STREAMS_AT_A_TIME["/prunebridge.v1.OperationService/Watch"] >= options.MAX_OPERATIONS
    assert options.STREAMS_AT_A_TIME["/prunebridge.v1.FeedService/Feed"] >= options.MAX_OPERATIONS
