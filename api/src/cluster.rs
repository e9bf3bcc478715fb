//! The Cluster service.
