//! Exported: sessions over what the application brings instead of a URL: descriptors, functions, or a channel handle
//! whose bytes are the transport's.

use std::ffi::c_char;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use bytes::Bytes;
use libmux::backend::{ByteStream, ChannelParts};
use libmux::{Config, Error, Initiator, Role};

use crate::abi::{mux_channel, mux_config, mux_error, mux_event_bit, mux_fd, mux_fd_flag, mux_io, mux_io_option};
use crate::abi::{mux_iovec, mux_role, mux_session, mux_status, mux_status_code};
use crate::boundary;
use crate::callback;
use crate::carrier::{self, Carrier, Descriptors, Readiness, Socket, SocketEnd};
use crate::channel::Channel;
use crate::config;
use crate::hub::Side;
use crate::pipe::pipe;
use crate::platform::descriptor;
use crate::pointer;
use crate::runtime::Runtime;
use crate::session::Session;
use crate::status::Fault;
use crate::world::{self, Object};

fn role_of(role: u32) -> Result<Role, Fault> {
    match role {
        _ if role == mux_role::MUX_CLIENT as u32 => Ok(Role::Client),
        _ if role == mux_role::MUX_SERVER as u32 => Ok(Role::Server),
        _ => Err(Fault::invalid(format!("role {role}: MUX_CLIENT and MUX_SERVER are allowed"))),
    }
}

fn hand_out(session: Arc<Session>) -> Result<mux_session, Fault> {
    let kept = Arc::clone(&session);
    let h = world::insert(Object::Session(session)).inspect_err(|_| kept.end())?;
    Ok(mux_session { h })
}

/// The byte stream of descriptors that were duplicated.
fn stream_of(rfd: RawFd, wfd: RawFd, owned: bool, runtime: &Runtime) -> Result<ByteStream, Fault> {
    let failed = |error: io::Error| Error::from_io("cannot use the descriptors", error);
    let _context = runtime.enter();
    let reads = descriptor::duplicate(rfd).map_err(failed)?;
    let writes = if wfd == rfd { None } else { Some(descriptor::duplicate(wfd).map_err(failed)?) };
    let socket = descriptor::is_stream_socket(&reads).map_err(failed)?;
    let both = match &writes {
        None => socket,
        Some(writes) => socket && descriptor::is_stream_socket(writes).map_err(failed)?,
    };
    if both {
        let reader = Socket::new(reads, owned).map_err(failed)?;
        let writer = match writes {
            None => Arc::clone(&reader),
            Some(writes) => Socket::new(writes, owned).map_err(failed)?,
        };
        return Ok(ByteStream::new(SocketEnd(reader), SocketEnd(writer)));
    }
    let writes = match writes {
        Some(writes) => writes,
        None => descriptor::duplicate(wfd).map_err(failed)?,
    };
    let pair = Descriptors::new(reads, writes).map_err(failed)?;
    Ok(carrier::on_threads(Arc::new(pair)).map_err(failed)?)
}

/// Runs a session over descriptors that are connected already: one socket (rfd equal to wfd), or a pair of pipes or
/// terminals, such as 0 and 1. proto is the scheme without a transport: "qmux", "h2c". Returns at once, as mux_dial with
/// timeout 0 does. The library works on copies and leaves O_NONBLOCK as it is: the caller may close its own at once, and
/// with MUX_FD_OWN the library does that. err may be NULL.
///
/// MUX_EUNSUPPORTED: a wire that needs packets or TLS. MUX_EURL: no such scheme. MUX_EOS: not open descriptors of streams;
/// they are left as they were.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mux_session_from_fds(
    rfd: mux_fd,
    wfd: mux_fd,
    fd_flags: u32,
    proto: *const c_char,
    role: u32,
    c: mux_config,
    out: *mut mux_session,
    err: *mut mux_error,
) -> mux_status {
    // SAFETY: by this function's contract, here and below.
    unsafe {
        boundary::status_with(err, || {
            let (proto, out) = (pointer::text(proto, "proto")?, pointer::out(out, "out")?);
            let role = role_of(role)?;
            let own = mux_fd_flag::MUX_FD_OWN as u32;
            if fd_flags & !own != 0 {
                return Err(Fault::invalid(format!("fd_flags {fd_flags:#x}: MUX_FD_OWN is allowed")));
            }
            let number = |fd: mux_fd, name: &str| {
                RawFd::try_from(fd)
                    .ok()
                    .filter(|fd| *fd >= 0)
                    .ok_or_else(|| Fault::invalid(format!("{name} is {fd}, which is no descriptor")))
            };
            let (rfd, wfd) = (number(rfd, "rfd")?, number(wfd, "wfd")?);
            let (config, runtime) = config::resolve(c)?;
            runtime.check()?;
            let stream = stream_of(rfd, wfd, fd_flags == own, &runtime)?;
            let session = Session::adopt(proto, stream, role, config, runtime)?;
            out.write(hand_out(session)?);
            if fd_flags == own {
                descriptor::close(rfd);
                if wfd != rfd {
                    descriptor::close(wfd);
                }
            }
            Ok(())
        })
    }
}

