//! Every raw pointer that a caller passes is looked at here, and nowhere else.
//!
//! What C promises, and no check can prove: a pointer that is not null points to what the prototype says, for as long as
//! the call takes.

use std::ffi::{CStr, c_char, c_void};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::ptr;
use std::slice;

use crate::abi::{mux_error, mux_iovec};
use crate::status::Fault;

/// The most that one call moves. Partial transfers are normal, so a longer buffer loses nothing.
const MOST: usize = 1 << 30;

/// Pieces of memory that one call looks at, as many as IOV_MAX.
const MOST_PIECES: i32 = 1024;

/// A place to put a result.
///
/// # Safety
/// `place` is null or writable for a `T`.
pub(crate) unsafe fn out<'a, T>(place: *mut T, name: &str) -> Result<&'a mut MaybeUninit<T>, Fault> {
    // SAFETY: not null, aligned, and by contract writable; `MaybeUninit` needs no valid contents.
    unsafe { maybe_out(place, name)? }.ok_or_else(|| null(name))
}

/// A place for a result that the caller may not want.
///
/// # Safety
/// As [`out`].
pub(crate) unsafe fn maybe_out<'a, T>(place: *mut T, name: &str) -> Result<Option<&'a mut MaybeUninit<T>>, Fault> {
    if place.is_null() {
        return Ok(None);
    }
    if !place.is_aligned() {
        return Err(Fault::invalid(format!("{name} is not aligned")));
    }
    // SAFETY: not null, aligned, and by contract writable; `MaybeUninit` needs no valid contents.
    Ok(Some(unsafe { &mut *place.cast::<MaybeUninit<T>>() }))
}

/// An array of results of which at most `count` are written.
///
/// # Safety
/// `place` is null or writable for `count` times `T`.
pub(crate) unsafe fn outs<'a, T>(place: *mut T, count: i32, name: &str) -> Result<&'a mut [MaybeUninit<T>], Fault> {
    let count = usize::try_from(count).ok().filter(|count| *count > 0);
    let count = count.ok_or_else(|| Fault::invalid(format!("{name} needs room for at least one")))?;
    if place.is_null() || !place.is_aligned() {
        return Err(null(name));
    }
    // SAFETY: not null, aligned, and by contract writable for `count`, which is at most MOST bytes for any T here.
    Ok(unsafe { slice::from_raw_parts_mut(place.cast(), count.min(MOST / size_of::<T>())) })
}

/// Where slices go that are lent: as many places as `*n` says, and `n` itself for how many were used.
///
/// # Safety
/// `n` is null or points to an integer, and `places` is null or writable for as many elements as it says.
pub(crate) unsafe fn places<'a>(
    places: *mut mux_iovec,
    n: *mut i32,
) -> Result<(&'a mut [MaybeUninit<mux_iovec>], &'a mut MaybeUninit<i32>), Fault> {
    if n.is_null() || !n.is_aligned() {
        return Err(null("n"));
    }
    // SAFETY: not null, aligned; by contract readable.
    let count = unsafe { n.read() };
    if !(1..=MOST_PIECES).contains(&count) {
        return Err(Fault::invalid(format!("*n is {count}; 1 to {MOST_PIECES} are allowed")));
    }
    // SAFETY: by this function's contract.
    Ok(unsafe { (outs(places, count, "iov")?, out(n, "n")?) })
}

/// Room to read into: at least one byte, because a read of nothing would look like the end of the stream.
///
/// # Safety
/// `buf` is null or writable for `len` bytes.
pub(crate) unsafe fn room<'a>(buf: *mut c_void, len: usize) -> Result<&'a mut [MaybeUninit<u8>], Fault> {
    if buf.is_null() || len == 0 {
        return Err(Fault::invalid("a read needs a buffer of at least one byte"));
    }
    // SAFETY: not null; bytes have no alignment; by contract writable for `len`, of which at most MOST is used.
    Ok(unsafe { slice::from_raw_parts_mut(buf.cast(), len.min(MOST)) })
}

/// Bytes to read, all of them: keys, labels.
///
/// # Safety
/// `data` is null or readable for `len` bytes.
pub(crate) unsafe fn bytes<'a>(data: *const c_void, len: usize, name: &str) -> Result<&'a [u8], Fault> {
    if len == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(null(name));
    }
    if len > MOST {
        return Err(Fault::invalid(format!("{name} has {len} bytes; {MOST} are allowed")));
    }
    // SAFETY: not null; by contract readable for `len`.
    Ok(unsafe { slice::from_raw_parts(data.cast(), len) })
}

/// Bytes to write: the first part of a buffer that is longer than one call moves.
///
/// # Safety
/// As [`bytes`].
pub(crate) unsafe fn body<'a>(data: *const c_void, len: usize) -> Result<&'a [u8], Fault> {
    // SAFETY: as this function's contract.
    unsafe { bytes(data, len.min(MOST), "buf") }
}

