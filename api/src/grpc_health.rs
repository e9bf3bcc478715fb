//! gRPC's own health service, `grpc.health.v1.Health`: the server as a whole serves from its start
//! to its end; no other service has a health of its own.

use std::sync::Arc;
use std::task::{Context, Poll};

use crate::leader::Raised;
use crate::rpc::{self, Outgoing, Step};
use crate::services::Services;
use crate::status::Error;

/// Whose health is asked for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HealthCheckRequest {
    /// A service; empty for the server.
    #[prost(string, tag = "1")]
    pub service: String,
}

/// How a service is.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct HealthCheckResponse {
    /// A [`ServingStatus`].
    #[prost(enumeration = "ServingStatus", tag = "1")]
    pub status: i32,
}

/// The states of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ServingStatus {
    /// Never sent.
    Unknown = 0,
    /// It serves.
    Serving = 1,
    /// It does not serve now.
    NotServing = 2,
    /// There is no such service; only `Watch` says so.
    ServiceUnknown = 3,
}

/// Answers once.
pub fn check(request: &HealthCheckRequest) -> Result<HealthCheckResponse, Error> {
    if !request.service.is_empty() {
        return Err(Error::Other(tonic::Code::NotFound, "unknown service".into()));
    }
    Ok(HealthCheckResponse { status: ServingStatus::Serving as i32 })
}

/// Answers, and then again whenever it changes: here, at the end of the server.
pub fn watch(services: &Arc<Services>, request: &HealthCheckRequest) -> Watch {
    let known = request.service.is_empty();
    let status = if known { ServingStatus::Serving } else { ServingStatus::ServiceUnknown };
    Watch { next: Some(status), known, stopping: services.stopping() }
}

/// One watcher's stream.
pub struct Watch {
    /// To be sent.
    next: Option<ServingStatus>,
    known: bool,
    stopping: Raised,
}

impl Outgoing for Watch {
    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        if let Some(status) = self.next.take() {
            let response = HealthCheckResponse { status: status as i32 };
            return Poll::Ready(Step::Data(rpc::framed(&response)));
        }
        self.stopping.poll(context).map(|()| {
            if !std::mem::take(&mut self.known) {
                return Step::End(Err(Error::Stopped));
            }
            // It may be asked once more, and then must not wait for what has happened.
            self.stopping = Raised::now();
            let response = HealthCheckResponse { status: ServingStatus::NotServing as i32 };
            Step::Data(rpc::framed(&response))
        })
    }
}
