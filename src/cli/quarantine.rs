//! What can be done with mail that is kept aside.
//!
//! Not here: doing it.

use clap::Subcommand;

use super::{List, One, Update};

#[derive(Debug, Subcommand)]
pub enum QuarantineVerb {
    /// List the mail that is kept aside, newest first: --query state=released
    List(List),
    /// Show mail that is kept aside, with its text
    Show(One),
    /// The exact bytes of mail that is kept aside
    Raw(One),
    /// Let it in, and trust its sending route from now on: --data '{"trust":true}', or nothing and it is let in once
    Release(Update),
    /// Delete it
    Reject(One),
}
