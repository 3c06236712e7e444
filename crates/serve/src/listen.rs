//! Connections: who has come gets a task, and none may keep a request's head to itself.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::shared::ServerState;

/// How long nobody is taken after the system had no room for one more.
const NO_ROOM: Duration = Duration::from_millis(200);

/// Takes connections until the server is told to end, and then waits for those that are being answered.
///
/// # Errors
/// A socket that cannot be listened at.
pub(crate) async fn serve(listener: std::net::TcpListener, router: Router, state: Arc<ServerState>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    let mut end = pin!(state.wait_for_end());
    loop {
        let next = poll_fn(|context| {
            // What has ended is forgotten.
            while let Poll::Ready(Some(_)) = connections.poll_join_next(context) {}
            match end.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => listener.poll_accept(context).map(Some),
            }
        });
        match next.await {
            Some(Ok((stream, _))) => _ = connections.spawn(connection(stream, router.clone(), Arc::clone(&state))),
            // A client that has gone already, or no descriptor left for it.
            Some(Err(_)) => sleep(NO_ROOM).await,
            None => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// Answers the requests of one connection; one that is idle, or whose next request has no whole head, is closed after a
/// time, and at once where the server ends.
async fn connection(stream: TcpStream, router: Router, state: Arc<ServerState>) {
    // Events are small, and each matters to whoever reads along.
    let _ = stream.set_nodelay(true);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(state.options.slow_reader);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let mut end = pin!(state.wait_for_end());
    let mut ending = false;
    let served = poll_fn(|context| {
        if !ending && end.as_mut().poll(context).is_ready() {
            ending = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(context)
    });
    // A connection that breaks is its client's matter.
    let _ = served.await;
}
