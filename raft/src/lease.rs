//! Leases in time. The clock runs on the leader alone; everyone else asks the leader.
//!
//! Time enters replicated state here and nowhere else: an expiry is proposed as a revoke that names
//! the term it was decided in, and takes effect only in an entry of that term.

mod clock;
mod desk;
mod questions;
mod tasks;

pub(crate) use desk::LeaseDesk;
pub(crate) use questions::answer_ports;
pub(crate) use tasks::keep_time;
