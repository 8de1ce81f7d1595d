//! The bundled container engine: its process. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    // A container's keeper forks, so it must be the only thread; and it must stay small.
    if arguments.get(1).is_some_and(|first| first == "shim") {
        let code = windlassd::runtime::shim_main(arguments);
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    windlassd::assemble::main()
}
