//! Signs events and posts them to the CRM's endpoints, as Standard Webhooks 1.0 says.
//!
//! Not here: what is posted when, and when again (`flow::notify`); which addresses may be connected to (the resolver that
//! is passed in).

mod post;
mod sign;

pub use post::{Asked, Posted, Poster, PosterError, Resolve};
pub use sign::{Post, Signature, sign};
