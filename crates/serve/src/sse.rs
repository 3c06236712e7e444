//! The body of a streamed answer: events as they come.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use tokio::sync::mpsc::Receiver;

use crate::error::ApiError;
use crate::open::Told;
use crate::reply::{ReplyStream, event};
use crate::shared::ServerState;

/// Events of one request; dropped when its client has gone, which the engine sees.
pub(crate) struct EventBody {
    inbox: Receiver<Told>,
    reply: ReplyStream,
    /// Choices that have not ended.
    left: usize,
    begun: bool,
    ended: bool,
    state: Arc<ServerState>,
}

impl EventBody {
    pub(crate) fn new(inbox: Receiver<Told>, reply: ReplyStream, n: usize, state: Arc<ServerState>) -> Self {
        Self { inbox, reply, left: n, begun: false, ended: false, state }
    }

    /// The event of what was said.
    fn event(&mut self, said: Option<Told>) -> String {
        match said {
            Some(Told::Piece(piece)) => {
                self.left -= usize::from(piece.finish.is_some());
                self.reply.piece(&piece, &self.state.model.processor)
            }
            Some(Told::Failed(error)) => {
                self.ended = true;
                event(&error.json())
            }
            None => {
                self.ended = true;
                match self.left {
                    0 => self.reply.end(),
                    _ => event(&ApiError::status(503, "the server ended before the answer was complete").json()),
                }
            }
        }
    }
}

impl Stream for EventBody {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let body = self.get_mut();
        if body.ended {
            return Poll::Ready(None);
        }
        if !std::mem::replace(&mut body.begun, true) {
            let first = body.reply.begin();
            if !first.is_empty() {
                return Poll::Ready(Some(Ok(first.into())));
            }
        }
        let Poll::Ready(said) = body.inbox.poll_recv(context) else { return Poll::Pending };
        let mut text = body.event(said);
        // What else is there goes out with it.
        while !body.ended
            && let Ok(said) = body.inbox.try_recv()
        {
            text += &body.event(Some(said));
        }
        Poll::Ready(Some(Ok(text.into())))
    }
}
