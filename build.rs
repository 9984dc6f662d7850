//! Compiles the BPF programs in `bpf/` with clang and generates their skeletons.
//!
//! Leaves `<program>.skel.rs` in `OUT_DIR`; `src/bpf` includes it. The libbpf headers come with
//! libbpf-cargo, the kernel's from the system (linux-libc-dev).

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libbpf_cargo::SkeletonBuilder;

/// Programs by the stem of `bpf/<stem>.bpf.c`.
const PROGRAMS: [&str; 5] = ["agents", "flood", "share", "sink", "steer"];

fn main() {
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-env-changed=CLANG");

    let clang = env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    require_clang(&clang);

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for program in PROGRAMS {
        let source = Path::new("bpf").join(format!("{program}.bpf.c"));
        let skeleton = out.join(format!("{program}.skel.rs"));
        let built = SkeletonBuilder::new()
            .source(&source)
            .clang(&clang)
            .clang_args(clang_args())
            .build_and_generate(&skeleton);
        if let Err(error) = built {
            fail(&format!("{} did not build: {error:#}", source.display()));
        }
    }
}

fn clang_args() -> Vec<OsString> {
    // -mcpu=v3: 32-bit subregisters and jumps, and compare-and-swap, which makes 5.12 the oldest kernel.
    let mut args: Vec<OsString> = ["-mcpu=v3", "-Wall", "-Wextra"].map(Into::into).to_vec();
    // Debian and Ubuntu keep asm/types.h in a folder of the architecture, which clang does not
    // search when its target is bpf.
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let include = PathBuf::from(format!("/usr/include/{arch}-linux-gnu"));
    if include.is_dir() {
        args.push("-idirafter".into());
        args.push(include.into());
    }
    args
}

fn require_clang(clang: &OsString) {
    let found = Command::new(clang)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        fail(&format!(
            "`{}` does not run, and the XDP program is C that clang compiles: install clang \
             (scripts/setup does, or `apt-get install clang llvm`), or name one in CLANG",
            clang.display()
        ));
    }
}

/// Ends the build with the message alone, without a panic's location and hint.
fn fail(message: &str) -> ! {
    eprintln!("\nerror: {message}\n");
    std::process::exit(1);
}
