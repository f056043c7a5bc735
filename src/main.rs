//! The `mailweave` command: takes its arguments apart, runs what was asked for, and says why when it could not.
//!
//! Not here: doing any of it (`app`). Exit codes: 0 well, 1 not, 2 the command line was wrong.

use std::process::ExitCode;

use clap::Parser as _;
use mailweave::{
    app,
    cli::{Cli, Command, KeyVerb, Noun, PolicyVerb},
};

/// Mail makes many small allocations that live on other threads than they began on.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What clap exits with too.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // Wrong arguments end here, with 2.
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("cannot start the runtime")),
    };
    match runtime.block_on(Box::pin(run(cli.command))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

/// Runs a command. False when it did its work and what it found is not well.
async fn run(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Serve(arg) => app::serve(arg.config.as_deref()).await.map(|()| true),
        Command::Demo => app::demo::run().await.map(|()| true),
        Command::Check(arg) => app::check::run(arg.config.as_deref()).await,
        Command::Audit(arg) => app::audit::run(arg.config.as_deref()).await,
        Command::Health(health) => app::health::run(&health.url).await,
        Command::Key(Noun { client, verb: KeyVerb::Create(order) }) => {
            app::key::create(&client, order).await.map(|()| true)
        }
        Command::Policy(Noun { client, verb: PolicyVerb::Simulate(order) }) => {
            app::simulate::run(&client, order).await.map(|()| true)
        }
        Command::Why(why) => app::why::run(why).await,
        noun => app::client::run(noun).await.map(|()| true),
    }
}

/// The error and what caused it, each on a line of its own.
fn fail(error: &anyhow::Error) -> ExitCode {
    let mut causes = error.chain().map(ToString::to_string);
    eprintln!("mailweave: {}", causes.next().unwrap_or_default());
    for cause in causes {
        eprintln!("  because: {cause}");
    }
    if error.is::<app::client::Usage>() { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
}
