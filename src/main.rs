//! The command line: settings, logs, one command, an exit code.

use std::process::ExitCode;

use clap::Parser;
use ringmaster::commands::{self, Command};

/// Outbound phone-call campaigns over Plivo that survive anything. Settings come from the environment: see .env.example.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[tokio::main]
async fn main() -> ExitCode {
    match Box::pin(commands::run(Arguments::parse().command)).await {
        Ok(code) => code,
        Err(error) => commands::fail(&error),
    }
}