/// Runs a session over a transport of the application's own, without callbacks: the bytes of the channel *wire are the
/// transport's. What mux_read takes from it is to be sent to the peer, what the peer sends goes in by mux_write. It is watched
/// like any channel; mux_finish on it is the end of the transport, mux_reset its failure. Carry on until it reads 0: what a
/// closed session still says is among its last bytes. Both handles are the caller's to close.
///
/// Errors as of mux_session_from_fds.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mux_session_from_wire(
    proto: *const c_char,
    role: u32,
    c: mux_config,
    out: *mut mux_session,
    wire: *mut mux_channel,
    err: *mut mux_error,
) -> mux_status {
    // SAFETY: by this function's contract, here and below.
    unsafe {
        boundary::status_with(err, || {
            let proto = pointer::text(proto, "proto")?;
            let (out, wire) = (pointer::out(out, "out")?, pointer::out(wire, "wire")?);
            let role = role_of(role)?;
            let (config, runtime) = config::resolve(c)?;
            runtime.check()?;
            let (outgoing, to_wire) = pipe();
            let (from_wire, incoming) = pipe();
            let stream = ByteStream::new(incoming, outgoing);
            let session = Session::adopt(proto, stream, role, config, Arc::clone(&runtime))?;
            let parts = ChannelParts {
                id: 0,
                initiator: Initiator::Local,
                label: Bytes::new(),
                send: Box::new(from_wire),
                recv: Box::new(to_wire),
            };
            // It outlives the session it carries, so it does not belong to it.
            let owner = Session::nowhere(runtime, proto);
            let channel = Channel::new(owner, libmux::Channel::new(parts));
            let channel = world::insert(Object::Channel(channel))?;
            match hand_out(session) {
                Ok(session) => {
                    out.write(session);
                    wire.write(mux_channel { h: channel });
                    Ok(())
                }
                Err(fault) => {
                    drop(world::world().table.close(channel));
                    Err(fault)
                }
            }
        })
    }
}

/// The application's functions.
struct Functions(mux_io);

// SAFETY: by the contract of `mux_io`, its functions may be called from any thread with its `ctx`.
unsafe impl Send for Functions {}
// SAFETY: as above; the pump calls each of them from one thread at a time.
unsafe impl Sync for Functions {}

impl Functions {
    /// What a function returned, checked against what it was given.
    fn result(count: i64, most: usize) -> io::Result<usize> {
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            Ok(_) => Err(io::Error::other("a function of mux_io said that it moved more than it was given")),
            Err(_) if count == mux_status_code::MUX_AGAIN as i64 => Err(io::ErrorKind::WouldBlock.into()),
            Err(_) => Err(io::Error::other("a function of mux_io failed")),
        }
    }
}

impl Carrier for Functions {
    fn read(&self, room: &mut [u8]) -> io::Result<usize> {
        let Some(read) = self.0.read else { return Ok(0) };
        // SAFETY: the function and its ctx live until `free`; `room` is writable for its length.
        let count = callback::call(|| unsafe { read(self.0.ctx, room.as_mut_ptr().cast(), room.len()) });
        Self::result(count, room.len())
    }

    fn write(&self, data: &[u8]) -> io::Result<usize> {
        let Some(write) = self.0.write else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let piece = mux_iovec { base: data.as_ptr().cast_mut().cast(), len: data.len() };
        // SAFETY: the function and its ctx live until `free`; `piece` is readable.
        let count = callback::call(|| unsafe { write(self.0.ctx, &raw const piece, 1) });
        match Self::result(count, data.len())? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            count => Ok(count),
        }
    }

    fn shut_down(&self) {
        if let Some(shutdown) = self.0.shutdown {
            // SAFETY: the function and its ctx live until `free`.
            callback::call(|| unsafe { shutdown(self.0.ctx) });
        }
    }
}

impl Drop for Functions {
    fn drop(&mut self) {
        if let Some(free) = self.0.free {
            // SAFETY: the last call, made once.
            callback::call(|| unsafe { free(self.0.ctx) });
        }
    }
}