/// A text, which must be UTF-8.
///
/// # Safety
/// `text` is null or NUL-terminated.
pub(crate) unsafe fn text<'a>(text: *const c_char, name: &str) -> Result<&'a str, Fault> {
    if text.is_null() {
        return Err(null(name));
    }
    // SAFETY: not null; by contract NUL-terminated.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Fault::invalid(format!("{name} is not UTF-8")))
}

/// The pieces of a readv or writev.
///
/// # Safety
/// `pieces` is null or readable for `n` pieces, each as [`room`] (to read into) or [`bytes`] (to write) wants it.
pub(crate) unsafe fn pieces<'a>(pieces: *const mux_iovec, n: i32) -> Result<&'a [mux_iovec], Fault> {
    if !(1..=MOST_PIECES).contains(&n) {
        return Err(Fault::invalid(format!("{n} pieces; 1 to {MOST_PIECES} are allowed")));
    }
    if pieces.is_null() || !pieces.is_aligned() {
        return Err(null("iov"));
    }
    // SAFETY: not null, aligned; by contract readable for `n`, which is positive.
    let pieces = unsafe { slice::from_raw_parts(pieces, n as usize) };
    if pieces.iter().any(|piece| piece.base.is_null() && piece.len > 0) {
        return Err(null("the base of a piece"));
    }
    Ok(pieces)
}

/// A piece as room to read into; `None` when it is empty.
///
/// # Safety
/// `piece` came from [`pieces`] and is writable.
pub(crate) unsafe fn piece_room<'a>(piece: &mux_iovec) -> Option<&'a mut [MaybeUninit<u8>]> {
    // SAFETY: as this function's contract; an empty or null piece is an error there and `None` here.
    unsafe { room(piece.base, piece.len) }.ok()
}

/// A piece as bytes to write.
///
/// # Safety
/// `piece` came from [`pieces`] and is readable.
pub(crate) unsafe fn piece_body<'a>(piece: &mux_iovec) -> Result<IoSlice<'a>, Fault> {
    // SAFETY: as this function's contract.
    unsafe { body(piece.base, piece.len) }.map(IoSlice::new)
}

/// Whether one call would move only the first part of a piece.
pub(crate) fn is_cut(piece: &mux_iovec) -> bool {
    piece.len > MOST
}

/// Whether one call moves only the first part of a buffer of `len`.
pub(crate) fn is_cut_at(len: usize) -> bool {
    len > MOST
}

/// The place `done` bytes into a buffer, which may be null only if it is empty.
pub(crate) fn skip(buf: *mut c_void, done: usize) -> *mut c_void {
    // A null buffer has no inside; what uses the result checks it against null again.
    if buf.is_null() { buf } else { buf.wrapping_byte_add(done) }
}

/// Structs that grow: `struct_size` comes first and says how much of it the caller knows.
///
/// # Safety
/// Implement only for `repr(C)` structs whose first member is that `u32` and for which all-zero bytes are valid.
pub(crate) unsafe trait Growing: Copy {
    /// The bytes that the first released version had.
    const FIRST: usize;
}

// SAFETY: repr(C), u32 first, only integers and characters.
unsafe impl Growing for mux_error {
    const FIRST: usize = 264;
}

// SAFETY: repr(C), u32 first, only integers.
unsafe impl Growing for crate::abi::mux_stats {
    const FIRST: usize = 104;
}

// SAFETY: repr(C), u32 first, integers and a pointer that may be null.
unsafe impl Growing for crate::abi::mux_open_opts {
    const FIRST: usize = std::mem::offset_of!(crate::abi::mux_open_opts, label);
}

// SAFETY: repr(C), u32 first, integers and a pointer that may be null.
unsafe impl Growing for crate::abi::mux_runtime_opts {
    const FIRST: usize = std::mem::offset_of!(crate::abi::mux_runtime_opts, worker_threads);
}

// SAFETY: repr(C), u32 first, integers, a pointer and functions that may be null.
unsafe impl Growing for crate::abi::mux_io {
    const FIRST: usize = 48;
}

// SAFETY: repr(C), u32 first, integers, pointers and functions that may be null.
unsafe impl Growing for crate::vtable::mux_backend {
    const FIRST: usize = std::mem::offset_of!(crate::vtable::mux_backend, session_caps);
}

/// Nothing this library has ever defined is larger; what claims to be was not initialised.
const LARGEST: usize = 4096;

/// A struct that the caller allocated and we fill, as much of it as the caller knows.
pub(crate) struct Sized_<T: Growing> {
    place: *mut T,
    size: usize,
}

impl<T: Growing> Sized_<T> {
    /// Fills in what the caller knows of `value`; `struct_size` stays as it is.
    pub(crate) fn write(&mut self, value: &T) {
        let skip = size_of::<u32>();
        let from = ptr::from_ref(value).cast::<u8>();
        // SAFETY: `size` is at most both sizes and more than `skip`; `place` was checked and is by contract writable.
        unsafe { ptr::copy_nonoverlapping(from.add(skip), self.place.cast::<u8>().add(skip), self.size - skip) }
    }
}

