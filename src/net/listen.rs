//! Binds listening sockets.
//!
//! Not here: accepting, which each server does with its own limits.

use std::{io, net::SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

/// Connections the kernel holds for us before we accept them.
const BACKLOG: u32 = 1_024;

/// Binds and listens. The address is free at once after a restart (`SO_REUSEADDR`); IPv6's `[::]` takes IPv4 too where the
/// system is set up so.
///
/// # Errors
/// As the system says: address in use, or a port below 1024 without the right to it.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_an_error_and_free_again_at_once() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        assert_eq!(bind(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(bind(address).is_ok());
    }
}