/// Runs a session over functions of the application, which are called from threads of the library with no lock held: read and
/// write from one thread at a time each, shutdown once when the session has let go (a read that waits must return then), free
/// once, last. Without MUX_WIRE_BLOCKING they must not wait but return MUX_AGAIN, and mux_io_ready says when to try again; with
/// it each gets a thread of its own. free is called also when this fails, unless io is NULL or its struct_size is wrong.
///
/// MUX_EINVAL: a function that is missing. Otherwise as mux_session_from_fds.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mux_session_from_io(
    io: *const mux_io,
    proto: *const c_char,
    role: u32,
    c: mux_config,
    out: *mut mux_session,
    err: *mut mux_error,
) -> mux_status {
    // SAFETY: by this function's contract, here and below.
    unsafe {
        boundary::status_with(err, || {
            let io = pointer::options(io, "io")?.ok_or_else(|| Fault::invalid("io is NULL"))?;
            // From here on `free` is called when the last user has gone, also on failure.
            let functions = Arc::new(Functions(io));
            let (proto, out) = (pointer::text(proto, "proto")?, pointer::out(out, "out")?);
            let role = role_of(role)?;
            let blocking = mux_io_option::MUX_WIRE_BLOCKING as u32;
            if io.flags & !blocking != 0 {
                return Err(Fault::invalid(format!("flags {:#x}: MUX_WIRE_BLOCKING is allowed", io.flags)));
            }
            if io.read.is_none() || io.write.is_none() || io.shutdown.is_none() {
                return Err(Fault::invalid("mux_io needs read, write and shutdown"));
            }
            let (config, runtime) = config::resolve(c)?;
            runtime.check()?;
            let readiness = Arc::new(Readiness::default());
            let stream = if io.flags == blocking {
                carrier::on_threads(functions).map_err(|error| Error::from_io("cannot start threads", error))?
            } else {
                carrier::on_tasks(functions, Arc::clone(&readiness), &runtime, config.linger)
            };
            let session = Session::adopt(proto, stream, role, config, runtime)?;
            session.carried_by(readiness);
            out.write(hand_out(session)?);
            Ok(())
        })
    }
}

/// Says that a function of mux_io which returned MUX_AGAIN is to be called again: MUX_EV_READ, MUX_EV_WRITE or both. May be
/// called too often, at any time, from anywhere.
///
/// MUX_ESTATE: the session does not run over functions.
#[unsafe(no_mangle)]
pub extern "C" fn mux_io_ready(s: mux_session, events: u32) -> mux_status {
    boundary::status(|| {
        const READ: u32 = mux_event_bit::MUX_EV_READ as u32;
        const WRITE: u32 = mux_event_bit::MUX_EV_WRITE as u32;
        if events == 0 || events & !(READ | WRITE) != 0 {
            return Err(Fault::invalid(format!("events {events:#x}: MUX_EV_READ and MUX_EV_WRITE are allowed")));
        }
        let session = world::session(s.h)?;
        let readiness = session.readiness().ok_or(mux_status_code::MUX_ESTATE)?;
        if events & READ != 0 {
            readiness.raise(Side::Recv);
        }
        if events & WRITE != 0 {
            readiness.raise(Side::Send);
        }
        Ok(())
    })
}

/// Hands the bytes of a channel to a connected AF_UNIX stream socket, for read(2), splice(2) or a child process: *out is
/// the caller's to close. What is read there came from the peer, what is written there goes to it; its end of writing is
/// ours. The channel's handle stays: it tells the cause, which the socket cannot, and closing it ends the transfer. Reads and
/// writes on it are MUX_ESTATE from now on.
///
/// MUX_ESTATE: handed over before, or a borrow is out. MUX_ENOFILE: no descriptors left.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mux_channel_to_fd(ch: mux_channel, out: *mut mux_fd) -> mux_status {
    boundary::status(|| {
        // SAFETY: by this function's contract.
        let out = unsafe { pointer::out(out, "out")? };
        let channel = world::channel(ch.h)?;
        let runtime = Arc::clone(&channel.session.runtime);
        runtime.check()?;
        let failed = |error: io::Error| Error::from_io("cannot make a socket", error);
        let (theirs, ours) = descriptor::socket_pair().map_err(failed)?;
        let socket = {
            let _context = runtime.enter();
            Socket::new(ours, true).map_err(failed)?
        };
        channel.hand_over()?;
        let (reading, writing) = (Arc::clone(&channel), Arc::clone(&channel));
        let (to_peer, from_peer) = (SocketEnd(Arc::clone(&socket)), SocketEnd(socket));
        runtime.spawn(async move { reading.pump_out(from_peer).await });
        runtime.spawn(async move { writing.pump_in(to_peer).await });
        out.write(std::os::fd::IntoRawFd::into_raw_fd(theirs) as mux_fd);
        Ok(())
    })
}

impl Session {
    /// Runs a session of `proto` over a byte stream.
    fn adopt(
        proto: &str,
        stream: ByteStream,
        role: Role,
        config: Config,
        runtime: Arc<Runtime>,
    ) -> Result<Arc<Self>, Fault> {
        let (linger, scheme) = (config.linger, proto.to_owned());
        let adopting = async move { libmux::registry().adopt(&scheme, stream, role, &config).await };
        Self::begin(format!("{proto}:"), linger, runtime, adopting)
    }
}
