//! One library for stream multiplexing: ask for a session by URL, open and accept channels from either side; the wire
//! underneath is chosen at run time.
//!
//! ```no_run
//! # async fn example() -> libmux::Result<()> {
//! let session = libmux::dial("qmux://127.0.0.1:4000", &libmux::Config::default()).await?;
//! let mut channel = session.open().await?;
//! channel.write_all(b"hello").await?;
//! channel.finish()?;
//! let mut answer = [0; 64];
//! while channel.read(&mut answer).await? > 0 {}
//! session.close(0, "done")?;
//! session.closed().await;
//! # Ok(())
//! # }
//! ```

mod registry;

pub use mux_api::*;
pub use registry::{Registry, adopt, dial, listen, registry};

/// The README's Rust program compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct ReadmeExamples;
