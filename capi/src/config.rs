//! Configuration: numbers by key, everything by the names that URLs use, certificates.

use std::ffi::{c_char, c_void};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libmux::{ClientAuth, Config, TlsConfig};

use crate::abi::{mux_config, mux_config_key, mux_error, mux_handle, mux_runtime, mux_status};
use crate::boundary;
use crate::pointer;
use crate::runtime::Runtime;
use crate::status::Fault;
use crate::world::{self, Object};

/// What a configuration handle stands for.
#[derive(Default)]
pub(crate) struct Settings {
    config: Config,
    runtime: Option<Arc<Runtime>>,
}

/// A copy of a configuration, the defaults for a zero handle.
pub(crate) fn resolve(handle: mux_config) -> Result<(Config, Arc<Runtime>), Fault> {
    if handle.h == 0 {
        return Ok((Config::default(), Runtime::default()?));
    }
    let settings = world::config(handle.h)?;
    let settings = lock(&settings);
    let runtime = match &settings.runtime {
        Some(runtime) => Arc::clone(runtime),
        None => Runtime::default()?,
    };
    Ok((settings.config.clone(), runtime))
}

/// A configuration handle that lives until this is dropped.
pub(crate) struct Lent(mux_handle);

impl Lent {
    pub(crate) fn handle(&self) -> mux_handle {
        self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Whoever it was lent to may have closed it.
        drop(world::world().table.close(self.0));
    }
}

/// Makes a handle of a configuration, for a function of the application to read.
pub(crate) fn lend(config: &Config) -> Result<Lent, Fault> {
    let settings = Settings { config: config.clone(), runtime: None };
    world::insert(Object::Config(Box::new(Mutex::new(settings)))).map(Lent)
}

/// Settings are changed whole, so a panic leaves nothing half done.
fn lock(settings: &Mutex<Settings>) -> MutexGuard<'_, Settings> {
    settings.lock().unwrap_or_else(PoisonError::into_inner)
}

fn change(handle: mux_config, change: impl FnOnce(&mut Config) -> Result<(), Fault>) -> Result<(), Fault> {
    let settings = world::config(handle.h)?;
    change(&mut lock(&settings).config)
}

fn change_tls(handle: mux_config, set: impl FnOnce(&mut TlsConfig)) -> Result<(), Fault> {
    change(handle, |config| {
        set(&mut config.tls);
        Ok(())
    })
}

fn set_u64(config: &mut Config, key: u32, value: u64) -> Result<(), Fault> {
    type Key = mux_config_key;
    const BY_NAME: [(Key, &str, &str); 6] = [
        (Key::MUX_CFG_CONNECT_MS, "connect_timeout", "ms"),
        (Key::MUX_CFG_KEEPALIVE_MS, "keepalive", "ms"),
        (Key::MUX_CFG_IDLE_MS, "idle", "ms"),
        (Key::MUX_CFG_MAX_CHANNELS_IN, "max_channels", ""),
        (Key::MUX_CFG_CHANNEL_WINDOW, "window", ""),
        (Key::MUX_CFG_SESSION_WINDOW, "budget", ""),
    ];
    // What URLs can set too has its bounds in one place.
    for (known, name, unit) in BY_NAME {
        if key == known as u32 {
            return Ok(config.set(name, &format!("{value}{unit}"))?);
        }
    }
    let within = |name: &str, min: u32, max: u32| {
        u32::try_from(value)
            .ok()
            .filter(|value| (min..=max).contains(value))
            .ok_or_else(|| Fault::invalid(format!("{name} is {value}; {min} to {max} are allowed")))
    };
    const MANY: u32 = 1_000_000;
    match key {
        _ if key == Key::MUX_CFG_LINGER_MS as u32 => {
            config.linger = Duration::from_millis(within("linger", 0, u32::MAX)?.into());
        }
        _ if key == Key::MUX_CFG_SEND_BUFFER as u32 => config.send_buffer = within("send buffer", 1024, 1 << 30)?,
        _ if key == Key::MUX_CFG_FRAME_SIZE as u32 => config.frame_size = within("frame size", 1024, 1 << 24)?,
        _ if key == Key::MUX_CFG_CHANNEL_BACKLOG as u32 => config.channel_backlog = within("channel backlog", 1, MANY)?,
        _ if key == Key::MUX_CFG_SESSION_BACKLOG as u32 => config.session_backlog = within("session backlog", 1, MANY)?,
        _ if key == Key::MUX_CFG_MAX_LABEL as u32 => config.max_label = within("label length", 0, 65_535)?,
        _ if key == Key::MUX_CFG_MAX_SESSIONS as u32 => config.max_sessions = within("sessions", 1, MANY)?,
        _ if key == Key::MUX_CFG_TLS_INSECURE as u32 => {
            config.tls.insecure = within("insecure", 0, 1)? == 1;
            if config.tls.insecure {
                tracing::warn!("certificates will not be verified");
            }
        }
        _ if key == Key::MUX_CFG_DATAGRAMS as u32 => config.datagrams = within("datagrams", 0, 1)? == 1,
        _ if key == Key::MUX_CFG_CLIENT_AUTH as u32 => {
            config.tls.client_auth = match within("client auth", 0, 2)? {
                0 => ClientAuth::None,
                1 => ClientAuth::Request,
                _ => ClientAuth::Require,
            };
        }
        _ => return Err(unknown(key)),
    }
    Ok(())
}

