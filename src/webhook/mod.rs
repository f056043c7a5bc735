//! Signs events and posts them to the CRM's endpoints, as Standard Webhooks 1.0 says.
//!
//! Not here: what is posted when, and when again (`flow::notify`); which addresses may be connected to (the resolver that
//! is passed in).

mod places;
mod post;
mod sign;

pub use places::{Place, Room};
pub use post::{Asked, Failure, Posted, Poster, PosterError, Resolve};
pub use sign::{Post, Signature, sign};
