//! What happens in connections, written to files (docs/quic.md, section 9).

use mux_api::{Result, Role};
use quinn::TransportConfig;

use crate::options::Options;

/// Has the connection that `transport` is for write a file of its own, if that was asked for.
#[cfg(not(feature = "qlog"))]
pub(crate) fn attach(_transport: &mut TransportConfig, _options: &Options, _role: Role) -> Result<()> {
    Ok(())
}

/// Has the connection that `transport` is for write a file of its own, if that was asked for.
#[cfg(feature = "qlog")]
pub(crate) fn attach(transport: &mut TransportConfig, options: &Options, role: Role) -> Result<()> {
    use std::fs::File;
    use std::io::BufWriter;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{SystemTime, UNIX_EPOCH};

    static FILES: AtomicU64 = AtomicU64::new(0);

    let Some(directory) = &options.qlog else { return Ok(()) };
    let end = if role == Role::Client { "dialer" } else { "acceptor" };
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let number = FILES.fetch_add(1, Ordering::Relaxed);
    let path = directory.join(format!("{millis}-{}-{number}-{end}.sqlog", std::process::id()));
    let file = File::create_new(&path)
        .map_err(|error| mux_api::Error::from_io(format!("option qlog: making {}", path.display()), error))?;
    let mut log = quinn::QlogConfig::default();
    log.writer(Box::new(BufWriter::new(file))).title(Some(format!("libmux, {end}")));
    transport.qlog_stream(log.into_stream());
    Ok(())
}
