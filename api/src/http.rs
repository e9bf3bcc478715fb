//! The plain HTTP endpoints.
