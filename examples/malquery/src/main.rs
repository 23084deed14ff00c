//! The `malquery` command line, with a command for each operation of MalQuery, and others that
//! combine operations or work offline.
//!
//! Results go to standard output, messages to standard error. See [`output::code`] for exit codes.

mod args;
mod collect;
mod commands;
mod common;
mod demo;
mod format;
mod input;
mod interrupt;
mod list;
mod output;
mod rule;
mod serve;
mod source;
mod state;
mod values;
mod watch;

use std::process::ExitCode;

use crate::args::{Cli, Command, Local};
use crate::format::{DOCUMENTS, Format, RESULTS};
use crate::output::{Failure, INTERRUPTED};

fn main() -> ExitCode {
    let cli = args::parse();
    output::set_up(cli.session.quiet, cli.session.verbose);
    interrupt::listen();
    let code = match run(cli) {
        Ok(()) => 0,
        // `interrupt::end` prints this message.
        Err(failure) if failure.message == INTERRUPTED => failure.code,
        Err(failure) => {
            failure.show();
            failure.code
        }
    };
    // The shell must see that a signal arrived, even if the command finished.
    interrupt::end_if_stopped();
    ExitCode::from(code)
}

fn run(Cli { session, command }: Cli) -> Result<(), Failure> {
    session.check()?;
    input::end_after(session.timeout);
    let formats = match &command {
        Command::Call(call) => call.formats(),
        Command::Local(Local::CheckRule { .. }) => DOCUMENTS,
        Command::Local(Local::Extract { .. }) => RESULTS,
        Command::Local(_) => &[],
    };
    let format = Format::or_default(session.format);
    if session.format.is_some() && !formats.contains(&format) {
        return Err(format::refuse(format, formats));
    }
    match command {
        Command::Call(call) => source::run(session, format, call),
        Command::Local(Local::CheckRule { rule }) => rule::check(&rule, format),
        Command::Local(Local::Extract {
            archive,
            output_dir,
        }) => collect::extract(&session, format, &archive, &output_dir),
        Command::Local(Local::Serve { options }) => serve::serve(&session, &options),
        Command::Local(Local::Completions { shell }) => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut args::command(), "malquery", &mut text);
            output::write(&String::from_utf8_lossy(&text))
        }
        Command::Local(Local::Man) => manual(),
    }
}

/// Prints the manual: a page for the program and a page for each command.
fn manual() -> Result<(), Failure> {
    let mut root = args::command();
    root.build();
    let mut text = Vec::new();
    let pages = std::iter::once(root.clone()).chain(root.get_subcommands().cloned());
    for page in pages.filter(|page| page.get_name() != "help") {
        clap_mangen::Man::new(page)
            .render(&mut text)
            .map_err(|error| Failure::failed(&error))?;
    }
    output::write(&String::from_utf8_lossy(&text))
}
