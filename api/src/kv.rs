//! The KV service.
