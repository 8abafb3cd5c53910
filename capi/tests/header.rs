//! `include/mux.h` is what the sources say. `MUX_HEADER=write` writes it instead of comparing.

use std::path::Path;

#[test]
fn the_committed_header_is_up_to_date() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = crate_dir.join("../include/mux.h");
    let config = cbindgen::Config::from_file(crate_dir.join("cbindgen.toml")).expect("cbindgen.toml parses");
    let bindings = cbindgen::Builder::new().with_crate(crate_dir).with_config(config).generate().expect("generates");
    let mut generated = Vec::new();
    bindings.write(&mut generated);
    // In Rust docs a bracket is escaped.
    let generated = String::from_utf8(generated).expect("UTF-8").replace("\\[", "[").replace("\\]", "]");
    if std::env::var("MUX_HEADER").as_deref() == Ok("write") {
        std::fs::write(&path, generated).expect("include/ is writable");
        return;
    }
    let committed = std::fs::read_to_string(&path).expect("include/mux.h exists");
    let differs = committed.lines().zip(generated.lines()).position(|(a, b)| a != b);
    assert!(
        committed == generated,
        "include/mux.h is out of date (line {}): run MUX_HEADER=write cargo test -p mux-capi --test header",
        differs.map_or(0, |line| line + 1)
    );
}
