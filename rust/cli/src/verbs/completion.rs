//! `msb completion`.

use clap::Args;
use clap_complete::Shell;

use crate::output::failure::Outcome;
use crate::terminal::console::Console;

/// Arguments of `completion`.
#[derive(Debug, Args)]
#[command(after_help = "Example: msb completion bash > ~/.local/share/bash-completion/completions/msb")]
pub struct CompletionArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script; needs no backend.
pub fn run(args: &CompletionArgs, console: &Console) -> Outcome<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::app::grammar(), "msb", &mut script);
    console.print_bytes(&script)
}
