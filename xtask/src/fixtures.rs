//! `cargo xtask fixtures`: what the tests, the demo and the bench run against, made ahead of time.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use windlass_fixtures::{Access, Cache, Registry, Vm, VmImage, httpd, layers};

use crate::run::run;

/// What can be made.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fixture {
    /// The disk of the Debian virtual machine
    Vm,
    /// Apache httpd as an image
    Httpd,
    /// An image of 350 MB, for measuring pulls
    Layers,
    /// The program of examples/hello
    Hello,
    /// A virtual machine and a registry that run until Ctrl-C, for trying things by hand
    Playground,
}

/// What to make.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Some only [default: all that the tests use]
    #[arg(value_enum)]
    pub only: Vec<Fixture>,
}

/// Makes them; what is there already is left as it is.
pub fn make(options: &Options) -> Result<()> {
    let all = [Fixture::Vm, Fixture::Httpd, Fixture::Hello];
    let wanted = if options.only.is_empty() {
        &all[..]
    } else {
        &options.only
    };
    for fixture in wanted {
        let begun = Instant::now();
        make_one(*fixture)?;
        println!(
            "fixture {fixture:?} ({:.1} s)",
            begun.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

fn make_one(fixture: Fixture) -> Result<()> {
    let cache = Cache::standard();
    match fixture {
        Fixture::Vm => VmImage::prepare(&cache).map(drop),
        Fixture::Httpd => httpd::image(&cache).map(drop),
        Fixture::Layers => layers::image(&cache, layers::USUAL).map(drop),
        Fixture::Hello => hello(),
        Fixture::Playground => playground(&cache),
    }
}

/// Compiles examples/hello into its build context: static, so that an image needs nothing else.
pub fn hello() -> Result<()> {
    let folder = Path::new("examples/hello");
    let source = folder.join("hello.rs");
    let program = folder.join("hello");
    let source_time = fs_err::metadata(&source)?.modified()?;
    if fs_err::metadata(&program)
        .is_ok_and(|made| made.modified().is_ok_and(|time| time > source_time))
    {
        return Ok(());
    }
    let (source, program) = (path_text(&source)?, path_text(&program)?);
    run(&[
        "rustc",
        "--edition",
        "2024",
        "--target",
        "x86_64-unknown-linux-musl",
        "-C",
        "opt-level=2",
        "-C",
        "panic=abort",
        "-C",
        "strip=symbols",
        "-C",
        "relocation-model=static",
        "-C",
        "target-feature=+crt-static",
        "-o",
        program,
        source,
    ])
}

fn path_text(path: &Path) -> Result<&str> {
    path.to_str().context("a path is not text")
}

fn playground(cache: &Cache) -> Result<()> {
    let registry = Registry::start(Access::Anonymous)?;
    registry.push(&httpd::image(cache)?, "library/httpd", "2.4")?;
    let vm = Vm::boot(&VmImage::prepare(cache)?, &[80, 8080])?;
    println!(
        "virtual machine: SSH after {:.1} s",
        vm.boot_time.as_secs_f64()
    );
    println!(
        "  ssh -i {} -p {} root@127.0.0.1    (or ops@)",
        vm.key().display(),
        vm.port(22)?
    );
    println!(
        "  its ports 80 and 8080: 127.0.0.1:{} and 127.0.0.1:{}",
        vm.port(80)?,
        vm.port(8080)?
    );
    println!(
        "registry: http://{}, in the machine http://{}",
        registry.address(),
        Vm::host_address(registry.address().port())
    );
    println!("until Ctrl-C");
    crate::interrupt::wait();
    Ok(())
}
