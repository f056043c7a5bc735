//! The long-running loops: jobs and accounts. They claim work, hand it to a flow, and see that a failure stays small.

pub mod accounts;
pub mod jobs;
pub mod quotas;
pub mod upkeep;
pub mod wake;
