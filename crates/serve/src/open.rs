//! A request while it is answered: tokens in, pieces of text out to whoever asked.

use std::sync::Arc;
use std::time::Instant;

use data::{Processor, StreamDecoder};
use rollout::{FinishReason, Response, RolloutRequest, TokenLogProb};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use crate::ask::AskedSettings;
use crate::error::ApiError;
use crate::stop::StopFilter;

/// Pieces that wait in the channel of one request; more are joined.
pub(crate) const CHANNEL: usize = 64;

/// A prompt of a request on its way into the engine.
pub(crate) struct Submission {
    pub request: RolloutRequest,
    /// Which choice of the reply its first response is: those of the prompts before it come first.
    pub first_choice: usize,
    pub settings: AskedSettings,
    /// When it came.
    pub arrived: Instant,
    /// When it must be done.
    pub deadline: Instant,
    pub out: Sender<Told>,
    /// Its place among those that wait, which its first token gives back.
    pub place: OwnedSemaphorePermit,
}

/// What the engine tells whoever asked. The channel ends behind the last piece of the last choice of the last prompt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Told {
    Piece(TextPiece),
    Failed(ApiError),
}

/// More of one choice.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct TextPiece {
    pub choice: usize,
    pub text: String,
    /// Tokens of this piece.
    pub ids: Vec<u32>,
    /// Their log-probs, if they were asked for.
    pub log_probs: Vec<f32>,
    /// The likeliest tokens beside them, if they were asked for.
    pub top_log_probs: Vec<Vec<TokenLogProb>>,
    /// Their visual focus, if it was asked for.
    pub focus: Vec<f32>,
    /// Why the choice ends here, if it does.
    pub finish: Option<FinishReason>,
}

/// What became of an attempt to hand over what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handed {
    /// Something went out.
    Some,
    /// There was nothing to hand over.
    Nothing,
    /// The channel is full.
    Blocked,
    /// Nobody listens.
    Gone,
}

/// One response of a request.
struct OpenChoice<'p> {
    decoder: StreamDecoder<'p>,
    filter: StopFilter,
    /// What is still to be handed over.
    pending: TextPiece,
    /// Tokens that were handed over.
    told: usize,
    /// The whole response with its numbers, once the engine has them.
    complete: Option<Response>,
    finish: Option<FinishReason>,
    closed: bool,
}

/// A request that is answered.
pub(crate) struct OpenRequest<'p> {
    choices: Vec<OpenChoice<'p>>,
    wants_numbers: bool,
    pub arrived: Instant,
    pub deadline: Instant,
    out: Sender<Told>,
    /// Given back with the first token.
    pub place: Option<OwnedSemaphorePermit>,
    /// Since when the channel has been full.
    pub blocked_since: Option<Instant>,
}

impl<'p> OpenRequest<'p> {
    pub(crate) fn new(submission: Submission, processor: &'p Processor) -> (Self, RolloutRequest) {
        let Submission { request, first_choice, settings, arrived, deadline, out, place } = submission;
        let choice = |index| OpenChoice {
            decoder: processor.stream(),
            filter: StopFilter::new(Arc::clone(&settings.stops)),
            pending: TextPiece { choice: first_choice + index, ..TextPiece::default() },
            told: 0,
            complete: None,
            finish: None,
            closed: false,
        };
        let choices = (0..request.n).map(choice).collect();
        let wants_numbers = settings.log_probs || settings.visual_focus;
        (Self { choices, wants_numbers, arrived, deadline, out, place: Some(place), blocked_since: None }, request)
    }

    /// Takes a token of a choice; true where a stop string ends the choice before its last token.
    ///
    /// # Errors
    /// A tokenizer that fails.
    pub(crate) fn take(&mut self, choice: usize, id: u32, last: Option<FinishReason>) -> Result<bool, data::DataError> {
        let Some(choice) = self.choices.get_mut(choice).filter(|choice| choice.finish.is_none()) else {
            return Ok(false);
        };
        choice.pending.ids.push(id);
        let text = choice.decoder.push(id)?;
        choice.pending.text += &choice.filter.push(&text);
        if last.is_some() {
            let rest = choice.decoder.finish()?;
            choice.pending.text += &choice.filter.push(&rest);
            choice.pending.text += &choice.filter.finish();
        }
        let hit = choice.filter.hit();
        choice.finish = if hit { Some(FinishReason::Stop) } else { last };
        Ok(hit && last.is_none())
    }

    /// Takes a whole response with its numbers.
    pub(crate) fn complete(&mut self, choice: usize, response: Response) {
        if let Some(choice) = self.choices.get_mut(choice) {
            choice.complete = Some(response);
        }
    }

    /// Hands over what is there; of choices whose numbers are asked for, what has its numbers. `so_far` is the running
    /// response of a choice.
    pub(crate) fn hand_over<'e>(&mut self, so_far: impl Fn(usize) -> Option<&'e Response>) -> Handed {
        let mut handed = match self.out.is_closed() {
            true => return Handed::Gone,
            false => Handed::Nothing,
        };
        for (index, choice) in self.choices.iter_mut().enumerate().filter(|(_, choice)| !choice.closed) {
            if self.wants_numbers {
                let known = choice.complete.as_ref().or_else(|| so_far(index));
                if !known.is_some_and(|response| add_numbers(&mut choice.pending, choice.told, response)) {
                    continue;
                }
            }
            if choice.pending.text.is_empty() && choice.finish.is_none() {
                continue;
            }
            choice.pending.finish = choice.finish;
            let next = TextPiece { choice: choice.pending.choice, ..TextPiece::default() };
            let piece = std::mem::replace(&mut choice.pending, next);
            let ids = piece.ids.len();
            match self.out.try_send(Told::Piece(piece)) {
                Ok(()) => {
                    choice.told += ids;
                    choice.closed = choice.finish.is_some();
                    handed = Handed::Some;
                }
                Err(TrySendError::Full(Told::Piece(piece))) => {
                    choice.pending = piece;
                    return if handed == Handed::Some { handed } else { Handed::Blocked };
                }
                Err(TrySendError::Full(Told::Failed(_)) | TrySendError::Closed(_)) => return Handed::Gone,
            }
        }
        handed
    }

    /// Whether everything was handed over.
    pub(crate) fn is_done(&self) -> bool {
        self.choices.iter().all(|choice| choice.closed)
    }

    /// Ends it with an error, if anybody listens.
    pub(crate) fn fail(self, error: ApiError) {
        // A client that does not read learns it from the end of the stream.
        let _ = self.out.try_send(Told::Failed(error));
    }
}

/// Puts the numbers of the pending tokens, which follow `told` others, beside them; false while some are not known.
fn add_numbers(pending: &mut TextPiece, told: usize, response: &Response) -> bool {
    let range = told..told + pending.ids.len();
    let Some(log_probs) = response.log_probs.get(range.clone()) else { return false };
    let focus = match &response.visual_focus {
        Some(focus) => match focus.get(range) {
            Some(focus) => focus,
            None => return false,
        },
        None => &[],
    };
    let tops = match response.top_log_probs.is_empty() {
        true => &[],
        false => match response.top_log_probs.get(told..told + pending.ids.len()) {
            Some(tops) => tops,
            None => return false,
        },
    };
    pending.log_probs = log_probs.to_vec();
    pending.top_log_probs = tops.to_vec();
    pending.focus = focus.to_vec();
    true
}
