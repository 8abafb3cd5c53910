//! Configuration: numbers by key, everything by the names that URLs use, certificates.

use std::ffi::{c_char, c_void};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libmux::{ClientAuth, Config, TlsConfig};

use crate::abi::{mux_config, mux_config_key, mux_error, mux_runtime, mux_status};
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
        _ if key == Key::MUX_CFG_CLIENT_AUTH as u32 => {
            config.tls.client_auth = match within("client auth", 0, 2)? {
                0 => ClientAuth::None,
                1 => ClientAuth::Request,
                _ => ClientAuth::Require,
            };
        }
        _ => return Err(Fault::invalid(format!("configuration key {key} is not in enum mux_config_key"))),
    }
    Ok(())
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