fn get_u64(config: &Config, key: u32) -> Result<u64, Fault> {
    type Key = mux_config_key;
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Ok(match key {
        _ if key == Key::MUX_CFG_CONNECT_MS as u32 => ms(config.connect_timeout),
        _ if key == Key::MUX_CFG_KEEPALIVE_MS as u32 => ms(config.keepalive),
        _ if key == Key::MUX_CFG_IDLE_MS as u32 => ms(config.idle),
        _ if key == Key::MUX_CFG_LINGER_MS as u32 => ms(config.linger),
        _ if key == Key::MUX_CFG_MAX_CHANNELS_IN as u32 => config.max_channels.into(),
        _ if key == Key::MUX_CFG_CHANNEL_WINDOW as u32 => config.window.into(),
        _ if key == Key::MUX_CFG_SESSION_WINDOW as u32 => config.budget,
        _ if key == Key::MUX_CFG_SEND_BUFFER as u32 => config.send_buffer.into(),
        _ if key == Key::MUX_CFG_FRAME_SIZE as u32 => config.frame_size.into(),
        _ if key == Key::MUX_CFG_CHANNEL_BACKLOG as u32 => config.channel_backlog.into(),
        _ if key == Key::MUX_CFG_SESSION_BACKLOG as u32 => config.session_backlog.into(),
        _ if key == Key::MUX_CFG_MAX_LABEL as u32 => config.max_label.into(),
        _ if key == Key::MUX_CFG_MAX_SESSIONS as u32 => config.max_sessions.into(),
        _ if key == Key::MUX_CFG_TLS_INSECURE as u32 => config.tls.insecure.into(),
        _ if key == Key::MUX_CFG_DATAGRAMS as u32 => config.datagrams.into(),
        _ if key == Key::MUX_CFG_CLIENT_AUTH as u32 => match config.tls.client_auth {
            ClientAuth::None => 0,
            ClientAuth::Request => 1,
            ClientAuth::Require => 2,
        },
        _ => return Err(unknown(key)),
    })
}

fn unknown(key: u32) -> Fault {
    Fault::invalid(format!("configuration key {key} is not in enum mux_config_key"))
}

/// Makes a configuration with every default. It is copied by dial and listen: changing or closing it afterwards does not
/// touch what was made with it.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mux_config_new(out: *mut mux_config) -> mux_status {
    boundary::status(|| {
        // SAFETY: by this function's contract.
        let out = unsafe { pointer::out(out, "out")? };
        out.write(mux_config { h: world::insert(Object::Config(Box::default()))? });
        Ok(())
    })
}

/// Chooses the runtime; a zero handle means the default one again.
#[unsafe(no_mangle)]
pub extern "C" fn mux_config_set_runtime(c: mux_config, rt: mux_runtime) -> mux_status {
    boundary::status(|| {
        let runtime = if rt.h == 0 { None } else { Some(Runtime::of(rt)?) };
        let settings = world::config(c.h)?;
        lock(&settings).runtime = runtime;
        Ok(())
    })
}

/// Sets a number by its key (enum mux_config_key). MUX_EINVAL: unknown key or out of range; nothing has changed.
#[unsafe(no_mangle)]
pub extern "C" fn mux_config_set_u64(c: mux_config, key: u32, value: u64) -> mux_status {
    boundary::status(|| change(c, |config| set_u64(config, key, value)))
}

/// Reads a number by its key (enum mux_config_key), of a zero handle the default. MUX_EINVAL: unknown key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mux_config_get_u64(c: mux_config, key: u32, value: *mut u64) -> mux_status {
    boundary::status(|| {
        // SAFETY: by this function's contract.
        let out = unsafe { pointer::out(value, "value")? };
        let number = if c.h == 0 {
            get_u64(&Config::default(), key)?
        } else {
            let settings = world::config(c.h)?;
            get_u64(&lock(&settings).config, key)?
        };
        out.write(number);
        Ok(())
    })
}

