//! The UDP socket under an endpoint.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::SockRef;

/// Bytes that the system may keep for the socket, either way, if its own limit allows: packets that come while others use
/// the processor must not be lost.
const BUFFER_BYTES: usize = 4 << 20;

/// Opens a UDP port.
pub(super) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    let buffers = SockRef::from(&socket);
    // Where the system allows less, it gives what it allows; where it refuses, the default serves.
    let _ = buffers.set_recv_buffer_size(BUFFER_BYTES);
    let _ = buffers.set_send_buffer_size(BUFFER_BYTES);
    Ok(socket)
}
