//! Connections: listening, dialling, TLS, and which addresses may be dialled at all.
//!
//! Not here: any protocol spoken over them, and anything of mail.

mod dial;
mod egress;
mod listen;
mod resolve;
mod tls;

pub use dial::{DialError, Dialer, Security, Stream, Target};
pub use egress::{Egress, is_public};
pub use listen::bind;
pub use resolve::{Resolver, ResolverError};
pub use tls::{Certificates, TlsError, client_config, install_provider};
