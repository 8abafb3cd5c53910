//! HTTP/2: a channel is a stream, its data are records inside DATA frames, with their own ends, resets and credit, so
//! that they survive proxies (docs/h2.md).

mod backend;
mod channel;
mod driver;
mod error;
mod halves;
mod headers;
mod io;
mod limits;
mod listener;
mod pool;
mod ready;
mod record;
mod recv;
mod send;
mod session;
mod tls;

pub use backend::H2Backend;