fn known_size<T: Growing>(size: u32, name: &str) -> Result<usize, Fault> {
    let size = size as usize;
    if size < T::FIRST || size > LARGEST {
        let want = size_of::<T>();
        return Err(Fault::invalid(format!("{name}: struct_size is {size}; set it to sizeof, which is {want}")));
    }
    Ok(size.min(size_of::<T>()))
}

/// A struct to fill; `None` when `place` is null.
///
/// # Safety
/// `place` is null or points to a `T` of which `struct_size` bytes are writable.
unsafe fn sized<T: Growing>(place: *mut T, name: &str) -> Result<Option<Sized_<T>>, Fault> {
    if place.is_null() {
        return Ok(None);
    }
    if !place.is_aligned() {
        return Err(Fault::invalid(format!("{name} is not aligned")));
    }
    // SAFETY: not null, aligned, and `struct_size` is the first member.
    let size = known_size::<T>(unsafe { place.cast::<u32>().read() }, name)?;
    Ok(Some(Sized_ { place, size }))
}

/// Where error details go; `None` when the caller wants none.
///
/// # Safety
/// As [`sized`].
pub(crate) unsafe fn error(place: *mut mux_error) -> Result<Option<Sized_<mux_error>>, Fault> {
    // SAFETY: as this function's contract.
    unsafe { sized(place, "the mux_error") }
}

/// A struct to fill that must be there.
///
/// # Safety
/// As [`sized`].
pub(crate) unsafe fn sized_out<T: Growing>(place: *mut T, name: &str) -> Result<Sized_<T>, Fault> {
    // SAFETY: as this function's contract.
    unsafe { sized(place, name)? }.ok_or_else(|| null(name))
}

/// A struct that the caller filled; members it does not know are zero. `None` when `place` is null.
///
/// # Safety
/// `place` is null or points to a `T` of which `struct_size` bytes are readable.
pub(crate) unsafe fn options<T: Growing>(place: *const T, name: &str) -> Result<Option<T>, Fault> {
    if place.is_null() {
        return Ok(None);
    }
    if !place.is_aligned() {
        return Err(Fault::invalid(format!("{name} is not aligned")));
    }
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: `size` is at most the caller's size and ours; all-zero bytes are valid by the trait's contract.
    unsafe {
        let size = known_size::<T>(place.cast::<u32>().read(), name)?;
        ptr::copy_nonoverlapping(place.cast::<u8>(), value.as_mut_ptr().cast::<u8>(), size);
        Ok(Some(value.assume_init()))
    }
}

/// Copies as much of `value` as fits to `buf`, and a NUL after a text that leaves room for it.
///
/// # Safety
/// `buf` is null or writable for `cap` bytes.
pub(crate) unsafe fn copy_out(value: &[u8], is_text: bool, buf: *mut c_void, cap: usize) -> Result<i64, Fault> {
    if buf.is_null() && cap > 0 {
        return Err(null("buf"));
    }
    let fits = value.len().min(cap);
    // SAFETY: `fits` bytes are readable there and by contract writable here; the NUL goes only where there is room.
    unsafe {
        if fits > 0 {
            ptr::copy_nonoverlapping(value.as_ptr(), buf.cast(), fits);
        }
        if is_text && cap > value.len() {
            buf.cast::<u8>().add(value.len()).write(0);
        }
    }
    Ok(value.len() as i64)
}

fn null(name: &str) -> Fault {
    Fault::invalid(format!("{name} is NULL or not aligned"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_sizes_are_those_of_the_first_release() {
        assert_eq!(size_of::<mux_error>(), mux_error::FIRST);
        assert_eq!(size_of::<crate::abi::mux_stats>(), crate::abi::mux_stats::FIRST);
        assert_eq!(size_of::<crate::abi::mux_io>(), crate::abi::mux_io::FIRST);
    }

    #[test]
    fn only_the_part_that_the_caller_knows_is_written() {
        let mut bytes = [0x55u8; 512];
        let place = bytes.as_mut_ptr().cast::<mux_error>();
        let aligned = place.is_aligned();
        if !aligned {
            return;
        }
        // SAFETY: `bytes` is larger than a mux_error and aligned.
        unsafe {
            place.cast::<u32>().write(10);
            assert!(error(place).is_err(), "too small");
            place.cast::<u32>().write(u32::MAX);
            assert!(error(place).is_err(), "too large");
            place.cast::<u32>().write(400);
            error(place).expect("fits").expect("there").write(&crate::status::nothing_failed());
        }
        assert_eq!(bytes[264], 0x55, "what we do not know stays untouched");
    }

    #[test]
    fn a_text_is_terminated_where_there_is_room() {
        let mut buf = [0x55u8; 4];
        // SAFETY: `buf` has four bytes.
        let length = unsafe { copy_out(b"abc", true, buf.as_mut_ptr().cast(), 4) };
        assert_eq!((length.expect("fits"), &buf), (3, b"abc\0"));
        // SAFETY: two of four bytes are offered.
        let length = unsafe { copy_out(b"xyz", true, buf.as_mut_ptr().cast(), 2) };
        assert_eq!((length.expect("fits"), &buf), (3, b"xyc\0"));
    }
}
