//! One file per platform; everything that talks to the operating system by itself is in here.

#[cfg(unix)]
pub(crate) mod descriptor;
#[cfg(target_os = "linux")]
mod linux;
mod patience;

#[cfg(target_os = "linux")]
pub(crate) use linux::*;
pub(crate) use patience::Patience;

#[cfg(not(target_os = "linux"))]
compile_error!("the C library knows Linux only: another system needs a file beside platform/linux.rs");
