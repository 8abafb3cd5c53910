//! What the library is linked from, seen from outside.

use std::process::Command;

#[test]
fn tokio_has_neither_signals_nor_processes() {
    let args = ["tree", "--offline", "-p", "mux-capi", "-e", "normal", "--prefix", "none", "-f", "{p} features: {f}"];
    let tree = Command::new(env!("CARGO")).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let tree = tree.expect("cargo tree runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).expect("UTF-8");
    let tokio = tree.lines().find(|line| line.starts_with("tokio v")).expect("the library uses tokio");
    let (_, features) = tokio.split_once("features: ").expect("the format above");
    for forbidden in ["signal", "process", "full"] {
        assert!(!features.split(',').any(|feature| feature == forbidden), "{features}");
    }
}
