//! Backends written in C, as mux-api knows backends: each trait's methods call the functions of `mux_backend`.
//!
//! Before a function is asked, whoever waits is noted (`object::Wakers`); `mux_backend_ready` wakes. So nothing is lost
//! between an MUX_AGAIN and the notification that ends it. The calls for a session are made under its turn, a lock that knows
//! its holder (`own`): a function that calls back is answered, not deadlocked.

mod channel;
mod error;
mod object;
mod session;

use std::ffi::{CString, c_void};
use std::sync::Arc;

use async_trait::async_trait;
use libmux::backend::{Backend, Scheme};
use libmux::{Capabilities, Config, ConfigOption, Error, ErrorKind, Listener, Origin, Result, Session, Url};

use self::error::{Status, failure};
use self::object::{Made, Object};
use self::session::ForeignListener;
use crate::abi::{mux_config, mux_error, mux_kind};
use crate::config;
use crate::status;
use crate::vtable::mux_backend;

pub(crate) use self::object::Wakers;

/// What a backend calls its objects by.
pub(crate) struct Place(pub(crate) *mut c_void);

// SAFETY: the backend's functions take it from any thread; nobody else looks at it.
unsafe impl Send for Place {}
// SAFETY: as above.
unsafe impl Sync for Place {}

/// A backend written in C. Lives for ever: it cannot be unregistered.
pub(crate) struct Foreign {
    table: Functions,
    ctx: Place,
    schemes: Vec<Scheme>,
    options: Vec<ConfigOption>,
}

/// The functions; those that are not optional are there.
struct Functions(mux_backend);

impl std::ops::Deref for Functions {
    type Target = mux_backend;

    fn deref(&self) -> &mux_backend {
        &self.0
    }
}

// SAFETY: by the contract of `mux_backend` its functions may be called from any thread.
unsafe impl Send for Functions {}
// SAFETY: as above.
unsafe impl Sync for Functions {}

impl Foreign {
    /// `table` was checked.
    pub(crate) fn new(table: mux_backend, ctx: *mut c_void, schemes: &[&str], options: &[&str], secure: bool) -> Self {
        let leaked = |text: &str| -> &'static str { String::leak(text.to_owned()) };
        let scheme = |name: &&str| Scheme {
            name: leaked(name),
            summary: "a backend of the application's own",
            example: leaked(&format!("{name}://host:port")),
            capabilities: Capabilities::from_bits(table.caps),
            secure,
        };
        let option = |name: &&str| ConfigOption { name: leaked(name), help: "of the application's own backend" };
        let (schemes, options) = (schemes.iter().map(scheme).collect(), options.iter().map(option).collect());
        Self { table: Functions(table), ctx: Place(ctx), schemes, options }
    }
}

/// Lends a configuration to a function.
fn with_config<T>(config: &Config, use_it: impl FnOnce(mux_config) -> T) -> Result<T> {
    let failed = |fault: status::Fault| Error::new(ErrorKind::LimitExceeded, Origin::Local, fault.to_string());
    let lent = config::lend(config).map_err(failed)?;
    Ok(use_it(mux_config { h: lent.handle() }))
}

/// What a function that makes a listener or begins a session came to.
fn made(made: Made, detail: mux_error) -> Result<Arc<Object>> {
    match made {
        Ok(Some(object)) => Ok(object),
        Ok(None) => Err(failure(Status::AGAIN, None)),
        Err(status) => Err(failure(status, Some(&mux_error { status, ..detail }))),
    }
}

fn c_text(url: &Url) -> Result<CString> {
    CString::new(url.to_string()).map_err(|_| Error::url(format!("URL '{url}' contains a NUL")))
}

/// Registered, and shared with the registry.
pub(crate) struct Registered(pub(crate) &'static Foreign);

#[async_trait]
impl Backend for Registered {
    fn schemes(&self) -> &[Scheme] {
        &self.0.schemes
    }

    fn options(&self) -> &[ConfigOption] {
        &self.0.options
    }

    async fn dial(&self, url: &Url, config: &Config) -> Result<Session> {
        let object = {
            let text = c_text(url)?;
            let mut detail = status::nothing_failed();
            let begun = with_config(config, |config| {
                Object::first(self.0, mux_kind::MUX_KIND_SESSION, |table, ctx, cookie, out| {
                    table.dial.map_or(Status::AGAIN, |dial| {
                        // SAFETY: registered functions are what `mux_backend` says; everything passed outlives the call.
                        unsafe { dial(ctx, text.as_ptr(), config, cookie, out, &raw mut detail) }
                    })
                })
            })??;
            made(begun, detail)?
        };
        session::connected(object, url.to_string(), config).await
    }

    async fn listen(&self, url: &Url, config: &Config) -> Result<Listener> {
        let text = c_text(url)?;
        let mut detail = status::nothing_failed();
        let bound = with_config(config, |config| {
            Object::first(self.0, mux_kind::MUX_KIND_LISTENER, |table, ctx, cookie, out| {
                table.listen.map_or(Status::AGAIN, |listen| {
                    // SAFETY: as above.
                    unsafe { listen(ctx, text.as_ptr(), config, cookie, out, &raw mut detail) }
                })
            })
        })??;
        let object = made(bound, detail)?;
        Ok(Listener::new(Arc::new(ForeignListener::new(object, &url.to_string(), config))))
    }
}
