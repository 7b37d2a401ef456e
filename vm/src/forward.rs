//! Ports of a guest on the client's machine.
//!
//! Data path: a connection to one of our listeners → the guest's endpoint over TLS, with the job's client certificate → the
//! agent connects it to a port of the guest, such as one that a container publishes. Half-closed connections stay
//! half-closed.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use pcocc_core::cancel::Cancel;
use pcocc_guest::protocol::Service;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

use crate::service::EndpointClient;

/// How often the end of forwarding is checked.
const TICK: Duration = Duration::from_millis(100);

/// A listener, and the port of the guest its connections go to.
#[derive(Debug)]
pub struct Rule {
    /// Where connections come in.
    pub listener: TcpListener,
    /// Where they go.
    pub port: u16,
}

/// Forwards connections until `cancel` is raised or `ended` returns true. `failed` receives the reason for each connection
/// that could not be made.
pub fn forward(
    rules: Vec<Rule>,
    client: &EndpointClient,
    cancel: &Cancel,
    ended: &mut dyn FnMut() -> bool,
    failed: Arc<dyn Fn(String) + Send + Sync>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        for Rule { listener, port } in rules {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::spawn(accept(listener, port, client.clone(), Arc::clone(&failed)));
        }
        while !cancel.is_cancelled() && !ended() {
            tokio::time::sleep(TICK).await;
        }
        io::Result::Ok(())
    })?;
    // Without this, open connections would keep the runtime waiting.
    runtime.shutdown_background();
    Ok(())
}

async fn accept(
    listener: tokio::net::TcpListener,
    port: u16,
    client: EndpointClient,
    failed: Arc<dyn Fn(String) + Send + Sync>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (client, failed) = (client.clone(), Arc::clone(&failed));
                tokio::spawn(async move {
                    if let Err(error) = connect(stream, port, &client).await {
                        failed(format!("port {port} of the VM: {error}"));
                    }
                });
            }
            Err(error) => {
                // Too many open files, for one: it passes.
                failed(format!("accept a connection: {error}"));
                tokio::time::sleep(TICK).await;
            }
        }
    }
}

async fn connect(mut near: TcpStream, port: u16, client: &EndpointClient) -> io::Result<()> {
    near.set_nodelay(true)?;
    let mut far = client.open(&Service::Connect { port }).await?;
    // An error ends the connection for both sides, and is theirs to handle.
    let _ = copy_bidirectional(&mut near, &mut far).await;
    Ok(())
}
