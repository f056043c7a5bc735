//! The `mailweave` program: the command line, taken apart and handed to `app`.
//!
//! Not here: anything the command does.

use std::process::ExitCode;

use clap::Parser;
use mailweave::{
    app,
    cli::{Cli, Command},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(arguments) => app::serve(arguments.config.as_deref()).await,
        Command::Demo => app::demo::run().await,
        _ => Err(anyhow::anyhow!("not yet")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mailweave: {error:#}");
            ExitCode::FAILURE
        }
    }
}