/// Sets an option by the name that URLs use: mux_config_set_option(c, "window", "1m"). One that only one backend knows
/// ("ext" of qmux) is checked by that backend when it dials or listens; others do not look at it.
///
/// MUX_EURL: no backend has such an option. MUX_EINVAL: a value that is not allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mux_config_set_option(c: mux_config, name: *const c_char, value: *const c_char) -> mux_status {
    boundary::status(|| {
        // SAFETY: by this function's contract.
        let (name, value) = unsafe { (pointer::text(name, "name")?, pointer::text(value, "value")?) };
        change(c, |config| Ok(config.set_with(name, value, &libmux::registry().options())?))
    })
}

/// The authorities to trust instead of the platform's, in PEM. err may be NULL, as in all functions that take one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mux_config_tls_ca(
    c: mux_config,
    pem: *const c_void,
    len: usize,
    err: *mut mux_error,
) -> mux_status {
    // SAFETY: by this function's contract, here and below.
    unsafe {
        boundary::status_with(err, || {
            let pem = pointer::bytes(pem, len, "pem")?.to_vec();
            change_tls(c, |tls| tls.ca_pem = Some(pem))
        })
    }
}

/// As mux_config_tls_ca, from a file that is read when a session is dialed or a listener bound.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mux_config_tls_ca_file(c: mux_config, path: *const c_char, err: *mut mux_error) -> mux_status {
    // SAFETY: by this function's contract, here and below.
    unsafe {
        boundary::status_with(err, || {
            let path = PathBuf::from(pointer::text(path, "path")?);
            change_tls(c, |tls| tls.ca_file = Some(path))
        })
    }
}

/// Our certificate chain and its key, in PEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mux_config_tls_identity(
    c: mux_config,
    cert_pem: *const c_void,
    cert_len: usize,
    key_pem: *const c_void,
    key_len: usize,
    err: *mut mux_error,
) -> mux_status {
    // SAFETY: by this function's contract, here and below.
    unsafe {
        boundary::status_with(err, || {
            let cert = pointer::bytes(cert_pem, cert_len, "cert_pem")?.to_vec();
            let key = pointer::bytes(key_pem, key_len, "key_pem")?.to_vec();
            change_tls(c, |tls| tls.identity_pem = Some((cert, key)))
        })
    }
}

/// As mux_config_tls_identity, from files that are read when a session is dialed or a listener bound.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mux_config_tls_identity_files(
    c: mux_config,
    cert: *const c_char,
    key: *const c_char,
    err: *mut mux_error,
) -> mux_status {
    // SAFETY: by this function's contract, here and below.
    unsafe {
        boundary::status_with(err, || {
            let files = (PathBuf::from(pointer::text(cert, "cert")?), PathBuf::from(pointer::text(key, "key")?));
            change_tls(c, |tls| tls.identity_files = Some(files))
        })
    }
}

/// The name to verify instead of the URL's host.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mux_config_tls_server_name(c: mux_config, name: *const c_char) -> mux_status {
    boundary::status(|| {
        // SAFETY: by this function's contract.
        let name = unsafe { pointer::text(name, "name")? }.to_owned();
        change_tls(c, |tls| tls.server_name = Some(name))
    })
}

/// Accepts the certificate whose DER has this SHA-256 (32 bytes) instead of verifying chain and name. May be repeated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mux_config_tls_pin_sha256(c: mux_config, hash: *const u8, len: usize) -> mux_status {
    boundary::status(|| {
        // SAFETY: by this function's contract.
        let hash = unsafe { pointer::bytes(hash.cast(), len, "hash")? };
        let hash = hash.try_into().map_err(|_| Fault::invalid("a pin is a SHA-256, which has 32 bytes"))?;
        change_tls(c, |tls| tls.pins.push(hash))
    })
}

/// The application protocols to offer instead of the backend's own, separated by commas.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mux_config_alpn(c: mux_config, comma_list: *const c_char) -> mux_status {
    boundary::status(|| {
        // SAFETY: by this function's contract.
        let list = unsafe { pointer::text(comma_list, "comma_list")? };
        let names: Vec<String> = list.split(',').map(str::to_owned).collect();
        if names.iter().any(|name| name.is_empty() || name.len() > 255) {
            return Err(Fault::invalid("application protocols have 1 to 255 bytes each"));
        }
        change_tls(c, |tls| tls.alpn = names)
    })
}
