//! `echo`: the hub's transport without the hub, in a process of its own, so that its CPU time can be read from outside.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};

use serde::Serialize;

use super::Failure;
use super::printer::Printer;
use crate::server::echo::Echo;

/// The line on stdout.
#[derive(Debug, Serialize)]
struct Ready {
    address: SocketAddr,
    pid: u32,
}

/// Answers until stdin ends: whoever started it is gone then, too.
pub(super) fn echo(printer: Printer) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let echo = {
        let _within = runtime.enter();
        Echo::bind((Ipv4Addr::LOCALHOST, 0).into())?
    };
    let ready = Ready { address: echo.local_addr()?, pid: std::process::id() };
    printer.print(&ready, |ready| ready.address.to_string())?;
    runtime.spawn(async move { echo.run().await });
    std::io::stdin().lock().read_to_end(&mut Vec::new())?;
    runtime.shutdown_background();
    Ok(())
}
