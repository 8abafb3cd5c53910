"""libmux and a peer that speaks the base protocol only, in both roles."""

import socket
import threading

import pytest
from base_peer import (ADJUST, ANNOUNCEMENT, CLOSE, CONFIRM, DATA, EOF, FAILURE, OPEN, PACKET, WINDOW, BasePeer,
                       EchoPeer)


@pytest.fixture
def peer(serving):
    """Connected, after the announcement was refused; the server's own channel is refused too."""
    peer = BasePeer(socket.create_connection(serving.address))
    assert peer.receive() == ANNOUNCEMENT
    peer.send(FAILURE, ANNOUNCEMENT[1])
    serving.expect("session plain")
    greeting = peer.receive()
    assert greeting[0] == OPEN and greeting[3] >= 9
    peer.send(FAILURE, greeting[1])
    yield peer
    peer.close()


def open_channel(peer, number=40):
    """The server's number for a channel that we opened as `number`."""
    peer.send(OPEN, number, WINDOW, PACKET)
    kind, ours, theirs, window, packet = peer.receive()
    assert (kind, ours) == (CONFIRM, number)
    assert window >= 1024 and packet >= 9
    return theirs


def test_echo_half_close_and_close(serving, peer):
    theirs = open_channel(peer)
    peer.send(DATA, theirs, 5, body=b"hello")
    peer.expect(DATA, 40, b"hello")
    peer.send(EOF, theirs)
    peer.expect(EOF, 40)
    peer.expect(CLOSE, 40)
    serving.expect("channel 5 eof")
    peer.send(ADJUST, theirs, 5)  # crosses their CLOSE, as a slow reader's would
    peer.send(CLOSE, theirs)
    # The connection works, and nothing more was said about channel 40 (the peer asserts it).
    assert open_channel(peer, 41) == theirs, "the number is free after both CLOSEs"


def test_close_without_eof_is_a_clean_end(serving, peer):
    theirs = open_channel(peer)
    peer.send(DATA, theirs, 3, body=b"bye")
    peer.send(CLOSE, theirs)
    serving.expect("channel 3 eof")
    while (message := peer.receive()) != (CLOSE, 40):
        assert message[0] in (DATA, EOF, ADJUST)
    open_channel(peer, 41)


def test_the_end_of_the_connection_is_not_the_end_of_a_channel(serving, peer):
    theirs = open_channel(peer)
    peer.send(DATA, theirs, 3, body=b"cut")
    peer.expect(DATA, 40, b"cut")
    peer.sock.shutdown(socket.SHUT_WR)
    lines = {serving.line(), serving.line()}
    assert "channel 3 the connection ended without a close from the peer" in lines, lines


def test_an_announcement_that_is_never_answered_means_plain(serving):
    peer = BasePeer(socket.create_connection(serving.address))
    assert peer.receive() == ANNOUNCEMENT
    serving.expect("session plain")  # after a second of silence
    peer.close()


def test_another_first_message_means_plain_at_once(serving):
    peer = BasePeer(socket.create_connection(serving.address))
    assert peer.receive() == ANNOUNCEMENT
    peer.send(OPEN, 40, WINDOW, PACKET)
    seen = {peer.receive()[0], peer.receive()[0]}
    assert seen == {CONFIRM, OPEN}, "our answer and the server's own channel"
    serving.expect("session plain")
    peer.close()


def test_a_probe_is_refused_at_once(serving, peer):
    for number in (5, 0xFFFFFFFE):
        peer.send(OPEN, number, 0, 0)
        assert peer.receive() == (FAILURE, number)


def test_the_dialing_side_passes_every_check(check):
    listener = socket.create_server(("127.0.0.1", 0))
    seen = {}

    def serve():
        sock, _ = listener.accept()
        seen["peer"] = EchoPeer(sock)
        seen["peer"].run()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        check(*listener.getsockname())
    finally:
        thread.join(60)
        listener.close()
    if seen["peer"].failure:
        raise seen["peer"].failure
