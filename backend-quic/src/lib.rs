//! libmux over QUIC.
