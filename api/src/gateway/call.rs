//! A gRPC call that this server makes to itself.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Version};
use tokio::time::Instant;

use super::{ANSWER_BYTES_MAX, Refusal};
use crate::router;
use crate::rpc::{Aborted, Body, Incoming, Receiver};
use crate::services::Services;

/// A call; dropping it is going away.
pub(super) struct Call {
    answer: Option<Receiver<Answer>>,
    deadline: Option<Instant>,
}

impl Call {
    /// A call that is to be over at a deadline.
    pub(super) fn new(deadline: Option<Instant>) -> Self {
        Self { answer: None, deadline }
    }

    /// Starts the call; an error is its end.
    pub(super) async fn begin(
        &mut self,
        services: Arc<Services>,
        path: String,
        headers: HeaderMap,
        body: Incoming,
    ) -> Result<(), Refusal> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = path.parse().expect("the name of a method is a path");
        *request.headers_mut() = headers;
        let response = in_time(self.deadline, Box::pin(router::call(services, request))).await?;
        if let Some(refusal) = Refusal::from_headers(response.headers()) {
            return Err(refusal);
        }
        let answer = Request::new(Answer { body: response.into_body(), refusal: None });
        self.answer = Some(Receiver::new(answer, ANSWER_BYTES_MAX)?);
        Ok(())
    }

    /// The next message of the answer; none at its end, if that is a good one.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        let Some(answer) = &mut self.answer else { return Ok(None) };
        let message = in_time(self.deadline, answer.next()).await?;
        match (message, &answer.body().refusal) {
            (Ok(Some(message)), _) => Ok(Some(message)),
            (_, Some(refusal)) => Err(refusal.clone()),
            (Ok(None), None) => Ok(None),
            (Err(error), None) => Err(error.into()),
        }
    }
}

async fn in_time<T>(
    deadline: Option<Instant>,
    outcome: impl Future<Output = T>,
) -> Result<T, Refusal> {
    match deadline {
        // What is ready at once would be let through.
        Some(deadline) if deadline <= Instant::now() => Err(Refusal::deadline_exceeded()),
        Some(deadline) => tokio::time::timeout_at(deadline, outcome)
            .await
            .map_err(|_| Refusal::deadline_exceeded()),
        None => Ok(outcome.await),
    }
}

/// The body of an answer, which keeps how it ended if that was not well.
struct Answer {
    body: Body,
    refusal: Option<Refusal>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Aborted>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                self.refusal = frame.trailers_ref().and_then(Refusal::from_headers);
            }
            Some(Err(Aborted(error))) => self.refusal = Some(error.clone().into()),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
