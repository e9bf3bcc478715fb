//! Requests that require a leader.
