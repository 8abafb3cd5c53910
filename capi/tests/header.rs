//! `include/mux.h` is what the sources say. To write it anew: `make header`, which is
//! `cargo test -p mux-capi --test header -- --ignored regenerate`.

use std::path::{Path, PathBuf};

#[test]
fn the_committed_header_is_up_to_date() {
    let committed = std::fs::read_to_string(path()).expect("include/mux.h exists");
    let generated = generate();
    let differs = committed.lines().zip(generated.lines()).position(|(a, b)| a != b);
    assert!(
        committed == generated,
        "include/mux.h is out of date (line {}): run make header",
        differs.map_or(0, |line| line + 1)
    );
}

#[test]
#[ignore = "writes include/mux.h"]
fn regenerate() {
    std::fs::write(path(), generate()).expect("include/ is writable");
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../include/mux.h")
}

fn generate() -> String {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(crate_dir.join("cbindgen.toml")).expect("cbindgen.toml parses");
    let bindings = cbindgen::Builder::new().with_crate(crate_dir).with_config(config).generate().expect("generates");
    let mut header = Vec::new();
    bindings.write(&mut header);
    // In Rust docs a bracket is escaped.
    String::from_utf8(header).expect("UTF-8").replace("\\[", "[").replace("\\]", "]")
}
