//! The Maintenance service.
