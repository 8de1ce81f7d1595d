//! `windlass help exit-codes`, and the same as a command.

use crate::error::EXIT_CODES;

/// The table, for help.
pub fn table() -> String {
    let lines = EXIT_CODES
        .iter()
        .map(|(code, meaning)| format!("  {code:<7}{meaning}\n"));
    format!(
        "What windlass' exit codes mean:\n\n{}",
        lines.collect::<String>()
    )
}
