//! `mailweave demo`: the whole gateway on loopback with the sandbox provider, and a story that plays itself.
//!
//! Everything lies in a temporary directory that goes with the process. Not here: the story (`story`), the world (`world`).

mod api;
mod story;
mod world;

use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use self::world::World;
use crate::{
    config::{LogFormat, LogLevel},
    net, telemetry,
};

/// Plays the story, then keeps the gateway up for looking at until Ctrl-C.
///
/// # Errors
/// When the world cannot be built or the story does not come out.
pub async fn run() -> anyhow::Result<()> {
    let _log = telemetry::init_log(LogLevel::Warn, LogFormat::Text)?;
    net::install_provider();
    let metrics = telemetry::init_metrics().context("metrics")?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let world = World::build(Arc::new(move || telemetry::render(&metrics))).await?;
    world.introduce();
    let played = tokio::select! {
        played = story::play(&world) => played,
        _ = interrupt.recv() => return world.end().await,
        _ = terminate.recv() => return world.end().await,
    };
    if let Err(error) = played {
        world.end().await?;
        return Err(error);
    }
    world.invite();
    tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
    println!("\nGoing: the store, the mailboxes and the certificates of this demo are deleted.");
    world.end().await
}
