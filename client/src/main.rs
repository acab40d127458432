//! The command `cortado`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cortado::cli::main()
}
