//! The C API of libmux: `include/mux.h` is generated from this crate.
//!
//! A handle is a number that `handle` looks up without trusting it; every exported function runs inside `boundary`;
//! every pointer of a caller goes through `pointer`. These three, `platform`, `world` and `foreign` (which calls
//! backends written in C) hold all unsafe code beyond the one line in an export that says "by this function's contract".
//!
//! Objects sit on the poll-based operations of mux-api, with one persistent waker a side (`hub`): a read of buffered data
//! and a write with window never enter the runtime, which only dials, listens and drives transports.

#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]
#![allow(non_camel_case_types, reason = "names of the header")]
#![allow(clippy::missing_safety_doc, reason = "the header's conventions say what pointers must be")]
#![allow(unreachable_pub, reason = "cbindgen and the linker take what is pub; no Rust crate can use this one")]

// In the order in which the header shows what they export.
mod abi;
// Blank lines keep that order.
mod status;

mod ask;

mod runtime;

mod config;

mod listener;

mod adopt;

mod open;

mod io;

mod borrow;

mod watch;

mod log;

mod vtable;

mod backend;

mod boundary;
mod callback;
mod carrier;
mod channel;
mod deadline;
mod foreign;
mod handle;
#[cfg(test)]
mod handle_tests;
mod hub;
mod own;
mod pipe;
mod platform;
mod pointer;
mod queue;
#[cfg(test)]
mod queue_tests;
mod session;
mod sync;
mod world;
