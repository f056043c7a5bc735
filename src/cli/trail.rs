//! What can be done with the trail of acts.
//!
//! Not here: doing it.

use clap::Subcommand;

use super::List;

#[derive(Debug, Subcommand)]
pub enum TrailVerb {
    /// List who did what, newest first
    List(List),
}
