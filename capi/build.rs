//! Link arguments of the shared library.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        // 0: no promise about the ABI before 1.0.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libmux.so.0");
        // Its threads and thread-local destructors must never lose their code to dlclose.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
